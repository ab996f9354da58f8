//! The pages of an object: where they are, what they belong to.

use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;

use crate::base::{
    kernel::{choice, has, offset, read, read32, try_read},
    scratch::Search,
};

/// How many scatterlist entries are stepped over to find one page.
const MAX_SCATTER: u32 = 1 << 16;

/// An array of `struct page *`.
pub const PAGES_ARRAY: u64 = 1;
/// An array of `struct bio_vec`.
pub const PAGES_BVEC: u64 = 2;
/// A scatterlist.
pub const PAGES_SCATTER: u64 = 3;

/// The `struct page` of page `number` of the object; 0 if it cannot be found.
///
/// # Safety
/// `s` as in [`find`].
#[inline(always)]
pub unsafe fn page_at(s: *mut Search, number: u64) -> u64 {
    // SAFETY: `s` as in `find`; all kernel reads are probe reads.
    unsafe {
        let pages = (*s).pages;
        if pages.at == 0 {
            return 0;
        }
        if pages.form == PAGES_ARRAY {
            return read(pages.at + number * 8);
        }
        if pages.form == PAGES_BVEC {
            let mut entry = number;
            if pages.shift > choice!(page_shift) {
                // The first entry may begin inside its folio: bv_offset (at 12) says where.
                let into = u64::from(read32(pages.at + 12)) >> choice!(page_shift);
                entry = (into + number) >> ((pages.shift - choice!(page_shift)) & 31);
            }
            return read(pages.at + entry * 16);
        }
        if number > (*s).counts.scatter_page {
            (*s).scatter_want = number;
            let mut context = s;
            bpf_loop(MAX_SCATTER, next_scatter as *mut c_void, (&raw mut context).cast(), 0);
        }
        if (*s).pages.at == 0 {
            return 0;
        }
        let page = read((*s).pages.at) & !3;
        page + (number - (*s).counts.scatter_page) * offset!(page_size)
    }
}

/// `struct scatterlist` (include/linux/scatterlist.h): page_link, offset, length; the layout is the same in all kernels
/// with 64-bit DMA addresses, and its size of 32 bytes with it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Scatter {
    page_link: u64,
    offset: u32,
    length: u32,
}

/// Steps to the next scatterlist entry, unless this one covers the page that is wanted.
extern "C" fn next_scatter(_i: u32, context: *mut c_void) -> i64 {
    const CHAIN: u64 = 1;
    const LAST: u64 = 2;
    // SAFETY: the context as in `page_at`.
    unsafe {
        let s = *context.cast::<*mut Search>();
        let Some(entry) = try_read::<Scatter>((*s).pages.at) else {
            (*s).pages.at = 0;
            return 1;
        };
        if entry.page_link & CHAIN != 0 {
            (*s).pages.at = entry.page_link & !3;
            return 0;
        }
        let pages = u64::from(entry.length) >> choice!(page_shift);
        if (*s).scatter_want < (*s).counts.scatter_page + pages {
            return 1;
        }
        if entry.page_link & LAST != 0 {
            (*s).pages.at = 0;
            return 1;
        }
        (*s).counts.scatter_page += pages;
        (*s).pages.at += 32;
    }
    0
}

/// The first page of the folio that a page belongs to: see [`page_mapping`].
#[inline(always)]
pub fn page_folio(page: u64) -> u64 {
    let head = read(page + offset!(page_head));
    if head & 1 == 0 { page } else { compound_head(page, head) }
}

/// Where in its file a page is, in bytes, `folio` being the one that it belongs to; `None` if this kernel's pages are not known.
#[inline(always)]
pub fn page_offset(page: u64, folio: u64) -> Option<u64> {
    // Read once: the compiler shall see that nothing is divided by zero.
    let page_size = offset!(page_size);
    if page_size == 0 || !has!(page_state) {
        return None;
    }
    Some((read(folio + offset!(folio_index)) + (page - folio) / page_size) << choice!(page_shift))
}

/// The head of a tail page, by the word that says where it is.
#[inline(always)]
fn compound_head(page: u64, word: u64) -> u64 {
    const LOWEST_MASK: u64 = 0xffff_ffff_0000_0000;
    if word >= LOWEST_MASK { page & word } else { word - 1 }
}

/// `mapping` of the folio that a page belongs to. A tail page's word has bit 0 set and holds the head's address plus one,
/// or, from 7.1 on (8c846c879e22), a mask for the tail's own address, which no address of a page looks like.
#[inline(always)]
pub fn page_mapping(page: u64) -> u64 {
    const WORDS: usize = 4;
    if offset!(page_head) >= WORDS as u64 * 8 || offset!(page_mapping) >= WORDS as u64 * 8 {
        // Never so far: both are among the first words.
        return 0;
    }
    let Some(words) = try_read::<[u64; WORDS]>(page) else { return 0 };
    let word_at = |offset: u64| {
        // SAFETY: within `words`, as just checked.
        unsafe { (&raw const words).cast::<u8>().add(offset as usize).cast::<u64>().read_volatile() }
    };
    let head = word_at(offset!(page_head));
    if head & 1 == 0 {
        word_at(offset!(page_mapping))
    } else {
        read(compound_head(page, head) + offset!(page_mapping))
    }
}

/// By how many pins a page is held, or, of a large folio, the folio, as far as that is counted: of a small page, 1,024 other
/// references look like one. `None` if this kernel's pages are not known.
#[inline(always)]
pub fn page_pins(page: u64) -> Option<u32> {
    /// What a pin adds to the count of references of a small page (`GUP_PIN_COUNTING_BIAS`).
    const BIAS: u32 = 1024;
    if !has!(page_state) {
        return None;
    }
    let folio = page_folio(page);
    let is_large = folio != page || read(page) >> (offset!(page_large) & 63) & 1 != 0;
    if is_large {
        return try_read(folio + offset!(folio_pins));
    }
    let references = try_read::<u32>(page + offset!(page_references))?;
    Some(if references > i32::MAX as u32 { 0 } else { references / BIAS })
}
