//! What a module has to know of the kernel that it is loaded into.

use anyhow::{Context, Result};
use btf_rs::{Btf, Member, Type};

/// FOLL_LONGTERM where it is no enumerator (include/linux/mm.h of 6.1).
const OLD_LONG_TERM: u64 = 0x10000;

/// All of it.
pub struct Kernel {
    pub module_size: u64,
    pub module_name: u64,
    pub module_init: u64,
    pub module_exit: u64,
    /// Offset in `struct mm_struct`.
    pub mmap_lock: u64,
    /// FOLL_LONGTERM
    pub long_term: u64,
}

impl Kernel {
    /// Asks the running kernel.
    pub fn read() -> Result<Self> {
        let btf = Btf::from_file("/sys/kernel/btf/vmlinux").context("cannot read the kernel's BTF")?;
        Ok(Self {
            module_size: size(&btf, "module")?,
            module_name: offset(&btf, "module", "name")?,
            module_init: offset(&btf, "module", "init")?,
            module_exit: offset(&btf, "module", "exit")?,
            mmap_lock: offset(&btf, "mm_struct", "mmap_lock")?,
            long_term: enumerator(&btf, "FOLL_LONGTERM").unwrap_or(OLD_LONG_TERM),
        })
    }
}

fn structure(btf: &Btf, name: &str) -> Result<btf_rs::Struct> {
    let found = btf.resolve_types_by_name(name)?.into_iter().find_map(|one| match one {
        Type::Struct(structure) => Some(structure),
        _ => None,
    });
    found.with_context(|| format!("no struct {name} in the kernel's BTF"))
}

fn size(btf: &Btf, name: &str) -> Result<u64> {
    Ok(structure(btf, name)?.size() as u64)
}

fn offset(btf: &Btf, name: &str, member: &str) -> Result<u64> {
    let found = within(btf, &structure(btf, name)?.members, member)?;
    Ok(found.with_context(|| format!("struct {name} has no member {member}"))? / 8)
}

/// The place in bits of a member, also of one of an anonymous struct.
fn within(btf: &Btf, members: &[Member], wanted: &str) -> Result<Option<u64>> {
    for member in members {
        let name = btf.resolve_name(member).unwrap_or_default();
        if name == wanted {
            return Ok(Some(u64::from(member.bit_offset())));
        }
        if name.is_empty()
            && let Type::Struct(inner) | Type::Union(inner) = btf.resolve_chained_type(member)?
            && let Some(place) = within(btf, &inner.members, wanted)?
        {
            return Ok(Some(u64::from(member.bit_offset()) + place));
        }
    }
    Ok(None)
}

fn enumerator(btf: &Btf, wanted: &str) -> Option<u64> {
    let mut all = (1..).map_while(|id| btf.resolve_type_by_id(id).ok()).filter_map(|one| match one {
        Type::Enum(values) => Some(values),
        _ => None,
    });
    all.find_map(|values| {
        let found =
            values.members.iter().find(|value| btf.resolve_name(*value).is_ok_and(|name| name == wanted));
        found.map(|value| u64::from(value.val()))
    })
}
