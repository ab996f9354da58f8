//! What is looked for in a kernel by name: how it is written down, and what belongs to no subsystem. A subsystem's own
//! functions stand in its room, the members of structures in the table (`pinwatch_common::subsystems`). `facts` looks all of
//! it up, `plan` decides by it.

/// A function of the kernel that may be hooked or called, with what our programs take for granted of it.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelFn {
    /// Its symbol.
    pub symbol: &'static str,
    /// Its first parameters, as `btf::Function` has them.
    pub params: &'static [&'static str],
    /// What it may return.
    pub returns: &'static [&'static str],
}

/// Declares functions and the list `FUNCTIONS` of them, so that none can be hooked that was not looked for:
/// `NAME = "symbol"("first parameter", ...) -> "result" | "other result";`. Further parameters may follow in the kernel.
macro_rules! kernel_functions {
    ($(
        $(#[$doc:meta])*
        $name:ident = $symbol:literal($($param:literal),* $(,)?) -> $($returns:literal)|+;
    )*) => {
        $(
            $(#[$doc])*
            pub static $name: $crate::kernel::wanted::KernelFn = $crate::kernel::wanted::KernelFn {
                symbol: $symbol,
                params: &[$($param),*],
                returns: &[$($returns),+],
            };
        )*

        /// All of these.
        pub static FUNCTIONS: &[&$crate::kernel::wanted::KernelFn] = &[$(&$name),*];
    };
}
pub(crate) use kernel_functions;

kernel_functions! {
    /// Takes a lease, or changes or drops one: all file systems come by here, with a plain lease, a delegation or a layout.
    GENERIC_SETLEASE = "generic_setlease"("file *", "int") -> "int";
    /// Changes a lease, or takes it away, whoever does it.
    LEASE_MODIFY = "lease_modify"("file_lease *", "int") -> "int";
    /// The same before 6.9.
    LEASE_MODIFY_LOCK = "lease_modify"("file_lock *", "int") -> "int";
    /// 6.11 and later: pins pages of a file, without a mapping.
    MEMFD_PIN_FOLIOS = "memfd_pin_folios"("file *", "int", "int", "folio **", "int") -> "int";
    /// What programs call, see `pinwatch_common::KFUNCS`: 6.10 and later.
    PREEMPT_DISABLE = "bpf_preempt_disable"() -> "void";
    /// As above.
    PREEMPT_ENABLE = "bpf_preempt_enable"() -> "void";
    /// As above: 6.14 and later.
    IRQ_SAVE = "bpf_local_irq_save"("int *") -> "void";
    /// As above.
    IRQ_RESTORE = "bpf_local_irq_restore"("int *") -> "void";
}

/// What `facts` looks for beside what the table has: all that the subsystems need, and what is above.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Modules that have something to hook, if they are not built in.
    pub modules: Vec<&'static str>,
    /// Functions.
    pub functions: Vec<&'static KernelFn>,
    /// Structures of which it matters whether they are there.
    pub structs: Vec<&'static str>,
    /// Enumerators that the programs are not told as they are.
    pub enumerators: Vec<&'static str>,
}
