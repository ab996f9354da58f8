//! The parts of tracing that can be there or not, each by itself, and the sentence that says why.

use std::fmt;

use serde::{Serialize, Serializer};

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FeatureName {
    /// Pins of RDMA buffers.
    Rdma,
    /// Numbers and keys of RDMA memory regions, and what the other RDMA buffers are for.
    RdmaNames,
    /// Registered io_uring buffers.
    IoUring,
    /// AF_XDP umems.
    Xdp,
    /// DMA buffers made of memfds.
    Udmabuf,
    /// DMA mappings of VFIO.
    Vfio,
    /// User memory that V4L2 devices use as buffers.
    V4l2,
    /// Pins of what none of these hooks knows.
    Unclaimed,
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

impl FeatureName {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 17] = [
        Self::Rdma,
        Self::RdmaNames,
        Self::IoUring,
        Self::Xdp,
        Self::Udmabuf,
        Self::Vfio,
        Self::V4l2,
        Self::Unclaimed,
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
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rdma => "rdma",
            Self::RdmaNames => "rdma names",
            Self::IoUring => "io_uring",
            Self::Xdp => "xdp",
            Self::Udmabuf => "udmabuf",
            Self::Vfio => "vfio",
            Self::V4l2 => "v4l2",
            Self::Unclaimed => "unclaimed",
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
            Self::Rdma => "RDMA pins are not traced",
            Self::RdmaNames => "memory regions have no numbers and keys",
            Self::IoUring => "registered buffers are not traced",
            Self::Xdp => "umems are not traced",
            Self::Udmabuf => "DMA buffers made of memfds are not traced",
            Self::Vfio => "DMA mappings of VFIO are not traced",
            Self::V4l2 => "buffers of video devices in user memory are not traced",
            Self::Unclaimed => "pins of drivers that pinwatch does not know are not traced",
            Self::Extents => "pins are shown without their files",
            Self::Paths => "files are shown by device and inode number",
            Self::PageCheck => "a private mapping's copied pages cannot be told from the file's",
            Self::Owners => "creators are shown by process id only",
            Self::Holders => "nobody knows who keeps a pin",
            Self::Refused => "what the kernel refuses is not known",
            Self::Leases => "whether a lease covers a pin is not known",
            Self::LeaseEvents => {
                "leases are looked at only when somebody asks, and who breaks one is not known"
            }
            Self::Anchors => "the file descriptor that a pin was made through is not shown",
        }
    }

    /// It tells what happens; what there is at a moment is known without it.
    pub fn is_history(self) -> bool {
        matches!(self, Self::LeaseEvents | Self::Refused)
    }

    /// It sees pins of its own, rather than telling more of them: without any of these there is nothing to show.
    pub fn is_subsystem(self) -> bool {
        matches!(
            self,
            Self::Rdma
                | Self::IoUring
                | Self::Xdp
                | Self::Udmabuf
                | Self::Vfio
                | Self::V4l2
                | Self::Unclaimed
        )
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

/// One part, how much of it there is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Which part.
    pub name: FeatureName,
    /// How much of it.
    pub state: State,
    /// How it is done if it is on, otherwise what is missing and what is lost by that. No newline.
    pub text: String,
}

impl Feature {
    /// A feature that is off, with the cause and the loss.
    pub fn off(name: FeatureName, why: &str) -> Self {
        Self { name, state: State::Off, text: format!("{why}; {}", name.loss()) }
    }
}
