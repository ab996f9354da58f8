//! Memory regions and queue buffers of RDMA devices.

use serde::{Deserialize, Serialize};

use super::described::{Described, Field, Piece, Release};

/// See [`super::types_of`].
pub const TYPES: &[&str] = &["rdma-mr", "rdma-cq", "rdma-qp", "rdma-srq", "rdma-buf"];

/// An object of an RDMA device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Object {
    /// A memory region.
    Region {
        /// Device name, such as `mlx5_0`.
        device: String,
        /// The number that `rdma resource show mr` prints as `mrn`.
        mrn: u32,
        /// Local key; `None` where the source may not see keys.
        lkey: Option<u32>,
        /// Remote key; `None` where the source may not see keys.
        rkey: Option<u32>,
    },
    /// Another buffer: of a completion queue, queue pair, shared receive queue, or of the driver's own.
    Buffer {
        /// Device name.
        device: String,
        /// What it serves.
        kind: BufferKind,
    },
}

/// What a buffer that is no memory region serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BufferKind {
    /// A completion queue.
    Cq,
    /// A queue pair.
    Qp,
    /// A shared receive queue.
    Srq,
    /// Not known: a doorbell page, a driver's own buffer.
    Other,
}

impl Described for Object {
    fn type_word(&self) -> &'static str {
        match self {
            Self::Region { .. } => "rdma-mr",
            Self::Buffer { kind: BufferKind::Cq, .. } => "rdma-cq",
            Self::Buffer { kind: BufferKind::Qp, .. } => "rdma-qp",
            Self::Buffer { kind: BufferKind::Srq, .. } => "rdma-srq",
            Self::Buffer { kind: BufferKind::Other, .. } => "rdma-buf",
        }
    }

    fn name(&self, piece: &mut dyn FnMut(Piece<'_>)) {
        match self {
            Self::Region { device, mrn, .. } => {
                piece(Piece::Text(device));
                piece(Piece::Word(" mr "));
                piece(Piece::Number(Some(u64::from(*mrn))));
            }
            Self::Buffer { device, kind } => {
                piece(Piece::Text(device));
                piece(Piece::Word(match kind {
                    BufferKind::Cq => " cq buffer",
                    BufferKind::Qp => " qp buffer",
                    BufferKind::Srq => " srq buffer",
                    BufferKind::Other => " buffer",
                }));
            }
        }
    }

    fn headline(&self) -> &'static str {
        match self {
            Self::Region { .. } => "RDMA memory region",
            Self::Buffer { .. } => "RDMA buffer",
        }
    }

    fn release(&self) -> Release {
        Release::CloseOr(match self {
            Self::Region { .. } => "deregister the memory region".to_owned(),
            Self::Buffer { .. } => "destroy the queue".to_owned(),
        })
    }

    /// Its names are the machine's, not a process's.
    fn redact(&mut self, _is_own: bool) {}

    fn fields(&self, field: &mut dyn FnMut(&'static str, Field<'_>)) {
        let (device, mrn, lkey, rkey) = match self {
            Self::Region { device, mrn, lkey, rkey } => (device, Some(*mrn), *lkey, *rkey),
            Self::Buffer { device, .. } => (device, None, None, None),
        };
        field("device", Field::Text(Some(device)));
        for (name, number) in [("mrn", mrn), ("lkey", lkey), ("rkey", rkey)] {
            field(name, Field::Number(number.map(u64::from)));
        }
    }

    fn details(&self) -> String {
        match self {
            Self::Region { lkey: Some(lkey), rkey: Some(rkey), .. } => {
                format!(", lkey 0x{lkey:x}, rkey 0x{rkey:x}")
            }
            Self::Region { .. } | Self::Buffer { .. } => String::new(),
        }
    }
}
