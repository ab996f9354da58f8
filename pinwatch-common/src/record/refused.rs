//! Pins that the kernel refuses.

use super::{Event, FileKey, no_padding};

/// Bits of [`RefusedEvent::flags`].
pub mod refused_flag {
    /// The pages were to be written to.
    pub const WRITE: u32 = 1;
    /// Something is mapped at the beginning of the range.
    pub const MAPPED: u32 = 2;
    /// The file is on persistent memory, without the page cache.
    pub const DAX: u32 = 4;
}

/// A pin that was refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedEvent {
    /// What was refused; without a sequence number.
    pub event: Event,
    /// The file of the mapping that may be the reason, or else of the first one.
    pub file: FileKey,
    /// User address of the first byte.
    pub address: u64,
    /// Bytes asked for.
    pub length: u64,
    /// Where it was asked for from, if no subsystem did.
    pub caller: u64,
    /// `vm_flags` of that mapping.
    pub mapping: u64,
    /// `s_magic` of its file's file system.
    pub magic: u64,
    /// The first address that nothing is mapped at; 0 if none was met.
    pub hole: u64,
    /// Pages that count as pinned for the process (`mm->pinned_vm`).
    pub pinned: u64,
    /// Pages that count as locked for it (`mm->locked_vm`).
    pub locked: u64,
    /// Pages that count as locked for the user (`user->locked_vm`).
    pub user_locked: u64,
    /// RLIMIT_MEMLOCK, in bytes.
    pub limit: u64,
    /// `start_boottime` of the thread group's leader, nanoseconds.
    pub start: u64,
    /// Command name of the thread group's leader.
    pub comm: [u8; 16],
    /// User id in the initial user namespace.
    pub uid: u32,
    /// `refused_flag` bits.
    pub flags: u32,
    /// The errno, positive.
    pub errno: i32,
    /// Thread id.
    pub tid: u32,
}

const _: () = no_padding::<RefusedEvent>(32 + 16 + 11 * 8 + 16 + 4 * 4);
