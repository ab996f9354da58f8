//! How many pages are pinned by the kernel's own count, to compare with what the pins explain.

use std::time::Duration;

use tracing::{info, warn};

use crate::source::blocking::TimedWorker;
use crate::source::host::vmstat;

/// So often the count is read, at most: direct I/O moves it, and what is wanted is its minimum.
const SAMPLES: u32 = 8;
/// How long between two samples.
const APART: Duration = Duration::from_millis(2);
/// How long the CPUs may take to add their parts of the count: `lspins` waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// The count over some milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// The least of the samples.
    pub least: i64,
    /// By how much it may be wrong.
    pub uncertain: u64,
}

/// Has the CPUs add their parts of the count, each of which keeps some to itself for a while.
pub struct StatRefresher {
    worker: TimedWorker,
    /// Whether all of them did the last time.
    is_fresh: bool,
}

impl Default for StatRefresher {
    fn default() -> Self {
        Self { worker: TimedWorker::new("pinwatch-vmstat"), is_fresh: true }
    }
}

impl StatRefresher {
    /// Reads the count some times, until it is the one that is `known`; `None` where the kernel does not count.
    pub fn sample(&mut self, known: i64) -> Option<Sampled> {
        let (mut least, mut most, mut is_fresh) = (i64::MAX, i64::MIN, true);
        for sample in 0..SAMPLES {
            if sample > 0 {
                std::thread::sleep(APART);
            }
            is_fresh &= self.refresh();
            let now = vmstat::pins()?.held();
            (least, most) = (least.min(now), most.max(now));
            if now == known {
                break;
            }
        }
        let slack = if is_fresh { 0 } else { vmstat::slack() };
        Some(Sampled { least, uncertain: most.abs_diff(least).saturating_add(slack) })
    }

    fn refresh(&mut self) -> bool {
        let is_fresh = self.worker.call_timeout(vmstat::refresh, PATIENCE).unwrap_or(false);
        match (std::mem::replace(&mut self.is_fresh, is_fresh), is_fresh) {
            (true, false) if self.worker.is_hung() => warn!(
                "a CPU has not run a kernel worker for 1 s: its part of the kernel's count of pinned pages is not known"
            ),
            (true, false) => {
                warn!("cannot refresh the kernel's count of pinned pages (vm.stat_refresh): it may be behind")
            }
            (false, true) => info!("the kernel's count of pinned pages is up to date again"),
            (true, true) | (false, false) => {}
        }
        is_fresh
    }
}
