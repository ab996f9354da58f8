//! A file's name: the dentries up to the root of its mount, then the mount points, up to the top of the mount tree. So it
//! is the path in the mount namespace of the process that mapped the file.

use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
};
use core::ffi::c_void;
use pinwatch_common::{
    AGAIN, FileKey, LONG_PATH, LongPath, SHORT_PATH, path_flag, subsystems::USER_SCRATCH_SLOT,
};

use crate::base::{
    kernel::{offset, read, read_into},
    maps::{FILES, LONG_PATHS},
    scratch::{SCRATCH, Scratch},
};

/// More components than `PATH_MAX` has room for, and as many mounts again.
const MAX_STEPS: u32 = 4096;
/// A name is at most 255 bytes long (`NAME_MAX`), so that it always fits into the scratch buffer from here on.
const LAST_START: u64 = LONG_PATH as u64 - 1;

/// Reads the path of the dentry and mount that `scratch.file` begins with, and stores that record; false if there is no room.
/// `fstype` is the address of the file system type's name.
///
/// # Safety
/// `scratch` must be the program's own slot on this CPU, see `base::scratch`, and `key` valid.
#[inline(always)]
pub unsafe fn store(scratch: *mut Scratch, key: *const FileKey, fstype: u64) -> bool {
    // SAFETY: by the caller; reads are probe reads.
    unsafe {
        let w = &raw mut (*scratch).path;
        let file = &raw mut (*scratch).file;
        (*w).dentry = (*file).dentry;
        (*w).mount = (*file).mount - offset!(mount_mnt);
        (*w).root = read((*file).mount + offset!(vfsmount_root));
        // One by one: the compiler would make a call of memset of them.
        (&raw mut (*w).position).write_volatile(0);
        (&raw mut (*w).components).write_volatile(0);
        (&raw mut (*w).flags).write_volatile(0);
        let mut context = scratch;
        bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut context).cast(), 0);
        (*file).length = (*w).position as u32;
        (*file).flags = (*w).flags;
        (*file).components = (*w).components;
        let into = (&raw mut (*file).fstype).cast::<u64>();
        into.write(0);
        bpf_probe_read_kernel_str(into.cast(), 32, fstype as *const c_void);
        let fits = (*w).position <= SHORT_PATH as u64;
        if !fits {
            let long = (&raw const (*file).path).cast::<LongPath>();
            if LONG_PATHS.insert(&*key, &*long, 0).is_err() {
                return false;
            }
        }
        FILES.insert(&*key, &*file, 0).is_ok()
    }
}

/// One step up: a dentry's name, or from a mount's root to where it is mounted.
extern "C" fn step(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: as in `store`.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let w = &raw mut (*scratch).path;
        let dentry = (*w).dentry;
        if dentry == (*w).root {
            let parent = read((*w).mount + offset!(mount_parent));
            if parent == (*w).mount || parent == 0 {
                (*w).flags |= path_flag::ABSOLUTE;
                return 1;
            }
            (*w).dentry = read((*w).mount + offset!(mount_mountpoint));
            (*w).mount = parent;
            (*w).root = read(parent + offset!(mount_mnt) + offset!(vfsmount_root));
            return 0;
        }
        if !read_into(&raw mut (*w).parent, dentry + offset!(dentry_parent))
            || !read_into(&raw mut (*w).hash_len, dentry + offset!(dentry_hash_len))
            || !read_into(&raw mut (*w).name, dentry + offset!(dentry_name))
        {
            (*w).flags |= path_flag::FAULT;
            return 1;
        }
        let position = (*w).position;
        let length = ((*w).hash_len >> 32) & 255;
        if position > LAST_START {
            (*w).flags |= path_flag::CUT;
            return 1;
        }
        let to = (&raw mut (*scratch).file.path).cast::<u8>().add(position as usize);
        bpf_probe_read_kernel(to.cast(), length as u32, (*w).name as *const c_void);
        to.add(length as usize).write(0);
        (*w).position = position + length + 1;
        (*w).components += 1;
        if (*w).parent == dentry {
            (*w).flags |= path_flag::DETACHED;
            return 1;
        }
        (*w).dentry = (*w).parent;
    }
    0
}

/// Scratch slot of [`look_again`], which no hook uses.
const AGAIN_SLOT: u32 = USER_SCRATCH_SLOT;

/// Reads the path of a dentry once more, for user space, which runs this by itself: arguments are the dentry and the mount
/// that a file's record names. Both may be gone, and the memory be something else's: user space believes the path only
/// if the file is there.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/again")]
extern "C" fn look_again(arguments: *const u64) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(AGAIN_SLOT) else { return 0 };
    // SAFETY: the context of a raw tracepoint is an array of at least two words here; the slot is this program's own.
    unsafe {
        let file = &raw mut (*scratch).file;
        (*file).dentry = *arguments;
        (*file).mount = *arguments.add(1);
        (*file).parent = 0;
        (*file).hash_len = 0;
        (*file).magic = 0;
        (*file).mode = 0;
        (*file).used = bpf_ktime_get_boot_ns();
        store(scratch, &AGAIN, 0);
    }
    0
}
