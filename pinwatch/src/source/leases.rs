//! Leases: what the iterators over all processes saw, and what `/proc/locks` has besides.

use pinwatch_common::{FileKey, LeaseRecord, WaiterRecord, lease_flag};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::assemble::Assembler;
use super::clocks::Clocks;
use super::file_records::nameless;
use super::files::Files;
use super::host::locks::Lock;
use super::host::open_file::OpenFile;
use super::lookup::Lookup;
use super::observation::LeaseObservations;
use super::process_contexts::Processes;
use super::{file_records, syscalls};
use crate::kernel::bpf::{BelowError, Programs};
use crate::model::{
    Breaker, FileId, FileIndex, Gap, Holding, Lease, LeaseKind, LeaseMode, LeaseState, Name, Table, Via,
    Waiter, Who,
};

/// A lease whose file has its place in the table already.
pub struct ResolvedLease {
    /// The kernel's object; 0 if it is known from `/proc/locks` only.
    object: u64,
    file: FileIndex,
    kind: LeaseKind,
    mode: LeaseMode,
    state: LeaseState,
    pid: u32,
    /// If the file is one of overlayfs, those below it, whose pages are pinned; or why they are not known.
    below: Option<Result<Vec<FileKey>, BelowError>>,
}

/// What the caller knows of leases beforehand.
pub struct LeaseRules<'a> {
    /// Whether they are traced.
    pub watched: bool,
    /// Whether this kernel grants them on hugetlbfs.
    pub hugetlb: bool,
    /// When one was taken, and since when it is being broken, by the kernel's object.
    pub times: &'a dyn Fn(u64) -> (Option<i64>, Option<i64>),
}

/// `OVERLAYFS_SUPER_MAGIC` (include/uapi/linux/magic.h)
pub const OVERLAYFS: u32 = 0x794c_7630;

/// What is read of the running kernel, so that tests can stand in for it.
pub trait Kernel {
    /// How many ticks of `jiffies` there are in a second.
    fn ticks(&mut self) -> u64;
    /// The files below one of overlayfs that has a lease.
    fn below(&mut self, lease: &LeaseRecord) -> Result<Vec<FileKey>, BelowError>;
}

impl Kernel for Programs {
    fn ticks(&mut self) -> u64 {
        self.ticks_per_second().unwrap_or(USUAL_TICKS)
    }

    fn below(&mut self, lease: &LeaseRecord) -> Result<Vec<FileKey>, BelowError> {
        Programs::below(self, lease)
    }
}

/// CONFIG_HZ of most distributions, if the kernel's cannot be read.
const USUAL_TICKS: u64 = 250;

/// The leases of the pass, and those that only `/proc/locks` has: no process has their file open, the kernel itself does
/// (nfsd).
pub fn resolve(
    records: &[(u64, LeaseRecord)],
    locks: &[Lock],
    files: &mut Files<'_>,
    programs: &mut dyn Kernel,
) -> Vec<ResolvedLease> {
    let mut found: Vec<ResolvedLease> = records
        .iter()
        .filter_map(|(object, record)| {
            let (mode, state) = (mode(record.kind)?, state(record, &mut || programs.ticks()));
            let (_, file) = files.intern(&record.key);
            let below = (record.magic == OVERLAYFS).then(|| programs.below(record));
            Some(ResolvedLease {
                object: *object,
                file,
                kind: kind(record.flags),
                mode,
                state,
                pid: record.pid,
                below,
            })
        })
        .collect();
    let seen: HashSet<(u32, u64, u32)> =
        records.iter().map(|(_, record)| (record.key.dev, record.key.ino, record.pid)).collect();
    let keys = if locks.is_empty() { HashMap::default() } else { files.by_number() };
    for lock in locks.iter().filter(|lock| !seen.contains(&(lock.dev, lock.ino, lock.pid))) {
        // Pinned files are known with their generation, which is not in /proc/locks.
        let unknown = FileKey { ino: lock.ino, dev: lock.dev, generation: 0 };
        let key = keys.get(&(lock.dev, lock.ino)).copied().unwrap_or(unknown);
        let state =
            if lock.breaking { LeaseState::Breaking { seconds_left: None } } else { LeaseState::Active };
        let (_, file) = files.intern(&key);
        found.push(ResolvedLease {
            object: 0,
            file,
            kind: lock.kind,
            mode: lock.mode,
            state,
            pid: lock.pid,
            below: None,
        });
    }
    found
}

/// Which kind, by the kernel's flags.
pub fn kind(flags: u32) -> LeaseKind {
    match flags {
        flags if flags & lease_flag::LAYOUT != 0 => LeaseKind::Layout,
        flags if flags & lease_flag::DELEG != 0 => LeaseKind::Delegation,
        _ => LeaseKind::Lease,
    }
}

/// What it keeps others from, by the kernel's number; `None` for one that is dropped.
pub fn mode(number: u32) -> Option<LeaseMode> {
    match number {
        0 => Some(LeaseMode::Read),
        1 => Some(LeaseMode::Write),
        _ => None,
    }
}

fn state(record: &LeaseRecord, ticks: &mut impl FnMut() -> u64) -> LeaseState {
    let deadline = if record.flags & lease_flag::UNLOCK_PENDING != 0 {
        record.break_time
    } else if record.flags & lease_flag::DOWNGRADE_PENDING != 0 {
        record.downgrade_time
    } else {
        return LeaseState::Active;
    };
    if deadline == 0 {
        return LeaseState::Breaking { seconds_left: None };
    }
    // As the kernel's `time_after`: the clock may wrap.
    let left = deadline.wrapping_sub(record.jiffies).cast_signed();
    match u64::try_from(left) {
        Ok(left) if left > 0 => LeaseState::Breaking { seconds_left: Some(left.div_ceil(ticks().max(1))) },
        _ => LeaseState::Expired,
    }
}

/// Who wants what of a leased file. `call` and `wanted` are as the kernel's programs have them.
pub fn breaker(who: Who, call: i32, wanted: u32) -> Breaker {
    let call = syscalls::name(call).map(Name::from);
    Breaker { who, call, wants: mode(wanted).unwrap_or(LeaseMode::Write) }
}

/// The threads that wait, by file.
pub fn waiters(
    records: &[WaiterRecord],
    clocks: Clocks,
    files: &mut Files<'_>,
) -> HashMap<FileIndex, Vec<Waiter>> {
    let mut by_file: HashMap<FileIndex, Vec<Waiter>> = HashMap::default();
    for record in records {
        let actor = &record.actor;
        let comm = Name::from(file_records::until_nul(&actor.comm));
        let who = Who { pid: actor.pid, comm, uid: Some(actor.uid) };
        let waiter =
            Waiter { breaker: breaker(who, actor.call, record.wanted), since: clocks.of(record.since) };
        by_file.entry(files.intern(&record.file).1).or_default().push(waiter);
    }
    by_file
}

/// The leases with all that is known of them, and what is in doubt. `by_object`: who holds what, by the kernel's object.
pub fn observe(
    found: Vec<ResolvedLease>,
    by_object: &HashMap<u64, Holding>,
    waiters: &HashMap<FileIndex, Vec<Waiter>>,
    rules: &LeaseRules<'_>,
    lookup: &mut Lookup,
    processes: &mut Processes<'_>,
    into: &mut Assembler,
) -> LeaseObservations {
    let mut seen = LeaseObservations { hugetlb: rules.hugetlb, ..LeaseObservations::default() };
    seen.leases.reserve(found.len());
    let table = into.rows();
    let by_id: HashMap<FileId, FileIndex> = (table.files.iter().enumerate())
        .map(|(at, file)| (file.id, FileIndex(u32::try_from(at).unwrap_or(u32::MAX))))
        .collect();
    let mut reason = None;
    for lease in found {
        let holding = by_object.get(&lease.object).cloned().unwrap_or_else(Holding::nobody);
        name(table, lease.file, &holding, lookup);
        let mut below = Vec::new();
        match lease.below {
            Some(Ok(keys)) => below.extend(keys.iter().filter_map(|key| by_id.get(&nameless(key).id))),
            // It may be on the file of any pin of its holders.
            Some(Err(why)) => {
                seen.unclear_holders.extend(holding.holders.iter().map(|holder| holder.process));
                reason = Some(why.to_string());
            }
            None => {}
        }
        let ResolvedLease { object, file, kind, mode, state, pid, .. } = lease;
        let taker = processes.lease_taker(pid, &holding, table);
        let holding = table.add_holding(holding);
        let (taken, broken) = (rules.times)(object);
        let broken = broken.filter(|_| state != LeaseState::Active);
        // Who waits does so for the leases that are being broken, all of them.
        let waiters = match state {
            LeaseState::Active => Vec::new(),
            LeaseState::Breaking { .. } | LeaseState::Expired => {
                waiters.get(&file).cloned().unwrap_or_default()
            }
        };
        seen.leases.push(Lease { file, below, kind, mode, state, taker, holding, taken, broken, waiters });
    }
    seen.leases.sort_by_key(|lease| (lease.file, lease.kind, lease.taker));
    if let Some(why) = reason {
        into.add_gap(Gap::OverlayLeases { why });
    }
    seen
}

/// A leased file that is not pinned has no name yet: its holder's descriptor has one.
fn name(table: &mut Table, at: FileIndex, holding: &Holding, lookup: &mut Lookup) {
    let Some(file) = table.files.get(at.0 as usize).filter(|file| file.path.as_bytes().is_empty()) else {
        return;
    };
    let ways = holding.holders.iter().flat_map(|holder| holder.via.iter().map(|via| (holder.process, via)));
    let link = ways.filter_map(|(process, via)| match via {
        Via::Fd(fd) => Some((table.process(process)?.pid, *fd)),
        _ => None,
    });
    let id = file.id;
    let named = link.into_iter().find_map(|(pid, fd)| lookup.behind(pid, fd, id));
    if let (Some(OpenFile { path, deleted, .. }), Some(file)) = (named, table.files.get_mut(at.0 as usize)) {
        (file.path, file.path_complete, file.deleted) = (path, true, Some(deleted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(flags: u32, deadline: u64) -> LeaseRecord {
        LeaseRecord {
            flags,
            break_time: deadline,
            downgrade_time: deadline + 250,
            jiffies: 1000,
            ..Default::default()
        }
    }

    struct Nothing;

    impl Kernel for Nothing {
        fn ticks(&mut self) -> u64 {
            250
        }

        fn below(&mut self, _: &LeaseRecord) -> Result<Vec<FileKey>, BelowError> {
            Err(BelowError::Closed)
        }
    }

    #[test]
    fn what_is_below_an_overlay_is_found_or_doubted() {
        let (records, paths) = (HashMap::default(), HashMap::default());
        let mut files = Files::new(&records, &paths);
        let record = LeaseRecord { magic: OVERLAYFS, kind: 1, ..record(lease_flag::LEASE, 0) };
        let found = resolve(&[(16, record)], &[], &mut files, &mut Nothing);
        assert!(matches!(found[0].below, Some(Err(BelowError::Closed))));
        let plain = LeaseRecord { magic: 0, ..record };
        assert!(resolve(&[(16, plain)], &[], &mut files, &mut Nothing)[0].below.is_none());
    }

    #[test]
    fn breaks_have_a_deadline() {
        let of = |flags, deadline| state(&record(flags, deadline), &mut || 250);
        let breaking = |seconds_left| LeaseState::Breaking { seconds_left };
        assert_eq!(of(lease_flag::LEASE, 1), LeaseState::Active);
        assert_eq!(of(lease_flag::UNLOCK_PENDING, 1001), breaking(Some(1)));
        assert_eq!(of(lease_flag::UNLOCK_PENDING, 1000 + 45 * 250), breaking(Some(45)));
        assert_eq!(of(lease_flag::DOWNGRADE_PENDING, 1000), breaking(Some(1)));
        assert_eq!(of(lease_flag::UNLOCK_PENDING, 999), LeaseState::Expired);
        assert_eq!(of(lease_flag::UNLOCK_PENDING, 0), breaking(None));
        // A clock that has wrapped is no clock that stands still.
        let late = LeaseRecord { jiffies: u64::MAX - 9, ..record(lease_flag::UNLOCK_PENDING, 240) };
        assert_eq!(state(&late, &mut || 250), breaking(Some(1)));
    }

    #[test]
    fn kinds_and_modes() {
        assert_eq!(kind(lease_flag::LEASE), LeaseKind::Lease);
        assert_eq!(kind(lease_flag::DELEG), LeaseKind::Delegation);
        assert_eq!(kind(lease_flag::LAYOUT), LeaseKind::Layout);
        assert_eq!((mode(0), mode(1), mode(2)), (Some(LeaseMode::Read), Some(LeaseMode::Write), None));
    }

    #[test]
    fn the_key_of_a_file_is_found_among_those_that_are_pinned() {
        let (records, paths) = (HashMap::default(), HashMap::default());
        let mut files = Files::new(&records, &paths);
        let key = FileKey { ino: 5, dev: 9, generation: 3 };
        files.intern(&key);
        let lock =
            Lock { kind: LeaseKind::Layout, mode: LeaseMode::Read, breaking: false, pid: 77, dev: 9, ino: 5 };
        let found = resolve(&[], &[lock.clone(), Lock { ino: 6, ..lock }], &mut files, &mut Nothing);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].file, found[0].kind), (FileIndex(0), LeaseKind::Layout));
        assert_eq!(found[1].file, FileIndex(1));
    }
}
