//! The table of pins, with the files and processes they refer to, each once.

use serde::{Deserialize, Serialize};

use super::count::KernelCount;
use super::coverage::{CoverageState, LeasePolicy};
use super::extent::Part;
use super::file::File;
use super::gap::Gap;
use super::index::{FileIndex, HoldingIndex, ProcessIndex};
use super::lease::Lease;
use super::pin::{HeldState, Holder, Holding, Pin};
use super::process::Process;

/// What is pinned at one moment, and by how much the answer may be wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The files that pins refer to.
    pub files: Vec<File>,
    /// The processes that pins refer to.
    pub processes: Vec<Process>,
    /// How pins are kept.
    pub holdings: Vec<Holding>,
    /// The pins.
    pub pins: Vec<Pin>,
    /// The leases, on pinned files and on others; `None` if that was not read.
    pub leases: Option<Vec<Lease>>,
    /// Why pins may be missing, or listed though gone. Empty means complete.
    pub gaps: Vec<Gap>,
    /// Since when pins are watched, in nanoseconds since the Unix epoch; `None` without a daemon.
    pub watching_since: Option<i64>,
    /// What the kernel itself counts as pinned; `None` if nobody has compared.
    pub kernel: Option<KernelCount>,
    /// Which pins are to have a lease, as the daemon was told; `None` without one.
    pub policy: Option<LeasePolicy>,
    /// Pins of other users, which the asking user may not see: how many, and their bytes.
    pub hidden: (u64, u64),
}

impl Table {
    /// The file at an index; `None` if the index is not of this table (a reply from a broken peer).
    pub fn file(&self, at: FileIndex) -> Option<&File> {
        self.files.get(at.0 as usize)
    }

    /// The process at an index; `None` if the index is not of this table.
    pub fn process(&self, at: ProcessIndex) -> Option<&Process> {
        self.processes.get(at.0 as usize)
    }

    /// How a pin is kept; `None` if that was not read.
    pub fn holding(&self, pin: &Pin) -> Option<&Holding> {
        self.holdings.get(pin.holding?.0 as usize)
    }

    /// What keeps a pin.
    pub fn held_state(&self, pin: &Pin) -> HeldState {
        self.holding(pin).map_or(HeldState::Unknown, Holding::state)
    }

    /// The processes that keep a pin, as far as known.
    pub fn holders(&self, pin: &Pin) -> &[Holder] {
        self.holding(pin).map_or(&[], |holding| &holding.holders)
    }

    /// Adds a holding, unless the latest one is the same; gives its place.
    pub fn add_holding(&mut self, holding: Holding) -> HoldingIndex {
        if self.holdings.last() != Some(&holding) {
            self.holdings.push(holding);
        }
        HoldingIndex((self.holdings.len() - 1) as u32)
    }

    /// Adds a file unless it is there, by identity; gives its place.
    pub fn add_file(&mut self, file: File) -> FileIndex {
        let at =
            self.files.iter().position(|f| f.id == file.id && f.path == file.path).unwrap_or_else(|| {
                self.files.push(file);
                self.files.len() - 1
            });
        FileIndex(at as u32)
    }

    /// Adds a process; gives its place.
    pub fn add_process(&mut self, process: Process) -> ProcessIndex {
        self.processes.push(process);
        ProcessIndex((self.processes.len() - 1) as u32)
    }

    /// Whether no process keeps a pin: nobody can let it go.
    pub fn is_unheld(&self, pin: &Pin) -> bool {
        matches!(self.held_state(pin), HeldState::Unheld | HeldState::InFlight)
    }

    /// Whether a pin is to have a lease and none is on its file.
    pub fn is_unleased(&self, pin: &Pin, policy: LeasePolicy) -> bool {
        let required = |part: &Part| policy.requires(part.backing, part.file.and_then(|at| self.file(at)));
        pin.coverage.state == CoverageState::None && pin.parts.iter().any(required)
    }

    /// Whether every pin that exists is here and none that does not: no gap is open.
    pub fn complete(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Since when the table is complete, in nanoseconds since the Unix epoch: every pin made from then on is here, unless it
    /// was released. `None` without a daemon, and while a gap is open that is about newer pins too.
    pub fn complete_since(&self) -> Option<i64> {
        let watching = self.watching_since?;
        self.gaps.iter().try_fold(watching, |latest, gap| Some(latest.max(gap.since()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Subsystem;

    #[test]
    fn older_pins_leave_a_table_complete_since_a_moment_and_losses_do_not() {
        let mut table = Table { watching_since: Some(10), ..Table::default() };
        assert_eq!((table.complete(), table.complete_since()), (true, Some(10)));
        table.gaps = vec![
            Gap::Before { since: 10 },
            Gap::SubsystemBefore { subsystem: Subsystem::Rdma, since: 30 },
            Gap::SubsystemBefore { subsystem: Subsystem::Vfio, since: 20 },
        ];
        assert_eq!((table.complete(), table.complete_since()), (false, Some(30)));
        table.gaps.push(Gap::SkippedHooks { calls: 1 });
        assert_eq!(table.complete_since(), None);
        assert_eq!(Table::default().complete_since(), None);
    }
}
