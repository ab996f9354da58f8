//! Files that an io_uring ring has registered (`IORING_REGISTER_FILES`): the ring keeps them as a descriptor does, without
//! being one. Whoever holds the ring holds what is in its table.

use aya_ebpf::{helpers::generated::bpf_loop, macros::map, maps::Array};
use core::ffi::c_void;

use crate::base::{
    kernel::{current, has, load, offset, opaque_zero, read, read32},
    maps::element,
};

/// The `file_operations` of rings, by which one is told from all other files; 0 if that is not known.
#[map]
static RING_OPERATIONS: Array<u64> = Array::with_max_entries(1, 0);

/// `IORING_MAX_FIXED_FILES`
const MAX_FILES: u32 = 1 << 20;
/// The low bits of a table's entry are flags: a `struct file` is aligned to more than that.
const FLAGS: u64 = 7;

/// Whether a file with these operations is a ring.
#[inline(always)]
pub fn is_ring(operations: u64) -> bool {
    let Some(known) = RING_OPERATIONS.get(0) else { return false };
    *known != 0 && *known == operations
}

/// Where a walk over a ring's table is. Whoever walks has this first in what their callback gets.
#[repr(C)]
pub struct RingFiles {
    table: u64,
    count: u64,
    index: u64,
}

impl RingFiles {
    /// The table of a ring.
    #[inline(always)]
    pub fn of(ring: u64) -> Self {
        Self {
            table: read(ring + offset!(io_ctx_files)),
            count: u64::from(read32(ring + offset!(io_ctx_file_count))),
            index: opaque_zero(),
        }
    }

    /// Whether there is nothing to walk over.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        !has!(io_ctx_files) || self.table == 0 || self.count == 0
    }

    /// The next file: `None` at the end, 0 for an empty place.
    #[inline(always)]
    pub fn next(&mut self) -> Option<u64> {
        if self.index >= self.count {
            return None;
        }
        let mut entry = read(self.table + self.index * 8);
        self.index += 1;
        // Since 6.13 the table has nodes, and these the files.
        if has!(io_node_file) && entry != 0 {
            entry = read(entry + offset!(io_node_file));
        }
        Some(entry & !FLAGS)
    }

    /// The place of the file that `next` gave last.
    #[inline(always)]
    pub fn place(&self) -> u64 {
        self.index - 1
    }
}

/// Calls `step` with `context` as often as a table may have places.
///
/// # Safety
/// `step` must take what `context` points to.
#[inline(always)]
pub unsafe fn for_each(step: extern "C" fn(u32, *mut c_void) -> i64, context: *mut c_void) {
    // SAFETY: by the caller.
    unsafe { bpf_loop(MAX_FILES, step as *mut c_void, context, 0) };
}

/// Learns what rings look like from one of the caller's own, for user space, which runs this by itself with the ring's
/// descriptor. Gives whether it did.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/ring_operations")]
extern "C" fn learn_rings(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least one word here; the task has its BTF type.
    let (fd, files) = unsafe { (*arguments, load(current() as u64, offset!(task_files))) };
    let table = read(files + offset!(files_table));
    if fd >= u64::from(read32(table + offset!(table_size))) {
        return 0;
    }
    let file = read(read(table + offset!(table_files)) + fd * 8);
    let operations = if file == 0 { 0 } else { read(file + offset!(file_operations)) };
    let Some(mut known) = element(&RING_OPERATIONS, 0) else { return 0 };
    *known = operations;
    i32::from(operations != 0)
}
