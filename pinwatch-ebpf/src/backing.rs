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
use pinwatch_common::{ExtentKey, ExtentRecord, MAX_EXTENTS, counter, doubt, extent_flag, vm};

use crate::{
    by_pages,
    kernel::{choice, copy, current, has, load, load16, load32, offset, read, read_into, read32, zero},
    pages::{Pages, folio_of, mapping_of, page_at, place_of},
    path,
    registry::{EXTENTS, FILES, Scratch, count, mark, store_extent},
};

/// `EBUSY`, as helpers return it.
const EBUSY: i32 = 16;
/// How often a busy VMA look-up is repeated: for some 100 microseconds, in which this CPU does nothing else.
const MAX_RETRIES: u32 = 2048;
/// For so long after its latest use, in nanoseconds, a name in the map of files need not be looked up: user space removes
/// only those that were not used for a minute.
const SURELY_THERE: u64 = 1_000_000_000;

/// State of the walk over the VMAs. It is in the scratch record rather than on the stack: so the verifier knows nothing of
/// its words, and neither follows the loops step by step nor (6.1) deletes what the first step does not need.
#[repr(C)]
pub struct Search {
    pub address: u64,
    pub end: u64,
    pub start: u64,
    pub counts: Counts,
    mapping: u64,
    /// Start and end of the VMA at `address`.
    vma: [u64; 2],
    pub pages: Pages,
    pub scatter_want: u64,
    pub extent: ExtentRecord,
    last: ExtentRecord,
    /// What one page says, where the VMAs are not to be had.
    pub of_page: ExtentRecord,
}

/// What a search begins with at zero.
#[repr(C)]
pub struct Counts {
    pub found: u64,
    retries: u64,
    pub doubt: u64,
    /// The page that the scatterlist entry at hand begins with.
    pub scatter_page: u64,
    /// The number of extents there were, if the first one that is found may go on the last one; 0 otherwise.
    joins: u64,
    /// The first page, if it is of a file or anonymous: the one shared page of zeros, which nobody pins, is neither.
    pub page: u64,
}

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
            match EXTENTS.get_ptr(&key) {
                Some(last) => copy(&raw mut (*s).last, last),
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
            mark(pin, doubt::UNCHECKED);
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
                by_pages::search(scratch);
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
        (*s).extent.offset = ((*s).extent.offset << choice!(page_shift)) + (address - (*s).vma[0]);
        (*s).extent.length = end - address;
        check_page(s);
        if !add(scratch) {
            return 1;
        }
        (*s).address = end;
        i64::from(end >= (*s).end || (*s).counts.found >= u64::from(MAX_EXTENTS))
    }
}

/// Puts the extent in `search.extent` behind those that were found before; false if there is no room.
///
/// # Safety
/// As [`find`].
#[inline(always)]
pub unsafe fn add(scratch: *mut Scratch) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let s = &raw mut (*scratch).search;
        let index = (*s).counts.found;
        let joins = (*s).counts.joins;
        (*s).counts.joins = 0;
        if joins != 0 && goes_on(&raw const (*s).last, &raw const (*s).extent) {
            // What there was is written anew, and longer.
            (*s).last.length += (*s).extent.length;
            if joins == 1 {
                copy(&raw mut (*scratch).pin.first, &raw const (*s).last);
            } else {
                store_extent((*scratch).pin.sequence, joins - 1, &(*s).last);
            }
            return true;
        }
        if index == 0 {
            copy(&raw mut (*scratch).pin.first, &raw const (*s).extent);
        } else if !store_extent((*scratch).pin.sequence, index, &(*s).extent) {
            (*s).counts.doubt |= u64::from(doubt::MAP_FULL);
            return false;
        }
        (*s).counts.found = index + 1;
        true
    }
}

/// Whether an extent begins where another one ends.
///
/// # Safety
/// Both must be valid.
#[inline(always)]
pub unsafe fn goes_on(last: *const ExtentRecord, next: *const ExtentRecord) -> bool {
    // SAFETY: by the caller.
    unsafe {
        (*last).flags == (*next).flags
            && (*last).file.ino == (*next).file.ino
            && (*last).file.dev == (*next).file.dev
            && (*last).file.generation == (*next).file.generation
            && ((*last).flags & extent_flag::FILE == 0 || (*last).offset + (*last).length == (*next).offset)
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
        (*s).mapping = if !has!(page_check) { 0 } else { load(file, offset!(file_mapping)) };
        if !has!(paths) {
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
        if has!(inode_flags) {
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

/// The one extent of a pin of a file, which is known by the address of its `struct file`: what was asked for are offsets in
/// it.
///
/// # Safety
/// `scratch` must be the program's own, and the pin's length and time set.
#[inline(always)]
pub unsafe fn of_file(scratch: *mut Scratch, file: u64, offset: u64) {
    // SAFETY: by the caller.
    unsafe {
        let pin = &raw mut (*scratch).pin;
        if describe_file(scratch, &raw mut (*pin).first, file, offset) {
            (*pin).first.length = (*pin).length;
            (*pin).extents = 1;
        }
    }
}

/// Fills in all of an extent but its length, and looks up the file's name; false if that cannot be done.
///
/// # Safety
/// `scratch` must be the program's own, the pin's time set, and `e` within it.
#[inline(always)]
pub unsafe fn describe_file(scratch: *mut Scratch, e: *mut ExtentRecord, file: u64, offset: u64) -> bool {
    // SAFETY: all kernel reads are probe reads.
    unsafe {
        let inode = read(file + offset!(file_inode));
        if !has!(extents) || !identify(e, inode) {
            mark(&raw mut (*scratch).pin, doubt::UNCHECKED);
            return false;
        }
        (*e).offset = offset;
        (*e).flags = extent_flag::FILE | extent_flag::PAGE_FILE;
        if !has!(paths) {
            return true;
        }
        let key = &raw const (*e).file;
        let dentry = read(file + offset!(file_path) + 8);
        let (parent, hash_len) =
            (read(dentry + offset!(dentry_parent)), read(dentry + offset!(dentry_hash_len)));
        let created = (*scratch).pin.created;
        if let Some(known) = FILES.get_ptr_mut(&*key)
            && (*known).dentry == dentry
            && (*known).parent == parent
            && (*known).hash_len == hash_len
        {
            (*known).used = created;
            return true;
        }
        let name = &raw mut (*scratch).file;
        copy(&raw mut (*scratch).latest, key);
        (*name).dentry = dentry;
        (*name).parent = parent;
        (*name).hash_len = hash_len;
        (*name).used = created;
        (*name).mount = read(file + offset!(file_path));
        (*name).mode = read32(inode + offset!(inode_mode)) & 0xffff;
        if has!(inode_flags) {
            (*name).mode |= read32(inode + offset!(inode_flags)) << 16;
        }
        let sb = read(inode + offset!(inode_sb));
        (*name).magic = read(sb + offset!(sb_magic));
        let fstype = read(read(sb + offset!(sb_type)) + offset!(fstype_name));
        if !path::store(scratch, key, fstype) {
            (*name).used = 0;
            mark(&raw mut (*scratch).pin, doubt::NO_PATH);
        }
        true
    }
}

/// The one extent of a pin of another process's memory, of which only the first page is looked at.
///
/// # Safety
/// As [`of_file`].
#[inline(always)]
pub unsafe fn of_page(scratch: *mut Scratch, page: u64) {
    // SAFETY: all kernel reads are probe reads.
    unsafe {
        let pin = &raw mut (*scratch).pin;
        mark(pin, doubt::FOREIGN);
        let folio = folio_of(page);
        let Some(place) = place_of(page, folio) else {
            mark(pin, doubt::UNCHECKED);
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

/// Fills in which file an inode is; false if it cannot be read.
///
/// # Safety
/// `e` must be valid.
#[inline(always)]
pub unsafe fn identify(e: *mut ExtentRecord, inode: u64) -> bool {
    // SAFETY: by the caller; all kernel reads are probe reads.
    unsafe {
        if !read_into(&raw mut (*e).file.ino, inode + offset!(inode_ino)) {
            return false;
        }
        (*e).file.generation = read32(inode + offset!(inode_generation));
        (*e).file.dev = read32(read(inode + offset!(inode_sb)) + offset!(sb_dev));
        true
    }
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
        let mapping = mapping_of(page);
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
