//! Lists that the kernel prints, a line for each thing: modules in /proc/modules, symbols in /proc/kallsyms. Each is read
//! here and nowhere else. What is made of the lines (facts, hooks, names for addresses) is not for here.
//!
//! The crate procfs reads /proc/modules too, but leaves the address out, and has nothing for /proc/kallsyms.

use std::io::BufRead;
use std::path::Path;

/// A line of /proc/modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Its name.
    pub name: &'a str,
    /// Bytes in memory, in all its places.
    pub size: u64,
    /// Whether it is up: one that is being loaded or removed has no functions to hook.
    pub live: bool,
    /// Where its code begins; `None` for those who may not see addresses.
    pub address: Option<u64>,
}

/// The text of /proc/modules; empty if it cannot be read, as on a kernel without modules.
pub fn modules_text(proc: &Path) -> String {
    std::fs::read_to_string(proc.join("modules")).unwrap_or_default()
}

/// The modules in the text of /proc/modules: name, size, users, who they are, state, address.
pub fn modules(text: &str) -> impl Iterator<Item = Module<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, size) = (words.next()?, words.next()?.parse().ok()?);
        let live = words.nth(2)? == "Live";
        let address = words.next().and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
        Some(Module { name, size, live, address: address.filter(|address| *address != 0) })
    })
}

/// A line of /proc/kallsyms. There are 200,000 of them, of which few are wanted: what follows the address is looked at when
/// it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Where it is; `None` for those who may not see addresses.
    pub address: Option<u64>,
    rest: &'a str,
}

impl<'a> Symbol<'a> {
    /// "address type name", then for a module's symbol "\t[module]".
    fn read(line: &'a str) -> Option<Self> {
        let (address, rest) = line.split_once(' ')?;
        let address = u64::from_str_radix(address, 16).ok()?;
        Some(Self { address: Some(address).filter(|address| *address != 0), rest })
    }

    /// Its name; `None` if the line is cut off.
    pub fn name(&self) -> Option<&'a str> {
        self.rest.split_ascii_whitespace().nth(1)
    }

    /// Whether it is a function, global, local or weak.
    pub fn is_function(&self) -> bool {
        matches!(self.rest.as_bytes().first(), Some(b't' | b'T' | b'w' | b'W'))
    }

    /// The module that it is in; `None` for the kernel proper.
    pub fn module(&self) -> Option<&'a str> {
        let word = self.rest.split_ascii_whitespace().nth(2)?;
        Some(word.trim_matches(['[', ']']))
    }
}

/// Goes through the symbols of /proc/kallsyms, which have no order over the modules.
pub fn for_each_symbol(file: impl BufRead, mut each: impl FnMut(Symbol<'_>)) {
    for_each_line(file, |line| {
        if let Some(symbol) = Symbol::read(line) {
            each(symbol);
        }
    });
}

/// Goes through the lines of a long list; what is not text is passed over.
pub fn for_each_line(mut file: impl BufRead, mut each: impl FnMut(&str)) {
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        if let Ok(text) = str::from_utf8(&line) {
            each(text.trim_end_matches('\n'));
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_modules() {
        let text = "ib_core 5 1 ib_uverbs, Live 0xffffffffc0000000 (OE)\nhidden 4096 0 - Loading 0x0000000000000000\n\
            short 5 0 -\nodd x 0 - Live 0x1\nlast 1 0 - Live\n";
        let found: Vec<_> = modules(text).collect();
        let module = |name, size, live, address| Module { name, size, live, address };
        assert_eq!(
            found,
            [
                module("ib_core", 5, true, Some(0xffff_ffff_c000_0000)),
                module("hidden", 4096, false, None),
                module("last", 1, true, None)
            ]
        );
    }

    #[test]
    fn lines_of_symbols() {
        let text = b"ffffffff81000300 T after\nffffffffc0000010 t pin_it\t[pintest]\n0000000000000000 D x\nnonsense\n\
            \xff\nffff W\n 5 t x\nffffffffffffffffff t long";
        let mut found = Vec::new();
        for_each_symbol(&text[..], |symbol| {
            let (name, module) = (symbol.name().map(str::to_owned), symbol.module().map(str::to_owned));
            found.push((symbol.address, symbol.is_function(), name, module));
        });
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(
            found,
            [
                (Some(0xffff_ffff_8100_0300), true, name("after"), None),
                (Some(0xffff_ffff_c000_0010), true, name("pin_it"), name("pintest")),
                (None, false, name("x"), None),
                (Some(0xffff), true, None, None)
            ]
        );
    }

    #[test]
    fn cut_lines_are_no_panic() {
        let text = "ib_core 5 1 ib_uverbs, Live 0xffffffffc0000000 (OE)\n";
        for end in 0..text.len() {
            assert!(
                modules(&text[..end]).all(|module| module.name == "ib_core" && module.size == 5),
                "{end}"
            );
        }
        let text = b"ffffffffc0000010 t pin_it\t[pintest]\n";
        for end in 0..text.len() {
            for_each_symbol(&text[..end], |symbol| {
                let names = (symbol.name(), symbol.module(), symbol.is_function());
                assert!(names.0.is_none_or(|name| "pin_it".starts_with(name)), "{end}");
            });
        }
    }
}
