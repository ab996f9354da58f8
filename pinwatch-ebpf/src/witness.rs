//! By what a pin is known to be there whose end nobody sees: three of its pages. User space looks now and then whether any of
//! them is pinned.

use aya_ebpf::{
    helpers::generated::{bpf_get_stack, bpf_loop, bpf_task_pt_regs},
    macros::map,
    maps::HashMap,
};
use core::ffi::c_void;
use pinwatch_common::{PageRecord, STACK, WitnessRecord};

use crate::{
    call::HookCtx,
    kernel::{copy, current, has, offset, opaque_zero, read, try_read, zero},
    pages::folio_of,
    registry::Scratch,
};

/// See `WitnessRecord`.
#[map]
pub static WITNESSES: HashMap<u64, WitnessRecord> = HashMap::with_max_entries(1 << 16, 1);

/// Notes by what the pin in `scratch` is known to be there: for one that has grown, its new last page.
///
/// # Safety
/// `scratch` must be this program's own.
#[inline(always)]
pub unsafe fn witness<H>(call: &HookCtx<H>, scratch: *mut Scratch, array: u64, last: u64) {
    // SAFETY: the record is in this program's own scratch space; the helper writes at most what it is told.
    unsafe {
        let witness = &raw mut (*scratch).witness;
        let (search, key) = (&raw mut (*scratch).witnesses, (*scratch).pin.sequence);
        *search = Witnesses { array, last, next: opaque_zero() };
        match WITNESSES.get_ptr(&key) {
            Some(known) => {
                copy(witness, known);
                (*search).next = 2;
            }
            None => {
                zero(witness);
                (*witness).registers = bpf_task_pt_regs(current()) as u64;
                bpf_get_stack(call.ctx, (&raw mut (*witness).stack).cast(), (STACK * 8) as u32, 0);
            }
        }
        look(scratch, key);
    }
}

/// Notes pages by which a subsystem's pin is known to be there, whose end is not seen: of an array up to the place `last`.
///
/// # Safety
/// As [`witness`].
#[inline(always)]
pub unsafe fn watch_pages(scratch: *mut Scratch, array: u64, last: u64) {
    // SAFETY: by the caller.
    unsafe {
        zero(&raw mut (*scratch).witness);
        (*scratch).witnesses = Witnesses { array, last, next: opaque_zero() };
        look(scratch, (*scratch).pin.sequence);
    }
}

/// # Safety
/// As [`witness`].
#[inline(always)]
unsafe fn look(scratch: *mut Scratch, key: u64) {
    let mut context = scratch;
    // SAFETY: the callback takes what it gets, which outlives the loop; the record is in this program's own scratch space.
    unsafe {
        bpf_loop(3, next_witness as *mut c_void, (&raw mut context).cast(), 0);
        let _ = WITNESSES.insert(&key, &(*scratch).witness, 0);
    }
}

/// State of the walk over a pin's three pages.
#[repr(C)]
pub struct Witnesses {
    array: u64,
    /// The last place in the array.
    last: u64,
    next: u64,
}

/// Notes one of the pages.
extern "C" fn next_witness(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `witness`; all kernel reads are probe reads.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let search = &raw mut (*scratch).witnesses;
        let which = (*search).next;
        if which > 2 {
            return 1;
        }
        let into = (&raw mut (*scratch).witness.pages).cast::<PageRecord>().add(which as usize);
        // The first, one in the middle, the last.
        let page = read((*search).array + (which * (*search).last / 2) * 8);
        let folio = folio_of(page);
        (*into).page = page;
        (*into).mapping = read(folio + offset!(page_mapping));
        (*into).index = read(folio + offset!(folio_index));
        (*search).next = which + 1;
    }
    0
}

/// By how many pins a page is held, or, of a large folio, the folio, as far as that is counted: of a small page, 1,024 other
/// references look like one. `None` if this kernel's pages are not known.
#[inline(always)]
pub fn pins(page: u64) -> Option<u32> {
    /// What a pin adds to the count of references of a small page (`GUP_PIN_COUNTING_BIAS`).
    const BIAS: u32 = 1024;
    if !has!(page_state) {
        return None;
    }
    let folio = folio_of(page);
    let is_large = folio != page || read(page) >> (offset!(page_large) & 63) & 1 != 0;
    if is_large {
        return try_read(folio + offset!(folio_pins));
    }
    let references = try_read::<u32>(page + offset!(page_references))?;
    Some(if references > i32::MAX as u32 { 0 } else { references / BIAS })
}

/// Whether a page, which was pinned, can still be: 0 if it is not pinned by anybody, or has become another's. Arguments are
/// a `PageRecord`. Runs by itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/still_pinned")]
extern "C" fn still_pinned(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least three words here.
    let (page, mapping, index) = unsafe { (*arguments, *arguments.add(1), *arguments.add(2)) };
    let folio = folio_of(page);
    // What was cut off from its file is nobody's, and still pinned.
    let now = read(folio + offset!(page_mapping));
    let same = now == mapping && read(folio + offset!(folio_index)) == index;
    // Of memory that is no longer there nothing is pinned.
    i32::from(pins(page).unwrap_or(0) != 0 && (same || now == 0))
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
