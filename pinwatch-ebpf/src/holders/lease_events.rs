//! What happens to leases: taken, changed, dropped, and who breaks one. Nothing of this runs for a file without a lease:
//! `generic_setlease` and `lease_modify` are called for leases only, and the kernel's `break_lease_*` tracepoints are where
//! a lease is in somebody's way.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_loop, bpf_task_pt_regs},
    },
    macros::map,
    maps::HashMap,
};
use core::{ffi::c_void, mem::MaybeUninit};
use pinwatch_common::{
    Actor, BETWEEN_TICKS, Event, FileKey, LeaseEvent, WaiterRecord, counter, event, lease_flag, left,
    subsystems::hook,
};

use super::leases::{MAX_LEASES, kind, magic};
use crate::{
    base::{
        hook::{HookCtx, entry_hook, exit_hook},
        kernel::{
            copy, copy_leader, current, has, load, load32, offset, opaque_zero, read, read32, try_read_user,
            uid_of,
        },
        maps::{count, look_up},
    },
    file::extents::file_key,
    pin::ring::send,
};

/// Threads that wait for leases to go.
#[map]
static WAITERS: HashMap<u64, WaiterRecord> = HashMap::with_max_entries(4096, 1);

/// include/uapi/asm-generic/fcntl.h
const F_RDLCK: u32 = 0;
const F_WRLCK: u32 = 1;
const F_UNLCK: u32 = 2;
/// `O_WRONLY | O_RDWR | O_TRUNC`: what makes an open one for writing.
const O_WRITES: u64 = 0o1003;
/// `PF_KTHREAD`, `PF_IO_WORKER` (include/linux/sched.h): threads whose registers hold no system call.
const PF_KTHREAD: u32 = 0x0020_0000;
const PF_IO_WORKER: u32 = 0x10;
/// `__NR_io_uring_enter`: what an io_uring's worker does is done for it.
const IO_URING_ENTER: i32 = 426;
/// `__USER32_CS` (arch/x86/include/asm/segment.h): the numbers of 32-bit system calls mean others.
const USER32_CS: u16 = 0x23;

exit_hook!(lease_set, set);
entry_hook!(lease_change, change);

/// `int generic_setlease(struct file *, int arg, struct file_lease **, void **priv)`. The lease is looked for on the inode:
/// the third argument no longer leads to it when the kernel has kept it.
#[inline(always)]
fn set(call: &HookCtx<hook::lease_set>) {
    let (file, wanted) = (call.arg(0), call.arg(1) as u32);
    if call.ret as u32 != 0 || wanted >= F_UNLCK {
        return;
    }
    let mut of = OfFile { list: LeaseList::new(read(file + offset!(file_inode))), file, lease: 0 };
    // SAFETY: the callback gets a pointer that outlives the loop.
    unsafe { bpf_loop(MAX_LEASES, of_file as *mut c_void, (&raw mut of).cast(), 0) };
    if of.lease != 0 {
        send_lease(event::LEASE_TAKEN, of.lease, file, wanted, 0);
    }
}

/// `int lease_modify(struct file_lease *, int arg, struct list_head *dispose)`
#[inline(always)]
fn change(call: &HookCtx<hook::lease_change>) {
    let lease = call.arg(0);
    let overdue = is_overdue(lease, read32(lease + offset!(lease_flags)), jiffies());
    let file = read(lease + offset!(lease_file));
    send_lease(event::LEASE_CHANGED, lease, file, call.arg(1) as u32, u32::from(overdue));
}

/// `void break_lease_block(struct inode *, struct file_lease *)`
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/break_lease_block")]
extern "C" fn break_waits(arguments: *const u64) -> i32 {
    // SAFETY: the context has the tracepoint's arguments.
    let (inode, wish) = unsafe { (*arguments, *arguments.add(1)) };
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut waiter = WaiterRecord { file: file_key(inode), since: now, ..EMPTY };
    let mut again = false;
    if let Some(known) = look_up(&WAITERS, &thread) {
        let stays = known.left == left::LEASE && now.wrapping_sub(known.ended) < BETWEEN_TICKS;
        if known.file == waiter.file && stays {
            waiter.since = known.since;
            again = true;
        }
    }
    actor(&mut waiter.actor);
    wanted(&mut waiter, inode, wish);
    if WAITERS.insert(&thread, &waiter, 0).is_err() {
        count(counter::WAITERS_FULL);
    }
    if !again {
        send_break(event::BREAK_WAITS, &waiter, left::LEASE);
    }
    0
}

/// `void break_lease_noblock(struct inode *, struct file_lease *)`
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/break_lease_noblock")]
extern "C" fn break_refused(arguments: *const u64) -> i32 {
    // SAFETY: as above.
    let (inode, wish) = unsafe { (*arguments, *arguments.add(1)) };
    let mut waiter = WaiterRecord { file: file_key(inode), ..EMPTY };
    actor(&mut waiter.actor);
    wanted(&mut waiter, inode, wish);
    send_break(event::BREAK_REFUSED, &waiter, left::LEASE);
    0
}

/// `void break_lease_unblock(struct inode *, struct file_lease *)`: also between two leases that are waited for.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/break_lease_unblock")]
extern "C" fn break_done(arguments: *const u64) -> i32 {
    // SAFETY: as above.
    let inode = unsafe { *arguments };
    let thread = bpf_get_current_pid_tgid();
    // Only this thread writes it.
    let Some(mut waiter) = look_up(&WAITERS, &thread) else { return 0 };
    let (flags, wanted) = (waiter.flags, waiter.wanted);
    let mut in_way = InWay {
        list: LeaseList::new(inode),
        wish: u64::from(flags) | u64::from(wanted) << 32,
        now: jiffies(),
        left: opaque_zero(),
    };
    // SAFETY: the callback gets a pointer that outlives the loop.
    unsafe { bpf_loop(MAX_LEASES, in_the_way as *mut c_void, (&raw mut in_way).cast(), 0) };
    // For a lease without a deadline the kernel waits tick by tick. Whether a thread goes on is seen in the map: it does so at
    // once, or has given up.
    waiter.left = in_way.left as u32;
    // SAFETY: no arguments.
    waiter.ended = unsafe { bpf_ktime_get_boot_ns() };
    if waiter.left != left::LEASE {
        send_break(event::BREAK_DONE, &waiter, waiter.left);
    }
    0
}

/// `void time_out_leases(struct inode *, struct file_lease *)`: for each lease that the kernel looks at there, before it takes
/// those whose time is up. What it does then is `lease_modify`, but some compilers put that into its caller.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/time_out_leases")]
extern "C" fn timed_out(arguments: *const u64) -> i32 {
    // SAFETY: as above.
    let lease = unsafe { *arguments.add(1) };
    let now = jiffies();
    let wanted = if is_past(read(lease + offset!(lease_break_time)), now) {
        F_UNLCK
    } else if is_past(read(lease + offset!(lease_downgrade_time)), now) && kind(lease) == F_WRLCK {
        F_RDLCK
    } else {
        return 0;
    };
    send_lease(event::LEASE_CHANGED, lease, read(lease + offset!(lease_file)), wanted, 1);
    0
}

/// Fills in what a breaker wants. The tracepoint gives its request, or from 7.2 on (89330d3a60f7) the lease that is in its
/// way: then it is what the system call says, or what is to become of the lease.
#[inline(always)]
fn wanted(waiter: &mut WaiterRecord, inode: u64, wish: u64) {
    let flags = read32(wish + offset!(lease_flags));
    let file = read(wish + offset!(lease_file));
    if file == 0 || read(file + offset!(file_inode)) != inode {
        waiter.flags = flags;
        waiter.wanted = kind(wish);
        return;
    }
    let only_downgrade =
        flags & (lease_flag::UNLOCK_PENDING | lease_flag::DOWNGRADE_PENDING) == lease_flag::DOWNGRADE_PENDING;
    let reads = match open_flags(waiter.actor.call) {
        Some(open) => open & O_WRITES == 0,
        None => only_downgrade,
    };
    waiter.flags = flags & lease_flag::LAYOUT;
    waiter.wanted = if reads { F_RDLCK } else { F_WRLCK };
}

/// The flags of the `open` that the current task is in; `None` if it is in none.
#[inline(always)]
fn open_flags(call: i32) -> Option<u64> {
    const OPEN: i32 = 2;
    const EXECVE: i32 = 59;
    const OPENAT: i32 = 257;
    const OPEN_BY_HANDLE_AT: i32 = 304;
    const EXECVEAT: i32 = 322;
    const OPENAT2: i32 = 437;
    if !has!(anchors) {
        return None;
    }
    // SAFETY: typed loads.
    let argument = |at| unsafe { load(bpf_task_pt_regs(current()) as u64, at) };
    match call {
        OPEN => Some(argument(offset!(regs_arg1))),
        OPENAT | OPEN_BY_HANDLE_AT => Some(argument(offset!(regs_arg2))),
        // `struct open_how` begins with them.
        OPENAT2 => try_read_user(argument(offset!(regs_arg2))),
        EXECVE | EXECVEAT => Some(0),
        _ => None,
    }
}

const EMPTY: WaiterRecord = WaiterRecord {
    file: FileKey { ino: 0, dev: 0, generation: 0 },
    since: 0,
    ended: 0,
    actor: Actor { start: 0, comm: [0; 16], pid: 0, tid: 0, uid: 0, call: -1 },
    flags: 0,
    wanted: 0,
    left: 0,
    reserved: 0,
};

/// Where a walk over an inode's leases is.
#[repr(C)]
struct LeaseList {
    head: u64,
    node: u64,
}

impl LeaseList {
    #[inline(always)]
    fn new(inode: u64) -> Self {
        let context = read(inode + offset!(inode_leases));
        if context == 0 {
            return Self { head: 0, node: 0 };
        }
        let head = context + offset!(context_leases);
        Self { head, node: read(head) | opaque_zero() }
    }

    /// The next lease; 0 at the end.
    #[inline(always)]
    fn next(&mut self) -> u64 {
        if self.node == 0 || self.node == self.head {
            return 0;
        }
        let lease = self.node - offset!(lease_list);
        self.node = read(self.node);
        lease
    }
}

#[repr(C)]
struct OfFile {
    list: LeaseList,
    file: u64,
    lease: u64,
}

/// Finds the lease of an open file. One that has several (the NFS server's) has the newest last.
extern "C" fn of_file(_step: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `set`.
    let at = unsafe { &mut *context.cast::<OfFile>() };
    let lease = at.list.next();
    if lease == 0 {
        return 1;
    }
    if read(lease + offset!(lease_file)) == at.file {
        at.lease = lease;
    }
    0
}

#[repr(C)]
struct InWay {
    list: LeaseList,
    /// What the breaker wants: flags, and above them read or write.
    wish: u64,
    now: u64,
    left: u64,
}

/// Looks whether a lease is (still) in a breaker's way, by the rules of `leases_conflict` (fs/locks.c).
extern "C" fn in_the_way(_step: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `break_done`.
    let at = unsafe { &mut *context.cast::<InWay>() };
    let lease = at.list.next();
    if lease == 0 {
        return 1;
    }
    let (flags, wish) = (read32(lease + offset!(lease_flags)), at.wish as u32);
    let other_layout = (flags ^ wish) & lease_flag::LAYOUT != 0;
    let deleg_only = wish & lease_flag::DELEG != 0 && flags & lease_flag::LEASE != 0;
    if other_layout || deleg_only || (kind(lease) != F_WRLCK && (at.wish >> 32) as u32 != F_WRLCK) {
        return 0;
    }
    if is_overdue(lease, flags, at.now) {
        at.left |= u64::from(left::OVERDUE);
        return 0;
    }
    at.left = u64::from(left::LEASE);
    1
}

/// Whether a lease is being broken and its time is up.
#[inline(always)]
fn is_overdue(lease: u64, flags: u32, now: u64) -> bool {
    let deadline = if flags & lease_flag::UNLOCK_PENDING != 0 {
        read(lease + offset!(lease_break_time))
    } else if flags & lease_flag::DOWNGRADE_PENDING != 0 {
        read(lease + offset!(lease_downgrade_time))
    } else {
        0
    };
    is_past(deadline, now)
}

/// As `past_time` (fs/locks.c); 0 is no time.
#[inline(always)]
fn is_past(time: u64, now: u64) -> bool {
    time != 0 && (now.wrapping_sub(time) as i64) > 0
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_jiffies64() }
}

/// The current task.
#[inline(always)]
fn actor(into: &mut Actor) {
    let task: *mut task_struct = current();
    let thread = bpf_get_current_pid_tgid();
    into.pid = (thread >> 32) as u32;
    into.tid = thread as u32;
    into.uid = uid_of(task as u64);
    into.call = syscall_number(task);
    if has!(owners) {
        // SAFETY: `task` has its BTF type; both are places in the record.
        unsafe { copy_leader(task as u64, &raw mut into.start, &raw mut into.comm) };
    }
}

/// The number of the system call that a task is in; -1 if it is in none, or in one of the 32-bit table.
#[inline(always)]
fn syscall_number(task: *mut task_struct) -> i32 {
    if !has!(breakers) {
        return -1;
    }
    // SAFETY: typed loads.
    unsafe {
        let flags = load32(task as u64, offset!(task_flags));
        if flags & PF_IO_WORKER != 0 {
            return IO_URING_ENTER;
        }
        if flags & PF_KTHREAD != 0 {
            return -1;
        }
        let regs = bpf_task_pt_regs(task) as u64;
        let segment = load(regs, offset!(regs_cs)) as u16;
        if segment == USER32_CS { -1 } else { load(regs, offset!(regs_call)) as i32 }
    }
}

#[inline(never)]
fn send_lease(what: u32, lease: u64, file: u64, wanted: u32, overdue: u32) {
    let mut record = MaybeUninit::<LeaseEvent>::uninit();
    let at = record.as_mut_ptr();
    // SAFETY: all of the event is written.
    unsafe {
        (*at).event = event(what, lease);
        (*at).file = file_key(read(file + offset!(file_inode)));
        (*at).actor = EMPTY.actor;
        actor(&mut (*at).actor);
        (*at).flags = read32(lease + offset!(lease_flags));
        (*at).kind = kind(lease);
        (*at).wanted = wanted;
        (*at).pid = read32(lease + offset!(lease_pid));
        (*at).overdue = overdue;
        (*at).left = left::NOTHING;
        (*at).magic = magic(read(file + offset!(file_inode)));
        (*at).reserved = 0;
        send(&*at, &(*at).file);
    }
}

#[inline(never)]
fn send_break(what: u32, waiter: &WaiterRecord, left: u32) {
    let mut record = MaybeUninit::<LeaseEvent>::uninit();
    let at = record.as_mut_ptr();
    // SAFETY: all of the event is written; both records are made of words.
    unsafe {
        (*at).event = event(what, 0);
        (*at).file = waiter.file;
        copy(&raw mut (*at).actor, &raw const waiter.actor);
        (*at).flags = waiter.flags;
        (*at).kind = 0;
        (*at).wanted = waiter.wanted;
        (*at).pid = 0;
        (*at).overdue = 0;
        (*at).left = left;
        (*at).magic = 0;
        (*at).reserved = 0;
        send(&*at, &(*at).file);
    }
}

#[inline(always)]
fn event(what: u32, lease: u64) -> Event {
    Event {
        // SAFETY: no arguments.
        time: unsafe { bpf_ktime_get_boot_ns() },
        sequence: lease,
        what,
        kind: 0,
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        reserved: 0,
    }
}
