//! What goes through the ring buffer.

use super::{FileKey, no_padding};

/// What happened: values of [`Event::what`].
pub mod event {
    /// A pin was made.
    pub const MADE: u32 = 1;
    /// A pin was released.
    pub const RELEASED: u32 = 2;
    /// A kernel module was loaded or is being removed.
    pub const MODULES: u32 = 3;
    /// A lease was taken: a [`crate::LeaseEvent`], as are those that follow.
    pub const LEASE_TAKEN: u32 = 4;
    /// A lease is being changed, or taken away if `wanted` is `F_UNLCK`.
    pub const LEASE_CHANGED: u32 = 5;
    /// A thread begins to wait for a lease to go.
    pub const BREAK_WAITS: u32 = 6;
    /// A thread is turned away because of a lease: it does not want to wait.
    pub const BREAK_REFUSED: u32 = 7;
    /// A thread no longer waits, or is about to wait for another lease on the same file.
    pub const BREAK_DONE: u32 = 8;
    /// A pin was made that nobody claimed yet.
    pub const UNCLAIMED: u32 = 9;
    /// A pin was refused: a [`crate::RefusedEvent`].
    pub const REFUSED: u32 = 10;
}

/// History, and a reason to wake up. Losing one never loses a pin.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub time: u64,
    /// [`crate::PinRecord::sequence`].
    pub sequence: u64,
    /// `event`.
    pub what: u32,
    /// A [`Kind`](crate::subsystems::Kind), as a number.
    pub kind: u32,
    /// Thread group id of the process that did it.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}

/// A pin that was made or released, told while somebody listens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinEvent {
    /// What happened to which pin.
    pub event: Event,
    /// The file of its first extent.
    pub file: FileKey,
    /// [`crate::PinRecord::length`].
    pub length: u64,
    /// [`crate::PinRecord::start`].
    pub start: u64,
    /// [`crate::PinRecord::comm`]: of its creator.
    pub comm: [u8; 16],
    /// Process id of its creator.
    pub creator: u32,
    /// [`crate::PinRecord::uid`].
    pub uid: u32,
}

const _: () = {
    no_padding::<Event>(32);
    no_padding::<PinEvent>(32 + 16 + 2 * 8 + 16 + 2 * 4);
};
