//! Filling in offsets, part by part.

use pinwatch_common::{ModuleOffsets, Offsets};

use crate::kernel::{
    facts::Facts,
    table::{self, OffsetRule, Part},
};

/// Which parts cannot be had, and what is missing for each.
#[derive(Debug, Default)]
pub struct Parts {
    missing: Vec<(Part, String)>,
}

impl Parts {
    /// The first thing that the part lacks, as a clause; `None` if it is complete.
    pub fn missing(&self, part: Part) -> Option<&str> {
        self.missing.iter().find(|(lacking, _)| *lacking == part).map(|(_, what)| what.as_str())
    }

    fn note(&mut self, part: Part, what: String) {
        if part != Part::Optional {
            self.missing.push((part, what));
        }
    }
}

/// Offsets in vmlinux's structs.
pub fn kernel(facts: &Facts) -> (Offsets, Parts) {
    let mut offsets = Offsets::ZERO;
    let mut parts = Parts::default();
    resolve(facts, table::OFFSETS, &mut offsets, &mut parts);
    match facts.sizes.get(table::PAGE).copied().flatten() {
        Some(size) if size > 0 => offsets.page_size = u64::from(size),
        _ => {
            parts.note(Part::PageCheck, "this kernel's BTF does not tell the size of struct page".to_owned())
        }
    }
    for (path, expected, part) in table::FIXED {
        let found = facts.members.get(path).copied().flatten().and_then(|member| member.bytes());
        if found != Some(*expected) {
            parts.note(*part, format!("{path} is not at {expected} in this kernel"));
        }
    }
    for (name, expected, part) in table::FIXED_SIZES {
        if facts.sizes.get(name).copied().flatten() != Some(*expected) {
            parts.note(*part, format!("struct {name} has not {expected} bytes in this kernel"));
        }
    }
    for (name, slot) in table::KERNEL_ENUMERATORS {
        match facts.enums.get(name).copied().flatten().and_then(|value| u64::try_from(value).ok()) {
            Some(value) => *slot(&mut offsets) = value,
            None => parts.note(Part::PageState, format!("{name} is not in this kernel's BTF")),
        }
    }
    if parts.missing(Part::PageCheck).is_some() {
        offsets.page_size = 0;
    }
    clear(table::OFFSETS, &mut offsets, &parts);
    (offsets, parts)
}

/// Offsets in modules' structs.
pub fn modules(facts: &Facts) -> (ModuleOffsets, Parts) {
    let mut offsets = ModuleOffsets::ZERO;
    let mut parts = Parts::default();
    resolve(facts, table::MODULE_OFFSETS, &mut offsets, &mut parts);
    for (name, slot) in table::ENUMERATORS {
        match facts.enums.get(name).copied().flatten().and_then(|value| u64::try_from(value).ok()) {
            Some(value) => *slot(&mut offsets) = value,
            None => parts.note(Part::RdmaNames, format!("{name} is not in the modules' BTF")),
        }
    }
    clear(table::MODULE_OFFSETS, &mut offsets, &parts);
    if parts.missing(Part::RdmaNames).is_some() {
        table::ENUMERATORS.iter().for_each(|(_, slot)| *slot(&mut offsets) = 0);
    }
    (offsets, parts)
}

fn resolve<T>(facts: &Facts, rules: &[OffsetRule<T>], offsets: &mut T, parts: &mut Parts) {
    for rule in rules {
        match offset(facts, rule.paths, rule.bytes) {
            Ok(offset) => *(rule.slot)(offsets) = offset,
            Err(what) => parts.note(rule.part, what),
        }
    }
}

/// A part that lacks one offset gets none: programs ask for one of them and rely on all.
fn clear<T>(rules: &[OffsetRule<T>], offsets: &mut T, parts: &Parts) {
    for rule in rules.iter().filter(|rule| parts.missing(rule.part).is_some()) {
        *(rule.slot)(offsets) = 0;
    }
}

fn offset(facts: &Facts, paths: &[&str], bytes: u32) -> Result<u64, String> {
    let found = paths.iter().find_map(|path| Some((path, facts.members.get(path).copied().flatten()?)));
    let Some((path, member)) = found else {
        return Err(format!("{} is not in this kernel's BTF", paths.join(" or ")));
    };
    // A wrong width means another meaning, or at least another read.
    let bits = bytes * 8;
    if bits != 0 && member.bits != bits {
        return Err(format!("{path} has {} bits in this kernel, where {bits} are known", member.bits));
    }
    member.bytes().ok_or_else(|| format!("{path} is a bit field in this kernel"))
}
