//! Pins as the BPF programs recorded them: the maps are read whole, joined, and made into a table.
//!
//! What is in the maps is exact for pins made since the programs were attached. What is older, and what the kernel says it
//! lost, is in `Table::gaps`.

mod callers;
mod calls;
mod events;
mod files;
mod holders;
mod leases;
mod lookup;
mod names;
mod records;
mod refusals;

use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use pinwatch_common::{
    DeviceName, ExtentKey, ExtentRecord, FileKey, FileRecord, HolderRecord, LeaseRecord, LongPath,
    MAX_EXTENTS, PinRecord, SHORT_PATH, ShareKey, subsystems::Kind,
};

use crate::kernel::bpf::{BpfError, Programs};
use crate::model::{File, Gap, Holding, Name, Namespaces, Process, ProcessIndex, Table, parts_of};
use crate::source::proc::process::{self, Users};
use crate::source::proc::{Nodes, locks, rdma};

pub use callers::Callers;
pub use events::Told;
pub use files::{FileStates, nameless};
use holders::{Holdings, Places};
pub use leases::{OVERLAYFS, breaker, kind as lease_kind, mode as lease_mode};
pub use refusals::reason;

/// The clocks at one moment, to turn the kernel's time since boot into time of day.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// CLOCK_REALTIME, nanoseconds since the epoch.
    pub realtime: i64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boottime: i64,
}

impl Clocks {
    /// Both clocks now.
    pub fn now() -> Self {
        let read = |id| {
            let time = rustix::time::clock_gettime(id);
            time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
        };
        Self {
            realtime: read(rustix::time::ClockId::Realtime),
            boottime: read(rustix::time::ClockId::Boottime),
        }
    }

    /// Time of day of a moment since boot.
    pub fn of(self, boottime: u64) -> i64 {
        self.realtime - self.boottime + i64::try_from(boottime).unwrap_or(i64::MAX / 2)
    }
}

/// What there is to know of leases beforehand.
pub struct LeaseRules<'a> {
    /// Whether they are looked at.
    pub watched: bool,
    /// Whether this kernel grants them on hugetlbfs.
    pub hugetlb: bool,
    /// When one was taken, and since when it is being broken, by the kernel's object.
    pub times: &'a dyn Fn(u64) -> (Option<i64>, Option<i64>),
}

/// Where a process runs.
#[derive(Clone, Default)]
struct Place {
    cgroup: Option<Name>,
    namespaces: Namespaces,
}

/// Where processes run that pins are of, by pid and start: one that is gone is nowhere any more, and yet it is asked which
/// service or container it was.
#[derive(Default)]
pub struct Whereabouts(HashMap<(u32, u64), Place>);

impl Whereabouts {
    /// The one of a process, remembered if it is gone.
    fn of(&mut self, pid: u32, start: u64, alive: bool) -> Place {
        if alive {
            let place = Place { cgroup: process::cgroup(pid), namespaces: process::namespaces(pid) };
            // It may have ended meanwhile, and another have its number.
            if is_alive(pid, start) {
                self.0.insert((pid, start), place);
            }
        }
        self.0.get(&(pid, start)).cloned().unwrap_or_default()
    }
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
            _ => (attributed + of(pin), unclaimed),
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
        states: &mut FileStates,
        whereabouts: &mut Whereabouts,
        programs: &mut Programs,
        rules: &LeaseRules<'_>,
        callers: &Callers,
    ) -> Table {
        let makers: HashSet<(u32, u64)> = self.pins.iter().map(|(_, pin)| maker(pin)).collect();
        whereabouts.0.retain(|process, _| makers.contains(process));
        let mut table = Table::default();
        let mut users = Users::default();
        // By pid, start and name: exec makes another program of a process, whose name then was not the pin's creator's.
        let mut processes: HashMap<(u32, u64, [u8; 16]), ProcessIndex> = HashMap::default();
        let mut files = files::Files::new(&self.files, &self.long_paths);
        table.pins.reserve(self.pins.len());
        let mut anchors = Vec::with_capacity(self.pins.len());
        let mut segments = Vec::new();
        let nodes = Nodes::default();
        let mut unknown = 0;
        for (key, record) in &self.pins {
            if callers.under_way.contains(&record.sequence) {
                continue;
            }
            let Some(object) = records::object(record, &self.devices, &nodes, callers) else {
                unknown += 1;
                continue;
            };
            anchors.push((*key, record.anchor));
            let (pid, start) = maker(record);
            let creator = *processes.entry((pid, start, record.comm)).or_insert_with(|| {
                let process = process(pid, start, &record.comm, record.uid, &mut users, whereabouts);
                add(&mut table.processes, process)
            });
            records::segments(record, &self.extents, &mut files, &mut segments);
            table.pins.push(records::pin(record, object, creator, parts_of(&segments), clocks));
        }
        let mut add_process = |record: &HolderRecord| {
            *processes.entry((record.pid, record.start, record.comm)).or_insert_with(|| {
                let process =
                    process(record.pid, record.start, &record.comm, record.uid, &mut users, whereabouts);
                add(&mut table.processes, process)
            })
        };
        let mut waiters = HashMap::default();
        let before = if rules.watched { locks::leases(process::is_nfsd) } else { Vec::new() };
        let (holdings, found) = match self.holdings(programs, &mut add_process) {
            Ok((holdings, records)) => {
                let locks = if before.is_empty() {
                    before
                } else {
                    locks::both(before, locks::leases(process::is_nfsd))
                };
                let found = rules.watched.then(|| leases::find(&records, &locks, &mut files, programs));
                if !records.is_empty() {
                    // After the leases: of who begins to wait only now, the lease is not seen to be broken.
                    let waiting = programs.waiters().unwrap_or_default();
                    waiters = leases::waiters(&waiting, clocks, &mut files);
                }
                (Some(holdings), found)
            }
            Err(error) => {
                table.gaps.push(Gap::HoldersUnknown { why: error.to_string() });
                (None, None)
            }
        };
        table.files = files.into_files(&self.pins, states, programs);
        if let Some(holdings) = &holdings {
            let mut places = Places::new(holdings);
            let mut pins = std::mem::take(&mut table.pins);
            for (pin, (object, anchor)) in pins.iter_mut().zip(anchors) {
                pin.holding = places.of(object, anchor, &mut table);
            }
            table.pins = pins;
            if let Some(found) = found {
                let taker = |table: &mut Table, pid, kept: &Holding| taker(table, pid, kept, &mut users);
                let lookup = &mut states.lookup;
                leases::judge(found, &holdings.by_anchor, waiters, &mut table, rules, lookup, taker);
            }
        }
        if let unanswered @ 1.. = states.lookup.unanswered() {
            table.gaps.push(Gap::FileSystemSilent { files: unanswered as u64 });
        }
        if unknown > 0 {
            table.gaps.push(Gap::UnknownKind { pins: unknown });
        }
        table
    }

    /// A file that was pinned at some time in the last minute, by its identity.
    pub fn file(programs: &Programs, key: &FileKey) -> Option<File> {
        let record: FileRecord = programs.some("FILES", &[*key]).ok()?.into_iter().next()?.1;
        let long: Option<LongPath> = match record.length as usize > SHORT_PATH {
            true => programs.some("LONG_PATHS", &[*key]).ok()?.into_iter().next().map(|(_, path)| path),
            false => None,
        };
        Some(files::named(key, &record, long.as_ref()))
    }

    /// Takes memory regions out, and out of the kernel's map, that are released though nobody saw it; how many they were. The
    /// RDMA netlink knows all that there are.
    ///
    /// # Errors
    /// [`BpfError`]
    pub fn heal(&mut self, programs: &mut Programs) -> Result<usize, BpfError> {
        let is_region = |(_, record): &(u64, PinRecord)| record.kind == Kind::RdmaMr as u32;
        if !self.pins.iter().any(is_region) {
            return Ok(0);
        }
        let regions = rdma::Regions::read();
        let is_gone = |pin: &mut (u64, PinRecord)| is_region(pin) && regions.lack(pin.1.device, pin.1.mrn);
        let gone: Vec<(u64, PinRecord)> = self.pins.extract_if(.., is_gone).collect();
        for (object, record) in &gone {
            programs.forget(*object, record.sequence)?;
        }
        Ok(gone.len())
    }

    /// Who keeps the pins' anchors, and the leases that were seen on the way; who keeps those is told by their own address.
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

fn add(processes: &mut Vec<Process>, process: Process) -> ProcessIndex {
    processes.push(process);
    ProcessIndex((processes.len() - 1) as u32)
}

/// A process as the kernel saw it, `start` being nanoseconds since boot, and whether it still is.
fn process(
    pid: u32,
    start: u64,
    comm: &[u8],
    uid: u32,
    users: &mut Users,
    whereabouts: &mut Whereabouts,
) -> Process {
    let alive = is_alive(pid, start);
    let Place { cgroup, namespaces } = whereabouts.of(pid, start, alive);
    Process {
        pid,
        start: Some(start / NANOSECONDS_PER_TICK),
        comm: Name::from(names::until_nul(comm)),
        uid: Some(uid),
        user: users.name(uid),
        alive,
        cgroup,
        namespaces,
    }
}

/// Who took a lease, by process id. The kernel keeps no more of it than that number, which may be another process's by now:
/// it is believed of one that has the lease's file, and of the kernel's own threads where no process has it.
fn taker(table: &mut Table, pid: u32, kept: &Holding, users: &mut Users) -> Option<ProcessIndex> {
    if pid == 0 {
        return None;
    }
    let holders = kept.holders.iter().map(|holder| holder.process);
    let is_it = |at: &ProcessIndex| table.process(*at).is_some_and(|process| process.pid == pid);
    if let Some(at) = holders.into_iter().find(is_it) {
        return Some(at);
    }
    let is_kernel = kept.holders.is_empty() && process::stat(pid).is_some_and(|stat| stat.kernel);
    let described = is_kernel.then(|| process::describe(pid, users)).flatten();
    let process = described.unwrap_or_else(|| Process { pid, ..Process::default() });
    let known = table.processes.iter().position(|other| *other == process);
    Some(known.map_or_else(|| add(&mut table.processes, process), |at| ProcessIndex(at as u32)))
}

/// `/proc/PID/stat` counts the start in ticks of 1/100 s.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Whether this very process still is; `start` in nanoseconds since boot.
fn is_alive(pid: u32, start: u64) -> bool {
    process::stat(pid).is_some_and(|stat| stat.start == start / NANOSECONDS_PER_TICK && !stat.ended())
}

/// Who made a pin: process id, and start in nanoseconds since boot.
fn maker(pin: &PinRecord) -> (u32, u64) {
    ((pin.pid_tgid >> 32) as u32, pin.start)
}
