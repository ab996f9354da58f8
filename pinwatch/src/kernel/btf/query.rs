//! The questions that are asked of BTF.

use super::{Btf, Field, Type, bytes, types};

/// Aliases are followed, and anonymous members entered, at most so deep; real kernels stay below 10.
const MAX_DEPTH: u32 = 32;
/// So many structs of one name are compared; real modules have 6.
const MAX_SAME: usize = 64;
/// So many fields are looked at for one step of a path: `task_struct` has some 300, a hostile BTF may have any number
/// by referring to the same anonymous struct many times.
const MAX_FIELDS: u32 = 20_000;

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// From the start of the outermost struct, in bits.
    pub bit_offset: u32,
    /// Its width in bits; 0 if that is not known (a flexible array).
    pub bits: u32,
}

impl Member {
    /// The offset in bytes; `None` for a bit field that does not begin at a byte.
    pub fn bytes(&self) -> Option<u64> {
        self.bit_offset.is_multiple_of(8).then_some(u64::from(self.bit_offset / 8))
    }
}

/// A parameter of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the kernel's source.
    pub name: String,
    /// Its type as in [`Function::returns`].
    pub shape: String,
}

/// How a function is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its BTF id, which a trampoline is attached by. For a module's function it counts on from the kernel's ids.
    pub id: u32,
    /// What it takes.
    pub params: Vec<Parameter>,
    /// What it returns, in short: `void`, `int` for any integer, boolean or enum, `page **` for a pointer (aliases
    /// resolved, `struct` left out), otherwise the name of the struct, or empty.
    pub returns: String,
}

impl Btf {
    /// Where `"struct.member.member"` is. Anonymous structs and unions are searched through at every step.
    ///
    /// Several structs may have the same name (a module's BTF often repeats one). If they disagree on the member, the
    /// answer is `None`: a wrong offset is worse than none.
    pub fn member(&self, path: &str) -> Option<Member> {
        let (name, path) = path.split_once('.')?;
        let mut found = self.structs(name).into_iter().filter_map(|id| self.walk(id, path));
        let first = found.next()?;
        found.all(|other| other.bit_offset == first.bit_offset).then_some(first)
    }

    /// The size of a struct or union in bytes; `None` as for [`Btf::member`].
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        let mut sizes = self.structs(name).into_iter().filter_map(|id| match self.type_by_id(id)? {
            Type::Struct { size, .. } => Some(size),
            _ => None,
        });
        let first = sizes.next()?;
        sizes.all(|other| other == first).then_some(first)
    }

    /// A function of this BTF proper: of the module, not of the kernel below it.
    pub fn function(&self, name: &str) -> Option<Function> {
        let id = self.own_named(name, |kind| kind == types::FUNC).into_iter().next()?;
        let Type::Function(prototype) = self.type_by_id(id)? else { return None };
        let Type::Prototype { returns, parameters } = self.type_by_id(prototype)? else { return None };
        let params =
            parameters.into_iter().map(|(name, id)| Parameter { name, shape: self.shape(id) }).collect();
        Some(Function { id, params, returns: self.shape(returns) })
    }

    /// The value of an enumerator, whatever enum it is in.
    pub fn enum_value(&self, name: &str) -> Option<i64> {
        let own = self.enums.iter().find_map(|id| self.own_enumerator(*id, name.as_bytes()));
        own.or_else(|| self.base.as_deref()?.enum_value(name))
    }

    /// Ids of the structs and unions of this name: this BTF's own, or else the base's.
    pub fn structs(&self, name: &str) -> Vec<u32> {
        let own = self.own_named(name, |kind| kind == types::STRUCT || kind == types::UNION);
        match &self.base {
            Some(base) if own.is_empty() => base.structs(name),
            _ => own,
        }
    }

    fn own_named(&self, name: &str, wanted: impl Fn(u8) -> bool) -> Vec<u32> {
        let hash = bytes::hash(name.as_bytes());
        let start = self.names.partition_point(|entry| entry.0 < hash);
        let same = self.names.iter().skip(start).take_while(|entry| entry.0 == hash);
        same.map(|entry| entry.1)
            .filter(|id| self.own_name(*id).is_some_and(|(kind, own)| wanted(kind) && own == name.as_bytes()))
            .take(MAX_SAME)
            .collect()
    }

    fn walk(&self, id: u32, path: &str) -> Option<Member> {
        let (mut id, mut bit_offset, mut bits) = (id, 0_u32, 0);
        for name in path.split('.') {
            if name.is_empty() {
                return None;
            }
            let Type::Struct { fields, .. } = self.resolved(id)? else { return None };
            let field = self.find(fields, name, MAX_DEPTH, &mut { MAX_FIELDS })?;
            bit_offset = bit_offset.checked_add(field.bit_offset)?;
            bits = match field.bitfield_bits {
                0 => self.size(field.type_id).and_then(|bytes| bytes.checked_mul(8)).unwrap_or(0),
                bits => bits,
            };
            id = field.type_id;
        }
        Some(Member { bit_offset, bits })
    }

    fn find(&self, fields: Vec<Field>, name: &str, depth: u32, left: &mut u32) -> Option<Field> {
        *left = left.checked_sub(u32::try_from(fields.len()).ok()?)?;
        for field in fields {
            if field.name == name {
                return Some(field);
            }
            if !field.name.is_empty() || depth == 0 {
                continue;
            }
            if let Some(Type::Struct { fields, .. }) = self.resolved(field.type_id)
                && let Some(inner) = self.find(fields, name, depth - 1, left)
            {
                let bit_offset = field.bit_offset.checked_add(inner.bit_offset)?;
                return Some(Field { bit_offset, ..inner });
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    pub fn resolved(&self, id: u32) -> Option<Type> {
        let mut resolved = self.type_by_id(id)?;
        for _ in 0..MAX_DEPTH {
            match resolved {
                Type::Alias(id) => resolved = self.type_by_id(id)?,
                other => return Some(other),
            }
        }
        None
    }

    /// Bytes of a value of this type on a 64-bit machine.
    fn size(&self, id: u32) -> Option<u32> {
        let (mut id, mut factor) = (id, 1_u32);
        for _ in 0..MAX_DEPTH {
            let size = match self.resolved(id)? {
                Type::Int { size } | Type::Enum { size } | Type::Struct { size, .. } => size,
                Type::Pointer(_) => 8,
                Type::Array { element, count } => {
                    factor = factor.checked_mul(count)?;
                    id = element;
                    continue;
                }
                _ => return None,
            };
            return size.checked_mul(factor);
        }
        None
    }

    fn shape(&self, id: u32) -> String {
        let (mut id, mut stars) = (id, String::new());
        for _ in 0..MAX_DEPTH {
            let name = match self.resolved(id) {
                Some(Type::Pointer(to)) => {
                    stars.push('*');
                    id = to;
                    continue;
                }
                Some(Type::Void) => "void".to_owned(),
                Some(Type::Int { .. } | Type::Enum { .. }) => "int".to_owned(),
                Some(Type::Struct { name, .. } | Type::Forward(name)) => name,
                _ => String::new(),
            };
            return if stars.is_empty() { name } else { format!("{name} {stars}") };
        }
        String::new()
    }
}
