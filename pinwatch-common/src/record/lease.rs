//! Records of leases, and of what happens to them.

use super::{Event, FileKey, no_padding};

/// A lease, delegation or layout lease, as it was when it was looked at. Its key is the address of the kernel's `file_lease`
/// (before 6.9 `file_lock`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The open file (`struct file`) whose it is.
    pub file: u64,
    /// Its inode.
    pub inode: u64,
    /// Which file that is.
    pub key: FileKey,
    /// `fl_break_time`, in ticks of `jiffies`: the deadline of a break.
    pub break_time: u64,
    /// `fl_downgrade_time`.
    pub downgrade_time: u64,
    /// `jiffies` when it was looked at.
    pub jiffies: u64,
    /// The round in which it was looked at.
    pub round: u64,
    /// `lease_flag` bits.
    pub flags: u32,
    /// `F_RDLCK` (0), `F_WRLCK` (1) or, once it is dropped, `F_UNLCK` (2).
    pub kind: u32,
    /// Process id of who took it, in the initial pid namespace.
    pub pid: u32,
    /// `s_magic` of the file system, its lower half.
    pub magic: u32,
}

/// Bits of [`LeaseRecord::flags`] (`FL_*` of include/linux/filelock.h, before 6.3 fs.h; the same in all versions).
pub mod lease_flag {
    /// A delegation.
    pub const DELEG: u32 = 4;
    /// A lease.
    pub const LEASE: u32 = 32;
    /// Being broken: it is to become a read lease.
    pub const DOWNGRADE_PENDING: u32 = 256;
    /// Being broken: it is to go.
    pub const UNLOCK_PENDING: u32 = 512;
    /// A layout lease.
    pub const LAYOUT: u32 = 2048;
}

/// What stands in a breaker's way: values of [`LeaseEvent::left`].
pub mod left {
    /// Nothing any more.
    pub const NOTHING: u32 = 0;
    /// A lease whose time is not up.
    pub const LEASE: u32 = 1;
    /// Only leases whose time is up.
    pub const OVERDUE: u32 = 2;
}

/// A thread of a process that does something to a lease.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// `start_boottime` of the thread group's leader, nanoseconds.
    pub start: u64,
    /// Command name of the thread group's leader.
    pub comm: [u8; 16],
    /// Thread group id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Number of the system call that it is in; -1 if not known, or if it is a thread of the kernel.
    pub call: i32,
}

/// Something that happened to a lease.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseEvent {
    /// What. Its sequence is the lease's address; 0 where a breaker is meant, who may break several.
    pub event: Event,
    /// On which file.
    pub file: FileKey,
    /// Who did it.
    pub actor: Actor,
    /// `lease_flag` bits of the lease, or of what the breaker wants.
    pub flags: u32,
    /// `F_RDLCK`, `F_WRLCK`: what the lease is (before the change).
    pub kind: u32,
    /// What it is to become; what a breaker wants to do: read (`F_RDLCK`) or write.
    pub wanted: u32,
    /// Process id of who took the lease.
    pub pid: u32,
    /// 1: the lease's time was up.
    pub overdue: u32,
    /// `left`.
    pub left: u32,
    /// `s_magic` of the file system, its lower half.
    pub magic: u32,
    /// Zero.
    pub reserved: u32,
}

/// Who waits for a lease without a deadline does so for a tick of `jiffies`, and again: between two ticks it has stopped for
/// microseconds, or longer if it does not run meanwhile. Nanoseconds.
pub const BETWEEN_TICKS: u64 = 100_000_000;

/// A thread that waits for leases on a file to go. Its key is the thread's id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaiterRecord {
    /// The file.
    pub file: FileKey,
    /// Since when, CLOCK_BOOTTIME in nanoseconds.
    pub since: u64,
    /// When it last stopped waiting; 0 while it waits.
    pub ended: u64,
    /// Who.
    pub actor: Actor,
    /// As [`LeaseEvent::flags`] of a breaker.
    pub flags: u32,
    /// As [`LeaseEvent::wanted`].
    pub wanted: u32,
    /// `left` when it last stopped waiting.
    pub left: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    no_padding::<LeaseRecord>(2 * 8 + 16 + 4 * 8 + 4 * 4);
    no_padding::<Actor>(8 + 16 + 4 * 4);
    no_padding::<LeaseEvent>(32 + 16 + 40 + 8 * 4);
    no_padding::<WaiterRecord>(16 + 2 * 8 + 40 + 4 * 4);
};
