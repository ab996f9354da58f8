//! Working on maps without making the kernel skip our own programs.

use std::mem::zeroed;

/// While this lives, no ordinary task preempts the calling thread.
///
/// The kernel runs no kprobe program on a CPU that is in the middle of a `bpf(2)` call on a hash map
/// (`bpf_disable_instrumentation`, include/linux/bpf.h; it counts them as missed). On a preemptible kernel another task may
/// get that CPU just then, and what it pins or releases would go unseen: reading the maps would make them wrong. So these
/// calls run with the lowest real-time priority. They take microseconds to milliseconds.
///
/// Without the right to do so (CAP_SYS_NICE) the calls are made as they are; what is missed is counted and reported.
#[must_use = "it ends where it is dropped"]
pub struct RealtimeGuard {
    before: Option<(i32, libc::sched_param)>,
}

impl RealtimeGuard {
    /// Begins.
    pub fn begin() -> Self {
        // SAFETY: a struct of integers.
        let mut before: libc::sched_param = unsafe { zeroed() };
        // SAFETY: as above.
        let mut now: libc::sched_param = unsafe { zeroed() };
        now.sched_priority = 1;
        // SAFETY: 0 is the calling thread; the structs outlive the calls.
        unsafe {
            let policy = libc::sched_getscheduler(0);
            if policy < 0
                || libc::sched_getparam(0, &raw mut before) != 0
                || libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const now)
                    != 0
            {
                return Self { before: None };
            }
            Self { before: Some((policy, before)) }
        }
    }
}

impl Drop for RealtimeGuard {
    fn drop(&mut self) {
        if let Some((policy, parameters)) = self.before {
            // SAFETY: as in `begin`. Giving up a priority is always allowed.
            unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
        }
    }
}
