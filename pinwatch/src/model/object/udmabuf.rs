//! DMA buffers made of memfds.

use serde::{Deserialize, Serialize};

use super::described::{Described, Field, Piece, Release};

/// See [`super::types_of`].
pub const TYPES: &[&str] = &["udmabuf"];

/// A DMA buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Its inode number, as in `/sys/kernel/debug/dma_buf/bufinfo` and `ls -i`.
    pub ino: u32,
}

impl Described for Object {
    fn type_word(&self) -> &'static str {
        "udmabuf"
    }

    fn name(&self, piece: &mut dyn FnMut(Piece<'_>)) {
        piece(Piece::Word("dmabuf "));
        piece(Piece::Number(Some(u64::from(self.ino))));
    }

    fn headline(&self) -> &'static str {
        "DMA buffer made of memfds"
    }

    fn release(&self) -> Release {
        Release::Close
    }

    /// Its names are the machine's, not a process's.
    fn redact(&mut self, _is_own: bool) {}

    fn fields(&self, field: &mut dyn FnMut(&'static str, Field<'_>)) {
        field("inode", Field::Number(Some(u64::from(self.ino))));
    }
}
