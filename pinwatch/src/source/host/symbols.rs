//! Which function of which module an address of the kernel is in.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::kernel::lists;

/// A module's place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Module {
    start: u64,
    size: u64,
    name: String,
}

/// Where modules are, and where those were that are gone.
#[derive(Default)]
pub struct Modules {
    known: Vec<Module>,
    loaded: Vec<u64>,
}

impl Modules {
    /// Looks at what is loaded now. What is gone is remembered until something else is in its place.
    pub fn refresh(&mut self) {
        self.note(&lists::modules_text(Path::new("/proc")));
    }

    /// `text` as in /proc/modules.
    fn note(&mut self, text: &str) {
        self.loaded.clear();
        for module in lists::modules(text) {
            // Whoever may not see addresses has none.
            let Some(start) = module.address else { continue };
            self.known.retain(|old| old.start != start);
            self.known.push(Module { start, size: module.size, name: module.name.to_owned() });
            // One that is being unloaded is listed for a while.
            if module.live {
                self.loaded.push(start);
            }
        }
    }

    /// The module that an address is in, and where it begins; `None` for the kernel proper.
    pub fn of(&self, address: u64) -> Option<(&str, u64)> {
        // A module has several places in memory: the size is that of all, the address that of its code. So what seems to
        // be of two is of the one that begins later.
        let around = self.known.iter().filter(|module| address.wrapping_sub(module.start) < module.size);
        let found = around.max_by_key(|module| module.start)?;
        Some((&found.name, found.start))
    }

    /// Whether the module that begins there is loaded.
    pub fn is_loaded(&self, start: u64) -> bool {
        self.loaded.contains(&start)
    }
}

/// A function, and how far into it an address is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// The module that /proc/kallsyms says it is in.
    pub module: Option<String>,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// The functions that these addresses are in, as /proc/kallsyms has them; `None` for those it does not know.
pub fn of(addresses: &[u64]) -> Vec<Option<Symbol>> {
    match File::open("/proc/kallsyms") {
        Ok(file) => nearest(BufReader::with_capacity(1 << 16, file), addresses),
        Err(_) => vec![None; addresses.len()],
    }
}

fn nearest(symbols: impl BufRead, addresses: &[u64]) -> Vec<Option<Symbol>> {
    /// No function is longer than this.
    const LONGEST: u64 = 1 << 20;
    let mut found: Vec<Option<Symbol>> = vec![None; addresses.len()];
    lists::for_each_symbol(symbols, |symbol| {
        let Some(start) = symbol.address else { return };
        for (address, best) in addresses.iter().zip(&mut found) {
            let offset = address.wrapping_sub(start);
            if offset > LONGEST || best.as_ref().is_some_and(|best| best.offset <= offset) {
                continue;
            }
            if let Some(name) = symbol.name().filter(|_| symbol.is_function()) {
                let module = symbol.module().map(str::to_owned);
                *best = Some(Symbol { name: name.to_owned(), module, offset });
            }
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_before_an_address_is_the_one_it_is_in() {
        let text = b"ffffffff81000000 T _stext\nffffffff81000100 t before\nffffffff81000200 D data\n\
            ffffffff81000300 T after\nffffffffc0000010 t pin_it\t[pintest]\nnonsense\n0000000000000000 T hidden\n";
        let addresses = [0xffff_ffff_8100_0210, 0xffff_ffff_c000_0018, 0x10, 0xffff_ffff_8100_0300];
        let found = nearest(&text[..], &addresses);
        let name = |at: usize| found[at].as_ref().map(|symbol| (symbol.name.as_str(), symbol.offset));
        assert_eq!(
            [name(0), name(1), name(2), name(3)],
            [Some(("before", 0x110)), Some(("pin_it", 8)), None, Some(("after", 0))]
        );
        assert_eq!(found[1].as_ref().unwrap().module.as_deref(), Some("pintest"));
    }

    #[test]
    fn a_module_that_is_gone_keeps_its_name_until_another_takes_its_place() {
        let mut modules = Modules::default();
        modules.note("pintest 16384 0 - Live 0xffffffffc0000000 (OE)\nhidden 4096 0 - Live 0x0000000000000000\nshort\n");
        assert_eq!(modules.of(0xffff_ffff_c000_0018), Some(("pintest", 0xffff_ffff_c000_0000)));
        assert_eq!(modules.of(0xffff_ffff_c000_4000), None);
        assert!(modules.is_loaded(0xffff_ffff_c000_0000));
        modules.note("pintest 16384 0 - Unloading 0xffffffffc0000000 (OE)\n");
        assert!(!modules.is_loaded(0xffff_ffff_c000_0000));
        modules.note("");
        assert_eq!(modules.of(0xffff_ffff_c000_0018), Some(("pintest", 0xffff_ffff_c000_0000)));
        assert!(!modules.is_loaded(0xffff_ffff_c000_0000));
        modules.note("other 16384 0 - Live 0xffffffffbfffe000\n");
        assert_eq!(modules.of(0xffff_ffff_c000_0018), Some(("pintest", 0xffff_ffff_c000_0000)));
        assert_eq!(modules.of(0xffff_ffff_bfff_f000), Some(("other", 0xffff_ffff_bfff_e000)));
        modules.note("other 8192 0 - Live 0xffffffffc0000000\n");
        assert_eq!(modules.of(0xffff_ffff_c000_1018), Some(("other", 0xffff_ffff_c000_0000)));
        assert_eq!(modules.of(0xffff_ffff_c000_2018), None);
    }
}
