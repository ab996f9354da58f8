//! Leases on files: whom the kernel asks before a file is opened for something else, cut or removed.

use serde::{Deserialize, Serialize};

use super::index::{FileIndex, HoldingIndex, ProcessIndex};
use super::name::Name;
use super::who::Who;

/// Which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LeaseKind {
    /// `F_SETLEASE`.
    Lease,
    /// A delegation: `F_SETDELEG`, or that of the NFS server.
    Delegation,
    /// A layout lease of the NFS server (pNFS).
    Layout,
}

impl LeaseKind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Lease, Self::Delegation, Self::Layout];

    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Delegation => "deleg",
            Self::Layout => "layout",
        }
    }
}

/// What it keeps others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LeaseMode {
    /// From opening for writing.
    Read,
    /// From opening at all.
    Write,
}

impl LeaseMode {
    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Whether it still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseState {
    /// Nobody wants it gone.
    Active,
    /// Somebody waits for it to go, or to become a read lease.
    Breaking {
        /// Until the kernel takes it; `None` if it never does (`fs.lease-break-time` 0).
        seconds_left: Option<u64>,
    },
    /// Its time is up; the kernel takes it when somebody looks at it next.
    Expired,
}

impl LeaseState {
    /// All there are; of one that is being broken it is not said how long.
    pub const ALL: [Self; 3] = [Self::Active, Self::Breaking { seconds_left: None }, Self::Expired];

    /// The word used in columns and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Breaking { .. } => "breaking",
            Self::Expired => "expired",
        }
    }
}

/// Somebody in whose way a lease is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Who.
    pub who: Who,
    /// The system call that it is in, if the kernel tells.
    pub call: Option<Name>,
    /// What it wants to do with the file.
    pub wants: LeaseMode,
}

impl Breaker {
    /// What it does, in a word.
    pub fn doing(&self) -> String {
        let wants = match self.wants {
            LeaseMode::Read => "reading",
            LeaseMode::Write => "writing",
        };
        let call = self.call.as_ref().map(|call| String::from_utf8_lossy(call.as_bytes()));
        match call.as_deref() {
            Some(call @ ("open" | "openat" | "openat2" | "open_by_handle_at" | "io_uring")) => {
                format!("{call} for {wants}")
            }
            Some(call) => call.to_owned(),
            None => wants.to_owned(),
        }
    }
}

/// Somebody who waits for leases to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Who, and what they do.
    pub breaker: Breaker,
    /// Since when, nanoseconds since the Unix epoch.
    pub since: i64,
}

/// A lease. It belongs to an open file description, not to a process: it dies with the last descriptor and mapping of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The file.
    pub file: FileIndex,
    /// Files below it, if it is one of overlayfs: what is pinned are theirs.
    pub below: Vec<FileIndex>,
    /// Which kind.
    pub kind: LeaseKind,
    /// What it keeps others from.
    pub mode: LeaseMode,
    /// Whether it still counts.
    pub state: LeaseState,
    /// Who took it, and gets the signal when it is broken; `None` if that is not known.
    pub taker: Option<ProcessIndex>,
    /// Who has the open file.
    pub holding: HoldingIndex,
    /// When it was taken, nanoseconds since the Unix epoch; `None` if that was not seen.
    pub taken: Option<i64>,
    /// Since when it is being broken; `None` if it is not, or that was not seen.
    pub broken: Option<i64>,
    /// Who waits for it to go.
    pub waiters: Vec<Waiter>,
}

impl Lease {
    /// All files that it is on.
    pub fn files(&self) -> impl Iterator<Item = FileIndex> {
        std::iter::once(self.file).chain(self.below.iter().copied())
    }
}
