//! The labels of metrics: their names, and the values that they can have.
//!
//! The program chooses the values, from closed sets that the model's own enums define. Only the labels of the metrics by
//! name, which are off by default, have values that users choose.

use crate::kernel::bpf::MapFull;
use crate::kernel::feature_name::{FeatureName, State};
use crate::model::{Backing, CoverageState, GapCode, LeaseKind, LeaseState, Outcome, Reason, Subsystem};
use crate::subsystem;

/// How a hook can be attached, as a label's values.
pub const METHODS: [&str; 3] = ["fentry", "kprobe", "none"];

/// What explains references to pinned pages, as a label's values.
pub const REFERENCES: [&str; 3] = ["attributed", "unclaimed", "unattributed"];

/// A label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// The part of the kernel that made a pin.
    Subsystem,
    /// What pinned pages belong to.
    Backing,
    /// The verdict on a pin's leases.
    Coverage,
    /// The kind of a lease.
    LeaseKind,
    /// Whether a lease is being broken.
    LeaseState,
    /// Why the table may not be exact.
    Gap,
    /// How a wait for a lease ended.
    Outcome,
    /// Why a pin was refused.
    Reason,
    /// What explains references to pages.
    References,
    /// A tracing feature.
    Feature,
    /// How much of a feature there is.
    FeatureState,
    /// A hook.
    Hook,
    /// How a hook is attached.
    Method,
    /// A BPF map.
    Map,
    /// A BPF program.
    Program,
    /// A version of pinwatch.
    Version,
    /// A user's name.
    User,
    /// A user's number.
    Uid,
    /// A systemd slice.
    Slice,
    /// A Kubernetes pod.
    Pod,
    /// A path.
    File,
    /// A device number.
    Device,
    /// An inode number.
    Inode,
    /// What the groups of the metrics by name are.
    Grouping,
}

/// What a label's values can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of these words.
    OneOf(Vec<String>),
    /// Something else, described in a phrase.
    Other(&'static str),
}

fn one_of<T: Into<String>>(words: impl IntoIterator<Item = T>) -> Values {
    Values::OneOf(words.into_iter().map(Into::into).collect())
}

/// A feature's name as a label's value.
pub fn feature_word(name: FeatureName) -> String {
    name.as_str().replace(' ', "_")
}

impl Label {
    /// The name in Prometheus' text format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subsystem => "subsystem",
            Self::Backing => "backing",
            Self::Coverage => "coverage",
            Self::LeaseKind => "kind",
            Self::LeaseState | Self::FeatureState => "state",
            Self::Gap => "code",
            Self::Outcome => "outcome",
            Self::Reason => "reason",
            Self::References | Self::Grouping => "by",
            Self::Feature => "feature",
            Self::Hook => "hook",
            Self::Method => "method",
            Self::Map => "map",
            Self::Program => "program",
            Self::Version => "version",
            Self::User => "user",
            Self::Uid => "uid",
            Self::Slice => "slice",
            Self::Pod => "pod",
            Self::File => "file",
            Self::Device => "device",
            Self::Inode => "inode",
        }
    }

    /// What the values mean, as a phrase.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Subsystem => "the part of the kernel that made the pin",
            Self::Backing => "what the largest part of the pinned pages belongs to",
            Self::Coverage => "how far leases cover the pin",
            Self::LeaseKind => "the kind of lease",
            Self::LeaseState => "whether the lease is being broken",
            Self::Gap => "why the table may not be exact",
            Self::Outcome => "how the wait ended",
            Self::Reason => "the likely reason of the refusal",
            Self::References => {
                "whose references they are: of pins that a subsystem has, of pins that none claims, or of no known pin"
            }
            Self::Feature => "the tracing feature, as in `pinwatch check`",
            Self::FeatureState => "how much of the feature there is",
            Self::Hook => "the hook, as in `pinwatch check`",
            Self::Method => "how the hook is attached",
            Self::Map => "the BPF map",
            Self::Program => "the BPF program",
            Self::Version => "the version of pinwatch",
            Self::User => "the user's name",
            Self::Uid => "the user's number",
            Self::Slice => "the outermost systemd slice",
            Self::Pod => "the Kubernetes pod",
            Self::File => "the file's path",
            Self::Device => "the file system's device number",
            Self::Inode => "the file's inode number",
            Self::Grouping => "what was grouped by",
        }
    }

    /// What the values can be.
    pub fn values(self) -> Values {
        match self {
            Self::Subsystem => one_of(Subsystem::ALL.map(Subsystem::word)),
            Self::Backing => one_of(Backing::ALL.map(Backing::word)),
            Self::Coverage => one_of(CoverageState::ALL.map(CoverageState::word)),
            Self::LeaseKind => one_of(LeaseKind::ALL.map(LeaseKind::word)),
            Self::LeaseState => one_of(LeaseState::ALL.map(LeaseState::word)),
            Self::Gap => one_of(GapCode::ALL.iter().map(|code| code.word())),
            Self::Outcome => one_of(Outcome::ALL.map(Outcome::word)),
            Self::Reason => one_of(Reason::WORDS),
            Self::References => one_of(REFERENCES),
            Self::Feature => one_of(subsystem::feature_names().map(feature_word)),
            Self::FeatureState => one_of(State::ALL.map(State::long_word)),
            Self::Method => one_of(METHODS),
            Self::Map => one_of(MapFull::default().by_map().map(|(map, _)| map)),
            Self::Hook => Values::Other("a hook's name"),
            Self::Program => Values::Other("a program's name, which begins with its hook's"),
            Self::Version => Values::Other("MAJOR.MINOR.PATCH"),
            Self::User | Self::Slice | Self::Pod | Self::File => {
                Values::Other("what users have chosen; `other` for all that are not among the largest")
            }
            Self::Uid | Self::Inode => Values::Other("a number; `other` as above"),
            Self::Device => Values::Other("MAJOR:MINOR; `other` as above"),
            Self::Grouping => one_of(["user", "cgroup", "file"]),
        }
    }
}
