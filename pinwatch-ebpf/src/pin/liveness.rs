//! Liveness check for pins whose release is not hooked: three of their pages are sampled. User space looks now and then whether
//! any of them is still pinned.

use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_loop, bpf_task_pt_regs};
use core::ffi::c_void;
use pinwatch_common::{PageRecord, STACK};

use crate::{
    base::{
        hook::HookCtx,
        kernel::{copy, current, offset, opaque_zero, read, try_read, zero},
        maps::{LIVENESS, look_up},
        scratch::{Sampling, Scratch},
    },
    file::page::{page_folio, page_pins},
};

/// Notes by what the pin in `scratch` is known to be there: for one that has grown, its new last page.
///
/// # Safety
/// `scratch` must be this program's own.
#[inline(always)]
pub unsafe fn sample_call<H>(call: &HookCtx<H>, scratch: *mut Scratch, array: u64, last: u64) {
    // SAFETY: the record is in this program's own scratch space; the helper writes at most what it is told.
    unsafe {
        let samples = &raw mut (*scratch).samples;
        let (search, key) = (&raw mut (*scratch).sampling, (*scratch).pin.sequence);
        *search = Sampling { array, last, next: opaque_zero() };
        match look_up(&LIVENESS, &key) {
            Some(known) => {
                copy(samples, known.as_ptr());
                (*search).next = 2;
            }
            None => {
                zero(samples);
                (*samples).registers = bpf_task_pt_regs(current()) as u64;
                bpf_get_stack(call.ctx, (&raw mut (*samples).stack).cast(), (STACK * 8) as u32, 0);
            }
        }
        sample(scratch, key);
    }
}

/// Notes pages by which a subsystem's pin is known to be there, whose end is not seen: of an array up to the place `last`.
///
/// # Safety
/// As [`sample_call`].
#[inline(always)]
pub unsafe fn sample_pages(scratch: *mut Scratch, array: u64, last: u64) {
    // SAFETY: by the caller.
    unsafe {
        zero(&raw mut (*scratch).samples);
        (*scratch).sampling = Sampling { array, last, next: opaque_zero() };
        sample(scratch, (*scratch).pin.sequence);
    }
}

/// # Safety
/// As [`sample_call`].
#[inline(always)]
unsafe fn sample(scratch: *mut Scratch, key: u64) {
    let mut context = scratch;
    // SAFETY: the callback takes what it gets, which outlives the loop; the record is in this program's own scratch space.
    unsafe {
        bpf_loop(3, next_sample as *mut c_void, (&raw mut context).cast(), 0);
        let _ = LIVENESS.insert(&key, &(*scratch).samples, 0);
    }
}

/// Notes one of the pages.
extern "C" fn next_sample(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `sample`; all kernel reads are probe reads.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let search = &raw mut (*scratch).sampling;
        let which = (*search).next;
        if which > 2 {
            return 1;
        }
        let into = (&raw mut (*scratch).samples.pages).cast::<PageRecord>().add(which as usize);
        // The first, one in the middle, the last.
        let page = read((*search).array + (which * (*search).last / 2) * 8);
        let folio = page_folio(page);
        (*into).page = page;
        (*into).mapping = read(folio + offset!(page_mapping));
        (*into).index = read(folio + offset!(folio_index));
        (*search).next = which + 1;
    }
    0
}

/// Whether a page, which was pinned, can still be: 0 if it is not pinned by anybody, or has become another's. Arguments are
/// a `PageRecord`. Runs by itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/still_pinned")]
extern "C" fn still_pinned(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least three words here.
    let (page, mapping, index) = unsafe { (*arguments, *arguments.add(1), *arguments.add(2)) };
    let folio = page_folio(page);
    // What was cut off from its file is nobody's, and still pinned.
    let now = read(folio + offset!(page_mapping));
    let same = now == mapping && read(folio + offset!(folio_index)) == index;
    // Of memory that is no longer there nothing is pinned.
    i32::from(page_pins(page).unwrap_or(0) != 0 && (same || now == 0))
}

/// Whether the system call is still under way whose registers are there: 1 if so. Runs by itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/in_call")]
extern "C" fn in_call(arguments: *const u64) -> i32 {
    const ENOSYS: i64 = 38;
    // SAFETY: as above.
    let registers = unsafe { *arguments };
    i32::from(try_read::<i64>(registers + offset!(regs_result)) == Some(-ENOSYS))
}
