//! What is hooked, how, and what programs are told of the kernel's structures. Rules only: everything follows from
//! [`Facts`](super::facts::Facts), nothing is looked at here.
//!
//! What is not known is left out, with a [`Missing`](super::missing::Missing) that says why, and never guessed. Layouts are
//! filled in by groups, all of one or none; a BPF program asks for a group with `has!`. Which functions a subsystem hooks is
//! not decided here but in its room (`subsystem/`), which is asked with a [`Planner`].

mod details;
pub(crate) mod hook;
mod layout;
mod planner;

pub use hook::{Hook, Method, describe};
use pinwatch_common::subsystems::Subsystem;
use pinwatch_common::{KFUNCS, KernelLayout, ModuleLayout};
pub use planner::Planner;
use serde::Serialize;

use super::feature::Feature;
use super::feature_name::{Detail, FeatureName, State};
use super::missing::Missing;

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
    /// `--unclaimed`: whether pins that no subsystem claims are looked for; `None`: where it costs little.
    pub unclaimed: Option<bool>,
    /// `--without`: subsystems that are not to be hooked.
    pub without: Vec<Subsystem>,
}

impl From<AttachMode> for Choices {
    fn from(attach: AttachMode) -> Self {
        Self { attach, unclaimed: None, without: Vec::new() }
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

/// What follows from the facts. When modules that are hooked come or go it is decided anew from new facts: then only the hooks
/// with a module and `module_layout` differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For `.rodata`.
    pub layout: KernelLayout,
    /// What the programs call of the kernel's functions, by its type id, if they do.
    pub kfuncs: Option<[u32; KFUNCS.len()]>,
    /// For the map of the modules' layout; `None` while no module is hooked.
    pub module_layout: Option<ModuleLayout>,
    /// What to attach.
    pub hooks: Vec<Hook>,
    /// One for each part of tracing that there is: of the subsystems in the order of the table, then the details.
    pub features: Vec<Feature>,
}

impl Plan {
    /// Nothing is hooked, and all features are off for the same reason. `features`: those of the subsystems, with what is lost
    /// without each.
    pub fn nothing(why: &Missing, features: impl IntoIterator<Item = (FeatureName, &'static str)>) -> Self {
        let details = Detail::ALL.map(|detail| (FeatureName::Detail(detail), detail.loss()));
        let off = |(name, loss)| {
            let reasons = vec![why.clone()];
            Feature { name, loss, state: State::Off, text: why.to_string(), reasons }
        };
        Self {
            layout: KernelLayout::ZERO,
            kfuncs: None,
            module_layout: None,
            hooks: Vec::new(),
            features: features.into_iter().chain(details).map(off).collect(),
        }
    }

    /// All features, summed up.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.features)
    }

    /// The feature of this name; there is one for each name.
    pub fn feature(&self, name: FeatureName) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }
}
