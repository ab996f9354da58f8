//! Who keeps the anchors of pins, and the leases on files: iterators over the descriptors and mappings of all processes, run when
//! somebody asks.

use aya_ebpf::{
    bindings::{seq_file, task_struct},
    helpers::generated::bpf_loop,
};
use core::ffi::c_void;
use pinwatch_common::via;

use super::{
    anchors::{anchor_at, anchor_of},
    holder_record::{FileRef, emit},
    leases,
};
use crate::{
    base::kernel::{has, load, load16, offset, opaque_zero, read, read16},
    subsystem::io_uring::files::{self, RingFiles, is_ring},
};

/// `S_IFMT`, `S_IFSOCK` (include/uapi/linux/stat.h)
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// include/linux/socket.h
const AF_UNIX: u16 = 1;
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

/// Tells of a file that a task keeps, and of which only the address is known: as an anchor, and for its leases.
#[inline(always)]
fn report(by: FileRef) {
    let inode = read(by.file + offset!(file_inode));
    let anchor = anchor_at(by.file, inode);
    if anchor != 0 {
        emit(&by, anchor);
    } else if has!(leases) {
        let context = read(inode + offset!(inode_leases));
        if context != 0 {
            leases::report(context, FileRef { inode, ..by });
        }
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
    let by = FileRef { seq, task, file, inode, via: via::FD, index: 0, value: u64::from(fd), message: 0 };
    let anchor = anchor_of(private, mode);
    if anchor != 0 {
        emit(&by, anchor);
    }
    if has!(leases) {
        // SAFETY: the inode has its BTF type.
        let context = unsafe { load(inode, offset!(inode_leases)) };
        if context != 0 {
            leases::report(context, by);
        }
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
    report(FileRef { seq, task, file, inode: 0, via: via::MAPPING, index: 0, value: start, message: 0 });
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
                let (via, value) = (via::REGISTERED, i as u64);
                emit(&FileRef { seq, task, file, inode: 0, via, index: 0, value, message: 0 }, anchor);
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
        unsafe { files::for_each(next_registered, (&raw mut registered).cast()) };
    }
}

extern "C" fn next_registered(_step: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `registered`.
    let at = unsafe { &mut *context.cast::<Registered>() };
    let Some(file) = at.files.next() else { return 1 };
    if file != 0 {
        let (via, index) = (via::RING_FILE, at.files.place() as u32);
        let &mut Registered { seq, task, fd: value, .. } = at;
        report(FileRef { seq, task, file, inode: 0, via, index, value, message: 0 });
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
        report(FileRef { seq, task, file, inode: 0, via, index, value, message });
    }
    at.index += 1;
    0
}
