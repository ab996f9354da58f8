//! What happened to pins and leases.

use serde::{Deserialize, Serialize};

use super::coverage::CoverageState;
use super::file::File;
use super::lease::{Breaker, LeaseKind, LeaseMode};
use super::pin::PinId;
use super::who::Who;

/// A lease as it is named in an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTag {
    /// Which kind.
    pub kind: LeaseKind,
    /// What it keeps others from.
    pub mode: LeaseMode,
    /// Who took it.
    pub taker: Who,
}

/// What became of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// It was given back, or went with the last descriptor of its file.
    Released,
    /// It became a read lease.
    Downgraded,
    /// The kernel took it, or it was given back, after its time was up.
    TimedOut,
    /// Who wanted it gone no longer wants, or was interrupted.
    GivenUp,
}

impl Outcome {
    /// All.
    pub const ALL: [Self; 4] = [Self::Released, Self::Downgraded, Self::TimedOut, Self::GivenUp];

    /// The word used in lines and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Downgraded => "downgraded",
            Self::TimedOut => "timed_out",
            Self::GivenUp => "given_up",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happened {
    /// A pin was made.
    PinMade {
        /// By whom.
        by: Who,
        /// Its size.
        bytes: u64,
    },
    /// A pin was released.
    PinReleased {
        /// Who had made it.
        by: Who,
        /// Its size.
        bytes: u64,
    },
    /// A lease was taken.
    LeaseTaken {
        /// Which.
        lease: LeaseTag,
    },
    /// A lease became another.
    LeaseChanged {
        /// What it was.
        lease: LeaseTag,
        /// What it is now.
        to: LeaseMode,
    },
    /// A lease went.
    LeaseDropped {
        /// Which.
        lease: LeaseTag,
        /// How.
        how: Outcome,
        /// Who let it go.
        by: Who,
        /// For how long it had been being broken, nanoseconds; `None` if it was not.
        broken_for: Option<u64>,
    },
    /// Leases are in somebody's way: their holders are asked to let go.
    BreakBegan {
        /// In whose.
        by: Breaker,
        /// Whether they wait; others are told to come again.
        waits: bool,
        /// The leases on the file.
        leases: Vec<LeaseTag>,
    },
    /// Somebody no longer waits for leases.
    BreakEnded {
        /// Who.
        by: Breaker,
        /// For how long they had waited, nanoseconds.
        waited: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// The verdict on a pin's leases is another.
    Coverage {
        /// What it was.
        from: CoverageState,
        /// What it is.
        to: CoverageState,
    },
    /// Events that were lost: more happened at once than there was room for.
    Lost {
        /// How many.
        events: u64,
    },
}

impl Happened {
    /// The word used in lines and JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::PinMade { .. } => "pin_made",
            Self::PinReleased { .. } => "pin_released",
            Self::LeaseTaken { .. } => "lease_taken",
            Self::LeaseChanged { .. } => "lease_changed",
            Self::LeaseDropped { .. } => "lease_dropped",
            Self::BreakBegan { .. } => "break_began",
            Self::BreakEnded { .. } => "break_ended",
            Self::Coverage { .. } => "coverage",
            Self::Lost { .. } => "lost",
        }
    }

    /// Whether it is one of those that are kept for as long as possible: breaks and verdicts, which are rarer than the rest.
    pub fn is_kept_longer(&self) -> bool {
        matches!(self, Self::BreakBegan { .. } | Self::BreakEnded { .. } | Self::Coverage { .. })
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counted from 1 by the daemon.
    pub number: u64,
    /// When, nanoseconds since the Unix epoch.
    pub time: i64,
    /// What.
    pub what: Happened,
    /// The file, if there is one.
    pub file: Option<File>,
    /// The pin that it is about, or the pins on the file: of many only the first [`Event::PINS`].
    pub pins: Vec<PinId>,
    /// How many pins these are.
    pub pin_count: u64,
    /// Users whose business it is: of those who did it, and of those whose pins and leases they are.
    pub uids: Vec<u32>,
}

impl Event {
    /// So many pins are named at most.
    pub const PINS: usize = 256;
}
