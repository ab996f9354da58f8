//! Pins that the kernel refused, and why.

use serde::{Deserialize, Serialize};

use pinwatch_common::subsystems::Subsystem;

use super::file::File;
use super::who::Who;

/// Why a pin was refused, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// The pages were to be written to, and the file system has to know of every write (since Linux 6.5).
    DirtyTracking,
    /// The file is on persistent memory, without the page cache: its pages cannot be kept from the file system.
    FsDax,
    /// The subsystem asks for pages that it can write to, and the memory is mapped for reading.
    ReadOnly,
    /// More than RLIMIT_MEMLOCK allows.
    Memlock {
        /// What is counted.
        counter: Counter,
        /// Bytes that count already.
        used: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Secret memory (`memfd_secret`), which the kernel does not touch either.
    Secret,
    /// Nothing is mapped at this address.
    Unmapped {
        /// The address.
        at: u64,
    },
    /// The memory is a device's.
    Device,
    /// This subsystem takes no pages of files, other than of those in memory only (io_uring before 6.5).
    NoFiles,
    /// A DMA buffer is made only of memfds that are sealed against shrinking and not against writing, in whole pages.
    Seals,
    /// A DMA buffer is made only of files in memory.
    NoMemfd,
    /// There is no memory for the kernel's own records, or the pages are in CMA or a movable zone and cannot be moved out of
    /// it: somebody else holds them, or there is no memory to move them to.
    NoMemory,
    /// The caller was interrupted by a signal.
    Interrupted,
    /// It cannot be told.
    Unknown,
}

/// Which of the three counters RLIMIT_MEMLOCK is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Counter {
    /// Of the process, as VmPin in /proc/PID/status.
    Pinned,
    /// Of the process, as VmLck in /proc/PID/status.
    Locked,
    /// Of all of the user's processes; it is shown nowhere.
    User,
}

impl Counter {
    /// The word used in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Locked => "locked",
            Self::User => "user",
        }
    }
}

impl Reason {
    /// All words, in the order in which they are counted.
    pub const WORDS: [&'static str; 13] = [
        "dirty-tracking",
        "fs-dax",
        "read-only",
        "memlock",
        "secret",
        "unmapped",
        "device",
        "no-files",
        "no-memory",
        "interrupted",
        "unknown",
        "seals",
        "no-memfd",
    ];

    /// The word used in columns, JSON and metrics.
    pub fn word(self) -> &'static str {
        Self::WORDS[match self {
            Self::DirtyTracking => 0,
            Self::FsDax => 1,
            Self::ReadOnly => 2,
            Self::Memlock { .. } => 3,
            Self::Secret => 4,
            Self::Unmapped { .. } => 5,
            Self::Device => 6,
            Self::NoFiles => 7,
            Self::NoMemory => 8,
            Self::Interrupted => 9,
            Self::Unknown => 10,
            Self::Seals => 11,
            Self::NoMemfd => 12,
        }]
    }
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When, in nanoseconds since the Unix epoch.
    pub time: i64,
    /// Who asked.
    pub who: Who,
    /// The thread that did.
    pub tid: u32,
    /// Of whom.
    pub subsystem: Subsystem,
    /// The module, if no subsystem claims it and it is known.
    pub module: Option<String>,
    /// User address of the first byte.
    pub address: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// What the caller got.
    pub errno: i32,
    /// Why.
    pub reason: Reason,
    /// The file that may be the reason, or else the first one of the range.
    pub file: Option<File>,
}
