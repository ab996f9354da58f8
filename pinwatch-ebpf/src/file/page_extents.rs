//! Extents by the pages themselves: for as long as another thread is changing the process's mappings, they cannot be looked at,
//! but what is pinned stays what it is. A page knows its file, and where in it it is. Only a file's name it does not know: that
//! must have been seen before.

use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use pinwatch_common::{ExtentRecord, MAX_EXTENTS, doubt, extent_flag};

use super::{
    extents::{add_doubt, append, continues, identify},
    page::{page_at, page_folio, page_offset},
};
use crate::base::{
    kernel::{choice, copy, has, offset, read, read32, zero},
    maps::{FILES, look_up},
    scratch::Scratch,
};

/// So many pages are looked at, 64 MiB: that takes milliseconds, in which this CPU does nothing else.
const MAX_PAGES: u32 = 1 << 14;
/// `HUGETLBFS_MAGIC` (include/uapi/linux/magic.h): places of its pages were counted in huge pages once.
const HUGETLBFS: u64 = 0x9584_58f6;
/// `S_IFMT`, `S_IFREG`
const TYPE: u32 = 0xf000;
const REGULAR: u32 = 0x8000;

/// Goes on from `search.address`, page by page, until a page does not tell what it is of.
///
/// # Safety
/// As `vma_extents::search`, which has filled in `search`.
#[inline(always)]
pub unsafe fn search(scratch: *mut Scratch) {
    if !has!(page_state) {
        return;
    }
    let mut scratch = scratch;
    // SAFETY: by the caller; the callback gets a pointer that outlives the call.
    unsafe {
        zero(&raw mut (*scratch).search.extent);
        bpf_loop(MAX_PAGES, next_page as *mut c_void, (&raw mut scratch).cast(), 0);
        if (*scratch).search.extent.length != 0 {
            append(scratch);
        }
    }
}

/// One page: makes the run in `search.extent` longer, or begins a new one.
extern "C" fn next_page(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `search`.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let s = &raw mut (*scratch).search;
        let address = (*s).address;
        if address >= (*s).end || (*s).counts.found >= u64::from(MAX_EXTENTS) {
            return 1;
        }
        let first = address >> choice!(page_shift);
        let number = first - ((*s).start >> choice!(page_shift));
        let page = page_at(s, number);
        if page == 0 || !describe(scratch, page) {
            return 1;
        }
        if number == 0 {
            (*s).counts.page = page;
        }
        let page_end = (first + 1) << choice!(page_shift);
        let end = if page_end < (*s).end { page_end } else { (*s).end };
        (*s).of_page.length = end - address;
        if (*s).of_page.flags & extent_flag::FILE != 0 {
            (*s).of_page.offset += address - (first << choice!(page_shift));
        }
        if (*s).extent.length != 0 && continues(&raw const (*s).extent, &raw const (*s).of_page) {
            (*s).extent.length += (*s).of_page.length;
        } else {
            if (*s).extent.length != 0 && !append(scratch) {
                zero(&raw mut (*s).extent);
                return 1;
            }
            copy(&raw mut (*s).extent, &raw const (*s).of_page);
        }
        (*s).address = end;
        0
    }
}

/// Puts into `search.of_page` what a page is of; false if it does not tell.
///
/// # Safety
/// As [`search`].
#[inline(always)]
unsafe fn describe(scratch: *mut Scratch, page: u64) -> bool {
    // SAFETY: by the caller; all kernel reads are probe reads.
    unsafe {
        let s = &raw mut (*scratch).search;
        let e = &raw mut (*s).of_page;
        zero::<ExtentRecord>(e);
        let folio = page_folio(page);
        let mapping = read(folio + offset!(page_mapping));
        // The lowest bits tell what it is of; none is a file.
        match mapping & 3 {
            0 if mapping != 0 => {}
            // A page of FS-DAX that two files share has a mere 1 here.
            1 if mapping != 1 => {
                (*e).flags = extent_flag::PAGE_ANON;
                return true;
            }
            _ => return false,
        }
        let inode = read(mapping + offset!(mapping_host));
        let is_huge = read(read(inode + offset!(inode_sb)) + offset!(sb_magic)) == HUGETLBFS;
        if is_huge || read32(inode + offset!(inode_mode)) & TYPE != REGULAR || !identify(e, inode) {
            return false;
        }
        let Some(place) = page_offset(page, folio) else { return false };
        (*e).offset = place;
        (*e).flags = extent_flag::FILE | extent_flag::PAGE_FILE;
        let is_named = match look_up(&FILES, &(*e).file) {
            Some(mut known) => {
                known.used = (*scratch).pin.created;
                // A file that is renamed keeps its dentry.
                let dentry = known.dentry;
                read(dentry + offset!(dentry_parent)) == known.parent
                    && read(dentry + offset!(dentry_hash_len)) == known.hash_len
            }
            None => false,
        };
        if !is_named {
            (*s).counts.doubt |= u64::from(doubt::BUSY);
        }
        true
    }
}

/// The one extent of a pin of another process's memory, of which only the first page is looked at.
///
/// # Safety
/// `scratch` must be the program's own, and the pin's length set.
#[inline(always)]
pub unsafe fn of_first_page(scratch: *mut Scratch, page: u64) {
    // SAFETY: all kernel reads are probe reads.
    unsafe {
        let pin = &raw mut (*scratch).pin;
        add_doubt(pin, doubt::FOREIGN);
        let folio = page_folio(page);
        let Some(place) = page_offset(page, folio) else {
            add_doubt(pin, doubt::UNCHECKED);
            return;
        };
        let e = &raw mut (*pin).first;
        let mapping = read(folio + offset!(page_mapping));
        // The lowest bits tell anonymous memory.
        if mapping & 3 == 0 && mapping != 0 && identify(e, read(mapping + offset!(mapping_host))) {
            (*e).offset = place;
            (*e).flags = extent_flag::FILE | extent_flag::PAGE_FILE;
        } else {
            (*e).flags = extent_flag::PAGE_ANON;
        }
        (*e).length = (*pin).length;
        (*pin).extents = 1;
    }
}
