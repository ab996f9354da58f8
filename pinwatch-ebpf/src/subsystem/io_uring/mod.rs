//! io_uring: registered ("fixed") buffers, what else a ring keeps in memory of its user, and the files that it keeps.

mod buffers;
mod clones;
pub mod files;
mod memory;

use pinwatch_common::{
    PinRecord,
    subsystems::{Carried, Kind, Slot},
};

use crate::base::{
    kernel::{choice, syscall_arguments},
    thread_slot,
};

/// `IORING_REGISTER_USE_REGISTERED_RING`: the first argument is no file descriptor then.
const REGISTERED_RING: u64 = 1 << 31;

/// The descriptor by which the ring was told; -1 if it has none yet, or is told by its place among the registered ones.
#[inline(always)]
fn ring_fd() -> i32 {
    let [fd, operation, ..] = syscall_arguments();
    if operation & REGISTERED_RING != 0 { -1 } else { fd as i32 }
}

/// The array of pages that `io_pin_pages` has made within this call.
#[inline(always)]
fn take_pages() -> u64 {
    if choice!(io_ring_memory) == 0 {
        0
    } else {
        thread_slot::take::<1>(Slot::carried(Carried::RingPages)).map_or(0, |[array]| array)
    }
}

/// A ring is what its file has in `private_data`.
#[inline(always)]
pub fn anchor_of(_private: u64, _mode: u16) -> u64 {
    0
}

/// Whether a buffer has no references any more. What else a ring keeps says nothing of its end.
#[inline(always)]
pub fn is_gone(object: u64, pin: &PinRecord) -> bool {
    pin.kind == Kind::IoUring as u32 && buffers::is_gone(object)
}
