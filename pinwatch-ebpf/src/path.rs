//! A file's name: the dentries up to the root of its mount, then the mount points, up to the top of the mount tree. So it
//! is the path in the mount namespace of the process that mapped the file.

use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
};
use core::ffi::c_void;
use pinwatch_common::{AGAIN, FileKey, LONG_PATH, LongPath, SHORT_PATH, path_flag};

use crate::{
    kernel::{offset, read, read_into},
    registry::{FILES, LONG_PATHS, SCRATCH},
};

/// More components than `PATH_MAX` has room for, and as many mounts again.
const MAX_STEPS: u32 = 4096;
/// A name is at most 255 bytes long (`NAME_MAX`), so that it always fits into the scratch buffer from here on.
const LAST_START: u64 = LONG_PATH as u64 - 1;

/// What tells whether a name is still the one that was read.
pub struct Name {
    pub dentry: u64,
    pub parent: u64,
    pub hash_len: u64,
}

/// The rest of what is kept of a file.
pub struct About {
    /// `struct vfsmount *`
    pub mount: u64,
    pub mode: u32,
    pub magic: u64,
    /// Address of the file system type's name.
    pub fstype: u64,
}

/// State of the walk.
#[repr(C)]
pub struct Walk {
    dentry: u64,
    mount: u64,
    root: u64,
    position: u64,
    components: u32,
    flags: u32,
    parent: u64,
    name: u64,
    hash_len: u64,
}

/// Reads the path of a file and stores it; false if there is no room.
///
/// # Safety
/// None of its own: all reads are probe reads.
#[inline(always)]
pub unsafe fn store(slot: u32, key: &FileKey, name: &Name, about: &About) -> bool {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else { return false };
    // SAFETY: this program's own slot on this CPU, see SCRATCH.
    unsafe {
        let w = &raw mut (*scratch).walk;
        (*w).dentry = name.dentry;
        (*w).mount = about.mount - offset!(mount_mnt);
        (*w).root = read(about.mount + offset!(vfsmount_root));
        // One by one: the compiler would make a call of memset of them.
        (&raw mut (*w).position).write_volatile(0);
        (&raw mut (*w).components).write_volatile(0);
        (&raw mut (*w).flags).write_volatile(0);
        let mut slot = u64::from(slot);
        bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut slot).cast(), 0);
        let file = &raw mut (*scratch).file;
        (*file).dentry = name.dentry;
        (*file).mount = about.mount;
        (*file).parent = name.parent;
        (*file).hash_len = name.hash_len;
        (*file).magic = about.magic;
        (*file).used = bpf_ktime_get_boot_ns();
        (*file).length = (*w).position as u32;
        (*file).flags = (*w).flags;
        (*file).mode = about.mode;
        (*file).components = (*w).components;
        let fstype = (&raw mut (*file).fstype).cast::<u64>();
        fstype.write(0);
        bpf_probe_read_kernel_str(fstype.cast(), 32, about.fstype as *const c_void);
        let fits = (*w).position <= SHORT_PATH as u64;
        if !fits {
            let long = (&raw const (*file).path).cast::<LongPath>();
            if LONG_PATHS.insert(key, &*long, 0).is_err() {
                return false;
            }
        }
        FILES.insert(key, &*file, 0).is_ok()
    }
}

/// One step up: a dentry's name, or from a mount's root to where it is mounted.
extern "C" fn step(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: the caller's slot number.
    let slot = unsafe { *context.cast::<u64>() } as u32;
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else { return 1 };
    // SAFETY: as in `store`.
    unsafe {
        let w = &raw mut (*scratch).walk;
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
const AGAIN_SLOT: u32 = 31;

/// Reads the path of a dentry once more, for user space, which runs this by itself: arguments are the dentry and the mount
/// that a file's record names. Both may be gone, and the memory be something else's: user space believes the path only
/// if the file is there.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/again")]
extern "C" fn look_again(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least two words here; the rest are probe reads.
    unsafe {
        let dentry = *arguments;
        let about = About { mount: *arguments.add(1), mode: 0, magic: 0, fstype: 0 };
        store(AGAIN_SLOT, &AGAIN, &Name { dentry, parent: 0, hash_len: 0 }, &about);
    }
    0
}
