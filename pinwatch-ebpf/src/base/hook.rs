//! One shape for a hooked call, whether it is seen by fexit or by a kprobe and a kretprobe; and the macros that make the
//! programs of a hook from its one function.
//!
//! Why backups: the kernel skips a trampoline program that is already running on this CPU (`prog->active`). Where BPF
//! programs can be preempted, another task's call on the same CPU is then not seen at all. A backup behind the
//! primary is a program of its own, with a mark of its own: it sees that call, and does nothing where the primary has
//! done its work. Probes run with preemption off and need none.

use aya_ebpf::{
    helpers::generated::{bpf_get_func_arg, bpf_get_func_ret},
    programs::ProbeContext,
};
use core::ffi::c_void;
use core::marker::PhantomData;
use pinwatch_common::{
    counter,
    subsystems::{BeginHook, Hook, Slot},
};

use super::{
    kernel::choice,
    maps::count,
    preempt,
    scratch::{SCRATCH, Scratch},
    thread_slot::{self, Put},
};

/// A call that a hook looks at.
pub struct HookCtx<H> {
    /// The context of the program, for the log.
    pub ctx: *mut c_void,
    /// The first four arguments, at a probe.
    pub probed: [u64; 4],
    /// The result; 0 at a function's entry.
    pub ret: u64,
    /// Whether this is a trampoline's program.
    pub trampoline: bool,
    /// Whether this is the backup of another program.
    pub backup: bool,
    /// Which hook.
    pub hook: PhantomData<H>,
}

impl<H: BeginHook> HookCtx<H> {
    /// This program's own scratch memory on this CPU: programs can preempt each other, but none can preempt itself.
    #[inline(always)]
    pub fn scratch(&self) -> Option<*mut Scratch> {
        SCRATCH.get_ptr_mut(H::SCRATCH_SLOT + self.backup as u32)
    }
}

impl<H: Hook> HookCtx<H> {
    /// What a trampoline sees.
    #[inline(always)]
    pub fn of_trampoline(ctx: *mut c_void, ret: u64, instance: &Instance) -> Self {
        let backup = *instance == Instance::Backup;
        Self { ctx, probed: [0; 4], ret, trampoline: true, backup, hook: PhantomData }
    }

    /// What a probe sees.
    #[inline(always)]
    pub fn of_probe(ctx: *mut c_void, probed: [u64; 4], ret: u64) -> Self {
        Self { ctx, probed, ret, trampoline: false, backup: false, hook: PhantomData }
    }

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
    Primary,
    Backup,
}

/// Begins the work of a trampoline's program if it is this instance's: the primary's always, the backup's if the primary was
/// skipped, which has then left no mark. What has begun ends with `preempt::enable`.
#[inline(always)]
pub fn begin<H: Hook>(instance: &Instance) -> bool {
    let mark = const { Slot::mark(H::ID) };
    match instance {
        Instance::Primary => {
            preempt::disable();
            if choice!(backups) != 0 && thread_slot::put(mark, &[]) == Put::Full {
                count(counter::UNMARKED);
            }
        }
        Instance::Backup => {
            if thread_slot::take::<0>(mark).is_some() {
                return false;
            }
            preempt::disable();
            count(const { H::ID.recovered() });
        }
    }
    true
}

/// Remembers a call's arguments until it returns.
#[inline(always)]
pub fn entered<H: Hook>(args: [u64; 4]) {
    match thread_slot::put(const { Slot::arguments(H::ID) }, &args) {
        Put::New => {}
        // The last call of this thread came back unseen: the kernel had no kretprobe instance left.
        Put::Again => count(counter::RETURNS_MISSED),
        Put::Full => count(counter::CALLS_FULL),
    }
}

/// The arguments that [`entered`] remembered; `None` if the probes were attached in the middle of the call.
#[inline(always)]
pub fn returned<H: Hook>() -> Option<[u64; 4]> {
    thread_slot::take(const { Slot::arguments(H::ID) })
}

/// A hook that has its programs: `exit_hook!` and `entry_hook!` say so. That all have is checked below.
pub trait Programs {}

macro_rules! all_have_programs {
    ($($hook:ident,)+) => {
        const _: () = {
            const fn has_programs<H: Programs>() {}
            $( has_programs::<pinwatch_common::subsystems::hook::$hook>(); )+
        };
    };
}
pinwatch_common::for_each_hook!(all_have_programs);

/// Makes the programs of a hook on a function's return: `exit_hook!(NAME, body)`, NAME being one of the table's. They are NAME
/// (fexit), NAME_backup, NAME_kprobe and NAME_kretprobe.
macro_rules! exit_hook {
    ($hook:ident, $body:path) => {
        const _: () = {
            use core::ffi::c_void;
            use pinwatch_common::subsystems::{ExitHook, hook::$hook as Hooked};
            use $crate::base::hook::{HookCtx, Instance};

            const fn sees_return<H: ExitHook>() {}
            sees_return::<Hooked>();
            impl $crate::base::hook::Programs for Hooked {}

    exit_hook!(@fexit stringify!($hook), $body, Primary, fexit);
    exit_hook!(@fexit concat!(stringify!($hook), "_backup"), $body, Backup, backup);

            #[unsafe(export_name = concat!(stringify!($hook), "_kprobe"))]
            #[unsafe(link_section = "kprobe")]
            extern "C" fn kprobe(ctx: *mut c_void) -> u32 {
                let probe = aya_ebpf::programs::ProbeContext::new(ctx);
                $crate::base::hook::entered::<Hooked>($crate::base::hook::probe_arguments(&probe));
                0
            }

            #[unsafe(export_name = concat!(stringify!($hook), "_kretprobe"))]
            #[unsafe(link_section = "kretprobe")]
            extern "C" fn kretprobe(ctx: *mut c_void) -> u32 {
                let Some(probed) = $crate::base::hook::returned::<Hooked>() else { return 0 };
                let ret = aya_ebpf::programs::RetProbeContext::new(ctx).ret();
                $body(&HookCtx::<Hooked>::of_probe(ctx, probed, ret));
                0
            }
        };
    };
    (@fexit $name:expr, $body:path, $Instance:ident, $function:ident) => {
        #[unsafe(export_name = $name)]
        #[unsafe(link_section = "fexit")]
        extern "C" fn $function(ctx: *mut c_void) -> i32 {
            if $crate::base::hook::begin::<Hooked>(&Instance::$Instance) {
                let ret = $crate::base::hook::result(ctx);
                $body(&HookCtx::<Hooked>::of_trampoline(ctx, ret, &Instance::$Instance));
                $crate::base::preempt::enable();
            }
            0
        }
    };
}
pub(crate) use exit_hook;

/// Makes the programs of a hook on a function's entry: `entry_hook!(NAME, body)`. They are NAME (fentry), NAME_backup and
/// NAME_kprobe.
macro_rules! entry_hook {
    ($hook:ident, $body:path) => {
        const _: () = {
            use core::ffi::c_void;
            use pinwatch_common::subsystems::{EntryHook, hook::$hook as Hooked};
            use $crate::base::hook::{HookCtx, Instance};

            const fn sees_entry<H: EntryHook>() {}
            sees_entry::<Hooked>();
            impl $crate::base::hook::Programs for Hooked {}

    entry_hook!(@fentry stringify!($hook), $body, Primary, fentry);
    entry_hook!(@fentry concat!(stringify!($hook), "_backup"), $body, Backup, backup);

            #[unsafe(export_name = concat!(stringify!($hook), "_kprobe"))]
            #[unsafe(link_section = "kprobe")]
            extern "C" fn kprobe(ctx: *mut c_void) -> u32 {
                let probe = aya_ebpf::programs::ProbeContext::new(ctx);
                let probed = $crate::base::hook::probe_arguments(&probe);
                $body(&HookCtx::<Hooked>::of_probe(ctx, probed, 0));
                0
            }
        };
    };
    (@fentry $name:expr, $body:path, $Instance:ident, $function:ident) => {
        #[unsafe(export_name = $name)]
        #[unsafe(link_section = "fentry")]
        extern "C" fn $function(ctx: *mut c_void) -> i32 {
            if $crate::base::hook::begin::<Hooked>(&Instance::$Instance) {
                $body(&HookCtx::<Hooked>::of_trampoline(ctx, 0, &Instance::$Instance));
                $crate::base::preempt::enable();
            }
            0
        }
    };
}
pub(crate) use entry_hook;
