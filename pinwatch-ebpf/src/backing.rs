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
use pinwatch_common::{ExtentRecord, MAX_EXTENTS, counter, doubt, extent_flag};

use crate::{
    kernel::{copy, current, load, load16, load32, offset, read, read32, try_read, zero},
    path,
    registry::{FILES, Scratch, count, mark, store_extent},
};

/// `VM_SHARED` and `VM_MAYSHARE` (include/linux/mm.h; the values have been the same since 2.6).
const VM_SHARED: u64 = 0x8;
const VM_MAYSHARE: u64 = 0x80;
/// `EBUSY`, as helpers return it.
const EBUSY: i32 = 16;
/// How often a busy VMA look-up is repeated.
const MAX_RETRIES: u32 = 4096;
/// For so long after its latest use, in nanoseconds, a name in the map of files need not be looked up: user space removes
/// only those that were not used for a minute.
const SURELY_THERE: u64 = 1_000_000_000;
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
    /// The first `struct page`; 0 if it was not read yet.
    pub first: u64,
}

/// An array of `struct page *`.
pub const PAGES_ARRAY: u64 = 1;
/// An array of `struct bio_vec`.
pub const PAGES_BVEC: u64 = 2;
/// A scatterlist.
pub const PAGES_SCATTER: u64 = 3;

/// State of the walk over the VMAs. It is in the scratch record rather than on the stack: so the verifier knows nothing of
/// its words, and neither follows the loops step by step nor (6.1) deletes what the first step does not need.
#[repr(C)]
pub struct Search {
    address: u64,
    end: u64,
    start: u64,
    counts: Counts,
    mapping: u64,
    /// Start and end of the VMA at `address`.
    vma: [u64; 2],
    pages: Pages,
    scatter_want: u64,
    extent: ExtentRecord,
}

/// What a search begins with at zero.
#[repr(C)]
struct Counts {
    found: u64,
    retries: u64,
    doubt: u64,
    scatter_page: u64,
}

/// Finds the extents of `scratch.pin`'s range and writes them into it and into the map of extents.
///
/// # Safety
/// `scratch` must be the program's own and the pin's address, length and sequence set.
#[inline(always)]
pub unsafe fn find(scratch: *mut Scratch, pages: &Pages) {
    // SAFETY: `scratch` as above; the callbacks get a pointer that outlives the calls.
    unsafe {
        let (pin, s) = (&raw mut (*scratch).pin, &raw mut (*scratch).search);
        if offset!(vma_end) == 0 {
            // This kernel's VMAs are not known: the pin is shown without its files.
            mark(pin, doubt::UNCHECKED);
            return;
        }
        (*s).start = (*pin).address;
        (*s).address = (*pin).address;
        (*s).end = (*pin).address.wrapping_add((*pin).length);
        zero(&raw mut (*s).counts);
        (*s).pages = *pages;
        let mut scratch = scratch;
        let context = (&raw mut scratch).cast::<c_void>();
        // Nearly all pins have one extent.
        if next_extent(0, context) == 0 {
            bpf_loop(MAX_EXTENTS + MAX_RETRIES, next_extent as *mut c_void, context, 0);
            if (*s).address < (*s).end && (*s).counts.doubt & u64::from(doubt::UNMAPPED) == 0 {
                (*s).counts.doubt |= u64::from(if (*s).counts.retries >= u64::from(MAX_RETRIES) {
                    doubt::BUSY
                } else {
                    doubt::TOO_MANY
                });
            }
        }
        (*pin).extents = (*s).counts.found as u32;
        if (*s).counts.doubt != 0 {
            mark(pin, (*s).counts.doubt as u32);
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
        (*s).extent.offset = ((*s).extent.offset << offset!(page_shift)) + (address - (*s).vma[0]);
        (*s).extent.length = end - address;
        check_page(s);
        let index = (*s).counts.found;
        if index == 0 {
            copy(&raw mut (*scratch).pin.first, &raw const (*s).extent);
        } else if !store_extent((*scratch).pin.sequence, index, &(*s).extent) {
            (*s).counts.doubt |= u64::from(doubt::MAP_FULL);
            return 1;
        }
        (*s).counts.found = index + 1;
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
        let key = &raw const (*e).file;
        let dentry = load(file, offset!(file_path) + 8);
        let parent = load(dentry, offset!(dentry_parent));
        // Two members to the verifier of 6.1, which lets no load cross from one into the other.
        let hash_len = u64::from(load32(dentry, offset!(dentry_hash_len)))
            | u64::from(load32(dentry, offset!(dentry_hash_len) + 4)) << 32;
        let name = &raw mut (*scratch).file;
        let latest = &raw mut (*scratch).latest;
        let created = (*scratch).pin.created;
        if (*name).dentry == dentry
            && (*name).parent == parent
            && (*name).hash_len == hash_len
            && (*latest).ino == (*key).ino
            && (*latest).dev == (*key).dev
            && (*latest).generation == (*key).generation
            && created - (*name).used < SURELY_THERE
        {
            return 0;
        }
        copy(latest, key);
        (*name).dentry = dentry;
        (*name).parent = parent;
        (*name).hash_len = hash_len;
        (*name).used = created;
        if let Some(known) = FILES.get_ptr_mut(&*key)
            && (*known).dentry == (*name).dentry
            && (*known).parent == (*name).parent
            && (*known).hash_len == (*name).hash_len
        {
            (*known).used = created;
            return 0;
        }
        (*name).mount = load(file, offset!(file_path));
        (*name).mode = u32::from(load16(inode, offset!(inode_mode)));
        if offset!(inode_flags) != 0 {
            (*name).mode |= load32(inode, offset!(inode_flags)) << 16;
        }
        (*name).magic = load(sb, offset!(sb_magic));
        let fstype = load(load(sb, offset!(sb_type)), offset!(fstype_name));
        if !path::store(scratch, key, fstype) {
            (*name).used = 0;
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
        if offset!(page_size) == 0 {
            (*s).counts.doubt |= u64::from(doubt::UNCHECKED);
            return;
        }
        let number = ((*s).address >> offset!(page_shift)) - ((*s).start >> offset!(page_shift));
        let page = if number == 0 && (*s).pages.first != 0 { (*s).pages.first } else { page_at(s, number) };
        if page == 0 {
            (*s).counts.doubt |= u64::from(doubt::UNCHECKED);
            return;
        }
        let e = &raw mut (*s).extent;
        let mapping = mapping_of(page);
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
        let pages = u64::from(entry.length) >> offset!(page_shift);
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

/// `mapping` of the folio that a page belongs to. A tail page's word has bit 0 set and holds the head's address plus one,
/// or, from 7.1 on (8c846c879e22), a mask for the tail's own address, which no address of a page looks like.
#[inline(always)]
fn mapping_of(page: u64) -> u64 {
    const LOWEST_MASK: u64 = 0xffff_ffff_0000_0000;
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
        let head = if head >= LOWEST_MASK { page & head } else { head - 1 };
        read(head + offset!(page_mapping))
    }
}
