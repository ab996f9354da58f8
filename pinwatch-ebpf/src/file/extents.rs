//! Extents, however they were found: which file each is of, its name, and where it goes.

use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use pinwatch_common::{ExtentKey, ExtentRecord, FileKey, PinRecord, counter, doubt, extent_flag};

use super::path;
use crate::base::{
    kernel::{copy, has, load, load16, load32, offset, read, read_into, read16, read32},
    maps::{EXTENTS, FILES, count, look_up},
    scratch::Scratch,
};

/// For so long after its latest use, in nanoseconds, a name in the map of files need not be looked up: user space removes
/// only those that were not used for a minute.
const SURELY_THERE: u64 = 1_000_000_000;

/// Puts the extent in `search.extent` behind those that were found before; false if there is no room.
///
/// # Safety
/// `scratch` must be the program's own slot on this CPU.
#[inline(always)]
pub unsafe fn append(scratch: *mut Scratch) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let s = &raw mut (*scratch).search;
        let index = (*s).counts.found;
        let joins = (*s).counts.joins;
        (*s).counts.joins = 0;
        if joins != 0 && continues(&raw const (*s).last, &raw const (*s).extent) {
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
pub unsafe fn continues(last: *const ExtentRecord, next: *const ExtentRecord) -> bool {
    // SAFETY: by the caller.
    unsafe {
        (*last).flags == (*next).flags
            && (*last).file.ino == (*next).file.ino
            && (*last).file.dev == (*next).file.dev
            && (*last).file.generation == (*next).file.generation
            && ((*last).flags & extent_flag::FILE == 0 || (*last).offset + (*last).length == (*next).offset)
    }
}

/// Stores the second or a later extent; false if there is no room.
#[inline(always)]
pub fn store_extent(sequence: u64, index: u64, extent: &ExtentRecord) -> bool {
    let stored = EXTENTS.insert(&ExtentKey { sequence, index }, extent, 0).is_ok();
    if !stored {
        count(counter::EXTENTS_FULL);
    }
    stored
}

/// Removes the second and later extents of a pin.
#[inline(always)]
pub fn remove_extents(sequence: u64, extents: u32) {
    if extents > 1 {
        let mut sequence = sequence;
        // SAFETY: the callback takes a pointer to the sequence number, which outlives the loop.
        unsafe { bpf_loop(extents - 1, remove_extent as *mut c_void, (&raw mut sequence).cast(), 0) };
    }
}

extern "C" fn remove_extent(i: u32, sequence: *mut c_void) -> i64 {
    // SAFETY: see `remove_extents`.
    let sequence = unsafe { *sequence.cast::<u64>() };
    let _ = EXTENTS.remove(&ExtentKey { sequence, index: u64::from(i) + 1 });
    0
}

/// Marks a pin's extents as not exact.
#[inline(always)]
pub fn add_doubt(pin: *mut PinRecord, bits: u32) {
    // SAFETY: the caller's own record.
    unsafe { (*pin).doubt |= bits };
    if bits & doubt::NO_PATH != 0 {
        count(counter::FILES_FULL);
    }
}

/// Which file an inode is.
#[inline(always)]
pub fn file_key(inode: u64) -> FileKey {
    FileKey {
        ino: read(inode + offset!(inode_ino)),
        dev: read32(read(inode + offset!(inode_sb)) + offset!(sb_dev)),
        generation: read32(inode + offset!(inode_generation)),
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

/// How the members of a file, its inode and so on are read.
pub trait Access {
    /// 8 bytes.
    ///
    /// # Safety
    /// As the implementation has it.
    unsafe fn word(base: u64, offset: u64) -> u64;
    /// 8 bytes that are two members to the verifier of 6.1, which lets no load cross from one into the other.
    ///
    /// # Safety
    /// As the implementation has it.
    unsafe fn pair(base: u64, offset: u64) -> u64;
    /// 4 bytes.
    ///
    /// # Safety
    /// As the implementation has it.
    unsafe fn half(base: u64, offset: u64) -> u32;
    /// 2 bytes.
    ///
    /// # Safety
    /// As the implementation has it.
    unsafe fn quarter(base: u64, offset: u64) -> u16;
}

/// By typed loads: the verifier must know what the file is.
pub struct Typed;

impl Access for Typed {
    #[inline(always)]
    unsafe fn word(base: u64, offset: u64) -> u64 {
        // SAFETY: by the caller.
        unsafe { load(base, offset) }
    }

    #[inline(always)]
    unsafe fn pair(base: u64, offset: u64) -> u64 {
        // SAFETY: by the caller.
        unsafe { u64::from(load32(base, offset)) | u64::from(load32(base, offset + 4)) << 32 }
    }

    #[inline(always)]
    unsafe fn half(base: u64, offset: u64) -> u32 {
        // SAFETY: by the caller.
        unsafe { load32(base, offset) }
    }

    #[inline(always)]
    unsafe fn quarter(base: u64, offset: u64) -> u16 {
        // SAFETY: by the caller.
        unsafe { load16(base, offset) }
    }
}

/// By probe reads: any address will do.
pub struct Probed;

impl Access for Probed {
    #[inline(always)]
    unsafe fn word(base: u64, offset: u64) -> u64 {
        read(base + offset)
    }

    #[inline(always)]
    unsafe fn pair(base: u64, offset: u64) -> u64 {
        read(base + offset)
    }

    #[inline(always)]
    unsafe fn half(base: u64, offset: u64) -> u32 {
        read32(base + offset)
    }

    #[inline(always)]
    unsafe fn quarter(base: u64, offset: u64) -> u16 {
        read16(base + offset)
    }
}

/// Fills in the record of a file, and looks up its name, unless both are known; false if there is no room for it. `key` says
/// which file it is.
///
/// # Safety
/// `scratch` must be the program's own slot on this CPU, the pin's time set, `key` valid, and `file`, `inode` and `sb` as `A`
/// wants them.
#[inline(always)]
pub unsafe fn name_file<A: Access>(
    scratch: *mut Scratch,
    key: *const FileKey,
    file: u64,
    inode: u64,
    sb: u64,
) -> bool {
    // SAFETY: by the caller; what is read through a file has BTF types if the file has one.
    unsafe {
        if !has!(paths) {
            return true;
        }
        let dentry = A::word(file, offset!(file_path) + 8);
        let parent = A::word(dentry, offset!(dentry_parent));
        let hash_len = A::pair(dentry, offset!(dentry_hash_len));
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
            return true;
        }
        copy(latest, key);
        (*name).dentry = dentry;
        (*name).parent = parent;
        (*name).hash_len = hash_len;
        (*name).used = created;
        if let Some(mut known) = look_up(&FILES, &*key)
            && known.dentry == (*name).dentry
            && known.parent == (*name).parent
            && known.hash_len == (*name).hash_len
        {
            known.used = created;
            return true;
        }
        (*name).mount = A::word(file, offset!(file_path));
        (*name).mode = u32::from(A::quarter(inode, offset!(inode_mode)));
        if has!(inode_flags) {
            (*name).mode |= A::half(inode, offset!(inode_flags)) << 16;
        }
        (*name).magic = A::word(sb, offset!(sb_magic));
        let fstype = A::word(A::word(sb, offset!(sb_type)), offset!(fstype_name));
        let stored = path::store(scratch, key, fstype);
        if !stored {
            (*name).used = 0;
        }
        stored
    }
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
            add_doubt(&raw mut (*scratch).pin, doubt::UNCHECKED);
            return false;
        }
        (*e).offset = offset;
        (*e).flags = extent_flag::FILE | extent_flag::PAGE_FILE;
        let sb = read(inode + offset!(inode_sb));
        if !name_file::<Probed>(scratch, &raw const (*e).file, file, inode, sb) {
            add_doubt(&raw mut (*scratch).pin, doubt::NO_PATH);
        }
        true
    }
}
