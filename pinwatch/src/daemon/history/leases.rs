//! What became of leases, and of those in whose way they were.

use std::collections::{HashMap, HashSet};

use pinwatch_common::{Actor, FileKey, LeaseEvent, event, lease_flag, left};

use super::pending::Pending;
use crate::model::{Breaker, Happened, LeaseKind, LeaseMode, LeaseTag, Name, Outcome, Who};
use crate::source::leases::{breaker, kind as lease_kind, mode as lease_mode};

/// A thread that waits for one lease after the other is between two of them for much less, nanoseconds.
const BETWEEN: i64 = 10_000_000;
/// So many leases are remembered, and so many who were turned away, or wait. If there are more, the ends of some were lost: it
/// is begun anew, and when the others were taken is not known any more.
const MOST: usize = 1 << 16;

/// A lease that was seen being taken or broken.
struct Known {
    object: u64,
    tag: LeaseTag,
    taken: Option<i64>,
    broken: Option<i64>,
}

/// A thread that waits, or has just stopped to.
struct Wait {
    file: FileKey,
    by: Breaker,
    since: i64,
    /// When it stopped, though a lease is still in its way: it gave up, unless it begins to wait again at once.
    stopped: Option<i64>,
}

/// Leases and waits that are under way.
#[derive(Default)]
pub struct Leases {
    /// The latest lease whose time was up: address, thread, what became of it, and when. Some kernels report it twice.
    overdue: Option<(u64, u32, u32, i64)>,
    /// By file.
    known: HashMap<FileKey, Vec<Known>>,
    /// The file of each lease that is known, by the kernel's object.
    files: HashMap<u64, FileKey>,
    /// By thread.
    waits: HashMap<u32, Wait>,
    /// Processes that were turned away already, by file.
    refused: HashMap<FileKey, HashSet<u32>>,
    /// What became of the latest lease of a file that somebody waits for, and when.
    outcomes: HashMap<FileKey, (Outcome, i64)>,
}

/// A command name as the kernel has it.
pub fn comm(bytes: &[u8; 16]) -> Name {
    Name::from(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn who(actor: &Actor) -> Who {
    Who { pid: actor.pid, comm: comm(&actor.comm), uid: Some(actor.uid) }
}

/// The process that may have a file open, so that it can be named.
pub fn likely_holder(what: &Happened) -> u32 {
    match what {
        Happened::LeaseTaken { lease }
        | Happened::LeaseChanged { lease, .. }
        | Happened::LeaseDropped { lease, .. } => lease.taker.pid,
        Happened::BreakBegan { leases, .. } => leases.first().map_or(0, |lease| lease.taker.pid),
        _ => 0,
    }
}

/// The lease that an event is of.
fn tag(record: &LeaseEvent) -> Option<LeaseTag> {
    let taker = if record.actor.pid == record.pid {
        who(&record.actor)
    } else {
        Who { pid: record.pid, ..Who::default() }
    };
    Some(LeaseTag { kind: lease_kind(record.flags), mode: lease_mode(record.kind)?, taker })
}

impl Leases {
    /// See [`super::History::times`].
    pub fn times(&self, lease: u64) -> (Option<i64>, Option<i64>) {
        let known = self.files.get(&lease).and_then(|file| self.known.get(file));
        let known = known.and_then(|on_file| on_file.iter().find(|known| known.object == lease));
        known.map_or((None, None), |known| (known.taken, known.broken))
    }

    fn remember(&mut self, record: &LeaseEvent, tag: LeaseTag, taken: Option<i64>) {
        let object = record.event.sequence;
        if self.files.len() >= MOST {
            self.files.clear();
            self.known.clear();
        }
        self.forget(object);
        self.files.insert(object, record.file);
        self.known.entry(record.file).or_default().push(Known { object, tag, taken, broken: None });
    }

    fn forget(&mut self, object: u64) -> Option<Known> {
        let file = self.files.remove(&object)?;
        let on_file = self.known.get_mut(&file)?;
        let at = on_file.iter().position(|known| known.object == object)?;
        let known = on_file.swap_remove(at);
        if on_file.is_empty() {
            self.known.remove(&file);
        }
        Some(known)
    }

    fn find(&mut self, record: &LeaseEvent) -> Option<&mut Known> {
        let object = record.event.sequence;
        self.known.get_mut(&record.file)?.iter_mut().find(|known| known.object == object)
    }

    /// What becomes of a lease that somebody waits for.
    fn outcome(&mut self, file: FileKey, outcome: Outcome, time: i64) {
        if self.waits.values().any(|wait| wait.file == file) {
            self.outcomes.insert(file, (outcome, time));
        }
    }

    /// What follows from a record. `listed`: the leases on the file as of the latest pass.
    pub fn note(&mut self, record: &LeaseEvent, time: i64, listed: &[LeaseTag]) -> Vec<Pending> {
        let by = who(&record.actor);
        let pending = |what, uids| Pending { time, what, file: Some(record.file), pin: None, uids };
        match record.event.what {
            event::LEASE_TAKEN => self
                .taken(record, time)
                .into_iter()
                .map(|what| pending(what, vec![record.actor.uid]))
                .collect(),
            event::LEASE_CHANGED => {
                let what = self.changed(record, time);
                let uids = vec![record.actor.uid];
                what.into_iter().map(|what| pending(what, uids.clone())).collect()
            }
            event::BREAK_WAITS | event::BREAK_REFUSED => {
                let waits = record.event.what == event::BREAK_WAITS;
                let by = breaker(by, record.actor.call, record.wanted);
                if !self.begins(record, time, waits, &by) {
                    return Vec::new();
                }
                let leases = self.on(record, listed);
                let uids =
                    leases.iter().filter_map(|lease| lease.taker.uid).chain([record.actor.uid]).collect();
                vec![pending(Happened::BreakBegan { by, waits, leases }, uids)]
            }
            event::BREAK_DONE => {
                let ended = self.done(record, time);
                ended.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn taken(&mut self, record: &LeaseEvent, time: i64) -> Option<Happened> {
        let lease = tag(record)?;
        // A converted lease was already reported by the LEASE_CHANGED event.
        if self.find(record).is_some_and(|known| known.tag.taker.pid == lease.taker.pid) {
            return None;
        }
        self.remember(record, lease.clone(), Some(time));
        Some(Happened::LeaseTaken { lease })
    }

    fn changed(&mut self, record: &LeaseEvent, time: i64) -> Option<Happened> {
        let mut lease = tag(record)?;
        let by = who(&record.actor);
        if record.overdue != 0 {
            let (object, thread) = (record.event.sequence, record.actor.tid);
            let again = |was: &(u64, u32, u32, i64)| {
                (was.0, was.1, was.2) == (object, thread, record.wanted) && time - was.3 < BETWEEN
            };
            if self.overdue.as_ref().is_some_and(again) {
                return None;
            }
            self.overdue = Some((object, thread, record.wanted, time));
        }
        let Some(to) = lease_mode(record.wanted) else {
            let known = self.forget(record.event.sequence);
            let how = if record.overdue != 0 { Outcome::TimedOut } else { Outcome::Released };
            self.outcome(record.file, how, time);
            self.refused.remove(&record.file);
            let broken_for = known.as_ref().and_then(|known| u64::try_from(time - known.broken?).ok());
            lease.taker = known.map(|known| known.tag.taker).unwrap_or(lease.taker);
            return Some(Happened::LeaseDropped { lease, how, by, broken_for });
        };
        if to == LeaseMode::Read {
            let how = if record.overdue != 0 { Outcome::TimedOut } else { Outcome::Downgraded };
            self.outcome(record.file, how, time);
        }
        if let Some(known) = self.find(record) {
            known.tag.mode = to;
            known.broken = None;
            lease.taker = known.tag.taker.clone();
        } else {
            // Older than the daemon: from now on it is known, but not since when.
            self.remember(record, LeaseTag { mode: to, ..lease.clone() }, None);
        }
        (to != lease.mode).then_some(Happened::LeaseChanged { lease, to })
    }

    /// Whether a break begins by this: it does not if the thread waits already, or the process was turned away already.
    fn begins(&mut self, record: &LeaseEvent, time: i64, waits: bool, by: &Breaker) -> bool {
        let on_file = self.known.get_mut(&record.file).into_iter().flatten();
        for known in on_file.filter(|known| is_in_way(record, &known.tag)) {
            known.broken.get_or_insert(time);
        }
        if !waits {
            if self.refused.len() >= MOST {
                self.refused.clear();
            }
            let processes = self.refused.entry(record.file).or_default();
            if processes.len() >= MOST {
                processes.clear();
            }
            return processes.insert(record.actor.pid);
        }
        if let Some(wait) = self.waits.get_mut(&record.actor.tid).filter(|wait| wait.file == record.file) {
            wait.stopped = None;
            return false;
        }
        if self.waits.len() >= MOST {
            self.waits.clear();
        }
        self.outcomes.remove(&record.file);
        let wait = Wait { file: record.file, by: by.clone(), since: time, stopped: None };
        self.waits.insert(record.actor.tid, wait);
        true
    }

    fn done(&mut self, record: &LeaseEvent, time: i64) -> Option<Pending> {
        let outcome = match record.left {
            left::NOTHING => self.outcomes.get(&record.file).map_or(Outcome::Released, |(how, _)| *how),
            left::OVERDUE => Outcome::TimedOut,
            _ => {
                self.waits.get_mut(&record.actor.tid)?.stopped = Some(time);
                return None;
            }
        };
        let wait = self.waits.remove(&record.actor.tid)?;
        Some(ended(wait, time, outcome))
    }

    /// The threads that wait, as far as is known: thread id, and the key that the kernel's programs know it by.
    pub fn waiting(&self) -> Vec<(u32, u64)> {
        let key = |(tid, wait): (&u32, &Wait)| (*tid, u64::from(wait.by.who.pid) << 32 | u64::from(*tid));
        self.waits.iter().map(key).collect()
    }

    /// A thread was found not to wait any more.
    pub fn stopped(&mut self, tid: u32, time: i64) {
        if let Some(wait) = self.waits.get_mut(&tid) {
            wait.stopped.get_or_insert(time);
        }
    }

    /// The waits that have ended though a lease was still in the way when the thread woke up: it gave up, unless the kernel
    /// took the lease just then, its time being up.
    pub fn settle(&mut self, now: i64) -> Vec<Pending> {
        let is_over = |wait: &Wait| wait.stopped.is_some_and(|stopped| now - stopped > BETWEEN);
        let over: Vec<Wait> = self.waits.extract_if(|_, wait| is_over(wait)).map(|(_, wait)| wait).collect();
        let ended = over.into_iter().map(|wait| {
            let stopped = wait.stopped.unwrap_or(now);
            let since = |(_, time): &&(Outcome, i64)| (stopped..stopped + BETWEEN).contains(time);
            let outcome =
                self.outcomes.get(&wait.file).filter(since).map_or(Outcome::GivenUp, |(how, _)| *how);
            ended(wait, stopped, outcome)
        });
        ended.collect()
    }

    /// The leases in a breaker's way: those that were seen being taken, or else those of the latest look.
    fn on(&self, record: &LeaseEvent, listed: &[LeaseTag]) -> Vec<LeaseTag> {
        let known = self.known.get(&record.file).into_iter().flatten().map(|known| &known.tag);
        let mut all: Vec<LeaseTag> = known.filter(|tag| is_in_way(record, tag)).cloned().collect();
        for tag in listed.iter().filter(|tag| is_in_way(record, tag)) {
            if !all.iter().any(|known| known.taker.pid == tag.taker.pid && known.kind == tag.kind) {
                all.push(tag.clone());
            }
        }
        all.sort_by_key(|tag| tag.taker.pid);
        all
    }
}

/// Whether a lease is in a breaker's way, by the rules of `leases_conflict` (fs/locks.c).
fn is_in_way(breaker: &LeaseEvent, lease: &LeaseTag) -> bool {
    let wants = |flag| breaker.flags & flag != 0;
    let writes = lease_mode(breaker.wanted) != Some(LeaseMode::Read) || lease.mode == LeaseMode::Write;
    let other_layout = wants(lease_flag::LAYOUT) != (lease.kind == LeaseKind::Layout);
    writes && !other_layout && !(wants(lease_flag::DELEG) && lease.kind == LeaseKind::Lease)
}

fn ended(wait: Wait, time: i64, outcome: Outcome) -> Pending {
    let waited = u64::try_from(time - wait.since).unwrap_or(0);
    let uids = wait.by.who.uid.into_iter().collect();
    let what = Happened::BreakEnded { by: wait.by, waited, outcome };
    Pending { time, what, file: Some(wait.file), pin: None, uids }
}
