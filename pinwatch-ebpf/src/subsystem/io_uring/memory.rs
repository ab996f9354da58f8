//! io_uring: what a ring keeps in memory of its user: its queues (`IORING_SETUP_NO_MMAP`), rings of provided buffers,
//! memory regions.
//!
//! Since 6.13 all of it are regions, made by `io_create_region` and ended by `io_free_region`. Before, only rings of provided
//! buffers and, on 6.5 and later, queues could be; they end in several places, inlined here and there, so that their pages are
//! looked at now and then, as those of unclaimed pins are.

use pinwatch_common::{
    counter, event,
    subsystems::{BeginHook, Carried, Kind, Slot, hook},
};

use super::{ring_fd, take_pages};
use crate::{
    base::{
        hook::{HookCtx, entry_hook, exit_hook},
        kernel::{
            choice, error_of, has, is_err_or_null, offset, private_data_of, read, try_read, try_read_user,
        },
        maps::count,
        scratch::Pages,
        thread_slot,
    },
    file::{page::PAGES_ARRAY, vma_extents},
    pin::{
        liveness,
        record::{NewPin, init_record, insert, record_pin, released},
        refused,
        ring::wake,
    },
    subsystem::unclaimed,
};

exit_hook!(io_pin, pinned);
exit_hook!(io_provide, provided);
exit_hook!(io_queues, queues);
exit_hook!(io_region, create);
entry_hook!(io_region_free, free);

/// `IORING_MEM_REGION_TYPE_USER` (include/uapi/linux/io_uring.h)
const OF_USER: u64 = 1;
/// `IORING_OFF_CQ_RING`, `IORING_OFF_SQES`: as which the queues' regions can be mapped.
const QUEUES: u64 = 0x0800_0000;
const ENTRIES: u64 = 0x1000_0000;
/// `sizeof(struct io_uring_buf)`
const PROVIDED: u64 = 16;
const EINVAL: i32 = 22;

/// A piece of user memory that a ring keeps.
struct RingMemory {
    /// The array of its pages.
    array: u64,
    address: u64,
    length: u64,
    /// The ring (`struct io_ring_ctx`); 0 if not known.
    ring: u64,
    fd: i32,
}

#[inline(always)]
fn new_pin(memory: &RingMemory, object: u64) -> NewPin {
    NewPin {
        object,
        kind: Kind::IoUringMemory,
        address: memory.address,
        length: memory.length,
        owner: memory.ring,
        anchor: memory.ring,
        anchor_fd: memory.fd,
        number: -1,
        device: 0,
        references: 0,
        pages: Pages { form: PAGES_ARRAY, at: memory.array, shift: 0, first: 0 },
    }
}

/// Since 6.13. `int io_create_region(struct io_ring_ctx * or struct user_struct *, struct io_mapped_region *, struct
/// io_uring_region_desc *, unsigned long mmap_offset)`
#[inline(always)]
fn create(call: &HookCtx<hook::io_region>) {
    unclaimed::claim(call);
    let (region, place) = (call.arg(1), call.arg(3));
    // `struct io_uring_region_desc` begins with address, size and flags.
    let Some([address, length, flags]) = try_read::<[u64; 3]>(call.arg(2)) else { return };
    if flags & OF_USER == 0 {
        return;
    }
    let code = call.ret as i32;
    if code < 0 {
        refused::memory(call, Kind::IoUringMemory, code.wrapping_neg(), [address, length], true);
        return;
    }
    let array = read(region);
    if array == 0 {
        return;
    }
    let ring = if choice!(io_region_takes_ring) != 0 {
        call.arg(0)
    } else if place == QUEUES && has!(io_ctx_queues) {
        region - offset!(io_ctx_queues)
    } else if place == ENTRIES && has!(io_ctx_entries) {
        region - offset!(io_ctx_entries)
    } else {
        0
    };
    // A ring that is being made has no descriptor yet; all others are told by theirs.
    let is_new = place == QUEUES || place == ENTRIES;
    let fd = if is_new { -1 } else { ring_fd() };
    let ring = if ring == 0 { private_data_of(fd) } else { ring };
    record_pin(call, &new_pin(&RingMemory { array, address, length, ring, fd }, array));
}

/// `void io_free_region(.., struct io_mapped_region *)`, which begins with its array of pages.
#[inline(always)]
fn free(call: &HookCtx<hook::io_region_free>) {
    let array = read(call.arg(1));
    if array != 0 {
        released(call.ctx, array);
    }
}

/// Before 6.13. `struct page **io_pin_pages(unsigned long address, unsigned long length, int *npages)`: of whatever comes of it
/// only the caller knows, in which this call is.
#[inline(always)]
fn pinned(call: &HookCtx<hook::io_pin>) {
    unclaimed::claim(call);
    if !is_err_or_null(call.ret) {
        let _ = thread_slot::put(Slot::carried(Carried::RingPages), &[call.ret]);
    }
}

/// `int io_register_pbuf_ring(struct io_ring_ctx *, void __user *)`
#[inline(always)]
fn provided(call: &HookCtx<hook::io_provide>) {
    let array = take_pages();
    // `struct io_uring_buf_reg` begins with the ring's address and the number of its entries.
    let Some([address, entries]) = try_read_user::<[u64; 2]>(call.arg(1)) else { return };
    let length = (entries & 0xffff_ffff) * PROVIDED;
    let code = call.ret as i32;
    if code < 0 {
        // Anything else may be wrong with what was asked for.
        if address != 0 && code != -EINVAL {
            refused::memory(call, Kind::IoUringMemory, code.wrapping_neg(), [address, length], true);
        }
    } else if array != 0 {
        record_sampled(call, &RingMemory { array, address, length, ring: call.arg(0), fd: ring_fd() });
    }
}

/// 6.5 to 6.12. `void *__io_uaddr_map(struct page ***, unsigned short *npages, unsigned long address, size_t)`: of the queues
/// or of their entries, by which member of the ring it was given.
#[inline(always)]
fn queues(call: &HookCtx<hook::io_queues>) {
    let array = take_pages();
    let (member, number, address) = (call.arg(0), call.arg(1), call.arg(2));
    // In whole pages, as later kernels have it.
    let page = 1 << choice!(page_shift);
    let length = (call.arg(3) + (page - 1)) & 0u64.wrapping_sub(page);
    if let Some(errno) = error_of(call.ret) {
        refused::memory(call, Kind::IoUringMemory, errno, [address, length], true);
        return;
    }
    if array == 0 {
        return;
    }
    let apart = offset!(io_ctx_queues).wrapping_sub(offset!(io_ctx_queues_number));
    let at =
        if member.wrapping_sub(number) == apart { offset!(io_ctx_queues) } else { offset!(io_ctx_entries) };
    let ring = if !has!(io_ctx_entries) { 0 } else { member - at };
    record_sampled(call, &RingMemory { array, address, length, ring, fd: -1 });
}

/// Records memory whose end is not seen: its key is its sequence number.
#[inline(always)]
fn record_sampled<H: BeginHook>(call: &HookCtx<H>, memory: &RingMemory) {
    let Some(scratch) = call.scratch() else { return };
    let new = new_pin(memory, 0);
    // SAFETY: this program's own slot on this CPU.
    unsafe {
        init_record(scratch, &new);
        vma_extents::find(scratch, &new.pages);
        let pin = &raw const (*scratch).pin;
        let first = memory.address >> choice!(page_shift);
        let last =
            (memory.address + if memory.length == 0 { 0 } else { memory.length - 1 }) >> choice!(page_shift);
        let key = (*pin).sequence;
        liveness::sample_pages(scratch, memory.array, last - first);
        if insert(call.ctx, key, &*pin) {
            count(counter::UNCLAIMED);
            wake(event::UNCLAIMED);
        }
    }
}
