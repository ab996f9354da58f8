//! The records that BTF is made of, one at a time.

use super::{Btf, bytes::u32_at};

pub const INT: u8 = 1;
pub const PTR: u8 = 2;
pub const ARRAY: u8 = 3;
pub const STRUCT: u8 = 4;
pub const UNION: u8 = 5;
pub const ENUM: u8 = 6;
pub const FWD: u8 = 7;
pub const TYPEDEF: u8 = 8;
pub const VOLATILE: u8 = 9;
pub const CONST: u8 = 10;
pub const RESTRICT: u8 = 11;
pub const FUNC: u8 = 12;
pub const FUNC_PROTO: u8 = 13;
pub const VAR: u8 = 14;
pub const DATASEC: u8 = 15;
pub const FLOAT: u8 = 16;
pub const DECL_TAG: u8 = 17;
pub const TYPE_TAG: u8 = 18;
pub const ENUM64: u8 = 19;

/// Bytes that every type begins with.
pub const HEAD_BYTES: usize = 12;

/// What every type begins with.
pub struct Head {
    pub name: u32,
    pub kind: u8,
    flag: bool,
    count: usize,
    size_or_type: u32,
}

impl Head {
    pub fn read(data: &[u8], at: usize) -> Option<Self> {
        let info = u32_at(data, at.checked_add(4)?)?;
        Some(Self {
            name: u32_at(data, at)?,
            kind: (info >> 24) as u8 & 0x1f,
            flag: info >> 31 == 1,
            count: (info & 0xffff) as usize,
            size_or_type: u32_at(data, at.checked_add(8)?)?,
        })
    }

    /// How many bytes follow; `None` for a kind that is not known.
    pub fn extra_bytes(&self) -> Option<usize> {
        Some(match self.kind {
            PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * self.count,
            ENUM | FUNC_PROTO => 8 * self.count,
            _ => return None,
        })
    }
}

/// A member of a struct or union as BTF has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Empty for an anonymous struct or union.
    pub name: String,
    /// The member's type.
    pub type_id: u32,
    /// From the start of this struct, in bits.
    pub bit_offset: u32,
    /// Its width if it is a bit field, otherwise 0.
    pub bitfield_bits: u32,
}

/// A type. Ids are those of the whole: of the base, then of the module. Names of anonymous types are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `void`, which has the id 0.
    Void,
    /// An integer.
    Int {
        /// Its size in bytes.
        size: u32,
    },
    /// A pointer to the type.
    Pointer(u32),
    /// An array.
    Array {
        /// What it is made of.
        element: u32,
        /// How many.
        count: u32,
    },
    /// A struct or a union.
    Struct {
        /// Its name.
        name: String,
        /// Its size in bytes.
        size: u32,
        /// What is in it.
        fields: Vec<Field>,
        /// It is a union.
        union: bool,
    },
    /// An enum of 32 or 64 bits.
    Enum {
        /// Its size in bytes.
        size: u32,
    },
    /// A struct or union of which only the name is known.
    Forward(String),
    /// A typedef, `const`, `volatile`, `restrict` or type tag: another name of the type.
    Alias(u32),
    /// A function; the id is that of its prototype.
    Function(u32),
    /// How a function is called.
    Prototype {
        /// Type of what it returns.
        returns: u32,
        /// Names and types of the parameters.
        parameters: Vec<(String, u32)>,
    },
    /// A floating-point number, variable, section or tag.
    Other,
}

impl Btf {
    /// The type with this id; `None` if there is none, or it is damaged.
    pub fn type_by_id(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return Some(Type::Void);
        }
        let Some(index) = id.checked_sub(self.first_id) else {
            return self.base.as_deref()?.type_by_id(id);
        };
        let at = *self.types.get(index as usize)? as usize;
        let head = Head::read(&self.data, at)?;
        let extra = at.checked_add(HEAD_BYTES)?;
        let number = |index: usize| u32_at(&self.data, extra.checked_add(4 * index)?);
        Some(match head.kind {
            INT => Type::Int { size: head.size_or_type },
            PTR => Type::Pointer(head.size_or_type),
            ARRAY => Type::Array { element: number(0)?, count: number(2)? },
            STRUCT | UNION => Type::Struct {
                name: self.text(head.name),
                size: head.size_or_type,
                fields: (0..head.count)
                    .map(|index| self.field(extra + 12 * index, head.flag))
                    .collect::<Option<_>>()?,
                union: head.kind == UNION,
            },
            ENUM | ENUM64 => Type::Enum { size: head.size_or_type },
            FWD => Type::Forward(self.text(head.name)),
            TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => Type::Alias(head.size_or_type),
            FUNC => Type::Function(head.size_or_type),
            FUNC_PROTO => Type::Prototype {
                returns: head.size_or_type,
                parameters: (0..head.count)
                    .map(|index| Some((self.text(number(2 * index)?), number(2 * index + 1)?)))
                    .collect::<Option<_>>()?,
            },
            _ => Type::Other,
        })
    }

    /// `packed`: the offset's upper 8 bits are the width of a bit field.
    fn field(&self, at: usize, packed: bool) -> Option<Field> {
        let offset = u32_at(&self.data, at.checked_add(8)?)?;
        Some(Field {
            name: self.text(u32_at(&self.data, at)?),
            type_id: u32_at(&self.data, at.checked_add(4)?)?,
            bit_offset: if packed { offset & 0xff_ffff } else { offset },
            bitfield_bits: if packed { offset >> 24 } else { 0 },
        })
    }

    /// The head of one of this BTF's own types, and where what follows it begins.
    fn own_head(&self, id: u32) -> Option<(Head, usize)> {
        let at = *self.types.get(id.checked_sub(self.first_id)? as usize)? as usize;
        Some((Head::read(&self.data, at)?, at.checked_add(HEAD_BYTES)?))
    }

    /// The kind and the name of one of this BTF's own types.
    pub(super) fn own_name(&self, id: u32) -> Option<(u8, &[u8])> {
        let (head, _) = self.own_head(id)?;
        Some((head.kind, self.string(head.name)?))
    }

    /// The value of an enumerator of one of this BTF's own enums.
    pub(super) fn own_enumerator(&self, id: u32, name: &[u8]) -> Option<i64> {
        let (head, extra) = self.own_head(id)?;
        let step = if head.kind == ENUM { 8 } else { 12 };
        let at = (0..head.count).map(|index| extra + step * index).find(|at| {
            u32_at(&self.data, *at)
                .and_then(|offset| self.string(offset))
                .is_some_and(|candidate| candidate == name)
        })?;
        let low = u32_at(&self.data, at + 4)?;
        if head.kind == ENUM64 {
            let high = u32_at(&self.data, at + 8)?;
            return Some((u64::from(high) << 32 | u64::from(low)) as i64);
        }
        // The flag tells a signed enum.
        Some(if head.flag { i64::from(low as i32) } else { i64::from(low) })
    }
}
