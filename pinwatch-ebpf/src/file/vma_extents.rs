//! From an address range to extents: which file, where in it, and does the pinned page really belong to it?
//!
//! The VMAs of the range give exact runs at a cost that does not grow with the pages. They describe what is mapped *now*,
//! though, a moment after the pages were pinned. So the first page of each run is looked at too: it is pinned, it cannot
//! have moved. Where it disagrees, the record says so.

use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_find_vma, bpf_loop},
};
use core::ffi::c_void;
use pinwatch_common::{ExtentKey, MAX_EXTENTS, counter, doubt, extent_flag, vm};

use super::{
    extents::{Typed, add_doubt, append, name_file},
    page::{page_at, page_mapping},
    page_extents,
};
use crate::base::{
    kernel::{choice, copy, current, has, load, load32, offset, zero},
    maps::{EXTENTS, count, look_up},
    scratch::{Pages, Scratch, Search},
};

/// `EBUSY`, as helpers return it.
const EBUSY: i32 = 16;
/// How often a busy VMA look-up is repeated: for some 100 microseconds, in which this CPU does nothing else.
const MAX_RETRIES: u32 = 2048;

/// Finds the extents of `scratch.pin`'s range and writes them into it and into the map of extents.
///
/// # Safety
/// `scratch` must be the program's own and the pin's address, length and sequence set.
#[inline(always)]
pub unsafe fn find(scratch: *mut Scratch, pages: &Pages) {
    // SAFETY: by the caller.
    unsafe {
        let (pin, s) = (&raw mut (*scratch).pin, &raw mut (*scratch).search);
        (*s).start = (*pin).address;
        zero(&raw mut (*s).counts);
        search(scratch, pages);
    }
}

/// Begins a search of extents from an address on: of a new pin, or of a further piece of one, whose record is in
/// `scratch.pin` then. If the last extent that it has goes on, that one is made longer.
///
/// # Safety
/// As [`find`].
#[inline(always)]
pub unsafe fn begin(scratch: *mut Scratch, start: u64) {
    // SAFETY: by the caller.
    unsafe {
        let (pin, s) = (&raw mut (*scratch).pin, &raw mut (*scratch).search);
        zero(&raw mut (*s).counts);
        (*s).start = start;
        let extents = u64::from((*pin).extents);
        (*s).counts.found = extents;
        (*s).counts.joins = extents;
        copy(&raw mut (*s).last, &raw const (*pin).first);
        if extents > 1 {
            let key = ExtentKey { sequence: (*pin).sequence, index: extents - 1 };
            match look_up(&EXTENTS, &key) {
                Some(last) => copy(&raw mut (*s).last, last.as_ptr()),
                None => (*s).counts.joins = 0,
            }
        }
    }
}

/// Goes over the VMAs from `search.start` to the pin's end.
///
/// # Safety
/// As [`find`].
#[inline(always)]
pub unsafe fn search(scratch: *mut Scratch, pages: &Pages) {
    // SAFETY: `scratch` as above; the callbacks get a pointer that outlives the calls.
    unsafe {
        let (pin, s) = (&raw mut (*scratch).pin, &raw mut (*scratch).search);
        if !has!(extents) {
            // This kernel's VMAs are not known: the pin is shown without its files.
            add_doubt(pin, doubt::UNCHECKED);
            return;
        }
        (*s).address = (*s).start;
        (*s).end = (*pin).address.wrapping_add((*pin).length);
        (*s).pages = *pages;
        let mut scratch = scratch;
        let context = (&raw mut scratch).cast::<c_void>();
        // Nearly all pins have one extent.
        if next_extent(0, context) == 0 {
            bpf_loop(MAX_EXTENTS + MAX_RETRIES, next_extent as *mut c_void, context, 0);
            if (*s).counts.retries >= u64::from(MAX_RETRIES) {
                page_extents::search(scratch);
            }
            if (*s).address < (*s).end && (*s).counts.doubt & u64::from(doubt::UNMAPPED) == 0 {
                (*s).counts.doubt |= u64::from(if (*s).counts.retries >= u64::from(MAX_RETRIES) {
                    doubt::BUSY
                } else {
                    doubt::TOO_MANY
                });
            }
        }
        (*pin).extents = (*s).counts.found as u32;
        (*pin).page = (*s).counts.page;
        if (*s).counts.doubt != 0 {
            add_doubt(pin, (*s).counts.doubt as u32);
        }
    }
}

/// One step: the VMA at `address`, or one more try to get at it.
extern "C" fn next_extent(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `find`.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let s = &raw mut (*scratch).search;
        zero(&raw mut (*s).extent);
        let error = bpf_find_vma(current(), (*s).address, at_vma as *mut c_void, context, 0) as i32;
        if error == -EBUSY {
            // The helper only tries the lock: another thread is mapping or unmapping.
            (*s).counts.retries += 1;
            count(counter::VMA_RETRIES);
            return i64::from((*s).counts.retries >= u64::from(MAX_RETRIES));
        }
        if error != 0 {
            (*s).counts.doubt |= u64::from(doubt::UNMAPPED);
            return 1;
        }
        let address = (*s).address;
        let vma_end = (*s).vma[1];
        let end = if vma_end < (*s).end { vma_end } else { (*s).end };
        (*s).extent.offset = ((*s).extent.offset << choice!(page_shift)) + (address - (*s).vma[0]);
        (*s).extent.length = end - address;
        check_page(s);
        if !append(scratch) {
            return 1;
        }
        (*s).address = end;
        i64::from(end >= (*s).end || (*s).counts.found >= u64::from(MAX_EXTENTS))
    }
}

/// Called with the VMA and the mmap lock held.
extern "C" fn at_vma(_task: *mut task_struct, vma: *mut c_void, context: *mut c_void) -> i64 {
    let vma = vma as u64;
    // SAFETY: `vma` and all that is loaded through it have BTF types; the context as in `find`.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let s = &raw mut (*scratch).search;
        (*s).vma[0] = load(vma, offset!(vma_start));
        (*s).vma[1] = load(vma, offset!(vma_end));
        let file = load(vma, offset!(vma_file));
        if file == 0 {
            return 0;
        }
        let e = &raw mut (*s).extent;
        (*e).offset = load(vma, offset!(vma_pgoff));
        (*e).flags = extent_flag::FILE;
        let flags = load(vma, offset!(vma_flags));
        if flags & vm::SHARED == 0 {
            (*e).flags |= extent_flag::PRIVATE;
        }
        if flags & (vm::IO | vm::PFNMAP) != 0 {
            (*e).flags |= extent_flag::DEVICE;
        }
        let inode = load(file, offset!(file_inode));
        let sb = load(inode, offset!(inode_sb));
        (*e).file.ino = load(inode, offset!(inode_ino));
        (*e).file.generation = load32(inode, offset!(inode_generation));
        (*e).file.dev = load32(sb, offset!(sb_dev));
        (*s).mapping = if has!(page_check) { load(file, offset!(file_mapping)) } else { 0 };
        if !name_file::<Typed>(scratch, &raw const (*e).file, file, inode, sb) {
            (*s).counts.doubt |= u64::from(doubt::NO_PATH);
        }
    }
    0
}

/// Compares the extent's first page with what its VMA promises.
///
/// # Safety
/// `s` as in [`find`].
#[inline(always)]
unsafe fn check_page(s: *mut Search) {
    // SAFETY: `s` as in `find`; all kernel reads are probe reads.
    unsafe {
        if !has!(page_check) {
            (*s).counts.doubt |= u64::from(doubt::UNCHECKED);
            return;
        }
        let number = ((*s).address >> choice!(page_shift)) - ((*s).start >> choice!(page_shift));
        let page = if number == 0 && (*s).pages.first != 0 { (*s).pages.first } else { page_at(s, number) };
        if page == 0 {
            (*s).counts.doubt |= u64::from(doubt::UNCHECKED);
            return;
        }
        let e = &raw mut (*s).extent;
        let mapping = page_mapping(page);
        if number == 0 && mapping != 0 {
            (*s).counts.page = page;
        }
        let file = (*e).flags & extent_flag::FILE != 0;
        let private = (*e).flags & extent_flag::PRIVATE != 0;
        if mapping & 1 != 0 {
            (*e).flags |= extent_flag::PAGE_ANON;
            if file && !private {
                (*s).counts.doubt |= u64::from(doubt::PAGE_MISMATCH);
            }
        } else if file && mapping == (*s).mapping {
            (*e).flags |= extent_flag::PAGE_FILE;
        } else if mapping != 0 || (file && !private) {
            // A page without a mapping is the zero page, or was truncated meanwhile.
            (*s).counts.doubt |= u64::from(doubt::PAGE_MISMATCH);
        }
    }
}
