//! What is pinned by the kernel's own count, and how much of it is explained.

use std::time::Duration;

use tracing::{info, warn};

use super::Watch;
use super::exporter::Activity;
use crate::kernel::bpf::BpfError;
use crate::model::{Gap, KernelCount, Table};
use crate::source::blocking::TimedWorker;
use crate::source::host::vmstat;
use crate::source::trace::Snapshot;

/// So often the count is looked at, at most: direct I/O moves it, and what is wanted is its least.
const SAMPLES: u32 = 8;
/// How long between two looks.
const APART: Duration = Duration::from_millis(2);
/// How long the CPUs may take to add their parts of the count: `lspins` waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// Has the CPUs add their parts of the count.
pub struct Refresh {
    worker: TimedWorker,
    /// Whether all of them did when last asked.
    fresh: bool,
}

impl Default for Refresh {
    fn default() -> Self {
        Self { worker: TimedWorker::new("pinwatch-vmstat"), fresh: true }
    }
}

impl Refresh {
    fn ask(&mut self) -> bool {
        let fresh = self.worker.call_timeout(vmstat::refresh, PATIENCE).unwrap_or(false);
        match (std::mem::replace(&mut self.fresh, fresh), fresh) {
            (true, false) if self.worker.is_hung() => warn!(
                "a CPU has not run a kernel worker for a second: what it keeps of the kernel's count of pinned pages is not known"
            ),
            (true, false) => {
                warn!("the kernel's count of pinned pages cannot be brought up to date (vm.stat_refresh)")
            }
            (false, true) => info!("the kernel's count of pinned pages is up to date again"),
            _ => {}
        }
        fresh
    }
}

impl Watch {
    /// The table now, with what the kernel counts.
    ///
    /// # Errors
    /// As for [`Watch::table`].
    pub fn counted(&mut self) -> Result<Table, BpfError> {
        let table = self.look_and_count()?;
        if !table.kernel.is_some_and(|count| count.is_short()) {
            return Ok(table);
        }
        self.healing.ask();
        self.look_and_count()
    }

    fn look_and_count(&mut self) -> Result<Table, BpfError> {
        let activity = self.activity();
        let (snapshot, mut table) = self.look()?;
        table.kernel = self.count(&snapshot, activity);
        let surplus = table.kernel.and_then(|count| count.surplus());
        table.gaps.extend(surplus.map(|pages| Gap::Unattributed { pages }));
        Ok(table)
    }

    /// Compares the kernel's count with what was read of pins a moment ago, `activity` being how many had been made and released
    /// before that; `None` where the kernel does not count.
    fn count(&mut self, snapshot: &Snapshot, activity: Activity) -> Option<KernelCount> {
        let (attributed, unclaimed) = snapshot.references();
        let known = i64::try_from(attributed.saturating_add(unclaimed)).unwrap_or(i64::MAX);
        let (mut least, mut most, mut fresh) = (i64::MAX, i64::MIN, true);
        for sample in 0..SAMPLES {
            if sample > 0 {
                std::thread::sleep(APART);
            }
            // Each CPU keeps a part of the count to itself for a while.
            fresh &= self.refresh.ask();
            let now = vmstat::pins()?.held();
            (least, most) = (least.min(now), most.max(now));
            if now == known {
                break;
            }
        }
        let slack = if fresh { 0 } else { vmstat::slack() };
        let uncertain = (self.activity() == activity).then(|| most.abs_diff(least).saturating_add(slack));
        Some(KernelCount { references: least, attributed, unclaimed, uncertain })
    }
}
