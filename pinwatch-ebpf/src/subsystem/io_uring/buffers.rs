//! io_uring: registered ("fixed") buffers.
//!
//! The pages belong to an `io_mapped_ubuf`. Several slots, of several rings even, may share one (cloned buffers): that is
//! one pin. It is made by `io_sqe_buffer_register`, whatever the request was, and ends in `io_release_ubuf` (6.13 and
//! later) or, before, in the `io_buffer_unmap` that drops the last reference.

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use core::{ffi::c_void, mem::MaybeUninit};
use pinwatch_common::subsystems::{Carried, Kind, Slot, hook};

use super::{REGISTERED_RING, take_pages};
use crate::{
    base::{
        hook::{HookCtx, entry_hook, exit_hook},
        kernel::{
            choice, error_of, fetch_add, has, is_err_or_null, load, offset, opaque_zero, read, read32,
            syscall_arguments, try_read, try_read_user,
        },
        maps::{PINS, look_up},
        scratch::Pages,
        thread_slot::{self, Put},
    },
    file::page::PAGES_BVEC,
    pin::{
        record::{NewPin, record_pin, released},
        refused,
    },
    subsystem::unclaimed,
};

exit_hook!(io_register, register);
entry_hook!(io_release, release);
entry_hook!(io_unmap, unmap);
exit_hook!(io_unmap_done, unmapped);

/// 6.1, 6.12: `int io_sqe_buffer_register(ctx, struct iovec *, struct io_mapped_ubuf **, struct page **)`; later
/// `struct io_rsrc_node *io_sqe_buffer_register(ctx, struct iovec *, ...)`.
#[inline(always)]
fn register(call: &HookCtx<hook::io_register>) {
    unclaimed::claim(call);
    // That is in the buffer.
    let _ = take_pages();
    let Some(wanted) = wanted(call) else { return };
    let buffer = buffer(call);
    let regs = syscall_arguments();
    if wanted[0] == 0 || buffer == 0 {
        // An empty slot of a sparse table, or an error: nothing is pinned, but slots are counted on.
        skip_slot(&regs);
        let failed = if choice!(io_uring_returns_node) == 0 {
            let code = call.ret as i32;
            if code < 0 { Some(code.wrapping_neg()) } else { None }
        } else {
            error_of(call.ret)
        };
        if let Some(errno) = failed {
            refused::memory(call, Kind::IoUring, errno, wanted, true);
        }
        return;
    }
    let ring = call.arg(0);
    let (pages, references) = pages(buffer);
    record_pin(
        call,
        &NewPin {
            object: buffer,
            kind: Kind::IoUring,
            address: wanted[0],
            length: wanted[1],
            owner: ring,
            anchor: ring,
            anchor_fd: if regs[1] & REGISTERED_RING != 0 { -1 } else { regs[0] as i32 },
            number: slot_of(&regs, &wanted),
            device: 0,
            references,
            pages,
        },
    );
}

/// What the user asked for: address and length (`struct iovec`, include/uapi/linux/uio.h).
#[inline(always)]
fn wanted(call: &HookCtx<hook::io_register>) -> Option<[u64; 2]> {
    if call.trampoline {
        let iovec = call.typed::<1>();
        // SAFETY: the pointer has its BTF type.
        return Some(unsafe { [load(iovec, 0), load(iovec, 8)] });
    }
    try_read(call.arg(1))
}

/// The buffer that was made; 0 if none was.
#[inline(always)]
fn buffer(call: &HookCtx<hook::io_register>) -> u64 {
    if choice!(io_uring_returns_node) == 0 {
        return if (call.ret as i32) < 0 { 0 } else { read(call.arg(2)) };
    }
    if is_err_or_null(call.ret) {
        return 0;
    }
    let node = match choice!(io_register_args) {
        2 if call.trampoline => call.typed::<2>(),
        3 if call.trampoline => call.typed::<3>(),
        _ => return read(call.ret + offset!(io_node_buf)),
    };
    // SAFETY: the pointer has its BTF type. The buffer's has not: it is in a union, behind a plain number.
    unsafe { load(node, offset!(io_node_buf)) }
}

/// Where a buffer's pages are, and how many references it has of them: one for each entry of its array, which may stand for
/// many pages. Its head is read in one go, with the first page, which comes behind it.
#[inline(always)]
fn pages(buffer: u64) -> (Pages, u64) {
    let at = buffer + offset!(io_buf_bvec);
    let mut pages = Pages { form: PAGES_BVEC, at, shift: 0, first: 0 };
    if offset!(io_buf_bvec) + 8 > HEAD_WORDS as u64 * 8 {
        // Never so far; the page is then read by itself.
        if has!(io_buf_folio_shift) {
            pages.shift = u64::from(read32(buffer + offset!(io_buf_folio_shift)));
        }
        return (pages, u64::from(read32(buffer + offset!(io_buf_bvecs))));
    }
    let mut head = MaybeUninit::<[u64; HEAD_WORDS]>::uninit();
    let head = head.as_mut_ptr().cast::<u8>();
    // SAFETY: within `head`, as just checked (the shift comes before the array, which is last); the helper writes all of
    // what it is asked for, zeros on a fault.
    unsafe {
        bpf_probe_read_kernel(head.cast(), offset!(io_buf_bvec) as u32 + 8, buffer as *const c_void);
        if has!(io_buf_folio_shift) {
            let shift = head.add(offset!(io_buf_folio_shift) as usize).cast::<u32>();
            pages.shift = u64::from(shift.read_volatile());
        }
        pages.first = head.add(offset!(io_buf_bvec) as usize).cast::<u64>().read_volatile();
        let references = head.add(offset!(io_buf_bvecs) as usize).cast::<u32>().read_volatile();
        (pages, u64::from(references))
    }
}

/// Words of an `io_mapped_ubuf` before its array, and one more: 5 to 8 on known kernels.
const HEAD_WORDS: usize = 10;

/// `void io_release_ubuf(void *priv)`
#[inline(always)]
fn release(call: &HookCtx<hook::io_release>) {
    released(call.ctx, call.arg(0));
}

/// `void io_buffer_unmap(struct io_ring_ctx *, struct io_mapped_ubuf **slot)`
///
/// The last reference goes in the callee. Two rings may drop theirs at the same time and both read "two left", so those
/// on their way are counted: whoever finds that they are all that is left knows the buffer's end.
#[inline(always)]
fn unmap(call: &HookCtx<hook::io_unmap>) {
    let buffer = read(call.arg(1));
    if has!(io_buf_refs) {
        let references = read32(buffer + offset!(io_buf_refs));
        if references > 1 {
            let Some(pin) = look_up(&PINS, &buffer) else { return };
            if thread_slot::put(Slot::carried(Carried::LeavingBuffer), &[buffer]) == Put::Full {
                return;
            }
            // SAFETY: a live, aligned map value, changed atomically by everybody.
            let leaving = unsafe { fetch_add(&raw mut (*pin.as_ptr()).leaving, 1) } + 1;
            if u64::from(references) > leaving {
                return;
            }
        }
    }
    released(call.ctx, buffer);
}

/// Behind `io_buffer_unmap`, where buffers can be shared: this one is no longer on its way.
#[inline(always)]
fn unmapped(_call: &HookCtx<hook::io_unmap_done>) {
    let Some([buffer]) = thread_slot::take(Slot::carried(Carried::LeavingBuffer)) else { return };
    if let Some(pin) = look_up(&PINS, &buffer) {
        // SAFETY: as in `unmap`.
        unsafe { fetch_add(&raw mut (*pin.as_ptr()).leaving, u64::MAX) };
    }
}

// ---- which slot of the ring's table -----------------------------------------------------------------------------------
//
// The hooked function is not told. But its caller works through the user's array of iovecs in order, and the user's
// registers say which array it is.

/// `IORING_REGISTER_BUFFERS`, `_BUFFERS2`, `_BUFFERS_UPDATE` (include/uapi/linux/io_uring.h).
const REGISTER_BUFFERS: u64 = 0;
const REGISTER_BUFFERS2: u64 = 15;
const BUFFERS_UPDATE: u64 = 16;
/// `IORING_MAX_REG_BUFFERS`
const MAX_BUFFERS: u32 = 1 << 14;

/// An array of iovecs in user memory.
struct Iovecs {
    at: u64,
    count: u64,
    first_slot: u64,
}

#[inline(always)]
fn iovecs(regs: &[u64; 4]) -> Iovecs {
    let [_, operation, argument, count] = *regs;
    let nothing = Iovecs { at: 0, count: 0, first_slot: 0 };
    match operation & !REGISTERED_RING {
        REGISTER_BUFFERS => Iovecs { at: argument, count, first_slot: 0 },
        REGISTER_BUFFERS2 => {
            // struct io_uring_rsrc_register: nr (32 bits), flags, resv2, data, tags
            let Some(request) = try_read_user::<[u64; 4]>(argument) else { return nothing };
            Iovecs { at: request[2], count: request[0] & 0xffff_ffff, first_slot: 0 }
        }
        BUFFERS_UPDATE => {
            // struct io_uring_rsrc_update2: offset (32 bits), resv, data, tags, nr (32 bits), resv2
            let Some(request) = try_read_user::<[u64; 4]>(argument) else { return nothing };
            Iovecs { at: request[1], count: request[3] & 0xffff_ffff, first_slot: request[0] & 0xffff_ffff }
        }
        _ => nothing,
    }
}

/// The slot that this buffer goes to; -1 if that cannot be told.
#[inline(always)]
fn slot_of(regs: &[u64; 4], wanted: &[u64; 2]) -> i32 {
    let array = iovecs(regs);
    if array.count == 1 {
        return array.first_slot as i32;
    }
    if array.count == 0 || array.at == 0 {
        return -1;
    }
    let mut search =
        SlotSearch { at: array.at, count: array.count, index: progress(array.at), wanted: *wanted };
    if !search.matches() {
        search.index = opaque_zero();
        // SAFETY: the callback gets a pointer that outlives the loop.
        unsafe { bpf_loop(MAX_BUFFERS, next_slot as *mut c_void, (&raw mut search).cast(), 0) };
        if search.index >= search.count {
            return -1;
        }
    }
    advance(&array, search.index + 1);
    (array.first_slot + search.index) as i32
}

/// Counts a slot that stays empty.
#[inline(always)]
fn skip_slot(regs: &[u64; 4]) {
    let array = iovecs(regs);
    if array.count > 1 && array.at != 0 {
        advance(&array, progress(array.at) + 1);
    }
}

#[inline(always)]
fn progress(array: u64) -> u64 {
    match thread_slot::peek(Slot::carried(Carried::IovecProgress)) {
        // SAFETY: a live map value of this thread.
        Some(progress) => unsafe { if *progress == array { *progress.add(1) } else { 0 } },
        None => 0,
    }
}

#[inline(always)]
fn advance(array: &Iovecs, next: u64) {
    if next >= array.count {
        let _ = thread_slot::take::<0>(Slot::carried(Carried::IovecProgress));
    } else {
        // Without room the slot is searched for from the start.
        let _ = thread_slot::put(Slot::carried(Carried::IovecProgress), &[array.at, next]);
    }
}

#[repr(C)]
struct SlotSearch {
    at: u64,
    count: u64,
    index: u64,
    wanted: [u64; 2],
}

impl SlotSearch {
    #[inline(always)]
    fn matches(&self) -> bool {
        self.index < self.count
            && try_read_user::<[u64; 2]>(self.at + self.index * 16)
                .is_some_and(|iovec| iovec[0] == self.wanted[0] && iovec[1] == self.wanted[1])
    }
}

extern "C" fn next_slot(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `slot_of`.
    let search = unsafe { &mut *context.cast::<SlotSearch>() };
    if search.matches() {
        return 1;
    }
    search.index += 1;
    i64::from(search.index >= search.count)
}

/// Whether a buffer has no references any more.
#[inline(always)]
pub fn is_gone(object: u64) -> bool {
    has!(io_buf_refs) && try_read::<u32>(object + offset!(io_buf_refs)) == Some(0)
}
