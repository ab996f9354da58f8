//! Pins as the BPF programs recorded them: the maps are read whole and joined, and give observations.
//!
//! What is in the maps is exact for pins made since the programs were attached. What is older, and what the kernel says it
//! lost, is in `Table::gaps`.

mod records;
mod ring;

use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use pinwatch_common::{
    DeviceName, ExtentKey, ExtentRecord, FileKey, FileRecord, HolderRecord, LeaseRecord, LongPath,
    MAX_EXTENTS, PinRecord, SHORT_PATH, ShareKey,
    subsystems::{Kind, Subsystem},
};

use crate::kernel::bpf::{BpfError, Programs};
use crate::model::{File, FileIndex, Gap, ProcessIndex, Table, Waiter};
use crate::source::assemble::Assembler;
use crate::source::clocks::Clocks;
use crate::source::file_records;
use crate::source::files::{FileStates, Files};
use crate::source::holders::{self, Holdings};
use crate::source::host::char_devices::CharDevices;
use crate::source::host::{locks, process};
use crate::source::leases::{self, LeaseRules, ResolvedLease};
use crate::source::naming::{Naming, Reading};
use crate::source::process_contexts::{ProcessContexts, Processes};

pub use records::PAGE;
pub use ring::RingRecord;

/// What is read besides the maps, and remembered from one pass to the next.
pub struct Context<'a> {
    /// The loaded programs.
    pub programs: &'a mut Programs,
    /// Whether files still have their names.
    pub states: &'a mut FileStates,
    /// What processes belong to.
    pub contexts: &'a mut ProcessContexts,
}

/// Who keeps what, and the leases.
struct Seen {
    holdings: Holdings,
    /// `None` if leases are not traced.
    leases: Option<Vec<ResolvedLease>>,
    waiters: HashMap<FileIndex, Vec<Waiter>>,
}

/// Everything in the maps, once.
pub struct Snapshot {
    pins: Vec<(u64, PinRecord)>,
    extents: HashMap<ExtentKey, ExtentRecord>,
    files: HashMap<FileKey, FileRecord>,
    long_paths: HashMap<FileKey, LongPath>,
    devices: HashMap<u32, DeviceName>,
}

impl Snapshot {
    /// Reads the maps. Pins come first: their files and extents are written before them and removed after them, so what a
    /// pin that still exists refers to is found.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn read(programs: &Programs) -> Result<Self, BpfError> {
        let pins: Vec<(u64, PinRecord)> = programs.entries("PINS")?;
        let further: Vec<ExtentKey> = pins
            .iter()
            .flat_map(|(_, pin)| {
                let key = |index| ExtentKey { sequence: pin.sequence, index: u64::from(index) };
                (1..pin.extents.min(MAX_EXTENTS)).map(key)
            })
            .collect();
        let extents: HashMap<ExtentKey, ExtentRecord> =
            programs.some("EXTENTS", &further)?.into_iter().collect();
        let used = pins.iter().map(|(_, pin)| pin.first).chain(extents.values().copied());
        let keys: HashSet<FileKey> =
            used.map(|extent| extent.file).filter(|key| *key != FileKey::default()).collect();
        let keys: Vec<FileKey> = keys.into_iter().collect();
        let files: HashMap<FileKey, FileRecord> = programs.some("FILES", &keys)?.into_iter().collect();
        let is_long =
            |(key, file): (&FileKey, &FileRecord)| (file.length as usize > SHORT_PATH).then_some(*key);
        let long: Vec<FileKey> = files.iter().filter_map(is_long).collect();
        let long_paths = programs.some("LONG_PATHS", &long)?.into_iter().collect();
        let devices = programs.entries("DEVICES")?.into_iter().collect();
        Ok(Self { pins, extents, files, long_paths, devices })
    }

    /// How many pins there are.
    pub fn len(&self) -> usize {
        self.pins.len()
    }

    /// Whether there are no pins.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    /// How many references to pages the kernel counts for pins of subsystems, and for those that nobody claims.
    pub fn references(&self) -> (u64, u64) {
        let of = |pin: &PinRecord| if pin.references == 0 { records::pages(pin) } else { pin.references };
        self.pins.iter().fold((0, 0), |(attributed, unclaimed), (_, pin)| match Kind::try_from(pin.kind) {
            Ok(Kind::Unclaimed) => (attributed, unclaimed + of(pin)),
            Ok(_) => (attributed + of(pin), unclaimed),
            // It is not listed: what it has is explained by nothing.
            Err(_) => (attributed, unclaimed),
        })
    }

    /// Maps, and how many of their entries were read.
    pub fn entries(&self) -> [(&'static str, usize); 3] {
        [("pins", self.pins.len()), ("extents", self.extents.len()), ("files", self.files.len())]
    }

    /// Files that no pin refers to and that were last used before `since` (boot time, nanoseconds).
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn unused_files(&self, programs: &Programs, since: u64) -> Result<Vec<FileKey>, BpfError> {
        let extents = self.pins.iter().map(|(_, pin)| pin.first).chain(self.extents.values().copied());
        let used: HashSet<FileKey> = extents.map(|extent| extent.file).collect();
        let files: Vec<(FileKey, FileRecord)> = programs.entries("FILES")?;
        let unused = |(key, file): &&(FileKey, FileRecord)| file.used < since && !used.contains(key);
        Ok(files.iter().filter(unused).map(|(key, _)| *key).collect())
    }

    /// The table of what was read.
    pub fn table(
        &self,
        clocks: Clocks,
        rules: &LeaseRules<'_>,
        reading: &Reading<'_>,
        cx: &mut Context<'_>,
    ) -> Table {
        let makers: HashSet<(u32, u64)> = self.pins.iter().map(|(_, pin)| maker(pin)).collect();
        cx.contexts.retain(&makers);
        let mut processes = Processes::new(cx.contexts);
        let mut files = Files::new(&self.files, &self.long_paths);
        let mut into = Assembler::with_room(self.pins.len());
        self.observe_pins(clocks, reading, &mut files, &mut processes, &mut into);
        let seen = self.observe_holders(clocks, rules, &mut files, &mut processes, cx.programs, &mut into);
        let pinned = self.pins.iter().map(|(_, pin)| (pin.first.file, (pin.pid_tgid >> 32) as u32));
        into.set_files(files.into_rows(pinned, cx.states, cx.programs));
        if let Some(Seen { holdings, leases, waiters }) = seen {
            into.resolve_holders(&holdings);
            if let Some(leases) = leases {
                let (by_anchor, lookup) = (&holdings.by_anchor, &mut cx.states.lookup);
                let leases =
                    leases::observe(leases, by_anchor, &waiters, rules, lookup, &mut processes, &mut into);
                into.apply_leases(leases);
            }
        }
        if let unanswered @ 1.. = cx.states.lookup.unanswered() {
            into.add_gap(Gap::FileSystemSilent { files: unanswered as u64 });
        }
        into.finish()
    }

    /// The pins of the records.
    fn observe_pins(
        &self,
        clocks: Clocks,
        reading: &Reading<'_>,
        files: &mut Files<'_>,
        processes: &mut Processes<'_>,
        into: &mut Assembler,
    ) {
        let (char_devices, callers) = (CharDevices::default(), reading.callers);
        let naming = Naming { rdma_devices: &self.devices, char_devices: &char_devices, callers };
        let (mut segments, mut unknown) = (Vec::new(), 0);
        for (key, record) in &self.pins {
            if callers.under_way.contains(&record.sequence) {
                continue;
            }
            let Ok(described) = (reading.describe)(record, &naming) else {
                unknown += 1;
                continue;
            };
            let (pid, start) = maker(record);
            let creator = processes.intern(pid, start, record.comm, record.uid, into.rows());
            records::segments(record, &self.extents, files, &mut segments);
            into.observe(records::observation(record, *key, described, creator, &segments, clocks));
        }
        if unknown > 0 {
            into.add_gap(Gap::UnknownKind { pins: unknown });
        }
    }

    /// Who keeps the pins, and the leases that are seen on the way; `None` if that cannot be read.
    fn observe_holders(
        &self,
        clocks: Clocks,
        rules: &LeaseRules<'_>,
        files: &mut Files<'_>,
        processes: &mut Processes<'_>,
        programs: &mut Programs,
        into: &mut Assembler,
    ) -> Option<Seen> {
        let before = if rules.watched { locks::leases(process::is_nfsd) } else { Vec::new() };
        let process = |record: &HolderRecord| {
            processes.intern(record.pid, record.start, record.comm, record.uid, into.rows())
        };
        let (holdings, records) = match self.holdings(programs, process) {
            Ok(found) => found,
            Err(error) => {
                into.add_gap(Gap::HoldersUnknown { why: error.to_string() });
                return None;
            }
        };
        let locks = match before.is_empty() {
            true => before,
            false => locks::both(before, locks::leases(process::is_nfsd)),
        };
        let leases = rules.watched.then(|| leases::resolve(&records, &locks, files, programs));
        let mut waiters = HashMap::default();
        if !records.is_empty() {
            // After the leases: of who begins to wait only now, the lease is not seen to be broken.
            waiters = leases::waiters(&programs.waiters().unwrap_or_default(), clocks, files);
        }
        Some(Seen { holdings, leases, waiters })
    }

    /// A file that was pinned at some time in the last minute, by its identity.
    pub fn file(programs: &Programs, key: &FileKey) -> Option<File> {
        let record: FileRecord = programs.some("FILES", &[*key]).ok()?.into_iter().next()?.1;
        let long: Option<LongPath> = match record.length as usize > SHORT_PATH {
            true => programs.some("LONG_PATHS", &[*key]).ok()?.into_iter().next().map(|(_, path)| path),
            false => None,
        };
        Some(file_records::named(key, &record, long.as_ref()))
    }

    /// Whether there is any pin of a subsystem.
    pub fn has_pins_of(&self, subsystem: Subsystem) -> bool {
        self.pins.iter().any(|(_, pin)| is_of(pin, subsystem))
    }

    /// Takes out the pins of a subsystem that are gone; gives their objects and sequence numbers.
    pub fn take_gone(
        &mut self,
        subsystem: Subsystem,
        is_gone: &dyn Fn(&PinRecord) -> bool,
    ) -> Vec<(u64, u64)> {
        let is_gone = |entry: &mut (u64, PinRecord)| is_of(&entry.1, subsystem) && is_gone(&entry.1);
        self.pins.extract_if(.., is_gone).map(|(object, pin)| (object, pin.sequence)).collect()
    }

    /// Who keeps the pins' anchors, and the leases that were seen on the way; the holders of leases are listed by the lease's own
    /// address.
    fn holdings(
        &self,
        programs: &mut Programs,
        process: impl FnMut(&HolderRecord) -> ProcessIndex,
    ) -> Result<(Holdings, Vec<(u64, LeaseRecord)>), BpfError> {
        let mut shares = programs.shares()?;
        // The anchors of the pins that are shared.
        let mut first: HashMap<u64, u64> = HashMap::default();
        if !shares.is_empty() {
            let objects: HashSet<u64> = shares.iter().map(|share| share.object).collect();
            let known = self.pins.iter().filter(|(object, _)| objects.contains(object));
            first = known.map(|(object, pin)| (*object, pin.anchor)).collect();
        }
        let gone: Vec<ShareKey> = shares.extract_if(.., |share| !first.contains_key(&share.object)).collect();
        programs.forget_shares(&gone)?;
        let all = self.pins.iter().map(|(_, pin)| pin.anchor).chain(shares.iter().map(|share| share.anchor));
        let pass = programs.pass(&all.filter(|anchor| *anchor != 0).collect())?;
        let by_anchor = holders::by_anchor(&pass.holders, process);
        // A shared buffer is kept by those of the rings that have it still, the first one too.
        let mut shared: HashMap<u64, Vec<u64>> = HashMap::default();
        for share in &shares {
            shared.entry(share.object).or_insert_with(|| vec![first[&share.object]]).push(share.anchor);
        }
        for (object, rings) in &mut shared {
            let mut still = Vec::new();
            for ring in rings.drain(..) {
                if by_anchor.contains_key(&ring) && programs.ring_has(ring, *object)? {
                    still.push(ring);
                }
            }
            *rings = still;
        }
        Ok((Holdings { by_anchor, shared }, pass.leases))
    }
}

fn is_of(pin: &PinRecord, subsystem: Subsystem) -> bool {
    Kind::try_from(pin.kind).is_ok_and(|kind| kind.subsystem() == subsystem)
}

/// Who made a pin: process id, and start in nanoseconds since boot.
fn maker(pin: &PinRecord) -> (u32, u64) {
    ((pin.pid_tgid >> 32) as u32, pin.start)
}
