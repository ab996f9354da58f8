//! From observations to the table: rows, parts, holders, and the verdict on each pin's leases. Pure.
//!
//! It does not ask which source an observation is from. What a source could not see it adds as a gap.

use super::coverage::apply_coverage;
use super::holders::{HoldingRows, Holdings};
use super::observation::{Held, LeaseObservations, Memory, PinObservation};
use crate::model::{
    Backing, Coverage, CoverageState, File, Gap, Holding, HoldingIndex, Part, Parts, Pin, PinId, Process,
    ProcessIndex, Table, parts_of,
};

/// A table in the making.
#[derive(Default)]
pub struct Assembler {
    table: Table,
    /// Of each pin, in the order of the table's, the kernel's object and anchor; zeros where its holders are known otherwise.
    anchors: Vec<(u64, u64)>,
}

impl Assembler {
    /// An empty table with room for so many pins.
    pub fn with_room(pins: usize) -> Self {
        let mut assembler = Self::default();
        assembler.table.pins.reserve(pins);
        assembler.anchors.reserve(pins);
        assembler
    }

    /// The rows so far, to look some up.
    pub fn rows(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Adds a process; gives its row.
    pub fn add_process(&mut self, process: Process) -> ProcessIndex {
        self.table.add_process(process)
    }

    /// Adds holders; gives their row.
    pub fn add_holding(&mut self, holding: Holding) -> HoldingIndex {
        self.table.add_holding(holding)
    }

    /// Adds what could not be seen.
    pub fn add_gap(&mut self, gap: Gap) {
        self.table.gaps.push(gap);
    }

    /// Adds a pin.
    #[inline]
    pub fn observe(&mut self, seen: PinObservation<'_>) {
        let parts = match seen.memory {
            Memory::Runs(runs) => parts_of(runs),
            Memory::Unknown => Part::unknown(seen.bytes),
        };
        let (holding, anchor) = match seen.held {
            Held::Unknown => (None, (0, 0)),
            Held::By(holding) => (Some(holding), (0, 0)),
            Held::Anchor { object, anchor } => (None, (object, anchor)),
        };
        self.anchors.push(anchor);
        let state = state_without_leases(&parts);
        self.table.pins.push(Pin {
            id: PinId { subsystem: seen.object.subsystem(), sequence: seen.sequence },
            object: seen.object,
            mode: seen.mode,
            bytes: seen.bytes,
            pages: seen.pages,
            address: seen.address,
            parts,
            doubts: seen.doubts,
            orphan_pages: None,
            creator: seen.creator,
            holding,
            coverage: Coverage { state, ..Coverage::default() },
            created: seen.created,
            origin: seen.origin,
        });
    }

    /// Gives the pins with a known anchor their holders.
    pub fn resolve_holders(&mut self, holdings: &Holdings) {
        let mut rows = HoldingRows::new(holdings);
        let mut pins = std::mem::take(&mut self.table.pins);
        for (pin, (object, anchor)) in pins.iter_mut().zip(&self.anchors).filter(|(_, of)| of.1 != 0) {
            pin.holding = rows.row_of(*object, *anchor, &mut self.table);
        }
        self.table.pins = pins;
    }

    /// Adds the leases, and their verdicts to the pins.
    pub fn apply_leases(&mut self, seen: LeaseObservations) {
        apply_coverage(&mut self.table, seen);
    }

    /// Sets the files, in the order of the rows that pins and leases refer to.
    pub fn set_files(&mut self, files: Vec<File>) {
        self.table.files = files;
    }

    /// The table.
    pub fn finish(self) -> Table {
        self.table
    }
}

/// The verdict while nobody has looked for leases.
fn state_without_leases(parts: &Parts) -> CoverageState {
    let can_have_one = |part: &Part| match part.backing {
        Backing::Anon | Backing::Device | Backing::Devdax => false,
        Backing::File | Backing::Shmem | Backing::Hugetlb | Backing::Unknown => true,
    };
    if parts.iter().any(can_have_one) { CoverageState::Unknown } else { CoverageState::NotApplicable }
}

#[cfg(test)]
mod tests {
    use rustc_hash::FxHashMap as HashMap;

    use super::*;
    use crate::model::object::xdp;
    use crate::model::{
        Device, Doubts, FileId, FileIndex, Holder, Lease, LeaseKind, LeaseMode, LeaseState, Mode, Name,
        Origin, Segment, Via,
    };

    const FILE: FileIndex = FileIndex(0);

    fn run(backing: Backing) -> Segment {
        let file = matches!(backing, Backing::File | Backing::Hugetlb).then_some(FILE);
        Segment { backing, file, offset: 0, length: 4096 }
    }

    fn pin(sequence: u64, memory: Memory<'_>, held: Held) -> PinObservation<'_> {
        PinObservation {
            origin: Origin::Trace,
            sequence,
            object: xdp::Object { umem: 1 }.into(),
            mode: Mode::ReadWrite,
            bytes: 4096,
            pages: 1,
            address: None,
            memory,
            doubts: Doubts::NONE,
            creator: None,
            held,
            created: None,
        }
    }

    fn file() -> File {
        let id = FileId { dev: Device { major: 1, minor: 1 }, ino: 1, generation: None };
        let (path, fstype) = (Name::from("/f"), "xfs".to_owned());
        File { id, path, path_complete: true, fstype, deleted: Some(false), dax: false }
    }

    /// A table with one pin of this memory, which one process holds, and perhaps a write lease of that process on the file.
    fn assembled(memory: Memory<'_>, leased: bool, doubts: LeaseObservations) -> CoverageState {
        let mut into = Assembler::with_room(1);
        let process = into.add_process(Process { pid: 7, ..Process::default() });
        let holder = Holder { process, via: vec![Via::Fd(3)] };
        let holding = into.add_holding(Holding { holders: vec![holder], ..Holding::nobody() });
        into.observe(pin(1, memory, Held::By(holding)));
        into.set_files(vec![file()]);
        let lease = Lease {
            file: FILE,
            below: Vec::new(),
            kind: LeaseKind::Lease,
            mode: LeaseMode::Write,
            state: LeaseState::Active,
            taker: None,
            holding,
            taken: None,
            broken: None,
            waiters: Vec::new(),
        };
        into.apply_leases(LeaseObservations {
            leases: leased.then_some(lease).into_iter().collect(),
            ..doubts
        });
        into.finish().pins[0].coverage.state
    }

    #[test]
    fn while_nobody_looks_for_leases_only_what_can_have_none_has_a_verdict() {
        for (backing, state) in [
            (Backing::Anon, CoverageState::NotApplicable),
            (Backing::Device, CoverageState::NotApplicable),
            (Backing::Devdax, CoverageState::NotApplicable),
            (Backing::File, CoverageState::Unknown),
            (Backing::Hugetlb, CoverageState::Unknown),
            (Backing::Unknown, CoverageState::Unknown),
        ] {
            let mut into = Assembler::default();
            into.observe(pin(1, Memory::Runs(&[run(backing)]), Held::Unknown));
            assert_eq!(into.finish().pins[0].coverage.state, state, "{backing:?}");
        }
    }

    #[test]
    fn memory_that_is_not_known_is_one_part_of_the_pins_size() {
        let mut into = Assembler::default();
        into.observe(pin(1, Memory::Unknown, Held::Unknown));
        let table = into.finish();
        assert_eq!((table.pins[0].parts.len(), table.pins[0].parts[0].backing), (1, Backing::Unknown));
        assert_eq!((table.pins[0].parts[0].bytes, table.pins[0].holding), (4096, None));
    }

    #[test]
    fn leases_cover_unless_they_are_in_doubt() {
        let on_file = [run(Backing::File)];
        let file = Memory::Runs(&on_file);
        let none = LeaseObservations::default;
        assert_eq!(assembled(file, true, none()), CoverageState::Write);
        assert_eq!(assembled(file, false, none()), CoverageState::None);
        for doubt in [
            LeaseObservations { some_unseen: true, ..none() },
            LeaseObservations { unclear_files: [FILE].into(), ..none() },
            LeaseObservations { unclear_holders: [ProcessIndex(0)].into(), ..none() },
        ] {
            assert_eq!(assembled(file, false, doubt), CoverageState::Unknown);
        }
        // Of somebody else.
        let other = LeaseObservations { unclear_holders: [ProcessIndex(9)].into(), ..none() };
        assert_eq!(assembled(file, false, other), CoverageState::None);
    }

    #[test]
    fn hugetlb_has_leases_where_the_kernel_grants_them() {
        let runs = [run(Backing::Hugetlb)];
        for (hugetlb, state) in [(true, CoverageState::None), (false, CoverageState::NotApplicable)] {
            let rules = LeaseObservations { hugetlb, ..LeaseObservations::default() };
            assert_eq!(assembled(Memory::Runs(&runs), false, rules), state);
        }
    }

    #[test]
    fn a_part_that_is_not_known_may_be_a_file_without_a_lease() {
        let runs = [run(Backing::File), run(Backing::Unknown)];
        for (unknown_may_be_files, state) in [(false, CoverageState::Write), (true, CoverageState::Unknown)] {
            let rules = LeaseObservations { unknown_may_be_files, ..LeaseObservations::default() };
            assert_eq!(assembled(Memory::Runs(&runs), true, rules), state);
        }
    }

    #[test]
    fn holders_are_found_by_anchor_and_others_keep_theirs() {
        let mut into = Assembler::default();
        let own = into.add_holding(Holding { in_flight: Some(1), ..Holding::default() });
        into.observe(pin(1, Memory::Unknown, Held::By(own)));
        into.observe(pin(2, Memory::Unknown, Held::Anchor { object: 16, anchor: 32 }));
        into.observe(pin(3, Memory::Unknown, Held::Anchor { object: 17, anchor: 0 }));
        into.observe(pin(4, Memory::Unknown, Held::Anchor { object: 18, anchor: 33 }));
        let kept = Holding { in_flight: Some(2), ..Holding::default() };
        let by_anchor: HashMap<u64, Holding> = [(32, kept)].into_iter().collect();
        into.resolve_holders(&Holdings { by_anchor, shared: HashMap::default() });
        let table = into.finish();
        let in_flight = |at: usize| table.holding(&table.pins[at]).map(|holding| holding.in_flight);
        assert_eq!([0, 1, 2, 3].map(in_flight), [Some(Some(1)), Some(Some(2)), None, Some(Some(0))]);
    }
}
