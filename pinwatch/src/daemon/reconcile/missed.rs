//! What the BPF programs say that they lost, as gaps of the table. Pure.

use crate::kernel::bpf::{MapFull, Missed};
use crate::model::{FullMap, Gap};

/// The gaps. `unseen`: of the calls that the kernel skipped, those whose effect was not found since.
pub fn gaps(missed: &Missed, unseen: u64) -> impl Iterator<Item = Gap> {
    let MapFull { pins, extents, files, calls, shares, leases, waiters } = missed.map_full;
    let maps = [
        (FullMap::Pins, pins),
        (FullMap::Extents, extents),
        (FullMap::Files, files),
        (FullMap::Leases, leases),
        (FullMap::Waiters, waiters),
        (FullMap::Shares, shares),
        (FullMap::Calls, calls),
    ];
    let skipped = (unseen > 0).then_some(Gap::SkippedHooks { calls: unseen });
    let returns = (missed.no_kretprobe > 0).then_some(Gap::MissedReturns { calls: missed.no_kretprobe });
    let full = maps.into_iter().filter(|(_, times)| *times > 0);
    let full = full.map(|(map, times)| Gap::MapFull { map, times });
    skipped.into_iter().chain(returns).chain(full)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GapCode;

    #[test]
    fn each_loss_is_a_gap_of_its_own() {
        assert_eq!(gaps(&Missed::default(), 0).count(), 0);
        let map_full = MapFull { pins: 1, extents: 2, files: 3, calls: 4, shares: 5, leases: 6, waiters: 7 };
        let missed = Missed { skipped: 9, no_kretprobe: 2, map_full, ..Missed::default() };
        let codes: Vec<(GapCode, Option<u64>)> =
            gaps(&missed, 8).map(|gap| (gap.code(), gap.count())).collect();
        for expected in [
            (GapCode::SkippedHooks, 8),
            (GapCode::MissedReturns, 2),
            (GapCode::PinsFull, 1),
            (GapCode::ExtentsFull, 2),
            (GapCode::FilesFull, 3),
            (GapCode::CallsFull, 4),
            (GapCode::SharesFull, 5),
            (GapCode::LeasesFull, 6),
            (GapCode::WaitersFull, 7),
        ] {
            assert!(codes.contains(&(expected.0, Some(expected.1))), "{expected:?} in {codes:?}");
        }
        assert_eq!(codes.len(), 9);
    }

    #[test]
    fn events_and_records_that_were_replaced_leave_no_gap() {
        let missed = Missed { replaced: 3, events: 7, ..Missed::default() };
        assert_eq!(gaps(&missed, 0).count(), 0);
        // What was found since is not missing any more.
        assert_eq!(gaps(&Missed { skipped: 9, ..missed }, 0).count(), 0);
    }
}
