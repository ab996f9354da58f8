//! Records of pins that no subsystem claims, and of those that the kernel refuses.

use crate::records::{Event, FileKey, no_padding};

/// Return addresses that are kept of a stack.
pub const STACK: usize = 16;

/// By which a pin that nobody claimed is known to be there still: one for each, by [`crate::PinRecord::sequence`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledPages {
    /// The first page, one in the middle of the first call, and the last one.
    pub pages: [PageRecord; 3],
    /// Where the system call's registers are in which it was made.
    pub registers: u64,
    /// The kernel's stack then, innermost first; 0 behind its end.
    pub stack: [u64; STACK],
}

/// A page as it was when it was pinned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRecord {
    /// Address of the `struct page`.
    pub page: u64,
    /// `mapping` of its folio.
    pub mapping: u64,
    /// `index` of its folio.
    pub index: u64,
}

/// Bits of [`RefusedEvent::flags`].
pub mod refused {
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
    /// What was refused; `sequence` is the thread's id, `reserved` the errno.
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
    /// `refused` bits.
    pub flags: u32,
}

const _: () = {
    no_padding::<SampledPages>((3 * 3 + 1 + STACK) * 8);
    no_padding::<RefusedEvent>(32 + 16 + 11 * 8 + 16 + 2 * 4);
};
