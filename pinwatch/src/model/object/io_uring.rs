//! Buffers that are registered with an io_uring ring, and what else a ring keeps in memory of its user.

use serde::{Deserialize, Serialize};

use super::described::{Described, Field, Piece, Release};

/// See [`super::types_of`].
pub const TYPES: &[&str] = &["io_uring", "io_uring-mem"];

/// An object of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Object {
    /// A registered buffer.
    Buffer {
        /// The ring's file descriptor in the process that registered the buffer, if known.
        ring_fd: Option<u32>,
        /// The buffer's index in the ring's table, if known.
        slot: Option<u32>,
    },
    /// Other memory: the ring's queues, a ring of provided buffers, a region.
    Memory {
        /// The ring's file descriptor in the process that gave it the memory, if known.
        ring_fd: Option<u32>,
    },
}

impl Described for Object {
    fn type_word(&self) -> &'static str {
        match self {
            Self::Buffer { .. } => "io_uring",
            Self::Memory { .. } => "io_uring-mem",
        }
    }

    fn name(&self, piece: &mut dyn FnMut(Piece<'_>)) {
        piece(Piece::Word("ring "));
        match self {
            Self::Buffer { ring_fd, slot } => {
                piece(Piece::Number(ring_fd.map(u64::from)));
                piece(Piece::Word(" buf "));
                piece(Piece::Number(slot.map(u64::from)));
            }
            Self::Memory { ring_fd } => {
                piece(Piece::Number(ring_fd.map(u64::from)));
                piece(Piece::Word(" memory"));
            }
        }
    }

    fn headline(&self) -> &'static str {
        match self {
            Self::Buffer { .. } => "io_uring buffer",
            Self::Memory { .. } => "memory of an io_uring ring",
        }
    }

    fn release(&self) -> Release {
        Release::CloseOr(match self {
            Self::Buffer { slot: Some(slot), .. } => format!("unregister buffer {slot}"),
            Self::Buffer { slot: None, .. } => "unregister the buffer".to_owned(),
            Self::Memory { .. } => "unregister it from the ring".to_owned(),
        })
    }

    fn redact(&mut self, is_own: bool) {
        let (Self::Buffer { ring_fd, .. } | Self::Memory { ring_fd }) = self;
        if !is_own {
            *ring_fd = None;
        }
    }

    fn fields(&self, field: &mut dyn FnMut(&'static str, Field<'_>)) {
        let (ring_fd, slot) = match self {
            Self::Buffer { ring_fd, slot } => (*ring_fd, *slot),
            Self::Memory { ring_fd } => (*ring_fd, None),
        };
        field("ring_fd", Field::Number(ring_fd.map(u64::from)));
        field("slot", Field::Number(slot.map(u64::from)));
    }
}
