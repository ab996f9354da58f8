//! Filling in what programs are told of the kernel's structures, group by group.

use pinwatch_common::{Assumed, KernelLayout, LayoutGroup, Member, ModuleLayout, Value};

use crate::kernel::facts::Facts;

/// Which groups cannot be had, and what is missing for each.
#[derive(Debug, Default)]
pub struct Groups {
    missing: Vec<(LayoutGroup, String)>,
}

impl Groups {
    /// The first thing that the group lacks, as a clause; `None` if it is complete.
    pub fn missing(&self, group: LayoutGroup) -> Option<&str> {
        self.missing.iter().find(|(lacking, _)| *lacking == group).map(|(_, what)| what.as_str())
    }

    fn note(&mut self, group: LayoutGroup, what: String) {
        self.missing.push((group, what));
    }
}

/// The layout of vmlinux's structs.
pub fn kernel(facts: &Facts) -> (KernelLayout, Groups) {
    let mut layout = KernelLayout::ZERO;
    let groups = Rules {
        members: KernelLayout::MEMBERS,
        values: KernelLayout::VALUES,
        sizes: KernelLayout::SIZES,
        assumed: KernelLayout::ASSUMED,
        assumed_sizes: KernelLayout::ASSUMED_SIZES,
    }
    .fill(facts, "this kernel's BTF", &mut layout);
    (layout, groups)
}

/// The layout of modules' structs.
pub fn modules(facts: &Facts) -> (ModuleLayout, Groups) {
    let mut layout = ModuleLayout::ZERO;
    let groups = Rules {
        members: ModuleLayout::MEMBERS,
        values: ModuleLayout::VALUES,
        sizes: ModuleLayout::SIZES,
        assumed: ModuleLayout::ASSUMED,
        assumed_sizes: ModuleLayout::ASSUMED_SIZES,
    }
    .fill(facts, "the modules' BTF", &mut layout);
    (layout, groups)
}

/// What there is to look for, for one of the layouts.
struct Rules<L: 'static> {
    members: &'static [Member<L>],
    values: &'static [Value<L>],
    sizes: &'static [Value<L>],
    assumed: &'static [Assumed],
    assumed_sizes: &'static [Assumed],
}

impl<L> Rules<L> {
    /// Fills in all that there is of the groups that lack nothing: programs ask for a group and rely on all of it.
    fn fill(&self, facts: &Facts, btf: &str, layout: &mut L) -> Groups {
        let mut groups = Groups::default();
        let members: Vec<_> = self.members.iter().map(|member| (member, offset(facts, member))).collect();
        for (member, offset) in &members {
            if let (Some(group), Err(what)) = (member.group, offset) {
                groups.note(group, what.clone());
            }
        }
        for size in self.sizes.iter().filter(|size| size_of(facts, size.name).is_none_or(|size| size == 0)) {
            groups.note(size.group, format!("{btf} does not tell the size of struct {}", size.name));
        }
        for Assumed { name, bytes, group } in self.assumed {
            let found = facts.members.get(name).copied().flatten().and_then(|member| member.bytes());
            if found != Some(*bytes) {
                groups.note(*group, format!("{name} is not at {bytes} in this kernel"));
            }
        }
        for Assumed { name, bytes, group } in self.assumed_sizes {
            if size_of(facts, name) != Some(*bytes) {
                groups.note(*group, format!("struct {name} has not {bytes} bytes in this kernel"));
            }
        }
        for value in self.values.iter().filter(|value| enumerator(facts, value.name).is_none()) {
            groups.note(value.group, format!("{} is not in {btf}", value.name));
        }
        for (member, offset) in members {
            if let Ok(offset) = offset
                && member.group.is_none_or(|group| groups.missing(group).is_none())
            {
                *(member.field)(layout) = offset;
                *(member.has)(layout) = 1;
            }
        }
        let sizes = self.sizes.iter().map(|size| (size, size_of(facts, size.name)));
        let values = self.values.iter().map(|value| (value, enumerator(facts, value.name)));
        for (rule, value) in sizes.chain(values) {
            if let Some(value) = value
                && groups.missing(rule.group).is_none()
            {
                *(rule.field)(layout) = value;
            }
        }
        groups
    }
}

fn size_of(facts: &Facts, name: &str) -> Option<u64> {
    facts.sizes.get(name).copied().flatten().map(u64::from)
}

fn enumerator(facts: &Facts, name: &str) -> Option<u64> {
    facts.enums.get(name).copied().flatten().and_then(|value| u64::try_from(value).ok())
}

fn offset<L>(facts: &Facts, wanted: &Member<L>) -> Result<u64, String> {
    let paths = wanted.paths;
    let found = paths.iter().find_map(|path| Some((path, facts.members.get(path).copied().flatten()?)));
    let Some((path, member)) = found else {
        return Err(format!("{} is not in this kernel's BTF", paths.join(" or ")));
    };
    // A wrong width means another meaning, or at least another read.
    let bits = wanted.bytes * 8;
    if bits != 0 && member.bits != bits {
        return Err(format!("{path} has {} bits in this kernel, where {bits} are known", member.bits));
    }
    member.bytes().ok_or_else(|| format!("{path} is a bit field in this kernel"))
}
