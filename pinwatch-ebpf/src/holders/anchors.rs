//! Which anchor a file is. It is recognised by what its `struct file` has in `private_data`: that is the very object that the pins
//! were recorded with (a ring, an `ib_uverbs_file`), or something that leads to it, which the subsystems know. User space says
//! which anchors are asked for: all other files cost one look-up.

use crate::{
    base::{
        kernel::{offset, read, read16},
        maps::is_anchor,
    },
    subsystem,
};

/// The anchor that a file is, by its `private_data` and its inode's mode; 0 if it is none.
#[inline(always)]
pub fn anchor_of(private: u64, mode: u16) -> u64 {
    if is_anchor(private) { private } else { subsystem::anchor_of(private, mode) }
}

/// As [`anchor_of`], for a file whose address is all that is known.
#[inline(always)]
pub fn anchor_at(file: u64, inode: u64) -> u64 {
    anchor_of(read(file + offset!(file_private)), read16(inode + offset!(inode_mode)))
}
