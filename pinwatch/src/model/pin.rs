//! A pin: one kernel object that holds pages for the long term.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::coverage::Coverage;
use super::doubt::Doubts;
use super::extent::Parts;
use super::index::{HoldingIndex, ProcessIndex};
use super::lease::Lease;
use super::object::Object;

pub use pinwatch_common::subsystems::Subsystem;

/// A pin's id: unique for as long as the daemon's kernel state lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinId {
    /// Which subsystem.
    pub subsystem: Subsystem,
    /// Sequence number, counted from 1; of no meaning between two runs of `lspins` without a daemon.
    pub sequence: u64,
}

impl fmt::Display for PinId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:x}", self.subsystem.letter(), self.sequence)
    }
}

/// Whether the device may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
    /// The source cannot tell.
    Unknown,
}

impl Mode {
    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
            Self::Unknown => "?",
        }
    }
}

/// How a pin is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// Seen being made.
    Trace,
    /// Found by reading the kernel.
    Walk,
    /// Only its pages were found, by looking at all pages of the machine.
    Scan,
    /// procfs and netlink only.
    Proc,
}

impl Origin {
    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Walk => "walk",
            Self::Scan => "scan",
            Self::Proc => "proc",
        }
    }
}

/// What keeps the object alive in a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Via {
    /// A file descriptor.
    Fd(u32),
    /// A mapping of the anchor at this address.
    Mapping(u64),
    /// A ring registered with the thread's own io_uring context (`IORING_REGISTER_RING_FDS`), at this place.
    Registered(u32),
    /// Registered as a file with a ring (`IORING_REGISTER_FILES`): the ring's descriptor, if the process has one.
    RingFile(Option<u32>),
    /// One of these ways in a process of another user, whose addresses and numbers may not be seen.
    Hidden(HiddenVia),
}

/// What kind of way a [`Via`] is whose number may not be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HiddenVia {
    /// [`Via::Fd`]
    Fd,
    /// [`Via::Mapping`]
    Mapping,
    /// [`Via::Registered`]
    Registered,
    /// [`Via::RingFile`]
    RingFile,
}

/// A process that keeps the anchor alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub process: ProcessIndex,
    /// Through what.
    pub via: Vec<Via>,
}

/// How a pin is kept. Pins with the same anchor share one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Processes that keep it, by pid.
    pub holders: Vec<Holder>,
    /// Descriptors of the anchor in messages that nobody has received yet; `None` if that was not read.
    pub in_flight: Option<u32>,
    /// Who could receive them: the descriptor is the socket's. These processes do not hold the pin.
    pub receivers: Vec<Holder>,
}

/// What keeps a pin, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldState {
    /// A process has a descriptor of the anchor.
    Held,
    /// No descriptor is left: only mappings, or what is registered with a thread or a ring.
    Closed,
    /// Only descriptors in messages that nobody has received.
    InFlight,
    /// Nothing in user space: the kernel alone, or it is being torn down.
    Unheld,
    /// Not read.
    Unknown,
}

impl HeldState {
    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Closed => "closed",
            Self::InFlight => "in-flight",
            Self::Unheld => "unheld",
            Self::Unknown => "unknown",
        }
    }
}

impl Holding {
    /// What keeps it.
    pub fn state(&self) -> HeldState {
        let is_open = |via: &Via| matches!(via, Via::Fd(_) | Via::Hidden(HiddenVia::Fd));
        match &self.holders[..] {
            [] if self.in_flight.is_none_or(|n| n == 0) => HeldState::Unheld,
            [] => HeldState::InFlight,
            // A way that this version does not know is no reason to say that there is no descriptor.
            holders if holders.iter().any(|h| h.via.is_empty() || h.via.iter().any(is_open)) => {
                HeldState::Held
            }
            _ => HeldState::Closed,
        }
    }

    /// Nobody keeps it, as far as was looked.
    pub fn nobody() -> Self {
        Self { in_flight: Some(0), ..Self::default() }
    }
}

/// One pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its id.
    pub id: PinId,
    /// The kernel object.
    pub object: Object,
    /// Whether the device may write.
    pub mode: Mode,
    /// Bytes asked for.
    pub bytes: u64,
    /// Pages pinned, in units of the system's base page.
    pub pages: u64,
    /// User address of the first byte when the pin was made, if known.
    pub address: Option<u64>,
    /// By file, largest first; never empty.
    pub parts: Parts,
    /// Why `parts` may not be exact; empty if it is.
    pub doubts: Doubts,
    /// Pages that no longer belong to the file; `None` if that was not read.
    pub orphan_pages: Option<u64>,
    /// Who made it; `None` if no source knows.
    pub creator: Option<ProcessIndex>,
    /// Who keeps it; `None` if that was not read.
    pub holding: Option<HoldingIndex>,
    /// The verdict on its leases.
    pub coverage: Coverage,
    /// When it was made, in nanoseconds since the Unix epoch; `None` if no source knows.
    pub created: Option<i64>,
    /// How it is known.
    pub origin: Origin,
}

impl Pin {
    /// Whether a lease is on one of its files.
    pub fn is_leased_by(&self, lease: &Lease) -> bool {
        self.parts.iter().filter_map(|part| part.file).any(|file| lease.files().any(|of| of == file))
    }

    /// The subsystem that made the pin.
    pub fn subsystem(&self) -> Subsystem {
        self.id.subsystem
    }

    /// Whether `parts` is exact: nothing was remapped meanwhile, and no bound was hit.
    pub fn exact(&self) -> bool {
        self.doubts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsystems_are_told_apart() {
        for (at, one) in Subsystem::ALL.iter().enumerate() {
            for other in &Subsystem::ALL[at + 1..] {
                assert!(one.word() != other.word() && one.letter() != other.letter(), "{one:?} {other:?}");
            }
        }
    }
}
