//! One shape for a hooked call, whether it is seen by fexit or by a kprobe and a kretprobe; and the macros that make the
//! programs of a hook from its one function.
//!
//! Why twins: the kernel skips a trampoline program that is already running on this CPU (`prog->active`). Where BPF
//! programs can be preempted, another task's call on the same CPU is then not seen at all. A second instance behind the
//! first is a program of its own, with a mark of its own: it sees that call, and does nothing where the first one has
//! done its work. Probes run with preemption off and need none.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_func_arg, bpf_get_func_ret},
    },
    macros::map,
    maps::HashMap,
    programs::ProbeContext,
};
use core::ffi::c_void;
use pinwatch_common::{PendingCall, counter};

use crate::registry::count;

/// Calls between their kprobe and their kretprobe, by [`pending_key`].
#[map]
static CALLS: HashMap<u64, PendingCall> = HashMap::with_max_entries(16384, 1);

/// A call that a hook looks at.
pub struct Call {
    /// The context of the program, for the log.
    pub ctx: *mut c_void,
    /// The first four arguments.
    pub args: [u64; 4],
    /// The result; 0 at a function's entry.
    pub ret: u64,
    /// Whether the second instance of the program runs.
    pub twin: bool,
    /// Whether this is a trampoline with a twin.
    pub paired: bool,
    /// Scratch slot: one for each program that may be preempted in favour of another (`registry::SCRATCH`).
    pub slot: u32,
}

/// Argument `n` at a trampoline. The helper rather than a load from the context: arguments of type `T **` are refused to
/// loads by 6.1, and the number of arguments differs between kernels.
#[inline(always)]
fn argument(ctx: *mut c_void, n: u32) -> u64 {
    let mut value = 0u64;
    // SAFETY: ctx is the program's own context.
    unsafe { bpf_get_func_arg(ctx, n, &mut value) };
    value
}

/// The first four arguments at a trampoline; those that the function does not have are 0.
#[inline(always)]
pub fn arguments(ctx: *mut c_void) -> [u64; 4] {
    [argument(ctx, 0), argument(ctx, 1), argument(ctx, 2), argument(ctx, 3)]
}

/// The first four arguments at a probe; those that the function does not have are of no meaning.
#[inline(always)]
pub fn probe_arguments(probe: &ProbeContext) -> [u64; 4] {
    let argument = |n| probe.arg(n).unwrap_or(0);
    [argument(0), argument(1), argument(2), argument(3)]
}

/// The result at a trampoline behind a function.
#[inline(always)]
pub fn result(ctx: *mut c_void) -> u64 {
    let mut value = 0u64;
    // SAFETY: ctx is the program's own context.
    unsafe { bpf_get_func_ret(ctx, &mut value) };
    value
}

/// Calls of different hooks may nest in one thread: the hook's number goes where no thread group id reaches (pids have at
/// most 22 bits, `PID_MAX_LIMIT`).
#[inline(always)]
pub fn pending_key(hook: u64) -> u64 {
    bpf_get_current_pid_tgid() | hook << 56
}

/// Remembers a call's arguments until it returns.
#[inline(always)]
pub fn entered(hook: u64, args: [u64; 4]) {
    let key = pending_key(hook);
    let call = PendingCall { args };
    const NOEXIST: u64 = 1;
    if CALLS.insert(&key, &call, NOEXIST).is_ok() {
        return;
    }
    if CALLS.get_ptr(&key).is_some() {
        // The last call of this thread came back unseen: the kernel had no kretprobe instance left.
        count(counter::RETURNS_MISSED);
        let _ = CALLS.insert(&key, &call, 0);
    } else {
        count(counter::CALLS_FULL);
    }
}

/// The arguments that [`entered`] remembered; `None` if the probes were attached in the middle of the call.
#[inline(always)]
pub fn returned(hook: u64) -> Option<[u64; 4]> {
    let key = pending_key(hook);
    let call = CALLS.get_ptr(&key)?;
    // SAFETY: a live map value; only this thread uses the key.
    let args = unsafe { (*call).args };
    let _ = CALLS.remove(&key);
    Some(args)
}

/// Makes the programs of a hook that looks at a function's return.
macro_rules! exit_hook {
    ($number:literal, $body:path, $fexit:ident, $twin:ident, $kprobe:ident, $kretprobe:ident) => {
        exit_hook!(@fexit $number, $body, $fexit, false, $number);
        exit_hook!(@fexit $number, $body, $twin, true, $number + 16);

        #[unsafe(no_mangle)]
        #[unsafe(link_section = "kprobe")]
        extern "C" fn $kprobe(ctx: *mut core::ffi::c_void) -> u32 {
            let probe = aya_ebpf::programs::ProbeContext::new(ctx);
            $crate::call::entered($number, $crate::call::probe_arguments(&probe));
            0
        }

        #[unsafe(no_mangle)]
        #[unsafe(link_section = "kretprobe")]
        extern "C" fn $kretprobe(ctx: *mut core::ffi::c_void) -> u32 {
            let Some(args) = $crate::call::returned($number) else { return 0 };
            let ret = aya_ebpf::programs::RetProbeContext::new(ctx).ret();
            $body(&$crate::call::Call { ctx, args, ret, twin: false, paired: false, slot: $number });
            0
        }
    };
    (@fexit $number:literal, $body:path, $name:ident, $is_twin:literal, $slot:expr) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "fexit")]
        extern "C" fn $name(ctx: *mut core::ffi::c_void) -> i32 {
            let args = $crate::call::arguments(ctx);
            let ret = $crate::call::result(ctx);
            $body(&$crate::call::Call { ctx, args, ret, twin: $is_twin, paired: $crate::kernel::offset!(twins) != 0, slot: $slot });
            0
        }
    };
}
pub(crate) use exit_hook;

/// Makes the programs of a hook that looks at a function's entry.
macro_rules! entry_hook {
    ($number:literal, $body:path, $fentry:ident, $twin:ident, $kprobe:ident) => {
        entry_hook!(@fentry $number, $body, $fentry, false, $number);
        entry_hook!(@fentry $number, $body, $twin, true, $number + 16);

        #[unsafe(no_mangle)]
        #[unsafe(link_section = "kprobe")]
        extern "C" fn $kprobe(ctx: *mut core::ffi::c_void) -> u32 {
            let probe = aya_ebpf::programs::ProbeContext::new(ctx);
            let args = $crate::call::probe_arguments(&probe);
            $body(&$crate::call::Call { ctx, args, ret: 0, twin: false, paired: false, slot: $number });
            0
        }
    };
    (@fentry $number:literal, $body:path, $name:ident, $is_twin:literal, $slot:expr) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "fentry")]
        extern "C" fn $name(ctx: *mut core::ffi::c_void) -> i32 {
            let args = $crate::call::arguments(ctx);
            $body(&$crate::call::Call { ctx, args, ret: 0, twin: $is_twin, paired: $crate::kernel::offset!(twins) != 0, slot: $slot });
            0
        }
    };
}
pub(crate) use entry_hook;
