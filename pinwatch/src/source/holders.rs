//! From what the iterators found to the holders of each anchor. Pure.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use pinwatch_common::{HolderRecord, via};

use crate::model::{Holder, Holding, HoldingIndex, ProcessIndex, Table, Via};

/// How all anchors are kept.
pub struct Holdings {
    /// By anchor; one that is not there is kept by nobody.
    pub by_anchor: HashMap<u64, Holding>,
    /// Pins, by their object, that several anchors keep, and which do.
    pub shared: HashMap<u64, Vec<u64>>,
}

/// Gives each pin its holding, each holding being in the table once.
pub struct HoldingRows<'a> {
    holdings: &'a Holdings,
    by_anchor: HashMap<u64, HoldingIndex>,
}

impl<'a> HoldingRows<'a> {
    /// None given yet.
    pub fn new(holdings: &'a Holdings) -> Self {
        Self { holdings, by_anchor: HashMap::default() }
    }

    /// The place of a pin's holding; `None` if its anchor is not known (0).
    pub fn row_of(&mut self, object: u64, anchor: u64, table: &mut Table) -> Option<HoldingIndex> {
        if anchor == 0 {
            return None;
        }
        if let Some(anchors) = self.holdings.shared.get(&object) {
            let mut whole = Holding::nobody();
            for holding in anchors.iter().filter_map(|anchor| self.holdings.by_anchor.get(anchor)) {
                whole.in_flight = whole.in_flight.zip(holding.in_flight).map(|(a, b)| a.saturating_add(b));
                merge(&mut whole.holders, &holding.holders);
                merge(&mut whole.receivers, &holding.receivers);
            }
            return Some(table.add_holding(whole));
        }
        let place = || {
            table.add_holding(self.holdings.by_anchor.get(&anchor).cloned().unwrap_or_else(Holding::nobody))
        };
        Some(*self.by_anchor.entry(anchor).or_insert_with(place))
    }
}

/// Adds holders, a process that is there already keeping its place.
fn merge(into: &mut Vec<Holder>, more: &[Holder]) {
    for holder in more {
        match into.iter_mut().find(|known| known.process == holder.process) {
            Some(known) => known.via.extend(&holder.via),
            None => into.push(holder.clone()),
        }
    }
}

/// What is known of one anchor while records come in.
#[derive(Default)]
struct Ways {
    holders: BTreeMap<(u32, u64), (ProcessIndex, Vec<Via>)>,
    messages: HashSet<(u64, u32)>,
    receivers: BTreeMap<(u32, u64), (ProcessIndex, Vec<Via>)>,
}

/// Sorts records by anchor and process. `process` gives a process its place in the table. A record that says what this
/// version does not know still makes its process a holder.
pub fn by_anchor(
    records: &[HolderRecord],
    mut process: impl FnMut(&HolderRecord) -> ProcessIndex,
) -> HashMap<u64, Holding> {
    let mut anchors: HashMap<u64, Ways> = HashMap::default();
    for record in records {
        let ways = anchors.entry(record.anchor).or_default();
        let value = u32::try_from(record.value).unwrap_or(u32::MAX);
        let (to, how) = match record.via {
            via::IN_FLIGHT => {
                ways.messages.insert((record.message, record.index));
                (&mut ways.receivers, Some(Via::Fd(value)))
            }
            via::FD => (&mut ways.holders, Some(Via::Fd(value))),
            via::MAPPING => (&mut ways.holders, Some(Via::Mapping(record.value))),
            via::RING_FILE => {
                let ring = Some(value).filter(|_| record.value != via::NO_FD);
                (&mut ways.holders, Some(Via::RingFile(ring)))
            }
            via::REGISTERED => (&mut ways.holders, Some(Via::Registered(value))),
            _ => (&mut ways.holders, None),
        };
        let (_, vias) = to.entry((record.pid, record.start)).or_insert_with(|| (process(record), Vec::new()));
        // Threads with a descriptor table of their own show the same descriptor again.
        vias.extend(how.filter(|how| !vias.contains(how)));
    }
    let holding = |ways: Ways| Holding {
        holders: holders(ways.holders),
        in_flight: Some(u32::try_from(ways.messages.len()).unwrap_or(u32::MAX)),
        receivers: holders(ways.receivers),
    };
    anchors.into_iter().map(|(anchor, ways)| (anchor, holding(ways))).collect()
}

fn holders(ways: BTreeMap<(u32, u64), (ProcessIndex, Vec<Via>)>) -> Vec<Holder> {
    let one = |(process, mut via): (ProcessIndex, Vec<Via>)| {
        via.sort_unstable();
        Holder { process, via }
    };
    ways.into_values().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(anchor: u64, pid: u32, via: u32, value: u64) -> HolderRecord {
        HolderRecord { anchor, pid, start: u64::from(pid), via, value, ..Default::default() }
    }

    fn sort(records: &[HolderRecord]) -> HashMap<u64, Holding> {
        by_anchor(records, |record| ProcessIndex(record.pid))
    }

    #[test]
    fn ways_are_gathered_by_process_and_each_is_there_once() {
        let anchors = sort(&[
            record(1, 20, via::FD, 7),
            record(1, 10, via::MAPPING, 0x1000),
            record(1, 20, via::FD, 3),
            record(1, 20, via::FD, 7),
            record(2, 20, via::REGISTERED, 0),
            record(2, 20, via::RING_FILE, 4),
            record(2, 20, via::RING_FILE, via::NO_FD),
        ]);
        let holders = [
            Holder { process: ProcessIndex(10), via: vec![Via::Mapping(0x1000)] },
            Holder { process: ProcessIndex(20), via: vec![Via::Fd(3), Via::Fd(7)] },
        ];
        assert_eq!(anchors[&1].holders, holders);
        assert_eq!(
            anchors[&2].holders[0].via,
            [Via::Registered(0), Via::RingFile(None), Via::RingFile(Some(4))]
        );
    }

    #[test]
    fn a_descriptor_in_flight_is_counted_once_and_holds_nothing() {
        let waiting =
            |pid, fd, message, index| HolderRecord { message, index, ..record(1, pid, via::IN_FLIGHT, fd) };
        let anchors = sort(&[waiting(5, 3, 0x100, 0), waiting(6, 9, 0x100, 0), waiting(5, 3, 0x100, 1)]);
        let holding = &anchors[&1];
        assert_eq!((holding.holders.len(), holding.in_flight, holding.receivers.len()), (0, Some(2), 2));
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let again = HolderRecord { start: 99, ..record(1, 5, via::FD, 3) };
        assert_eq!(sort(&[record(1, 5, via::FD, 3), again])[&1].holders.len(), 2);
    }
}
