//! Leases: an inode has a list of them, each of an open file. Whoever has that file open (or mapped, in a message, registered
//! with a ring) holds the lease. They are looked at together with the holders of anchors: all files of all processes come
//! by, and an inode without leases costs one load.

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_loop},
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use core::ffi::c_void;
use pinwatch_common::{LeaseRecord, counter};

use super::holder_record::{FileRef, emit};
use crate::{
    base::{
        kernel::{has, offset, opaque_zero, read, read32, try_read},
        maps::count,
    },
    file::extents::file_key,
};

/// Leases that were seen in the latest rounds, by the kernel's own object.
#[map]
static LEASES: HashMap<u64, LeaseRecord> = HashMap::with_max_entries(1 << 12, 1);
/// The number of the round: user space counts it up before it looks.
#[map]
static LEASE_ROUND: Array<u64> = Array::with_max_entries(1, 0);

/// The record that is put together: a stack has 512 bytes, callbacks included. The daemon makes one pass at a time.
#[map]
static LEASE: PerCpuArray<LeaseRecord> = PerCpuArray::with_max_entries(1, 0);

/// Leases of one inode that are looked at. There is one for each open file at most.
pub const MAX_LEASES: u32 = 4096;

/// Where a walk over an inode's leases is.
#[repr(C)]
struct Leases {
    head: u64,
    node: u64,
    by: FileRef,
}

/// Records the leases on a file's inode, and tells of those that are this open file's. `context` is `inode.i_flctx`, and not
/// NULL.
#[inline(always)]
pub fn report(context: u64, by: FileRef) {
    let head = context + offset!(context_leases);
    let first = read(head);
    if first == 0 || first == head {
        return;
    }
    let mut leases = Leases { head, node: first | opaque_zero(), by };
    // SAFETY: the callback gets a pointer that outlives the loop.
    unsafe { bpf_loop(MAX_LEASES, next_lease as *mut c_void, (&raw mut leases).cast(), 0) };
}

extern "C" fn next_lease(_step: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `report`.
    let at = unsafe { &mut *context.cast::<Leases>() };
    if at.node == 0 || at.node == at.head {
        return 1;
    }
    let lease = at.node - offset!(lease_list);
    at.node = read(at.node);
    let file = read(lease + offset!(lease_file));
    // The list changes while it is walked over: what is not a lease on this inode is none.
    if file == 0 || read(file + offset!(file_inode)) != at.by.inode {
        return 0;
    }
    record(lease, file, at.by.inode);
    if file == at.by.file {
        emit(&at.by, lease);
    }
    0
}

#[inline(never)]
fn record(lease: u64, file: u64, inode: u64) {
    let round = LEASE_ROUND.get(0).copied().unwrap_or(0);
    let Some(record) = LEASE.get_ptr_mut(0) else { return };
    // SAFETY: this pass's own record; every field is written.
    let record = unsafe {
        (*record).file = file;
        (*record).inode = inode;
        (*record).key = file_key(inode);
        (*record).break_time = read(lease + offset!(lease_break_time));
        (*record).downgrade_time = read(lease + offset!(lease_downgrade_time));
        (*record).jiffies = bpf_jiffies64();
        (*record).round = round;
        (*record).flags = read32(lease + offset!(lease_flags));
        (*record).kind = kind(lease);
        (*record).pid = read32(lease + offset!(lease_pid));
        (*record).magic = magic(inode);
        &*record
    };
    if LEASES.insert(&lease, record, 0).is_err() {
        count(counter::LEASES_FULL);
    }
}

/// `F_RDLCK`, `F_WRLCK` or, of one that is dropped, `F_UNLCK`.
#[inline(always)]
pub fn kind(lease: u64) -> u32 {
    u32::from(try_read::<u8>(lease + offset!(lease_type)).unwrap_or(u8::MAX))
}

/// The lower half of the file system's magic number.
#[inline(always)]
pub fn magic(inode: u64) -> u32 {
    if !has!(paths) { 0 } else { read32(read(inode + offset!(inode_sb)) + offset!(sb_magic)) }
}

/// The kernel's clock in ticks, its lower half, for user space, which runs this by itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/jiffies")]
extern "C" fn jiffies(_arguments: *const u64) -> i32 {
    // SAFETY: no arguments.
    unsafe { bpf_jiffies64() as i32 }
}
