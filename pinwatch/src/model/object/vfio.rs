//! DMA mappings of VFIO containers.

use serde::{Deserialize, Serialize};

use super::described::{Described, Field, Piece, Release};

/// See [`super::types_of`].
pub const TYPES: &[&str] = &["vfio"];

/// A DMA mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Object {
    /// The first address that the device uses for it.
    pub iova: u64,
}

impl Described for Object {
    fn type_word(&self) -> &'static str {
        "vfio"
    }

    fn name(&self, piece: &mut dyn FnMut(Piece<'_>)) {
        piece(Piece::Word("iova "));
        piece(Piece::Hex(self.iova));
    }

    fn headline(&self) -> &'static str {
        "DMA mapping of VFIO"
    }

    fn release(&self) -> Release {
        Release::CloseOr(format!("unmap {:#x} (VFIO_IOMMU_UNMAP_DMA)", self.iova))
    }

    /// Its names are the machine's, not a process's.
    fn redact(&mut self, _is_own: bool) {}

    fn fields(&self, field: &mut dyn FnMut(&'static str, Field<'_>)) {
        field("iova", Field::Number(Some(self.iova)));
    }
}
