//! The reconciler: makes the table of what the maps hold, of who holds it now, and of what is known to be missing.
//!
//! A pass reads the maps whole, drops pins whose release was missed (`reap`), settles whose the unclaimed ones are
//! (`unclaimed`), and compares with the kernel's own count where that is asked for (`kernel_count`). It is lent the programs
//! and handed what else it needs; it knows neither the hooks nor who wants the table.

mod kernel_count;
mod missed;
mod reap;
mod unclaimed;

use rustix::fs::MemfdFlags;
use tracing::info;

use pinwatch_common::{FileKey, PinRecord, RefusedEvent};

use crate::kernel::bpf::{BpfError, Missed, Programs};
use crate::kernel::sys;
use crate::model::{File, Gap, KernelCount, Table};
use crate::source::clocks::Clocks;
use crate::source::files::FileStates;
use crate::source::host::vmstat;
use crate::source::leases::LeaseRules;
use crate::source::naming::Reading;
use crate::source::process_contexts::ProcessContexts;
use crate::source::trace::{Context, Snapshot};
use crate::subsystem;
use kernel_count::StatRefresher;
use reap::Reaper;
use unclaimed::Unclaimed;

/// File names are kept so long after their last pin, in nanoseconds: a pin being made right now may count on one.
const FILE_AGE: u64 = 60_000_000_000;
/// So many files are looked for among a process's descriptors at one time.
const SEARCHES: u32 = 32;

/// What a pass found.
pub struct Pass {
    /// The table.
    pub table: Table,
    /// What was read of the maps.
    pub snapshot: Snapshot,
    /// References to pages by the kernel's own count, right after the maps were read; `None` where it has none.
    pub held: Option<i64>,
}

/// When a lease was taken, and since when it is being broken, nanoseconds since the epoch, by the kernel's object.
pub type LeaseTimes<'a> = &'a dyn Fn(u64) -> (Option<i64>, Option<i64>);

/// Makes tables, and what it remembers from one to the next.
pub struct Reconciler {
    states: FileStates,
    contexts: ProcessContexts,
    reaper: Reaper,
    unclaimed: Unclaimed,
    refresher: StatRefresher,
    /// Whether this kernel grants leases on hugetlbfs.
    hugetlb_leases: bool,
    /// Pins that no process held when that was last logged.
    unheld: u64,
}

impl Reconciler {
    /// Nothing was read yet.
    pub fn new() -> Self {
        Self {
            states: FileStates::default(),
            contexts: ProcessContexts::default(),
            reaper: Reaper::default(),
            unclaimed: Unclaimed::default(),
            refresher: StatRefresher::default(),
            hugetlb_leases: grants_hugetlb_leases(),
            unheld: 0,
        }
    }

    /// Makes the table. `gaps`: what is missing because of the hooks; `sees_leases`: whether leases are traced; `times`: of leases.
    ///
    /// # Errors
    /// [`BpfError::Map`] if the maps cannot be read.
    pub fn pass(
        &mut self,
        programs: &mut Programs,
        mut gaps: Vec<Gap>,
        sees_leases: bool,
        times: LeaseTimes<'_>,
    ) -> Result<Pass, BpfError> {
        let snapshot = self.reaper.snapshot(programs)?;
        let held = vmstat::pins().map(vmstat::Pins::held);
        let rules = LeaseRules { watched: sees_leases, hugetlb: self.hugetlb_leases, times };
        let mut cx = Context { programs, states: &mut self.states, contexts: &mut self.contexts };
        let reading = Reading { callers: self.unclaimed.callers(), describe: subsystem::describe };
        let mut table = snapshot.table(Clocks::now(), &rules, &reading, &mut cx);
        let missed = cx.programs.missed()?;
        gaps.extend(missed::gaps(&missed, self.unseen(&missed)));
        gaps.append(&mut table.gaps);
        table.gaps = gaps;
        Ok(Pass { table, snapshot, held })
    }

    /// Settles which pins no subsystem claims; gives those that are listed from now on.
    pub fn settle_unclaimed(&mut self, programs: &mut Programs) -> Vec<PinRecord> {
        self.unclaimed.settle(programs)
    }

    /// Modules have come or gone.
    pub fn modules_changed(&mut self) {
        self.unclaimed.modules_changed();
    }

    /// Has the next pass look for pins whose release was missed.
    pub fn request_reaping(&mut self) {
        self.reaper.request();
    }

    /// Pins that were found released though no hook saw it.
    pub fn reaped(&self) -> u64 {
        self.reaper.reaped()
    }

    /// How many of the calls that the kernel has skipped are not made up for.
    pub fn unseen(&self, missed: &Missed) -> u64 {
        self.reaper.unseen(missed.skipped)
    }

    /// Compares the kernel's count with the pins of a pass. `is_settled` tells afterwards whether no pin was made or released
    /// meanwhile. `None` where the kernel does not count.
    pub fn count(&mut self, pass: &Pass, is_settled: impl FnOnce() -> bool) -> Option<KernelCount> {
        let (attributed, unclaimed) = pass.snapshot.references();
        let known = i64::try_from(attributed.saturating_add(unclaimed)).unwrap_or(i64::MAX);
        let sampled = self.refresher.sample(known)?;
        let uncertain = is_settled().then_some(sampled.uncertain);
        Some(KernelCount { references: sampled.least, attributed, unclaimed, uncertain })
    }

    /// Forgets names of files without pins, and logs how many pins no process holds.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn housekeep(&mut self, programs: &mut Programs, pass: &Pass) -> Result<(), BpfError> {
        self.log_unheld(&pass.table);
        let before = u64::try_from(Clocks::now().boottime).unwrap_or(0).saturating_sub(FILE_AGE);
        let unused = pass.snapshot.unused_files(programs, before)?;
        programs.remove_files(&unused)
    }

    /// Logs how many pins no process holds, when that has changed. Those of a moment are being released: only the passes of
    /// [`Self::housekeep`] log them.
    fn log_unheld(&mut self, table: &Table) {
        let (pins, bytes) = (table.pins.iter().filter(|pin| table.is_unheld(pin)))
            .fold((0_u64, 0_u64), |(pins, bytes), pin| (pins + 1, bytes.saturating_add(pin.bytes)));
        if std::mem::replace(&mut self.unheld, pins) != pins {
            info!(pins, bytes, "pins that no process holds; `lspins --unheld` lists them");
        }
    }

    /// Finds files by their identity: as pinned files are known, or among the descriptors of a process.
    pub fn file_finder<'a>(
        &'a mut self,
        programs: &'a Programs,
    ) -> impl FnMut(&FileKey, u32) -> Option<File> + 'a {
        let mut searches = SEARCHES;
        move |key, pid| {
            Snapshot::file(programs, key).or_else(|| {
                searches = searches.checked_sub(1)?;
                self.states.lookup.opened(pid, key)
            })
        }
    }

    /// The module that asked for a pin that was refused, if it is known.
    pub fn refused_module(&self, event: &RefusedEvent) -> Option<String> {
        (event.caller != 0).then(|| self.unclaimed.callers().module_of(event.caller)).flatten()
    }
}

/// Tries it: kernels from 7.0 on refuse leases on hugetlbfs with EINVAL. Others may refuse this one all the same, for how the
/// file came to be (EAGAIN). Without huge pages at all it does not matter.
fn grants_hugetlb_leases() -> bool {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB;
    let Ok(file) = rustix::fs::memfd_create("pinwatch", flags) else { return false };
    sys::take_write_lease(&file).map_or_else(|error| error.raw_os_error() != Some(libc::EINVAL), |()| true)
}
