//! What is pinned by the kernel's own count, and how much of it is explained.

use std::time::Duration;

use super::Watch;
use crate::model::KernelCount;
use crate::source::proc::vmstat;
use crate::source::trace::Snapshot;

/// So often the count is looked at, at most: direct I/O moves it, and what is wanted is its least.
const SAMPLES: u32 = 8;
/// How long between two looks.
const APART: Duration = Duration::from_millis(2);

impl Watch {
    /// Compares the kernel's count with what was read of pins a moment ago, `seen` being how many had been made and released
    /// before that; `None` where the kernel does not count.
    pub(super) fn count(&self, snapshot: &Snapshot, seen: (u64, u64)) -> Option<KernelCount> {
        let (attributed, unclaimed) = snapshot.references();
        let known = i64::try_from(attributed.saturating_add(unclaimed)).unwrap_or(i64::MAX);
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for sample in 0..SAMPLES {
            if sample > 0 {
                std::thread::sleep(APART);
            }
            // Each CPU keeps a part of the count to itself for a while.
            vmstat::refresh();
            let now = vmstat::pins()?.held();
            (least, most) = (least.min(now), most.max(now));
            if now == known {
                break;
            }
        }
        let uncertain = (self.seen() == seen).then(|| most.abs_diff(least));
        Some(KernelCount { references: least, attributed, unclaimed, uncertain })
    }
}
