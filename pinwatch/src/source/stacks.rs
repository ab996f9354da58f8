//! Which code made the pins that no subsystem claims, from the kernel stack at that moment.

use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use pinwatch_common::SampledPages;

use super::host::symbols::{self, Modules, Symbol};
use crate::model::object::unclaimed;

/// The code that made a pin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Caller {
    module: Option<String>,
    /// Where the module begins in memory.
    start: u64,
    function: Option<String>,
    stack: Vec<String>,
}

/// What is known of unclaimed pins, by sequence number.
#[derive(Default)]
pub struct Callers {
    known: HashMap<u64, Caller>,
    /// Those whose system call is under way, so that a subsystem may still claim them.
    pub under_way: HashSet<u64>,
    modules: Modules,
}

/// Functions that are no part of the answer: those that give out pins, and those through which the programs run.
const BETWEEN: [&str; 8] = [
    "pin_user_pages",
    "memfd_pin_folios",
    "bpf_",
    "__bpf_",
    "rethook_",
    "arch_rethook_",
    "kretprobe_",
    "ftrace_",
];

impl Callers {
    /// Modules have come or gone.
    pub fn modules_changed(&mut self) {
        self.modules.refresh();
    }

    /// Keeps in mind only these, and finds out about those that are new.
    pub fn learn(&mut self, samples: &[(u64, SampledPages)]) {
        let there: HashSet<u64> = samples.iter().map(|(sequence, _)| *sequence).collect();
        self.known.retain(|sequence, _| there.contains(sequence));
        let new: Vec<&(u64, SampledPages)> =
            samples.iter().filter(|(sequence, _)| !self.known.contains_key(sequence)).collect();
        if new.is_empty() {
            return;
        }
        self.modules.refresh();
        let mut addresses: Vec<u64> =
            new.iter().flat_map(|(_, sample)| sample.stack).filter(|address| *address != 0).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let symbols = if addresses.is_empty() { Vec::new() } else { symbols::of(&addresses) };
        let symbols: HashMap<u64, Symbol> = addresses
            .into_iter()
            .zip(symbols)
            .filter_map(|(address, symbol)| Some((address, symbol?)))
            .collect();
        for (sequence, sample) in new {
            let caller = caller(&sample.stack, &symbols, &self.modules);
            self.known.insert(*sequence, caller);
        }
    }

    /// The module that an address is in.
    pub fn module_of(&self, address: u64) -> Option<String> {
        Some(self.modules.of(address)?.0.to_owned())
    }

    /// The object of a pin.
    pub fn object(&self, sequence: u64) -> unclaimed::Object {
        let Some(Caller { module, start, function, stack }) = self.known.get(&sequence).cloned() else {
            return unclaimed::Object::default();
        };
        let unloaded = module.is_some() && !self.modules.is_loaded(start);
        unclaimed::Object { module, function, stack, unloaded }
    }
}

/// The innermost code of a stack that is neither pinwatch's nor what gives out pins.
fn caller(stack: &[u64], symbols: &HashMap<u64, Symbol>, modules: &Modules) -> Caller {
    let mut caller = Caller::default();
    for address in stack.iter().copied().filter(|address| *address != 0) {
        let symbol = symbols.get(&address);
        let name = symbol.map_or("", |symbol| symbol.name.as_str());
        let of_bpf = symbol.is_some_and(|symbol| symbol.module.as_deref() == Some("bpf"));
        let is_between = of_bpf || BETWEEN.iter().any(|begin| name.starts_with(begin));
        if is_between && caller.stack.is_empty() {
            continue;
        }
        let module = modules.of(address);
        let text = match (symbol, module) {
            // The nearest symbol of another module says nothing.
            (Some(symbol), module) if symbol.module.as_deref() == module.map(|(name, _)| name) => {
                let place = format!("{}+{:#x}", symbol.name, symbol.offset);
                if caller.stack.is_empty() {
                    caller.function = Some(symbol.name.clone());
                }
                module.map_or(place.clone(), |(name, _)| format!("{place} [{name}]"))
            }
            (_, Some((name, start))) => format!("{:#x} [{name}]", address - start),
            (_, None) => format!("{address:#x}"),
        };
        if caller.stack.is_empty()
            && let Some((name, start)) = module
        {
            (caller.module, caller.start) = (Some(name.to_owned()), start);
        }
        caller.stack.push(text);
    }
    caller
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_the_first_that_is_neither_bpf_nor_a_giver_of_pins() {
        let symbol = |name: &str, module: Option<&str>| Symbol {
            name: name.to_owned(),
            module: module.map(str::to_owned),
            offset: 16,
        };
        let symbols: HashMap<u64, Symbol> = [
            (1, symbol("bpf_prog_12_pin_fast", Some("bpf"))),
            (2, symbol("pin_user_pages_fast", None)),
            (3, symbol("vb2_create_framevec", None)),
            (4, symbol("do_syscall_64", None)),
        ]
        .into_iter()
        .collect();
        let found = caller(&[1, 2, 3, 4, 5, 0, 0], &symbols, &Modules::default());
        assert_eq!((found.module, found.function.as_deref()), (None, Some("vb2_create_framevec")));
        assert_eq!(found.stack, ["vb2_create_framevec+0x10", "do_syscall_64+0x10", "0x5"]);
        assert_eq!(caller(&[0; 4], &symbols, &Modules::default()), Caller::default());
    }
}
