//! What the parts of tracing are called that can be there or not, each by itself, and how much of one there can be.

use std::fmt;

use pinwatch_common::subsystems::Subsystem;
use serde::{Serialize, Serializer};

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FeatureName {
    /// The pins of a subsystem: without any of these there is nothing to show.
    Subsystem(Subsystem),
    /// More about them, for which the subsystem needs more than to see them.
    Part(&'static Part),
    /// More about pins of all subsystems.
    Detail(Detail),
}

/// Something about pins of one subsystem that may be missing by itself.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// Whose.
    pub subsystem: Subsystem,
    /// As people and scripts see it.
    pub word: &'static str,
    /// What is lost without it, as a clause.
    pub loss: &'static str,
}

/// Something about pins of all subsystems that may be missing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Detail {
    /// Which ranges of which files are behind a pin.
    Extents,
    /// The names of these files.
    Paths,
    /// Whether the pinned page is (still) the file's.
    PageCheck,
    /// Who made the pin: command name and start time.
    Owners,
    /// Who keeps the pin now.
    Holders,
    /// Which file descriptor the pin was made through.
    Anchors,
    /// Pins that the kernel refuses, and why.
    Refused,
    /// Which leases are on the files, and who has them.
    Leases,
    /// When leases are taken, broken and dropped, and by whom.
    LeaseEvents,
}

impl Detail {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::Extents,
        Self::Paths,
        Self::PageCheck,
        Self::Owners,
        Self::Holders,
        Self::Anchors,
        Self::Refused,
        Self::Leases,
        Self::LeaseEvents,
    ];

    /// As people and scripts see it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Extents => "extents",
            Self::Paths => "paths",
            Self::PageCheck => "page check",
            Self::Owners => "owners",
            Self::Holders => "holders",
            Self::Anchors => "anchors",
            Self::Refused => "refused",
            Self::Leases => "leases",
            Self::LeaseEvents => "events",
        }
    }

    /// What is lost without it, as a clause.
    pub fn loss(self) -> &'static str {
        match self {
            Self::Extents => "pins are shown without their files",
            Self::Paths => "files are shown by device and inode number",
            Self::PageCheck => "a private mapping's copied pages cannot be told from the file's",
            Self::Owners => "creators are shown by process id only",
            Self::Holders => "nobody knows who keeps a pin",
            Self::Anchors => "the file descriptor that a pin was made through is not shown",
            Self::Refused => "what the kernel refuses is not known",
            Self::Leases => "whether a lease covers a pin is not known",
            Self::LeaseEvents => {
                "leases are looked at only when somebody asks, and who breaks one is not known"
            }
        }
    }
}

impl FeatureName {
    /// As people and scripts see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subsystem(subsystem) => subsystem.word(),
            Self::Part(part) => part.word,
            Self::Detail(detail) => detail.word(),
        }
    }

    /// It tells what happens; what there is at a moment is known without it.
    pub fn is_history(self) -> bool {
        matches!(self, Self::Detail(Detail::LeaseEvents | Detail::Refused))
    }

    /// It sees pins of its own, rather than telling more of them: without any of these there is nothing to show.
    pub fn is_subsystem(self) -> bool {
        matches!(self, Self::Subsystem(_))
    }
}

impl From<Subsystem> for FeatureName {
    fn from(subsystem: Subsystem) -> Self {
        Self::Subsystem(subsystem)
    }
}

impl From<Detail> for FeatureName {
    fn from(detail: Detail) -> Self {
        Self::Detail(detail)
    }
}

impl fmt::Display for FeatureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for FeatureName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything.
    On,
    /// Something is missing.
    Degraded,
    /// Nothing to trace yet: it begins by itself when a module is loaded.
    Waiting,
    /// This kernel has no such thing, so nothing is missed.
    Absent,
    /// It could be there, and is not wanted.
    Disabled,
    /// It should be there and is not.
    Off,
}

impl State {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::On, Self::Degraded, Self::Waiting, Self::Absent, Self::Disabled, Self::Off];

    /// The word in `pinwatch check`.
    pub fn word(self) -> &'static str {
        match self {
            Self::On => "ok",
            Self::Degraded => "part",
            Self::Waiting => "wait",
            Self::Absent | Self::Disabled | Self::Off => "off",
        }
    }

    /// The word that scripts get, in JSON and metrics.
    pub fn long_word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Degraded => "degraded",
            Self::Waiting => "waiting",
            Self::Absent => "absent",
            Self::Disabled => "disabled",
            Self::Off => "off",
        }
    }

    /// Nothing is missed that happens on this host and is wanted.
    pub fn is_fine(self) -> bool {
        matches!(self, Self::On | Self::Waiting | Self::Absent | Self::Disabled)
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.long_word())
    }
}
