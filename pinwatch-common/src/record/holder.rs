//! Who keeps an anchor, or a lease.

use super::no_padding;

/// How an anchor is kept: values of [`HolderRecord::via`].
pub mod via {
    /// A file descriptor; the value is its number.
    pub const FD: u32 = 1;
    /// A mapping; the value is its address.
    pub const MAPPING: u32 = 2;
    /// A registered ring; the value is its place.
    pub const REGISTERED: u32 = 3;
    /// In a message that nobody has received; the value is the descriptor of the receiving socket.
    pub const IN_FLIGHT: u32 = 4;
    /// Registered as a file with a ring; the value is the ring's descriptor, or [`NO_FD`] if the process has it otherwise.
    pub const RING_FILE: u32 = 5;
    /// No descriptor.
    pub const NO_FD: u64 = u32::MAX as u64;
}

/// One way in which a process keeps an anchor, as an iterator found it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HolderRecord {
    /// [`PinRecord::anchor`].
    pub anchor: u64,
    /// See `via`.
    pub value: u64,
    /// In flight: the message's address, and which of its files, to tell them apart when seen through several descriptors.
    pub message: u64,
    /// `start_boottime` of the thread group's leader, nanoseconds.
    pub start: u64,
    /// Command name of the thread group's leader.
    pub comm: [u8; 16],
    /// Thread group id.
    pub pid: u32,
    /// Effective user id in the initial user namespace.
    pub uid: u32,
    /// `via`.
    pub via: u32,
    /// In flight: which of the message's files.
    pub index: u32,
}

const _: () = no_padding::<HolderRecord>(4 * 8 + 16 + 4 * 4);
