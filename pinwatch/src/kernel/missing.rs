//! Why a part of tracing cannot be had: reasons as data, and the one place where they are worded.
//!
//! The plan and its tests decide by variants, scripts by [`Missing::code`]; only people read the sentences. Nothing is looked
//! at here.

use pinwatch_common::subsystems::Subsystem;

use super::feature_name::{FeatureName, State};

/// Why something cannot be had, or is not wanted. Its text is a clause without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    // Functions.
    /// Neither the kernel's BTF nor /proc/kallsyms has the function.
    #[error("{symbol} is not in this kernel")]
    NotInKernel {
        /// The function.
        symbol: &'static str,
    },
    /// It may be in a module whose BTF is missing, and the list of symbols cannot be read.
    #[error("{symbol} was not found: module {module} has no BTF, and /proc/kallsyms cannot be read")]
    NotFound {
        /// The function.
        symbol: &'static str,
        /// A module without BTF.
        module: String,
    },
    /// The function is there, but how it is called is not known.
    #[error("{symbol} is not in this kernel's BTF, though it is in /proc/kallsyms")]
    NotInBtf {
        /// The function.
        symbol: &'static str,
    },
    /// The function is called otherwise than its programs expect.
    #[error("{symbol} takes ({here}) here, where ({known}) is known")]
    TakesOther {
        /// The function.
        symbol: &'static str,
        /// The parameters that its programs expect.
        known: String,
        /// Its parameters in this kernel.
        here: String,
    },
    /// The function returns something else than its programs expect.
    #[error("{symbol} returns {here} here, where {known} is known")]
    ReturnsOther {
        /// The function.
        symbol: &'static str,
        /// What its programs expect.
        known: String,
        /// What it returns in this kernel.
        here: String,
    },
    /// The function is marked notrace, or inlined everywhere.
    #[error("{symbol} cannot be traced: ftrace does not list it")]
    NotTraceable {
        /// The function.
        symbol: &'static str,
    },
    /// Only a kprobe would do, and there are none.
    #[error("{symbol} can be hooked by kprobe only, and this kernel has none (CONFIG_KPROBES)")]
    NoKprobes {
        /// The function.
        symbol: &'static str,
    },
    /// The kernel refused to attach.
    #[error("cannot attach to {}{symbol}: {error}", if *.at_return { "the return of " } else { "" })]
    NotAttached {
        /// The function.
        symbol: &'static str,
        /// Whether its return was to be hooked.
        at_return: bool,
        /// What the kernel says, in one line.
        error: String,
    },

    // Structures.
    /// BTF has none of these members.
    #[error("{} is not in this kernel's BTF", .paths.join(" or "))]
    NoMember {
        /// `struct.member`, alternatives.
        paths: &'static [&'static str],
    },
    /// A member is wider or narrower than what programs read.
    #[error("{path} has {here} bits in this kernel, where {known} are known")]
    OtherWidth {
        /// `struct.member`
        path: &'static str,
        /// Bits that programs read.
        known: u32,
        /// Bits in this kernel.
        here: u32,
    },
    /// A member has no address.
    #[error("{path} is a bit field in this kernel")]
    BitField {
        /// `struct.member`
        path: &'static str,
    },
    /// A member is not where programs take it to be.
    #[error("{path} is not at {known} in this kernel")]
    Moved {
        /// `struct.member`
        path: &'static str,
        /// The offset in bytes that is taken for granted.
        known: u64,
    },
    /// A structure has not the size that programs step by.
    #[error("struct {name} has not {known} bytes in this kernel")]
    OtherSize {
        /// The structure.
        name: &'static str,
        /// The size in bytes that is taken for granted.
        known: u64,
    },
    /// BTF does not have the structure.
    #[error("this kernel's BTF does not tell the size of struct {name}")]
    NoSize {
        /// The structure.
        name: &'static str,
    },
    /// BTF does not have the enumerator, or with a value that cannot be.
    #[error("{name} is not in this kernel's BTF")]
    NoEnumerator {
        /// The enumerator.
        name: &'static str,
    },

    // Other features.
    /// It works only on top of another feature.
    #[error("it needs {0}, which is off")]
    Needs(FeatureName),

    // Nothing to trace.
    /// The module is not loaded.
    #[error("module {module} is not loaded; it is hooked when it is")]
    NotLoaded {
        /// The module.
        module: &'static str,
    },
    /// The kernel was built without it.
    #[error("not in this kernel ({option} is not set)")]
    NotConfigured {
        /// The option of the kernel's configuration.
        option: &'static str,
    },
    /// The kernel takes no long-term pins for it.
    #[error("{subsystem} takes no pins for the long term here (before {since})")]
    TakesNoPins {
        /// The subsystem.
        subsystem: Subsystem,
        /// The release that pins since.
        since: &'static str,
    },

    // Choices.
    /// `--without`.
    #[error("switched off (--without {0})")]
    SwitchedOff(Subsystem),
    /// `--unclaimed off`.
    #[error("not wanted (--unclaimed off)")]
    NotWanted,
    /// It costs direct I/O something, and nobody has asked for it.
    #[error("off here: it would add some 9 % to direct I/O; --unclaimed on turns it on")]
    TooCostly,

    // Nothing at all can be traced.
    /// Not for this architecture.
    #[error("pinwatch does not trace on {arch} yet; procfs and netlink are all there is")]
    OtherArchitecture {
        /// As Rust spells it.
        arch: String,
    },
    /// The kernel has no BTF.
    #[error(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux), so no offset is known; take one with CONFIG_DEBUG_INFO_BTF"
    )]
    NoBtf,
    /// The kernel's BTF cannot be read.
    #[error("the kernel's BTF cannot be used, so no offset is known: {error}")]
    UnusableBtf {
        /// Why.
        error: String,
    },
    /// The process may not trace.
    #[error("tracing takes CAP_BPF and CAP_PERFMON, which this process lacks; run it as root")]
    NoCapabilities,
    /// Lockdown forbids it.
    #[error(
        "lockdown is \"confidentiality\", so BPF programs may not read kernel memory; boot with lockdown=integrity"
    )]
    Lockdown,
    /// Loading a tracing program was tried, and refused.
    #[error("this kernel does not let BPF programs trace (EPERM)")]
    Forbidden,
    /// There is no bpf(2).
    #[error("this kernel has no bpf system call (ENOSYS)")]
    NoBpf,
}

impl Missing {
    /// For scripts: kept from release to release.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotInKernel { .. } => "not_in_kernel",
            Self::NotFound { .. } => "not_found",
            Self::NotInBtf { .. } => "not_in_btf",
            Self::TakesOther { .. } | Self::ReturnsOther { .. } => "signature_differs",
            Self::NotTraceable { .. } => "not_traceable",
            Self::NoKprobes { .. } => "no_kprobes",
            Self::NotAttached { .. } => "not_attached",
            Self::NoMember { .. } => "no_member",
            Self::OtherWidth { .. }
            | Self::BitField { .. }
            | Self::Moved { .. }
            | Self::OtherSize { .. }
            | Self::NoSize { .. } => "layout_differs",
            Self::NoEnumerator { .. } => "no_enumerator",
            Self::Needs(_) => "needs_feature",
            Self::NotLoaded { .. } => "not_loaded",
            Self::NotConfigured { .. } => "not_configured",
            Self::TakesNoPins { .. } => "takes_no_pins",
            Self::SwitchedOff(_) => "switched_off",
            Self::NotWanted => "not_wanted",
            Self::TooCostly => "too_costly",
            Self::OtherArchitecture { .. } => "other_architecture",
            Self::NoBtf => "no_btf",
            Self::UnusableBtf { .. } => "unusable_btf",
            Self::NoCapabilities => "no_capabilities",
            Self::Lockdown => "lockdown",
            Self::Forbidden => "forbidden",
            Self::NoBpf => "no_bpf",
        }
    }

    /// What a feature is that is missing for this reason.
    pub fn state(&self) -> State {
        match self {
            Self::NotLoaded { .. } => State::Waiting,
            Self::NotConfigured { .. } | Self::TakesNoPins { .. } => State::Absent,
            Self::NotWanted | Self::TooCostly => State::Disabled,
            Self::NotInKernel { .. }
            | Self::NotFound { .. }
            | Self::NotInBtf { .. }
            | Self::TakesOther { .. }
            | Self::ReturnsOther { .. }
            | Self::NotTraceable { .. }
            | Self::NoKprobes { .. }
            | Self::NotAttached { .. }
            | Self::NoMember { .. }
            | Self::OtherWidth { .. }
            | Self::BitField { .. }
            | Self::Moved { .. }
            | Self::OtherSize { .. }
            | Self::NoSize { .. }
            | Self::NoEnumerator { .. }
            | Self::Needs(_)
            | Self::SwitchedOff(_)
            | Self::OtherArchitecture { .. }
            | Self::NoBtf
            | Self::UnusableBtf { .. }
            | Self::NoCapabilities
            | Self::Lockdown
            | Self::Forbidden
            | Self::NoBpf => State::Off,
        }
    }
}
