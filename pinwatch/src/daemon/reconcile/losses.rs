//! What the BPF programs say that they lost, as gaps of the table. Pure.

use crate::kernel::bpf::Losses;
use crate::model::{FullMap, Gap};

/// The gaps. `unseen`: of the calls that the kernel skipped, those whose effect was not found since.
pub fn gaps(losses: &Losses, unseen: u64) -> impl Iterator<Item = Gap> {
    let [pins, extents, files, calls, shares, leases, waiters] = losses.full;
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
    let returns = (losses.returns > 0).then_some(Gap::MissedReturns { calls: losses.returns });
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
        assert_eq!(gaps(&Losses::default(), 0).count(), 0);
        let losses = Losses { calls: 9, returns: 2, full: [1, 2, 3, 4, 5, 6, 7], ..Losses::default() };
        let codes: Vec<(GapCode, Option<u64>)> =
            gaps(&losses, 8).map(|gap| (gap.code(), gap.count())).collect();
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
        let losses = Losses { replaced: 3, events: 7, ..Losses::default() };
        assert_eq!(gaps(&losses, 0).count(), 0);
        // What was found since is not missing any more.
        assert_eq!(gaps(&Losses { calls: 9, ..losses }, 0).count(), 0);
    }
}
