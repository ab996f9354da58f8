//! What happened: from the records of the BPF programs, and from how the table of one pass differs from the one before.
//!
//! It is fed by value and reads nothing itself; who may see an event is decided in the model.

mod leases;
mod pending;
mod refused;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pinwatch_common::{FileKey, LeaseEvent, PinEvent, event, subsystems::Kind};
use tracing::warn;

use crate::daemon::breaks::Breaks;
use crate::model::{
    CoverageState, Event, File, FileId, FileIndex, Happened, LeaseTag, Pin, PinId, Table, Who,
};
use crate::source::clocks::Clocks;
use crate::source::file_records::nameless;
use leases::Leases;
use pending::Pending;
pub use refused::Refusals;

/// So many breaks and verdicts are kept, and as many events of other kinds.
pub const KEPT: usize = 1000;
/// So many events may wait to be named; more are counted as lost.
const PENDING: usize = 10_000;

/// What is known of a file that has pins or leases, as of the latest pass.
#[derive(Default)]
struct FileHistory {
    file: Option<File>,
    pins: Vec<PinId>,
    pin_count: u64,
    uids: BTreeSet<u32>,
    leases: Vec<LeaseTag>,
}

impl FileHistory {
    fn add(&mut self, pin: PinId, uids: &[u32]) {
        self.pin_count += 1;
        if self.pins.len() < Event::PINS {
            self.pins.push(pin);
        }
        self.uids.extend(uids);
    }
}

/// The events, and what it takes to make the next ones.
#[derive(Default)]
pub struct History {
    kept: VecDeque<Event>,
    others: VecDeque<Event>,
    number: u64,
    pending: Vec<Pending>,
    /// Verdicts that have changed.
    verdicts: Vec<Event>,
    lost: u64,
    /// How many the kernel's buffer had lost when that was last read.
    lost_before: u64,
    leases: Leases,
    coverage: HashMap<PinId, CoverageState>,
    /// When the latest pass was at which there was no lease anywhere: pins that were there then had none.
    quiet: Option<i64>,
    files: HashMap<FileId, FileHistory>,
    breaks: Breaks,
}

/// A file's identity.
fn id_of(key: &FileKey) -> FileId {
    nameless(key).id
}

impl History {
    /// Takes note of a pin that was made or released.
    pub fn pin(&mut self, record: &PinEvent, clocks: Clocks) {
        let subsystem = match Kind::try_from(record.event.kind) {
            Ok(kind) => kind.subsystem(),
            Err(unknown) => return warn!(%unknown, "what happened to a pin is not in the history"),
        };
        let by = Who { pid: record.creator, comm: leases::comm(&record.comm), uid: Some(record.uid) };
        let bytes = record.length;
        let what = match record.event.what {
            event::MADE => Happened::PinMade { by, bytes },
            event::RELEASED => Happened::PinReleased { by, bytes },
            what => return warn!(what, "a pin's event is of an unknown kind and not in the history"),
        };
        self.add(Pending {
            time: clocks.of(record.event.time),
            what,
            file: Some(record.file).filter(|file| *file != FileKey::default()),
            pin: Some(PinId { subsystem, sequence: record.event.sequence }),
            uids: vec![record.uid],
        });
    }

    /// Takes note of what happened to a lease.
    pub fn lease(&mut self, record: &LeaseEvent, clocks: Clocks) {
        let known = self.files.get(&id_of(&record.file));
        let listed = known.map_or(&[][..], |known| &known.leases);
        let noted = self.leases.note(record, clocks.of(record.event.time), listed);
        noted.into_iter().for_each(|pending| self.add(pending));
    }

    /// The threads that wait for leases, as far as is known: thread id, and the key that the kernel's programs know it by.
    pub fn waiting(&self) -> Vec<(u32, u64)> {
        self.leases.waiting()
    }

    /// Takes note of a thread that was found not to wait any more.
    pub fn stopped(&mut self, tid: u32, time: i64) {
        self.leases.stopped(tid, time);
    }

    /// Takes note of events that found no room in the kernel's buffer.
    pub fn lost(&mut self, total: u64) {
        self.lost += total.saturating_sub(std::mem::replace(&mut self.lost_before, total));
    }

    fn add(&mut self, pending: Pending) {
        if self.pending.len() < PENDING {
            self.pending.push(pending);
        } else {
            self.lost += 1;
        }
    }

    /// When a lease was taken, and since when it is being broken, by the kernel's object, in nanoseconds since the epoch.
    pub fn times(&self, lease: u64) -> (Option<i64>, Option<i64>) {
        self.leases.times(lease)
    }

    /// Whether a file had pins at the latest pass.
    pub fn is_pinned(&self, file: &FileKey) -> bool {
        self.files.get(&id_of(file)).is_some_and(|place| !place.pins.is_empty())
    }

    /// Whether a file with pins had a lease at the latest pass: then verdicts may change without an event, as when a
    /// descriptor is passed on or closed.
    pub fn watches(&self) -> bool {
        self.files.values().any(|place| !place.pins.is_empty() && !place.leases.is_empty())
    }

    /// Compares the table with the one before. Gives the pins whose verdict has changed.
    pub fn observe<'t>(&mut self, table: &'t Table, now: i64) -> Vec<&'t Pin> {
        self.files.clear();
        if table.leases.as_ref().is_some_and(Vec::is_empty) && self.coverage.is_empty() {
            self.quiet = Some(now);
            return Vec::new();
        }
        let mut coverage = HashMap::with_capacity(self.coverage.len());
        let mut changed = Vec::new();
        // Of many pins on one file mostly all change together: that is one event.
        let mut changes: BTreeMap<(Option<FileIndex>, CoverageState, CoverageState), FileHistory> =
            BTreeMap::new();
        for pin in &table.pins {
            let uids = uids(table, pin);
            for file in pin.parts.iter().filter_map(|part| table.file(part.file?)) {
                self.file_history(file).add(pin.id, &uids);
            }
            let to = pin.coverage.state;
            let was_there = || pin.created.zip(self.quiet).is_some_and(|(made, quiet)| made <= quiet);
            let had_none =
                || (to != CoverageState::NotApplicable && was_there()).then_some(CoverageState::None);
            let before = self.coverage.get(&pin.id).copied().or_else(had_none);
            if let Some(from) = before.filter(|from| *from != to) {
                let file = pin.parts.iter().find_map(|part| part.file);
                changes.entry((file, from, to)).or_default().add(pin.id, &uids);
                changed.push(pin);
            }
            coverage.insert(pin.id, to);
        }
        for ((file, from, to), FileHistory { pins, pin_count, uids, .. }) in changes {
            self.verdicts.push(Event {
                number: 0,
                time: now,
                what: Happened::Coverage { from, to },
                file: file.and_then(|at| table.file(at)).cloned(),
                pins,
                pin_count,
                uids: uids.into_iter().collect(),
            });
        }
        self.coverage = coverage;
        self.quiet = None;
        if table.leases.as_ref().is_some_and(Vec::is_empty) {
            // From here on it is quiet.
            self.coverage.clear();
            self.quiet = Some(now);
        }
        for lease in table.leases.iter().flatten() {
            let taker = lease.taker.and_then(|at| table.process(at));
            let who = |process: &crate::model::Process| Who {
                pid: process.pid,
                comm: process.comm.clone(),
                uid: process.uid,
            };
            let tag =
                LeaseTag { kind: lease.kind, mode: lease.mode, taker: taker.map(who).unwrap_or_default() };
            for file in lease.files().filter_map(|at| table.file(at)) {
                let place = self.file_history(file);
                place.uids.extend(tag.taker.uid);
                place.leases.push(tag.clone());
            }
        }
        changed
    }

    fn file_history(&mut self, file: &File) -> &mut FileHistory {
        let place = self.files.entry(file.id).or_default();
        place.file.get_or_insert_with(|| file.clone());
        place
    }

    /// Publishes all that was noted. `name` finds a file that had neither pins nor leases at the latest pass, by its identity
    /// and a process that may have it open.
    pub fn publish(&mut self, now: i64, mut name: impl FnMut(&FileKey, u32) -> Option<File>) {
        let mut events = Vec::new();
        for pending in self.leases.settle(now) {
            self.add(pending);
        }
        for Pending { time, what, file, pin, mut uids } in std::mem::take(&mut self.pending) {
            let place = file.as_ref().and_then(|key| self.files.get(&id_of(key)));
            let (mut pins, mut pin_count): (Vec<PinId>, u64) = (pin.into_iter().collect(), 1);
            if pin.is_none() {
                pins = place.map(|place| place.pins.clone()).unwrap_or_default();
                pin_count = place.map_or(0, |place| place.pin_count);
                uids.extend(place.into_iter().flat_map(|place| &place.uids));
            }
            let pid = leases::likely_holder(&what);
            let known = place.and_then(|place| place.file.clone());
            let file = file.map(|key| {
                known
                    .filter(|file| !file.path.as_bytes().is_empty())
                    .or_else(|| name(&key, pid))
                    .unwrap_or_else(|| nameless(&key))
            });
            uids.sort_unstable();
            uids.dedup();
            events.push(Event { number: 0, time, what, file, pins, pin_count, uids });
        }
        events.append(&mut self.verdicts);
        events.sort_by_key(|event| event.time);
        events.into_iter().for_each(|event| self.push(event));
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let what = Happened::Lost { events: lost };
            let (pins, uids) = (Vec::new(), Vec::new());
            self.push(Event { number: 0, time: now, what, file: None, pins, pin_count: 0, uids });
        }
    }

    fn push(&mut self, event: Event) {
        if let Happened::BreakEnded { waited, outcome, .. } = &event.what {
            self.breaks.add(*outcome, *waited);
        }
        self.number += 1;
        let ring = if event.what.is_kept_longer() { &mut self.kept } else { &mut self.others };
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Event { number: self.number, ..event });
    }

    /// How waits for leases have ended so far.
    pub fn breaks(&self) -> &Breaks {
        &self.breaks
    }

    /// Events after this number that a user may see, in the order of their numbers. Root sees all.
    pub fn after(&self, number: u64, uid: u32) -> Vec<Event> {
        let news = |event: &&Event| event.number > number;
        let news = self.kept.iter().chain(&self.others).filter(news);
        let mut events: Vec<Event> = news.filter_map(|event| event.redact_for(uid)).collect();
        events.sort_unstable_by_key(|event| event.number);
        events
    }

    /// The number of the latest event.
    pub fn latest(&self) -> u64 {
        self.number
    }
}

/// Users who made or hold a pin.
fn uids(table: &Table, pin: &Pin) -> Vec<u32> {
    let holders = table.holders(pin).iter().map(|holder| holder.process);
    let mut uids: Vec<u32> =
        pin.creator.into_iter().chain(holders).filter_map(|at| table.process(at)?.uid).collect();
    uids.sort_unstable();
    uids.dedup();
    uids
}

#[cfg(test)]
mod tests;
