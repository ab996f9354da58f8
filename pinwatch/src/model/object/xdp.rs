//! Umems of AF_XDP sockets.

use serde::{Deserialize, Serialize};

use super::described::{Described, Field, Piece, Release};

/// See [`super::types_of`].
pub const TYPES: &[&str] = &["xdp"];

/// A umem.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Its number in its network namespace's diagnostics (`ss --xdp -e`).
    pub umem: u32,
}

impl Described for Object {
    fn type_word(&self) -> &'static str {
        "xdp"
    }

    fn name(&self, piece: &mut dyn FnMut(Piece<'_>)) {
        piece(Piece::Word("umem "));
        piece(Piece::Number(Some(u64::from(self.umem))));
    }

    fn headline(&self) -> &'static str {
        "AF_XDP umem"
    }

    fn release(&self) -> Release {
        Release::Close
    }

    /// Its names are the machine's, not a process's.
    fn redact(&mut self, _is_own: bool) {}

    fn fields(&self, field: &mut dyn FnMut(&'static str, Field<'_>)) {
        field("umem", Field::Number(Some(u64::from(self.umem))));
    }
}
