//! From one record to one pin. Pure.

use rustc_hash::FxHashMap as HashMap;

use pinwatch_common::{ExtentKey, ExtentRecord, MAX_EXTENTS, PinRecord, doubt, extent_flag};

use crate::model::{Backing, Doubt, Doubts, Origin, ProcessIndex, Segment};
use crate::source::clocks::Clocks;
use crate::source::files::Files;
use crate::source::naming::Described;
use crate::source::observation::{Held, Memory, PinObservation};

/// Base pages: all that this version runs on has them of 4 KiB.
pub const PAGE: u64 = 4096;

/// Puts the runs of a pin, in the order of its addresses, in the place of what was in `segments`.
pub fn segments(
    record: &PinRecord,
    extents: &HashMap<ExtentKey, ExtentRecord>,
    files: &mut Files<'_>,
    segments: &mut Vec<Segment>,
) {
    segments.clear();
    let mut covered = 0u64;
    for index in 0..record.extents.min(MAX_EXTENTS) {
        let extent = if index == 0 {
            Some(&record.first)
        } else {
            extents.get(&ExtentKey { sequence: record.sequence, index: u64::from(index) })
        };
        // An extent may be missing when the pin was released between the reading of two maps.
        let Some(extent) = extent else { break };
        covered = covered.saturating_add(extent.length);
        segments.push(segment(extent, files));
    }
    if covered < record.length || segments.is_empty() {
        segments.push(Segment {
            backing: Backing::Unknown,
            file: None,
            offset: 0,
            length: record.length.saturating_sub(covered),
        });
    }
}

fn segment(extent: &ExtentRecord, files: &mut Files<'_>) -> Segment {
    let anonymous = Segment { backing: Backing::Anon, file: None, offset: 0, length: extent.length };
    let has = |flag| extent.flags & flag != 0;
    // What is written through a private mapping is no longer the file's. Pins for writing copy it first; only a page seen
    // in the file's own cache (pinned for reading, 6.1) still is.
    if !has(extent_flag::FILE) || (has(extent_flag::PRIVATE) && !has(extent_flag::PAGE_FILE)) {
        return anonymous;
    }
    let (backing, file) = files.intern(&extent.file);
    Segment { backing, file: Some(file), offset: extent.offset, length: extent.length }
}

/// Why a pin's extents may not be exact. That a first page could not be read (`UNCHECKED`) is no doubt: the mappings
/// were.
fn doubts(record: &PinRecord) -> Doubts {
    const BITS: [(u32, Doubt); 7] = [
        (doubt::BUSY, Doubt::MappingsBusy),
        (doubt::UNMAPPED, Doubt::Unmapped),
        (doubt::TOO_MANY, Doubt::TooManyMappings),
        (doubt::MAP_FULL, Doubt::ExtentsFull),
        (doubt::PAGE_MISMATCH, Doubt::PageMismatch),
        (doubt::NO_PATH, Doubt::NoPath),
        (doubt::FOREIGN, Doubt::ForeignMemory),
    ];
    BITS.iter().filter(|(bit, _)| record.doubt & bit != 0).map(|(_, doubt)| *doubt).collect()
}

/// The pages that a record's range touches.
pub fn pages(record: &PinRecord) -> u64 {
    let last = record.address.saturating_add(record.length.max(1) - 1);
    last / PAGE - record.address / PAGE + 1
}

/// What a record says of its pin. `key`: the address of the kernel's object.
pub fn observation<'a>(
    record: &PinRecord,
    key: u64,
    described: Described,
    creator: ProcessIndex,
    runs: &'a [Segment],
    clocks: Clocks,
) -> PinObservation<'a> {
    let Described { object, mode, address } = described;
    PinObservation {
        origin: Origin::Trace,
        sequence: record.sequence,
        mode,
        object,
        bytes: record.length,
        pages: pages(record),
        address,
        memory: Memory::Runs(runs),
        doubts: doubts(record),
        creator: Some(creator),
        held: Held::Anchor { object: key, anchor: record.anchor },
        created: Some(clocks.of(record.created)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;
    use crate::model::object::xdp;

    fn observed(record: &PinRecord, clocks: Clocks) -> PinObservation<'static> {
        let object = xdp::Object { umem: 1 }.into();
        let described = Described { object, mode: Mode::ReadWrite, address: None };
        observation(record, 16, described, ProcessIndex(0), &[], clocks)
    }

    #[test]
    fn pages_are_those_touched() {
        let record = PinRecord { sequence: 7, address: 0x1ff0, length: 0x20, ..PinRecord::default() };
        let pin = observed(&record, Clocks { realtime: 1_000_000, boottime: 400 });
        assert_eq!((pin.pages, pin.bytes, pin.created), (2, 32, Some(999_600)));
        assert_eq!((pin.sequence, pin.held), (7, Held::Anchor { object: 16, anchor: 0 }));
    }

    #[test]
    fn hostile_lengths_do_not_overflow() {
        let record = PinRecord { address: u64::MAX - 1, length: u64::MAX, ..PinRecord::default() };
        assert!(observed(&record, Clocks { realtime: 0, boottime: 0 }).pages >= 1);
    }
}
