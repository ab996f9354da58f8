//! Reading kernel memory at offsets that user space found in BTF.
//!
//! Two ways. A *typed* load goes through a pointer whose BTF type the verifier knows, at a constant offset: one
//! instruction, and a fault reads as zero. A *probe* read takes any address, costs a helper call, and reports a fault.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_uid_gid,
        generated::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user, bpf_task_pt_regs},
    },
};
use core::{ffi::c_void, mem::MaybeUninit};
use pinwatch_common::KernelLayout;

/// Frozen before the programs are verified, so that every offset is a constant to the verifier.
#[unsafe(no_mangle)]
pub static KERNEL_LAYOUT: KernelLayout = KernelLayout::ZERO;

/// A zero that the verifier cannot know, being writable. 6.1 verifies a `bpf_loop` callback once, with its caller's
/// constants, and deletes the branches that these rule out: loop state has to start from an unknown.
#[unsafe(no_mangle)]
static mut OPAQUE_ZERO: u64 = 0;

/// An offset by name, as a constant.
macro_rules! offset {
    ($field:ident) => {
        $crate::base::kernel::constant(&$crate::base::kernel::KERNEL_LAYOUT.$field)
    };
}
pub(crate) use offset;

/// Whether a group of offsets, or an optional one, is known in this kernel.
macro_rules! has {
    ($group:ident) => {
        $crate::base::kernel::constant(&$crate::base::kernel::KERNEL_LAYOUT.has.$group) != 0
    };
}
pub(crate) use has;

/// What user space has decided, by name, as a constant.
macro_rules! choice {
    ($field:ident) => {
        $crate::base::kernel::constant(&$crate::base::kernel::KERNEL_LAYOUT.$field)
    };
}
pub(crate) use choice;

/// Reads a word of [`KERNEL_LAYOUT`]. Volatile, or the compiler would use the zero that it sees.
#[inline(always)]
pub fn constant(word: &'static u64) -> u64 {
    // SAFETY: a reference is valid.
    unsafe { core::ptr::read_volatile(word) }
}

/// Zero, unknown to the verifier.
#[inline(always)]
pub fn opaque_zero() -> u64 {
    // SAFETY: nobody writes it.
    unsafe { core::ptr::read_volatile(&raw const OPAQUE_ZERO) }
}

/// Typed load of 8 bytes.
///
/// # Safety
/// `base` must be a pointer that the verifier knows by BTF type; `offset` one of [`KERNEL_LAYOUT`].
#[inline(always)]
pub unsafe fn load(base: u64, offset: u64) -> u64 {
    // SAFETY: the verifier turns this into a load that survives faults.
    unsafe { core::ptr::read_volatile((base + offset) as *const u64) }
}

/// Typed load of 4 bytes.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub unsafe fn load32(base: u64, offset: u64) -> u32 {
    // SAFETY: as `load`.
    unsafe { core::ptr::read_volatile((base + offset) as *const u32) }
}

/// Typed load of 2 bytes.
///
/// # Safety
/// As [`load`].
#[inline(always)]
pub unsafe fn load16(base: u64, offset: u64) -> u16 {
    // SAFETY: as `load`.
    unsafe { core::ptr::read_volatile((base + offset) as *const u16) }
}

/// Reads a value at any kernel address into `into`, zeros on a fault; false on a fault.
///
/// # Safety
/// `into` must be valid for writes, and `T` made of integers only.
#[inline(always)]
pub unsafe fn read_into<T>(into: *mut T, address: u64) -> bool {
    // SAFETY: by the caller; the helper writes size_of::<T>() bytes.
    unsafe { bpf_probe_read_kernel(into.cast(), size_of::<T>() as u32, address as *const c_void) == 0 }
}

/// Reads integers at a kernel address; `None` on a fault.
#[inline(always)]
pub fn try_read<T: Copy>(address: u64) -> Option<T> {
    // Not initialised first: the compiler would call memset for it, and the helper writes all of it anyway.
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: `value` is valid, and written by the helper.
    unsafe { if read_into(value.as_mut_ptr(), address) { Some(value.assume_init()) } else { None } }
}

/// Reads 8 bytes at a kernel address; 0 on a fault.
#[inline(always)]
pub fn read(address: u64) -> u64 {
    let mut value = 0u64;
    // SAFETY: a valid place.
    unsafe { read_into(&raw mut value, address) };
    value
}

/// Reads 4 bytes at a kernel address; 0 on a fault.
#[inline(always)]
pub fn read32(address: u64) -> u32 {
    let mut value = 0u32;
    // SAFETY: a valid place.
    unsafe { read_into(&raw mut value, address) };
    value
}

/// Reads 2 bytes at a kernel address; 0 on a fault.
#[inline(always)]
pub fn read16(address: u64) -> u16 {
    try_read(address).unwrap_or(0)
}

/// Reads integers at a user address; `None` on a fault.
#[inline(always)]
pub fn try_read_user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as `read_into`; read only where the helper has written all of it.
    unsafe {
        let error =
            bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void);
        if error == 0 { Some(value.assume_init()) } else { None }
    }
}

/// The errno in a returned pointer that is none.
#[inline(always)]
pub fn error_of(pointer: u64) -> Option<i32> {
    if pointer > 0xffff_ffff_ffff_f000 { Some((pointer as i64).wrapping_neg() as i32) } else { None }
}

/// Whether a returned pointer is NULL or an error.
#[inline(always)]
pub fn is_err_or_null(pointer: u64) -> bool {
    pointer == 0 || error_of(pointer).is_some()
}

/// The current task.
#[inline(always)]
pub fn current() -> *mut task_struct {
    // SAFETY: no arguments; always a valid task.
    unsafe { bpf_get_current_task_btf() }
}

/// The first four arguments of the system call that the current task is in.
#[inline(always)]
pub fn syscall_arguments() -> [u64; 4] {
    if !has!(anchors) {
        // No file descriptor, no array: neither is then shown.
        return [u64::MAX; 4];
    }
    // SAFETY: the current task always has user registers where a system call can pin; typed loads.
    unsafe {
        let regs = bpf_task_pt_regs(current()) as u64;
        [
            load(regs, offset!(regs_arg0)),
            load(regs, offset!(regs_arg1)),
            load(regs, offset!(regs_arg2)),
            load(regs, offset!(regs_arg3)),
        ]
    }
}

/// The current task's `struct mm_struct`; 0 if it has none.
#[inline(always)]
pub fn current_mm() -> u64 {
    // SAFETY: the current task has its BTF type.
    if !has!(page_state) { 0 } else { unsafe { load(current() as u64, offset!(task_mm)) } }
}

/// The real user id of a task, in the initial user namespace.
#[inline(always)]
pub fn uid_of(task: u64) -> u32 {
    if !has!(owners) {
        return bpf_get_current_uid_gid() as u32;
    }
    // SAFETY: `task` has its BTF type, and so have its credentials.
    unsafe { load32(load(task, offset!(task_cred)), offset!(cred_uid)) }
}

/// The file (`struct file`) that a descriptor of this process stands for now; 0 if none, or if it cannot be told.
#[inline(always)]
pub fn file_of(fd: i32) -> u64 {
    if !has!(holders) || fd < 0 {
        return 0;
    }
    let table = read(read(current() as u64 + offset!(task_files)) + offset!(files_table));
    if fd as u32 >= read32(table + offset!(table_size)) {
        return 0;
    }
    read(read(table + offset!(table_files)) + fd as u64 * 8)
}

/// `private_data` of that file; 0 if there is none.
#[inline(always)]
pub fn private_data_of(fd: i32) -> u64 {
    let file = file_of(fd);
    if file == 0 { 0 } else { read(file + offset!(file_private)) }
}

/// Copies start and command name of a task's thread group leader; gives the leader.
///
/// # Safety
/// `task` must be a task to the verifier; the others valid places, `comm` at a multiple of 8.
#[inline(always)]
pub unsafe fn copy_leader(task: u64, start: *mut u64, comm: *mut [u8; 16]) -> u64 {
    // SAFETY: by the caller; a leader has its BTF type, too.
    unsafe {
        let leader = load(task, offset!(task_leader));
        let comm = comm.cast::<u64>();
        start.write(load(leader, offset!(task_start)));
        comm.write(load(leader, offset!(task_comm)));
        comm.add(1).write(load(leader, offset!(task_comm) + 8));
        leader
    }
}

/// Zeroes a record word by word. aya-ebpf's `memset` works byte by byte, and the compiler calls it for anything of this
/// size that is not volatile.
///
/// # Safety
/// `record` must be valid for writes and a multiple of 8 bytes long.
#[inline(always)]
pub unsafe fn zero<T>(record: *mut T) {
    let words = record.cast::<u64>();
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: within the record.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
}

/// Copies a record word by word, for the reason given at [`zero`].
///
/// # Safety
/// Both must be valid and a multiple of 8 bytes long.
#[inline(always)]
pub unsafe fn copy<T>(to: *mut T, from: *const T) {
    let (to, from) = (to.cast::<u64>(), from.cast::<u64>());
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: within both records.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        i += 1;
    }
}

/// Adds to a word that other CPUs change too; gives what was there before. `core`'s atomics are not built for this target,
/// which has no compare-and-swap in its lowest instruction set.
///
/// # Safety
/// `word` must be a live, aligned map value.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, n: u64) -> u64 {
    let before;
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction that changes the word and one register.
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            value = inout(reg) n => before,
            word = in(reg) word,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: by the caller. Never run: it lets the host's compiler check this crate.
    unsafe {
        before = *word;
        *word += n;
    }
    before
}

/// Writes `new` to a word that other CPUs change too, if it is `expected`; gives what was there before.
///
/// # Safety
/// As [`fetch_add`].
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, expected: u64, new: u64) -> u64 {
    let before;
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction that changes the word and register 0.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            inout("r0") expected => before,
            word = in(reg) word,
            new = in(reg) new,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as in `fetch_add`.
    unsafe {
        before = *word;
        if before == expected {
            *word = new;
        }
    }
    before
}
