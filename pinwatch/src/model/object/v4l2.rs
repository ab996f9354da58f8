//! User memory that V4L2 devices use as buffers.

use serde::{Deserialize, Serialize};

use super::described::{Described, Field, Piece, Release};

/// See [`super::types_of`].
pub const TYPES: &[&str] = &["v4l2"];

/// A buffer of a video device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Device name, such as `video0`.
    pub device: String,
}

impl Described for Object {
    fn type_word(&self) -> &'static str {
        "v4l2"
    }

    fn name(&self, piece: &mut dyn FnMut(Piece<'_>)) {
        piece(Piece::Text(&self.device));
        piece(Piece::Word(" buf"));
    }

    fn headline(&self) -> &'static str {
        "buffer of a video device"
    }

    fn release(&self) -> Release {
        Release::CloseOr("free the device's buffers (VIDIOC_REQBUFS with none)".to_owned())
    }

    /// Its names are the machine's, not a process's.
    fn redact(&mut self, _is_own: bool) {}

    fn fields(&self, field: &mut dyn FnMut(&'static str, Field<'_>)) {
        field("device", Field::Text(Some(&self.device)));
    }
}
