//! The verdict on a pin's leases: would those who can let go of the pin be asked, before the file is taken away under it?

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::file::{Backing, File};
use super::index::ProcessIndex;
use super::lease::{Lease, LeaseKind, LeaseMode, LeaseState};

/// What the leases on a pinned file are worth for the pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CoverageState {
    /// This source does not read leases.
    #[default]
    Unknown,
    /// There is nothing to lease: anonymous memory, devices.
    NotApplicable,
    /// Every holder has the file of an active write lease open.
    Write,
    /// The same with a read lease.
    Read,
    /// The same with a delegation.
    Delegation,
    /// The same with a layout lease.
    Layout,
    /// Some of the holders have.
    Partial,
    /// A lease is there, but with processes that do not hold the pin.
    Other,
    /// The lease is being broken.
    Breaking,
    /// No lease is on the file.
    None,
}

impl CoverageState {
    /// All, from the best to the worst; unknown ones last.
    pub const ALL: [Self; 10] = [
        Self::NotApplicable,
        Self::Write,
        Self::Read,
        Self::Delegation,
        Self::Layout,
        Self::Partial,
        Self::Other,
        Self::Breaking,
        Self::None,
        Self::Unknown,
    ];

    /// The word used in columns, JSON and options.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotApplicable => "n/a",
            Self::Write => "write",
            Self::Read => "read",
            Self::Delegation => "deleg",
            Self::Layout => "layout",
            Self::Partial => "partial",
            Self::Other => "other",
            Self::Breaking => "breaking",
            Self::None => "none",
        }
    }
}

/// A pin's coverage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The verdict.
    pub state: CoverageState,
    /// How many of the holders are covered.
    pub covered: u32,
    /// How many holders were looked at.
    pub holders: u32,
    /// Processes that have a lease on the file: those that would be asked.
    pub lease_pids: Vec<u32>,
    /// Seconds until the kernel takes a lease that is being broken.
    pub seconds_left: Option<u64>,
}

/// A lease on a pin's file, as far as the verdict goes.
#[derive(Clone, Debug)]
pub struct OnFile<'a> {
    /// The lease.
    pub lease: &'a Lease,
    /// Processes that have the leased file open or mapped.
    pub holders: BTreeSet<ProcessIndex>,
    /// Process ids that would be asked: its holders', or who took it where no process has it.
    pub pids: Vec<u32>,
}

/// The verdict for a pin with these holders on one file with these leases.
pub fn coverage_on_file(holders: &BTreeSet<ProcessIndex>, leases: &[OnFile<'_>]) -> Coverage {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let live: Vec<&OnFile<'_>> = leases.iter().filter(|on| on.lease.state != LeaseState::Expired).collect();
    let mut pids: Vec<u32> = live.iter().flat_map(|on| on.pids.iter().copied()).collect();
    pids.sort_unstable();
    pids.dedup();
    let active: Vec<&&OnFile<'_>> = live.iter().filter(|on| on.lease.state == LeaseState::Active).collect();
    let is_covered = |holder: &&ProcessIndex| active.iter().any(|on| on.holders.contains(holder));
    let covered = holders.iter().filter(is_covered).count();
    let breaking = live.iter().find_map(|on| match on.lease.state {
        LeaseState::Breaking { seconds_left } => Some(seconds_left),
        _ => None,
    });
    // What covers all holders: if several leases do together, the weakest is what counts.
    let weakest = || {
        let covers = active.iter().filter(|on| on.holders.iter().any(|holder| holders.contains(holder)));
        covers.map(|on| strength(on.lease)).max().unwrap_or(CoverageState::Other)
    };
    let state = match (live.is_empty(), breaking) {
        (true, _) => CoverageState::None,
        (false, _) if covered > 0 && covered == holders.len() => weakest(),
        (false, Some(_)) => CoverageState::Breaking,
        (false, None) if covered > 0 => CoverageState::Partial,
        (false, None) => CoverageState::Other,
    };
    let seconds_left = breaking.flatten().filter(|_| state == CoverageState::Breaking);
    Coverage { state, covered: count(covered), holders: count(holders.len()), lease_pids: pids, seconds_left }
}

fn strength(lease: &Lease) -> CoverageState {
    match (lease.kind, lease.mode) {
        (LeaseKind::Lease, LeaseMode::Write) => CoverageState::Write,
        (LeaseKind::Lease, LeaseMode::Read) => CoverageState::Read,
        (LeaseKind::Delegation, _) => CoverageState::Delegation,
        (LeaseKind::Layout, _) => CoverageState::Layout,
    }
}

/// The verdict for a pin on several files: that of the file which is worst off.
pub fn weakest(verdicts: impl IntoIterator<Item = Coverage>) -> Coverage {
    let rank = |coverage: &Coverage| CoverageState::ALL.iter().position(|state| *state == coverage.state);
    let nothing = || Coverage { state: CoverageState::NotApplicable, ..Coverage::default() };
    verdicts.into_iter().max_by_key(rank).unwrap_or_else(nothing)
}

/// Which pins are to have a lease (`--require-lease`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeasePolicy {
    /// Those on files that survive a reboot.
    #[default]
    Persistent,
    /// Those on any file that can have one.
    All,
    /// Those on files that are mapped without page cache.
    Dax,
    /// None.
    Never,
}

impl LeasePolicy {
    /// Whether a pin on this file is to have a lease.
    pub fn requires(self, backing: Backing, file: Option<&File>) -> bool {
        let Some(file) = file else { return false };
        match (self, backing) {
            (Self::All, Backing::File | Backing::Shmem | Backing::Hugetlb) => true,
            // A file system in memory is gone with the machine's power.
            (Self::Persistent, Backing::File) => !matches!(file.fstype.as_str(), "ramfs" | "rootfs"),
            (Self::Dax, Backing::File) => file.dax,
            _ => false,
        }
    }
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
