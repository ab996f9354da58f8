//! What is hooked, how, and with which offsets. Rules only: everything follows from [`Facts`], nothing is looked at here.
//!
//! What is not known is left out, with a reason, and never guessed. Offsets are filled in by
//! [`LayoutGroup`](pinwatch_common::LayoutGroup)s, all of one or none; a BPF program asks for a group with `has!`.

mod devices;
pub(super) mod hook;
mod offsets;
pub(super) mod subsystem;

pub use hook::{Hook, Method};
use pinwatch_common::{KERNEL_CALLS, KernelLayout, ModuleLayout};
use serde::Serialize;

use super::{
    facts::{BtfState, Facts},
    feature::{Feature, FeatureName, State},
};

/// `--attach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// Trampolines wherever BTF allows, kprobes elsewhere.
    Auto,
    /// Kprobes for everything.
    Kprobe,
}

/// What the user has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// `--attach`.
    pub attach: AttachMode,
    /// `--generic`: whether pins that no subsystem claims are looked for; `None`: where it costs little.
    pub generic: Option<bool>,
    /// `--without`: subsystems that are not to be hooked.
    pub without: Vec<FeatureName>,
}

impl From<AttachMode> for Choices {
    fn from(attach: AttachMode) -> Self {
        Self { attach, generic: None, without: Vec::new() }
    }
}

/// All of it in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is missed.
    AllOn,
    /// Something is missing.
    Degraded,
    /// No pin would be seen.
    Unusable,
}

impl Verdict {
    /// Sums up features.
    pub fn of(features: &[Feature]) -> Self {
        let sees_pins = |feature: &Feature| {
            feature.name.is_subsystem()
                && matches!(feature.state, State::On | State::Degraded | State::Waiting)
        };
        if !features.iter().any(sees_pins) {
            Self::Unusable
        } else if features.iter().all(|feature| feature.state.is_fine()) {
            Self::AllOn
        } else {
            Self::Degraded
        }
    }

    /// Exit code of `pinwatch check`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::AllOn => 0,
            Self::Degraded => 1,
            Self::Unusable => 2,
        }
    }
}

/// What follows from the facts. When RDMA modules come or go it is decided anew from new facts: then only the hooks with
/// a module and `module_offsets` differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For `.rodata`.
    pub offsets: KernelLayout,
    /// What the programs call of the kernel's functions, by its type id, if they do.
    pub kernel_calls: Option<[u32; KERNEL_CALLS.len()]>,
    /// For the map of the modules' offsets; `None` while no module is hooked.
    pub module_offsets: Option<ModuleLayout>,
    /// What to attach.
    pub hooks: Vec<Hook>,
    /// One for each of [`FeatureName::ALL`], in that order.
    pub features: Vec<Feature>,
}

impl Plan {
    /// Decides.
    pub fn decide(facts: &Facts, choices: impl Into<Choices>) -> Self {
        let choices = choices.into();
        let mode = choices.attach;
        if let Some(reason) = blocked(facts) {
            return Self::nothing(&reason);
        }
        let (mut offsets, parts) = offsets::kernel(facts);
        // A kernel that does not preempt itself runs each program to its end. Frozen before modules come: so it does not
        // depend on which hooks there are yet.
        let trampolines = mode == AttachMode::Auto && !trampolines_refused(facts);
        offsets.backups = u64::from(trampolines && facts.preemptible != Some(false));
        let kernel_calls = hook::kernel_calls(facts).filter(|_| offsets.backups != 0);
        offsets.unpreempted = u64::from(kernel_calls.is_some());
        let mut plan = Self {
            offsets: KernelLayout::ZERO,
            kernel_calls,
            module_offsets: None,
            hooks: Vec::new(),
            features: Vec::new(),
        };
        let mut planner = subsystem::Planner {
            facts,
            choices: &choices,
            parts: &parts,
            offsets: &mut offsets,
            plan: &mut plan,
        };
        planner.rdma();
        planner.io_uring();
        planner.xdp();
        planner.udmabuf();
        planner.vfio();
        planner.v4l2();
        planner.unclaimed();
        planner.details();
        planner.lease_events();
        offsets.page_shift = u64::from(facts.page_shift);
        plan.offsets = offsets;
        plan
    }

    /// All features, summed up.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.features)
    }

    /// The feature of this name; there is one for each name.
    pub fn feature(&self, name: FeatureName) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }

    fn nothing(reason: &str) -> Self {
        let off = |name| Feature { name, state: State::Off, text: reason.to_owned() };
        Self {
            offsets: KernelLayout::ZERO,
            kernel_calls: None,
            module_offsets: None,
            hooks: Vec::new(),
            features: FeatureName::ALL.into_iter().map(off).collect(),
        }
    }
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Whether the process has the capability, or may have it for all that is known.
fn may_have(facts: &Facts, capability: u32) -> bool {
    facts.capabilities.is_none_or(|set| set >> capability & 1 == 1)
}

/// Loading a tracing program was tried, and failed.
fn trampolines_refused(facts: &Facts) -> bool {
    facts.bpf_tracing.is_some_and(|errno| errno != 0)
}

/// Why nothing at all can be traced here.
fn blocked(facts: &Facts) -> Option<String> {
    if facts.arch != "x86_64" {
        return Some(format!(
            "pinwatch does not trace on {} yet; procfs and netlink are all there is",
            facts.arch
        ));
    }
    match &facts.btf {
        BtfState::Read => {}
        BtfState::Absent => {
            return Some(
                "this kernel has no BTF (/sys/kernel/btf/vmlinux), so no offset is known; take one with \
                 CONFIG_DEBUG_INFO_BTF"
                    .to_owned(),
            );
        }
        BtfState::Unusable(why) => {
            return Some(format!("the kernel's BTF cannot be used, so no offset is known: {why}"));
        }
    }
    let bpf_and_perfmon = may_have(facts, CAP_BPF) && may_have(facts, CAP_PERFMON);
    if !bpf_and_perfmon && !may_have(facts, CAP_SYS_ADMIN) {
        return Some(
            "tracing takes CAP_BPF and CAP_PERFMON, which this process lacks; run it as root".to_owned(),
        );
    }
    if facts.lockdown.as_deref() == Some("confidentiality") {
        return Some(
            "lockdown is \"confidentiality\", so BPF programs may not read kernel memory; boot with \
             lockdown=integrity"
                .to_owned(),
        );
    }
    match facts.bpf_tracing {
        Some(libc::EPERM) => Some("this kernel does not let BPF programs trace (EPERM)".to_owned()),
        Some(libc::ENOSYS) => Some("this kernel has no bpf system call (ENOSYS)".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod offset_tests;
#[cfg(test)]
mod tests;
