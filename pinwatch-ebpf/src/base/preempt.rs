//! Trampoline programs that are not preempted.
//!
//! A task that is preempted in the middle of a program keeps it marked as running on its CPU (`prog->active`), for as long as
//! it waits for its next turn, and the kernel skips the program there meanwhile. A backup (see `hook`) sees what the
//! primary misses, but when several tasks make pins on one CPU, or the kernel itself undoes what a process with many rings
//! has left, both can be held up so, and then thousands of calls are missed at once.
//!
//! To disable preemption is not enough: what has been put off happens at the very place where it is enabled again, and that
//! still is in the program. So it is enabled while interrupts are off, where the kernel does not switch to another task. It does
//! so at its next opportunity, which is when the program has ended.

#[cfg(target_arch = "bpf")]
use core::{arch::asm, mem::MaybeUninit};
#[cfg(target_arch = "bpf")]
use pinwatch_common::{IRQ_RESTORE, IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE};

#[cfg(target_arch = "bpf")]
use super::kernel::choice;

/// From here on the program is not preempted, where the kernel has what that takes (6.14). The verifier sees to it that it ends.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn disable() {
    if choice!(unpreempted) != 0 {
        // SAFETY: the kernel's function takes nothing; registers that calls use up are named.
        unsafe {
            asm!("call {function}", function = const PREEMPT_DISABLE,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _);
        }
    }
}

/// The end of it: nothing comes after it but the program's.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn enable() {
    if choice!(unpreempted) != 0 {
        let mut flags = MaybeUninit::<u64>::uninit();
        let flags = flags.as_mut_ptr();
        // SAFETY: as above; the first call writes the word that the last one takes, and nothing else touches it.
        unsafe {
            asm!("call {function}", function = const IRQ_SAVE,
                inlateout("r1") flags => _,
                out("r0") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _);
            asm!("call {function}", function = const PREEMPT_ENABLE,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _);
            asm!("call {function}", function = const IRQ_RESTORE,
                inlateout("r1") flags => _,
                out("r0") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _);
        }
    }
}

/// Never run: they let the host's compiler check this crate.
#[cfg(not(target_arch = "bpf"))]
pub fn disable() {}
#[cfg(not(target_arch = "bpf"))]
pub fn enable() {}
