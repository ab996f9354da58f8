//! From an address range to extents: which file, where in it, and does the pinned page really belong to it?
//!
//! The VMAs of the range give exact runs at a cost that does not grow with the pages. They describe what is mapped *now*,
//! though, a moment after the pages were pinned. So the first page of each run is looked at too: it is pinned, it cannot
//! have moved. Where it disagrees, the record says so.

use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_find_vma, bpf_loop},
};
use core::{ffi::c_void, mem::MaybeUninit};
use pinwatch_common::{ExtentRecord, FileKey, MAX_EXTENTS, PinRecord, counter, doubt, extent_flag};

use crate::{
    kernel::{
        copy, current, load, load16, load32, obscure, offset, opaque_zero, read, read32, try_read, zero,
    },
    path,
    registry::{FILES, SCRATCH, count, mark, store_extent},
};

/// `VM_SHARED` and `VM_MAYSHARE` (include/linux/mm.h; the values have been the same since 2.6).
const VM_SHARED: u64 = 0x8;
const VM_MAYSHARE: u64 = 0x80;
/// `EBUSY`, as helpers return it.
const EBUSY: i32 = 16;
/// How often a busy VMA look-up is repeated.
const MAX_RETRIES: u32 = 4096;
/// How many scatterlist entries are stepped over to find one page.
const MAX_SCATTER: u32 = 1 << 16;

/// Where an object keeps its pages, so that the one at an extent's start can be found.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Pages {
    /// `PAGES_*`
    pub form: u64,
    /// Address of the array or of the first scatterlist entry; 0 if it could not be found.
    pub at: u64,
    /// For bio_vecs: log2 of the folio size, when all entries but the first cover one folio each.
    pub shift: u64,
}

/// An array of `struct page *`.
pub const PAGES_ARRAY: u64 = 1;
/// An array of `struct bio_vec`.
pub const PAGES_BVEC: u64 = 2;
/// A scatterlist.
pub const PAGES_SCATTER: u64 = 3;

/// State of the walk over the VMAs.
#[repr(C)]
struct Search {
    address: u64,
    end: u64,
    start: u64,
    found: u64,
    sequence: u64,
    slot: u64,
    retries: u64,
    doubt: u64,
    mapping: u64,
    /// Start and end of the VMA at `address`.
    vma: [u64; 2],
    pages: Pages,
    scatter_page: u64,
    scatter_want: u64,
    extent: ExtentRecord,
}

/// Finds the extents of `pin`'s range and writes them into it and into the map of extents.
///
/// # Safety
/// `pin` must be valid and its address, length and sequence set.
#[inline(always)]
pub unsafe fn find(slot: u32, pin: *mut PinRecord, pages: &Pages) {
    if offset!(vma_end) == 0 {
        // This kernel's VMAs are not known: the pin is shown without its files.
        mark(pin, doubt::UNCHECKED);
        return;
    }
    let mut search = MaybeUninit::<Search>::uninit();
    let s = search.as_mut_ptr();
    // SAFETY: all of the state is zeroed first; the callback gets a pointer that outlives the loop.
    unsafe {
        // All of it unknown to the verifier, see `opaque_zero`: newer kernels follow a loop's steps one by one until a
        // step begins with nothing that was not possible before. Nor may two words be known to be equal: hence one load
        // for each.
        obscure(s);
        (*s).start = (&raw const (*pin).address).read_volatile();
        (*s).address = (&raw const (*pin).address).read_volatile();
        (*s).end = (&raw const (*pin).address).read_volatile().wrapping_add((*pin).length);
        (*s).sequence = (*pin).sequence;
        (*s).slot = u64::from(slot);
        (*s).pages = *pages;
        bpf_loop(MAX_EXTENTS + MAX_RETRIES, next_extent as *mut c_void, s.cast(), 0);
        if (*s).address < (*s).end && (*s).doubt & u64::from(doubt::UNMAPPED) == 0 {
            (*s).doubt |=
                u64::from(if (*s).retries >= u64::from(MAX_RETRIES) { doubt::BUSY } else { doubt::TOO_MANY });
        }
        (*pin).extents = (*s).found as u32;
        mark(pin, (*s).doubt as u32);
    }
}

/// One step: the VMA at `address`, or one more try to get at it.
extern "C" fn next_extent(_i: u32, context: *mut c_void) -> i64 {
    let s = context.cast::<Search>();
    // SAFETY: see `find`.
    unsafe {
        zero(&raw mut (*s).extent);
        let error = bpf_find_vma(current(), (*s).address, at_vma as *mut c_void, context, 0) as i32;
        if error == -EBUSY {
            // The helper only tries the lock: another thread is mapping or unmapping.
            (*s).retries += 1;
            count(counter::VMA_RETRIES);
            return i64::from((*s).retries >= u64::from(MAX_RETRIES));
        }
        if error != 0 {
            (*s).doubt |= u64::from(doubt::UNMAPPED);
            return 1;
        }
        let address = (*s).address;
        let vma_end = (*s).vma[1];
        let end = if vma_end < (*s).end { vma_end } else { (*s).end };
        (*s).extent.offset = ((*s).extent.offset << offset!(page_shift)) + (address - (*s).vma[0]);
        (*s).extent.length = end - address;
        check_page(s);
        let index = (*s).found;
        if index == 0 {
            let Some(scratch) = SCRATCH.get_ptr_mut((*s).slot as u32) else { return 1 };
            copy(&raw mut (*scratch).pin.first, &raw const (*s).extent);
        } else if !store_extent((*s).sequence, index, &(*s).extent) {
            (*s).doubt |= u64::from(doubt::MAP_FULL);
            return 1;
        }
        (*s).found = index + 1;
        // Not `end` itself: the verifier would know it to be equal to another word, see `find`.
        (*s).address = address + (&raw const (*s).extent.length).read_volatile();
        i64::from(end >= (*s).end || (*s).found >= u64::from(MAX_EXTENTS))
    }
}

/// Called with the VMA and the mmap lock held.
extern "C" fn at_vma(_task: *mut task_struct, vma: *mut c_void, context: *mut c_void) -> i64 {
    let s = context.cast::<Search>();
    let vma = vma as u64;
    // SAFETY: `vma` and all that is loaded through it have BTF types; `s` as in `find`.
    unsafe {
        (*s).vma[0] = load(vma, offset!(vma_start));
        (*s).vma[1] = load(vma, offset!(vma_end));
        let file = load(vma, offset!(vma_file));
        if file == 0 {
            return 0;
        }
        let e = &raw mut (*s).extent;
        (*e).offset = load(vma, offset!(vma_pgoff));
        (*e).flags = extent_flag::FILE;
        if load(vma, offset!(vma_flags)) & (VM_SHARED | VM_MAYSHARE) == 0 {
            (*e).flags |= extent_flag::PRIVATE;
        }
        let inode = load(file, offset!(file_inode));
        let sb = load(inode, offset!(inode_sb));
        (*e).file.ino = load(inode, offset!(inode_ino));
        (*e).file.generation = load32(inode, offset!(inode_generation));
        (*e).file.dev = load32(sb, offset!(sb_dev));
        (*s).mapping = if offset!(page_size) == 0 { 0 } else { load(file, offset!(file_mapping)) };
        if offset!(dentry_name) == 0 {
            return 0;
        }
        let key = FileKey { ino: (*e).file.ino, dev: (*e).file.dev, generation: (*e).file.generation };
        let dentry = load(file, offset!(file_path) + 8);
        let name = path::Name {
            dentry,
            parent: load(dentry, offset!(dentry_parent)),
            // Two members to the verifier of 6.1, which lets no load cross from one into the other.
            hash_len: u64::from(load32(dentry, offset!(dentry_hash_len)))
                | u64::from(load32(dentry, offset!(dentry_hash_len) + 4)) << 32,
        };
        if let Some(known) = FILES.get_ptr_mut(&key)
            && (*known).dentry == name.dentry
            && (*known).parent == name.parent
            && (*known).hash_len == name.hash_len
        {
            (*known).used = aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns();
            return 0;
        }
        let about = path::About {
            mount: load(file, offset!(file_path)),
            mode: u32::from(load16(inode, offset!(inode_mode))),
            magic: load(sb, offset!(sb_magic)),
            fstype: load(load(sb, offset!(sb_type)), offset!(fstype_name)),
        };
        if !path::store((*s).slot as u32, &key, &name, &about) {
            (*s).doubt |= u64::from(doubt::NO_PATH);
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
        if offset!(page_size) == 0 {
            (*s).doubt |= u64::from(doubt::UNCHECKED);
            return;
        }
        let number = ((*s).address >> offset!(page_shift)) - ((*s).start >> offset!(page_shift));
        let page = page_at(s, number);
        if page == 0 {
            (*s).doubt |= u64::from(doubt::UNCHECKED);
            return;
        }
        let e = &raw mut (*s).extent;
        let mapping = read(head_of(page) + offset!(page_mapping));
        let file = (*e).flags & extent_flag::FILE != 0;
        let private = (*e).flags & extent_flag::PRIVATE != 0;
        if mapping & 1 != 0 {
            (*e).flags |= extent_flag::PAGE_ANON;
            if file && !private {
                (*s).doubt |= u64::from(doubt::PAGE_MISMATCH);
            }
        } else if file && mapping == (*s).mapping {
            (*e).flags |= extent_flag::PAGE_FILE;
        } else if mapping != 0 || (file && !private) {
            // A page without a mapping is the zero page, or was truncated meanwhile.
            (*s).doubt |= u64::from(doubt::PAGE_MISMATCH);
        }
    }
}

/// The `struct page` of page `number` of the object; 0 if it cannot be found.
///
/// # Safety
/// `s` as in [`find`].
#[inline(always)]
unsafe fn page_at(s: *mut Search, number: u64) -> u64 {
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
            if pages.shift > offset!(page_shift) {
                // The first entry may begin inside its folio: bv_offset (at 12) says where.
                let into = u64::from(read32(pages.at + 12)) >> offset!(page_shift);
                entry = (into + number) >> ((pages.shift - offset!(page_shift)) & 31);
            }
            return read(pages.at + entry * 16);
        }
        if number > (*s).scatter_page {
            (*s).scatter_want = number;
            bpf_loop(MAX_SCATTER, next_scatter as *mut c_void, s.cast(), 0);
        }
        if (*s).pages.at == 0 {
            return 0;
        }
        let page = read((*s).pages.at) & !3;
        page + (number - (*s).scatter_page) * offset!(page_size)
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
    let s = context.cast::<Search>();
    // SAFETY: `s` as in `find`.
    unsafe {
        let Some(entry) = try_read::<Scatter>((*s).pages.at) else {
            (*s).pages.at = 0;
            return 1;
        };
        if entry.page_link & CHAIN != 0 {
            (*s).pages.at = entry.page_link & !3;
            return 0;
        }
        let pages = u64::from(entry.length) >> offset!(page_shift);
        if (*s).scatter_want < (*s).scatter_page + pages {
            return 1;
        }
        if entry.page_link & LAST != 0 {
            (*s).pages.at = 0;
            return 1;
        }
        // Sums of which the verifier would know a little more at every step, for ever, see `find`.
        (*s).scatter_page = ((*s).scatter_page + pages) | opaque_zero();
        (*s).pages.at = ((*s).pages.at + 32) | opaque_zero();
    }
    0
}

/// The head of the folio that a page belongs to. A tail page's word has bit 0 set and holds the head's address plus one,
/// or, from 7.1 on (8c846c879e22), a mask for the tail's own address, which no address of a page looks like.
#[inline(always)]
fn head_of(page: u64) -> u64 {
    const LOWEST_MASK: u64 = 0xffff_ffff_0000_0000;
    let word = read(page + offset!(page_head));
    if word & 1 == 0 {
        page
    } else if word >= LOWEST_MASK {
        page & word
    } else {
        word - 1
    }
}
