//! One shape for a hooked call, whether it is seen by fexit or by a kprobe and a kretprobe; and the macros that make the
//! programs of a hook from its one function.
//!
//! Why twins: the kernel skips a trampoline program that is already running on this CPU (`prog->active`). Where BPF
//! programs can be preempted, another task's call on the same CPU is then not seen at all. A second instance behind the
//! first is a program of its own, with a mark of its own: it sees that call, and does nothing where the first one has
//! done its work. Probes run with preemption off and need none.

use aya_ebpf::{
    helpers::generated::{bpf_get_func_arg, bpf_get_func_ret},
    programs::ProbeContext,
};
use core::ffi::c_void;
use pinwatch_common::counter;

use crate::{
    kernel::offset,
    registry::count,
    thread::{self, Left, purpose},
    undisturbed,
};

/// A call that a hook looks at.
pub struct Call {
    /// The context of the program, for the log.
    pub ctx: *mut c_void,
    /// The first four arguments, at a probe.
    pub probed: [u64; 4],
    /// The result; 0 at a function's entry.
    pub ret: u64,
    /// Whether this is a trampoline's program.
    pub trampoline: bool,
    /// Scratch slot: one for each program that may be preempted in favour of another (`registry::SCRATCH`).
    pub slot: u32,
}

impl Call {
    /// Argument `n`; at a probe of the first four. The helper rather than a load from the context: arguments of type `T **` are
    /// refused to loads by 6.1.
    #[inline(always)]
    pub fn arg(&self, n: u32) -> u64 {
        if !self.trampoline {
            return self.probed.get(n as usize).copied().unwrap_or(0);
        }
        let mut value = 0u64;
        // SAFETY: ctx is the program's own context.
        unsafe { bpf_get_func_arg(self.ctx, n, &mut value) };
        value
    }

    /// See [`typed`].
    #[inline(always)]
    pub fn typed<const N: usize>(&self) -> u64 {
        typed::<N>(self.ctx)
    }
}

/// The word at place `N` of a trampoline's context with the type that BTF gives it, for typed loads: the arguments, and behind
/// them the result. One instruction, which the compiler cannot merge with others: the verifier allows no calculation with the
/// context's address.
#[inline(always)]
pub fn typed<const N: usize>(ctx: *mut c_void) -> u64 {
    let word;
    #[cfg(target_arch = "bpf")]
    // SAFETY: the context begins with these words; the verifier checks that there is a word `N`.
    unsafe {
        core::arch::asm!(
            "{word} = *(u64 *)({context} + {at})",
            word = out(reg) word,
            context = in(reg) ctx,
            at = const N * 8,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above. Never run: it lets the host's compiler check this crate.
    unsafe {
        word = *ctx.cast::<u64>().add(N);
    }
    word
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

/// Which of a trampoline's two programs this is.
#[derive(PartialEq, Eq)]
pub enum Instance {
    First,
    Second,
}

/// Begins the work of a trampoline's program if it is this instance's: the first one's always, the second one's if the first was
/// skipped, which has then left no mark. What has begun ends with `undisturbed::end`.
#[inline(always)]
pub fn begin(hook: u32, instance: Instance) -> bool {
    let mark = purpose::MARK + u64::from(hook);
    match instance {
        Instance::First => {
            undisturbed::begin();
            if offset!(twins) != 0 && thread::leave(mark, &[]) == Left::Full {
                count(counter::UNMARKED);
            }
        }
        Instance::Second => {
            if thread::take::<0>(mark).is_some() {
                return false;
            }
            undisturbed::begin();
            count(counter::RECOVERED + hook);
        }
    }
    true
}

/// Remembers a call's arguments until it returns.
#[inline(always)]
pub fn entered(hook: u32, args: [u64; 4]) {
    match thread::leave(purpose::CALL + u64::from(hook), &args) {
        Left::New => {}
        // The last call of this thread came back unseen: the kernel had no kretprobe instance left.
        Left::Again => count(counter::RETURNS_MISSED),
        Left::Full => count(counter::CALLS_FULL),
    }
}

/// The arguments that [`entered`] remembered; `None` if the probes were attached in the middle of the call.
#[inline(always)]
pub fn returned(hook: u32) -> Option<[u64; 4]> {
    thread::take(purpose::CALL + u64::from(hook))
}

/// Makes the programs of a hook that looks at a function's return.
macro_rules! exit_hook {
    ($number:literal, $body:path, $fexit:ident, $twin:ident, $kprobe:ident, $kretprobe:ident) => {
        exit_hook!(@fexit $number, $body, $fexit, First, pinwatch_common::scratch($number, false));
        exit_hook!(@fexit $number, $body, $twin, Second, pinwatch_common::scratch($number, true));

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
            let Some(probed) = $crate::call::returned($number) else { return 0 };
            let ret = aya_ebpf::programs::RetProbeContext::new(ctx).ret();
            $body(&$crate::call::Call { ctx, probed, ret, trampoline: false, slot: pinwatch_common::scratch($number, false) });
            0
        }
    };
    (@fexit $number:literal, $body:path, $name:ident, $instance:ident, $slot:expr) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "fexit")]
        extern "C" fn $name(ctx: *mut core::ffi::c_void) -> i32 {
            if $crate::call::begin($number, $crate::call::Instance::$instance) {
                let ret = $crate::call::result(ctx);
                $body(&$crate::call::Call { ctx, probed: [0; 4], ret, trampoline: true, slot: $slot });
                $crate::undisturbed::end();
            }
            0
        }
    };
}
pub(crate) use exit_hook;

/// Makes the programs of a hook that looks at a function's entry.
macro_rules! entry_hook {
    ($number:literal, $body:path, $fentry:ident, $twin:ident, $kprobe:ident) => {
        entry_hook!(@fentry $number, $body, $fentry, First, pinwatch_common::scratch($number, false));
        entry_hook!(@fentry $number, $body, $twin, Second, pinwatch_common::scratch($number, true));

        #[unsafe(no_mangle)]
        #[unsafe(link_section = "kprobe")]
        extern "C" fn $kprobe(ctx: *mut core::ffi::c_void) -> u32 {
            let probe = aya_ebpf::programs::ProbeContext::new(ctx);
            let probed = $crate::call::probe_arguments(&probe);
            $body(&$crate::call::Call { ctx, probed, ret: 0, trampoline: false, slot: pinwatch_common::scratch($number, false) });
            0
        }
    };
    (@fentry $number:literal, $body:path, $name:ident, $instance:ident, $slot:expr) => {
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "fentry")]
        extern "C" fn $name(ctx: *mut core::ffi::c_void) -> i32 {
            if $crate::call::begin($number, $crate::call::Instance::$instance) {
                $body(&$crate::call::Call { ctx, probed: [0; 4], ret: 0, trampoline: true, slot: $slot });
                $crate::undisturbed::end();
            }
            0
        }
    };
}
pub(crate) use entry_hook;
