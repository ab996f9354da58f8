//! Who keeps the anchors of pins: iterators over the descriptors and mappings of all processes, run when somebody asks.
//!
//! An anchor is recognised by what its `struct file` has in `private_data`: that is the very object that the pins were
//! recorded with (a ring, an `ib_uverbs_file`), or a socket that leads to it. User space says which are asked for, in
//! `ANCHORS`: all other files cost one look-up.

use aya_ebpf::{
    bindings::{seq_file, task_struct},
    helpers::generated::{bpf_loop, bpf_seq_write},
    macros::map,
    maps::HashMap,
};
use core::{ffi::c_void, mem::MaybeUninit};
use pinwatch_common::{HolderRecord, ModuleLayout, via};

use crate::kernel::{copy_leader, has, load, load16, load32, offset, opaque_zero, read, read32, try_read};
use crate::leases::{self, Kept};
use crate::registry::MODULE_LAYOUT;
use crate::ring_files::{self, RingFiles, is_ring};

/// The anchors that are asked for.
#[map]
static ANCHORS: HashMap<u64, u32> = HashMap::with_max_entries(1 << 16, 1);

/// `S_IFMT`, `S_IFSOCK` (include/uapi/linux/stat.h)
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// include/linux/socket.h
const AF_UNIX: u16 = 1;
const AF_XDP: u16 = 44;
/// `IO_RINGFD_REG_MAX` (include/linux/io_uring_types.h)
const REGISTERED_RINGS: usize = 16;
/// Messages and files in messages that are looked at for one socket: `SCM_MAX_FD` is 253.
const MAX_STEPS: u32 = 8192;

#[repr(C)]
struct Meta {
    seq: *mut seq_file,
    session: u64,
    number: u64,
}

/// Context of `iter/task_file` (kernel/bpf/task_iter.c).
#[repr(C)]
struct TaskFile {
    meta: *mut Meta,
    task: *mut task_struct,
    fd: u32,
    padding: u32,
    file: *mut c_void,
}

/// Context of `iter/task_vma`.
#[repr(C)]
struct TaskVma {
    meta: *mut Meta,
    task: *mut task_struct,
    vma: *mut c_void,
}

/// Context of `iter/task`.
#[repr(C)]
struct Task {
    meta: *mut Meta,
    task: *mut task_struct,
}

/// One way in which a task keeps an anchor.
pub struct Found {
    pub anchor: u64,
    pub via: u32,
    pub value: u64,
    pub message: u64,
    pub index: u32,
}

#[inline(always)]
fn is_anchor(object: u64) -> bool {
    object != 0 && ANCHORS.get_ptr(&object).is_some()
}

#[inline(always)]
fn read16(address: u64) -> u16 {
    try_read(address).unwrap_or(0)
}

/// The anchor that a file is; 0 if it is none.
#[inline(always)]
fn anchor_of(private: u64, mode: u16) -> u64 {
    if is_anchor(private) {
        return private;
    }
    if mode & S_IFMT != S_IFSOCK {
        return container_of(private);
    }
    if !has!(xdp_sock_umem) {
        return 0;
    }
    let socket = read(private + offset!(socket_sk));
    if read16(socket + offset!(sock_family)) != AF_XDP {
        return 0;
    }
    let mut umem = read(socket + offset!(xdp_sock_umem));
    if umem == 0 {
        let pool = read(socket + offset!(xdp_sock_pool));
        umem = if pool == 0 { 0 } else { read(pool + offset!(xdp_pool_umem)) };
    }
    if is_anchor(umem) { umem } else { 0 }
}

/// The VFIO container that a group's or a device's file keeps; 0 if it is neither. What kind of file it is nobody says, so
/// that this is read of any file's object.
#[inline(always)]
fn container_of(private: u64) -> u64 {
    let Some(layout) = MODULE_LAYOUT.get_ptr(0) else { return 0 };
    // SAFETY: a live map value.
    let layout = unsafe { &*layout };
    if private == 0 || layout.vfio_watched == 0 || layout.has.vfio_group_next == 0 {
        return 0;
    }
    let container = container_of_group(private, layout);
    if container != 0 {
        return container;
    }
    let device =
        if layout.has.vfio_file_device == 0 { private } else { read(private + layout.vfio_file_device) };
    container_of_group(read(device + layout.vfio_device_group), layout)
}

/// The container of a group; 0 if this is none. The address of a container that is asked for may be anywhere, in our own
/// maps too; but what is a group is in a list of the container's groups by its own address.
#[inline(always)]
fn container_of_group(group: u64, layout: &ModuleLayout) -> u64 {
    let container = read(group + layout.vfio_group_container);
    if !is_anchor(container) {
        return 0;
    }
    let entry = group + layout.vfio_group_next;
    // `prev` of the entry that comes next
    if read(read(entry) + 8) == entry { container } else { 0 }
}

/// As [`anchor_of`], for a file whose address is all that is known.
#[inline(always)]
fn anchor_at(file: u64, inode: u64) -> u64 {
    let private = read(file + offset!(file_private));
    anchor_of(private, read16(inode + offset!(inode_mode)))
}

/// Tells of a file that a task keeps, and of which only the address is known: as an anchor, and for its leases.
#[inline(always)]
fn keeps(kept: Kept) {
    let inode = read(kept.file + offset!(file_inode));
    let anchor = anchor_at(kept.file, inode);
    if anchor != 0 {
        let Kept { seq, task, via, index, value, message, .. } = kept;
        tell(seq, task, &Found { anchor, via, value, message, index });
    } else if has!(leases) {
        let context = read(inode + offset!(inode_leases));
        if context != 0 {
            leases::look(context, Kept { inode, ..kept });
        }
    }
}

#[inline(always)]
pub fn tell(seq: *mut seq_file, task: u64, found: &Found) {
    let mut record = MaybeUninit::<HolderRecord>::uninit();
    let at = record.as_mut_ptr();
    // SAFETY: all of the record is written; `task` has its BTF type, and so has its leader.
    unsafe {
        (*at).anchor = found.anchor;
        (*at).value = found.value;
        (*at).message = found.message;
        let leader = copy_leader(task, &raw mut (*at).start, &raw mut (*at).comm);
        (*at).pid = load32(leader, offset!(task_tgid));
        (*at).uid = read32(load(task, offset!(task_cred)) + offset!(cred_euid));
        (*at).via = found.via;
        (*at).index = found.index;
        bpf_seq_write(seq, at.cast(), size_of::<HolderRecord>() as u32);
    }
}

/// Descriptors, and messages that wait in a socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn holders_files(context: *const TaskFile) -> i32 {
    // SAFETY: the context of this kind of iterator.
    let (seq, task, fd, file) =
        unsafe { ((*(*context).meta).seq, (*context).task, (*context).fd, (*context).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    let (task, file) = (task as u64, file as u64);
    // SAFETY: the file and its inode have BTF types.
    let (private, inode, mode) = unsafe {
        let inode = load(file, offset!(file_inode));
        (load(file, offset!(file_private)), inode, load16(inode, offset!(inode_mode)))
    };
    if has!(leases) {
        // SAFETY: the inode has its BTF type.
        let context = unsafe { load(inode, offset!(inode_leases)) };
        if context != 0 {
            let value = u64::from(fd);
            leases::look(context, Kept { seq, task, file, inode, via: via::FD, index: 0, value, message: 0 });
        }
    }
    let anchor = anchor_of(private, mode);
    if anchor != 0 {
        tell(seq, task, &Found { anchor, via: via::FD, value: u64::from(fd), message: 0, index: 0 });
    }
    // SAFETY: the file has its BTF type.
    let operations = unsafe { load(file, offset!(file_operations)) };
    if is_ring(operations) {
        registered(seq, task, private, u64::from(fd));
    } else if anchor == 0 && mode & S_IFMT == S_IFSOCK {
        let socket = read(private + offset!(socket_sk));
        if read16(socket + offset!(sock_family)) == AF_UNIX {
            in_flight(seq, task, fd, socket + offset!(sock_receive_queue));
        }
    }
    0
}

/// Mappings.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_vma")]
extern "C" fn holders_mappings(context: *const TaskVma) -> i32 {
    // SAFETY: the context of this kind of iterator.
    let (seq, task, vma) = unsafe { ((*(*context).meta).seq, (*context).task, (*context).vma) };
    if task.is_null() || vma.is_null() {
        return 0;
    }
    let (task, vma) = (task as u64, vma as u64);
    // SAFETY: the VMA has its BTF type.
    let (start, file) = unsafe { (load(vma, offset!(vma_start)), load(vma, offset!(vma_file))) };
    if file == 0 {
        return 0;
    }
    keeps(Kept { seq, task, file, inode: 0, via: via::MAPPING, index: 0, value: start, message: 0 });
    if is_ring(read(file + offset!(file_operations))) {
        registered(seq, task, read(file + offset!(file_private)), via::NO_FD);
    }
    0
}

/// Rings that a thread has registered with itself (`IORING_REGISTER_RING_FDS`): they outlive their descriptors.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn holders_rings(context: *const Task) -> i32 {
    // SAFETY: the context of this kind of iterator.
    let (seq, task) = unsafe { ((*(*context).meta).seq, (*context).task) };
    if task.is_null() || !has!(task_io_uring) || !has!(io_task_rings) {
        return 0;
    }
    let task = task as u64;
    // SAFETY: the task has its BTF type.
    let rings = unsafe { load(task, offset!(task_io_uring)) };
    if rings == 0 {
        return 0;
    }
    let at = rings + offset!(io_task_rings);
    let mut i = 0;
    while i < REGISTERED_RINGS {
        let file = read(at + i as u64 * 8);
        if file != 0 {
            let anchor = anchor_at(file, read(file + offset!(file_inode)));
            if anchor != 0 {
                tell(
                    seq,
                    task,
                    &Found { anchor, via: via::REGISTERED, value: i as u64, message: 0, index: 0 },
                );
            }
            // Only rings can be registered there.
            registered(seq, task, read(file + offset!(file_private)), via::NO_FD);
        }
        i += 1;
    }
    0
}

/// Where a walk over a ring's registered files is.
#[repr(C)]
struct Registered {
    files: RingFiles,
    seq: *mut seq_file,
    task: u64,
    fd: u64,
}

/// Anchors among the files that a ring of this task has registered.
#[inline(always)]
fn registered(seq: *mut seq_file, task: u64, ring: u64, fd: u64) {
    let mut registered = Registered { files: RingFiles::of(ring), seq, task, fd };
    if !registered.files.is_empty() {
        // SAFETY: the callback takes what it gets, which outlives the loop.
        unsafe { ring_files::walk(next_registered, (&raw mut registered).cast()) };
    }
}

extern "C" fn next_registered(_step: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `registered`.
    let at = unsafe { &mut *context.cast::<Registered>() };
    let Some(file) = at.files.next() else { return 1 };
    if file != 0 {
        let (via, index) = (via::RING_FILE, at.files.place() as u32);
        let &mut Registered { seq, task, fd: value, .. } = at;
        keeps(Kept { seq, task, file, inode: 0, via, index, value, message: 0 });
    }
    0
}

/// Where a walk over a socket's messages and their files is.
#[repr(C)]
struct Messages {
    seq: *mut seq_file,
    task: u64,
    fd: u64,
    queue: u64,
    message: u64,
    files: u64,
    count: u64,
    index: u64,
}

/// Descriptors in messages that wait to be received.
#[inline(always)]
fn in_flight(seq: *mut seq_file, task: u64, fd: u32, queue: u64) {
    let first = read(queue);
    if first == 0 || first == queue {
        return;
    }
    let mut messages = Messages {
        seq,
        task,
        fd: u64::from(fd),
        queue,
        message: queue | opaque_zero(),
        files: opaque_zero(),
        count: opaque_zero(),
        index: opaque_zero(),
    };
    // SAFETY: the callback gets a pointer that outlives the loop.
    unsafe { bpf_loop(MAX_STEPS, next_in_flight as *mut c_void, (&raw mut messages).cast(), 0) };
}

extern "C" fn next_in_flight(_step: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `in_flight`.
    let at = unsafe { &mut *context.cast::<Messages>() };
    if at.index >= at.count {
        at.message = read(at.message);
        if at.message == 0 || at.message == at.queue {
            return 1;
        }
        at.index = 0;
        at.files = read(at.message + offset!(skb_cb) + offset!(unix_parms_fp));
        at.count = if at.files == 0 { 0 } else { u64::from(read16(at.files + offset!(fp_list_count))) };
        return 0;
    }
    let file = read(at.files + offset!(fp_list_files) + at.index * 8);
    if file != 0 {
        let (via, index) = (via::IN_FLIGHT, at.index as u32);
        let &mut Messages { seq, task, fd: value, message, .. } = at;
        keeps(Kept { seq, task, file, inode: 0, via, index, value, message });
    }
    at.index += 1;
    0
}
