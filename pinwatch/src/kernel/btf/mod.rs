//! A reader for BTF, the kernel's own description of its types: where a struct's member is, how a function is called,
//! what an enumerator is worth.
//!
//! BTF comes from outside and may be anything: nothing here panics, recurses without a limit or allocates more than a
//! small multiple of the input. What lives here knows the format only; which names matter is for the table of subsystems and their rooms.
//!
//! Why not a crate: btf-rs is under the LGPL, which whoever ships pinwatch, one static file, would have to pass on with the
//! means to link it anew; pinwatch is Apache-2.0 or MIT with all that it is made of. aya-obj, which is linked in, keeps the
//! types that it has read to itself, reads no module's BTF on top of the kernel's, and answers with the first type of a name:
//! modules repeat names with other contents, so `query` compares them, and has no answer where they disagree.
//!
//! The format is described in the kernel's Documentation/bpf/btf.rst; kinds up to 19 (ENUM64, Linux 6.0).

mod bytes;
mod query;
#[cfg(test)]
mod tests;
mod types;
// The tool that makes the fixtures (xtask/cut-btf) and tests write BTF in the same way.
#[cfg(test)]
pub(crate) mod writer;

use std::{ops::Range, sync::Arc};

use bytes::u32_at;
pub use query::{Function, Member, Parameter};
pub use types::{Field, Type};

/// Larger than any kernel's BTF (vmlinux has 4 to 10 MB): what is above that is not BTF.
pub const MAX_BYTES: usize = 128 << 20;

/// Longer names are not read: the kernel's limit is 512, and a hostile BTF may name each of its types by the same megabyte.
const MAX_NAME: usize = 1024;
const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;

/// Why some bytes cannot be used as BTF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The header is not one of BTF in this machine's byte order.
    #[error(
        "this is not BTF in the byte order of this machine; give the .BTF section or a file of /sys/kernel/btf"
    )]
    Magic,
    /// A later, incompatible format.
    #[error("BTF version {0} is unknown; a later pinwatch may know it")]
    Version(u8),
    /// The bytes end too early, or a length in the header is wrong.
    #[error("the BTF is damaged: {what} is outside of it; check that the file was copied whole")]
    Damaged {
        /// Which part was looked for.
        what: &'static str,
    },
    /// A kind of type that did not exist when this was written: its length is unknown, so nothing after it can be read.
    #[error("type {id} of the BTF has the unknown kind {kind}; a later pinwatch may know it")]
    Kind {
        /// BTF's number of the kind.
        kind: u8,
        /// The type's id.
        id: u32,
    },
    /// More than [`MAX_BYTES`].
    #[error("{0} bytes are too many for BTF; give the .BTF section or a file of /sys/kernel/btf")]
    TooLarge(usize),
}

/// Parsed BTF of the kernel, or of one module on top of the kernel's.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    strings: Range<usize>,
    /// Where in `data` each type is; the first one has the id `first_id`.
    types: Vec<u32>,
    /// (hash of the name, id) of structs, unions and functions, sorted.
    names: Vec<(u32, u32)>,
    /// Ids of enums: enumerators are few, and asked for seldom, so they have no index.
    enums: Vec<u32>,
    base: Option<Arc<Btf>>,
    first_id: u32,
    first_string: u32,
}

impl Btf {
    /// Reads BTF that stands alone, such as /sys/kernel/btf/vmlinux.
    pub fn parse(data: impl Into<Vec<u8>>) -> Result<Self, BtfError> {
        Self::read(data.into(), None)
    }

    /// Reads a module's BTF, whose type ids and string offsets continue those of `base`.
    pub fn parse_split(data: impl Into<Vec<u8>>, base: &Arc<Self>) -> Result<Self, BtfError> {
        Self::read(data.into(), Some(Arc::clone(base)))
    }

    fn read(data: Vec<u8>, base: Option<Arc<Self>>) -> Result<Self, BtfError> {
        if data.len() > MAX_BYTES {
            return Err(BtfError::TooLarge(data.len()));
        }
        let (types, strings) = sections(&data)?;
        let (first_id, first_string) = match &base {
            Some(base) => (base.end_id(), base.end_string()),
            None => (1, 0),
        };
        let mut btf = Self {
            data,
            strings,
            types: Vec::new(),
            names: Vec::new(),
            enums: Vec::new(),
            base,
            first_id,
            first_string,
        };
        btf.index(types)?;
        Ok(btf)
    }

    /// One pass over the types: notes where each is, and the names that can be asked for.
    fn index(&mut self, section: Range<usize>) -> Result<(), BtfError> {
        let mut at = section.start;
        // A type takes 12 bytes and more; most have some 30.
        self.types.reserve(section.len() / 32);
        while at < section.end {
            let id = self.end_id();
            let head = types::Head::read(&self.data, at).ok_or(BtfError::Damaged { what: "a type" })?;
            let extra = head.extra_bytes().ok_or(BtfError::Kind { kind: head.kind, id })?;
            // `at` fits in 32 bits because of MAX_BYTES.
            self.types.push(at as u32);
            at += types::HEAD_BYTES + extra;
            if at > section.end {
                return Err(BtfError::Damaged { what: "the end of a type" });
            }
            match head.kind {
                types::STRUCT | types::UNION | types::FUNC if head.name != 0 => {
                    let name = self.string(head.name).ok_or(BtfError::Damaged { what: "a type's name" })?;
                    let entry = (bytes::hash(name), id);
                    self.names.push(entry);
                }
                types::ENUM | types::ENUM64 => self.enums.push(id),
                _ => {}
            }
        }
        self.names.sort_unstable();
        Ok(())
    }

    /// One more than the last type id.
    fn end_id(&self) -> u32 {
        // Both fit: MAX_BYTES / HEAD_BYTES types for each of at most a few BTFs.
        self.first_id.saturating_add(self.types.len() as u32)
    }

    fn end_string(&self) -> u32 {
        self.first_string.saturating_add(self.strings.len() as u32)
    }

    /// The bytes of a string, without its NUL.
    fn string(&self, offset: u32) -> Option<&[u8]> {
        let Some(own) = offset.checked_sub(self.first_string) else {
            return self.base.as_deref()?.string(offset);
        };
        let rest = self.data.get(self.strings.clone())?.get(own as usize..)?;
        let end = rest.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
        rest.get(..end)
    }

    fn text(&self, offset: u32) -> String {
        self.string(offset).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
    }
}

/// Where the types and the strings are, as the header has it.
fn sections(data: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
    let short = BtfError::Damaged { what: "the header" };
    let magic = data.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes));
    if magic.ok_or(short.clone())? != MAGIC {
        return Err(BtfError::Magic);
    }
    match data.get(2) {
        Some(1) => {}
        Some(other) => return Err(BtfError::Version(*other)),
        None => return Err(short),
    }
    let number = |at| u32_at(data, at).map(|value| value as usize).ok_or(short.clone());
    let header = number(4)?;
    // Later formats may have a longer header; its fields begin alike.
    if header < HEADER_BYTES {
        return Err(short);
    }
    let section = |offset: usize, length: usize, what| {
        let damaged = BtfError::Damaged { what };
        let start = header.checked_add(offset).ok_or(damaged.clone())?;
        let end = start.checked_add(length).ok_or(damaged.clone())?;
        if end > data.len() { Err(damaged) } else { Ok(start..end) }
    };
    let types = section(number(8)?, number(12)?, "the section of types")?;
    let strings = section(number(16)?, number(20)?, "the section of strings")?;
    Ok((types, strings))
}
