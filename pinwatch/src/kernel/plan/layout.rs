//! Filling in what programs are told of the kernel's structures, group by group.

use pinwatch_common::{Assumed, KernelLayout, LayoutGroup, Member, ModuleLayout, Value};

use crate::kernel::facts::Facts;
use crate::kernel::missing::Missing;

/// Which groups cannot be had, and what is missing for each.
#[derive(Debug, Default)]
pub struct Groups {
    missing: Vec<(LayoutGroup, Missing)>,
}

impl Groups {
    /// The first thing that the group lacks; `None` if it is complete.
    pub fn missing(&self, group: LayoutGroup) -> Option<&Missing> {
        self.missing.iter().find(|(lacking, _)| *lacking == group).map(|(_, what)| what)
    }

    fn note(&mut self, group: LayoutGroup, what: Missing) {
        self.missing.push((group, what));
    }
}

/// The layout of vmlinux's structs.
pub fn kernel(facts: &Facts, groups: &mut Groups) -> KernelLayout {
    let mut layout = KernelLayout::ZERO;
    let rules = Rules {
        members: KernelLayout::MEMBERS,
        values: KernelLayout::VALUES,
        sizes: KernelLayout::SIZES,
        assumed: KernelLayout::ASSUMED,
        assumed_sizes: KernelLayout::ASSUMED_SIZES,
    };
    rules.fill(facts, &mut layout, groups);
    layout
}

/// The layout of modules' structs.
pub fn modules(facts: &Facts, groups: &mut Groups) -> ModuleLayout {
    let mut layout = ModuleLayout::ZERO;
    let rules = Rules {
        members: ModuleLayout::MEMBERS,
        values: ModuleLayout::VALUES,
        sizes: ModuleLayout::SIZES,
        assumed: ModuleLayout::ASSUMED,
        assumed_sizes: ModuleLayout::ASSUMED_SIZES,
    };
    rules.fill(facts, &mut layout, groups);
    layout
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
    fn fill(&self, facts: &Facts, layout: &mut L, groups: &mut Groups) {
        let members: Vec<_> = self.members.iter().map(|member| (member, offset(facts, member))).collect();
        for (member, offset) in &members {
            if let (Some(group), Err(what)) = (member.group, offset) {
                groups.note(group, what.clone());
            }
        }
        for size in self.sizes.iter().filter(|size| size_of(facts, size.name).is_none_or(|size| size == 0)) {
            groups.note(size.group, Missing::NoSize { name: size.name });
        }
        for Assumed { name, bytes, group } in self.assumed {
            let found = facts.members.get(name).copied().flatten().and_then(|member| member.bytes());
            if found != Some(*bytes) {
                groups.note(*group, Missing::Moved { path: name, known: *bytes });
            }
        }
        for Assumed { name, bytes, group } in self.assumed_sizes {
            if size_of(facts, name) != Some(*bytes) {
                groups.note(*group, Missing::OtherSize { name, known: *bytes });
            }
        }
        for value in self.values.iter().filter(|value| enumerator(facts, value.name).is_none()) {
            groups.note(value.group, Missing::NoEnumerator { name: value.name });
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
    }
}

fn size_of(facts: &Facts, name: &str) -> Option<u64> {
    facts.sizes.get(name).copied().flatten().map(u64::from)
}

fn enumerator(facts: &Facts, name: &str) -> Option<u64> {
    facts.enums.get(name).copied().flatten().and_then(|value| u64::try_from(value).ok())
}

fn offset<L>(facts: &Facts, wanted: &Member<L>) -> Result<u64, Missing> {
    let paths = wanted.paths;
    let found = paths.iter().find_map(|path| Some((path, facts.members.get(path).copied().flatten()?)));
    let Some((path, member)) = found else { return Err(Missing::NoMember { paths }) };
    // A wrong width means another meaning, or at least another read.
    let known = wanted.bytes * 8;
    if known != 0 && member.bits != known {
        return Err(Missing::OtherWidth { path, known, here: member.bits });
    }
    member.bytes().ok_or(Missing::BitField { path })
}
