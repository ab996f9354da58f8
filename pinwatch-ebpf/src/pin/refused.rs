//! Pins that the kernel refused: who asked for them, and what there is to know of the reason.
//!
//! The first mapping of the range is looked for that could be the reason: one that may not be written to, or of a file that is
//! not in memory only. Why it is refused is for user space to say.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_find_vma, bpf_ktime_get_boot_ns, bpf_loop},
    },
};
use core::{ffi::c_void, mem::MaybeUninit};
use pinwatch_common::{
    Event, RefusedEvent, S_DAX, event, magic, refused_flag,
    subsystems::{BeginHook, Kind},
    vm,
};

use super::ring::send_later;
use crate::{
    base::{
        hook::HookCtx,
        kernel::{copy, copy_leader, current, has, load, load32, offset, uid_of, zero},
        scratch::Scratch,
    },
    file::extents,
};

/// So many mappings are looked at.
const MAX_MAPPINGS: u32 = 64;
/// `RLIMIT_MEMLOCK` (include/uapi/asm-generic/resource.h), and the size of a `struct rlimit`.
const MEMLOCK: u64 = 8 * 16;

/// What was asked for and not given.
pub struct Refused {
    pub kind: Kind,
    pub errno: i32,
    pub address: u64,
    pub length: u64,
    /// Where it was asked for from, if no subsystem did.
    pub caller: u64,
    /// Whether the pages were to be written to.
    pub write: bool,
    /// Whether the address is one of this process's memory.
    pub mapped: bool,
}

/// Tells that a subsystem was refused memory of this process: address and length.
#[inline(always)]
pub fn memory<H: BeginHook>(
    call: &HookCtx<H>,
    kind: Kind,
    errno: i32,
    [address, length]: [u64; 2],
    write: bool,
) {
    report(call, &Refused { kind, errno, address, length, caller: 0, write, mapped: true });
}

/// Tells of a refusal of this process's memory.
#[inline(always)]
pub fn report<H: BeginHook>(call: &HookCtx<H>, what: &Refused) {
    report_file(call, what, 0);
}

/// The same of a file without a mapping, by the address of its `struct file`; 0: there is none.
#[inline(always)]
pub fn report_file<H: BeginHook>(call: &HookCtx<H>, what: &Refused, file: u64) {
    if !has!(limits) || !has!(page_state) {
        return;
    }
    let Some(scratch) = call.scratch() else { return };
    // SAFETY: this program's own slot on this CPU.
    unsafe {
        let m = &raw mut (*scratch).mappings;
        zero(m);
        (*m).address = what.address;
        (*m).end = what.address.wrapping_add(what.length);
        let pin = &raw mut (*scratch).pin;
        zero(pin);
        (*pin).created = bpf_ktime_get_boot_ns();
        (*pin).address = what.address;
        (*pin).length = what.length;
        (*pin).kind = what.kind as u32;
        (*m).caller = what.caller;
        (*m).errno = what.errno as u64;
        (*m).write = u64::from(what.write);
        if what.mapped && has!(extents) {
            let mut context = scratch;
            bpf_loop(MAX_MAPPINGS, next_mapping as *mut c_void, (&raw mut context).cast(), 0);
        }
        let file = if file != 0 { file } else { (*m).file };
        if file != 0 {
            extents::of_file(scratch, file, 0);
        }
        send(scratch);
    }
}

/// One step: the mapping at `address`.
extern "C" fn next_mapping(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `report_file`.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let m = &raw mut (*scratch).mappings;
        let error = bpf_find_vma(current(), (*m).address, at_vma as *mut c_void, context, 0) as i32;
        if error != 0 {
            // Nothing is mapped there, or it is being mapped just now.
            (*m).hole = (*m).address;
            return 1;
        }
        (*m).address = (*m).vma[1];
        i64::from((*m).found == 2 || (*m).address >= (*m).end)
    }
}

/// Called with the VMA and the mmap lock held.
extern "C" fn at_vma(_task: *mut task_struct, vma: *mut c_void, context: *mut c_void) -> i64 {
    let vma = vma as u64;
    // SAFETY: `vma` and all that is loaded through it have BTF types; the context as in `report_file`.
    unsafe {
        let scratch = *context.cast::<*mut Scratch>();
        let m = &raw mut (*scratch).mappings;
        (*m).vma[0] = load(vma, offset!(vma_start));
        (*m).vma[1] = load(vma, offset!(vma_end));
        let flags = load(vma, offset!(vma_flags));
        let file = load(vma, offset!(vma_file));
        let mut suspect = flags & vm::WRITE == 0;
        let (mut magic, mut inode_flags) = (0, 0);
        if file != 0 {
            let inode = load(file, offset!(file_inode));
            magic = if !has!(paths) { 0 } else { load(load(inode, offset!(inode_sb)), offset!(sb_magic)) };
            inode_flags = if !has!(inode_flags) { 0 } else { u64::from(load32(inode, offset!(inode_flags))) };
            let in_memory = magic == magic::TMPFS || magic == magic::HUGETLBFS;
            suspect |= flags & vm::SHARED != 0 && !in_memory;
        }
        if suspect || (*m).found == 0 {
            (*m).file = file;
            (*m).flags = flags;
            (*m).magic = magic;
            (*m).inode_flags = inode_flags;
            (*m).found = 1 + u64::from(suspect);
        }
    }
    0
}

#[inline(never)]
fn send(scratch: *mut Scratch) {
    let mut record = MaybeUninit::<RefusedEvent>::uninit();
    let at = record.as_mut_ptr();
    let task = current() as u64;
    // SAFETY: the caller's own scratch space; all of the event is written; task, leader, memory and so on have BTF types.
    unsafe {
        let (pin, m) = (&raw const (*scratch).pin, &raw const (*scratch).mappings);
        let thread = bpf_get_current_pid_tgid();
        (*at).event = Event {
            time: (*pin).created,
            sequence: 0,
            what: event::REFUSED,
            kind: (*pin).kind,
            pid: (thread >> 32) as u32,
            reserved: 0,
        };
        copy(&raw mut (*at).file, &raw const (*pin).first.file);
        (*at).address = (*pin).address;
        (*at).length = (*pin).length;
        (*at).caller = (*m).caller;
        (*at).mapping = (*m).flags;
        (*at).magic = (*m).magic;
        (*at).hole = (*m).hole;
        let memory = load(task, offset!(task_mm));
        (*at).pinned = load(memory, offset!(mm_pinned));
        (*at).locked = load(memory, offset!(mm_locked));
        (*at).user_locked =
            load(load(load(task, offset!(task_cred)), offset!(cred_user)), offset!(user_locked));
        (*at).limit = load(load(task, offset!(task_signal)), offset!(signal_limits) + MEMLOCK);
        copy_leader(task, &raw mut (*at).start, &raw mut (*at).comm);
        (*at).uid = uid_of(task);
        let bit = |is: bool, bit: u32| if is { bit } else { 0 };
        (*at).flags = bit((*m).write != 0, refused_flag::WRITE)
            | bit((*m).found != 0, refused_flag::MAPPED)
            | bit((*m).inode_flags & u64::from(S_DAX) != 0, refused_flag::DAX);
        (*at).errno = (*m).errno as i32;
        (*at).tid = thread as u32;
        send_later(at);
    }
}
