//! Leases: what the pass over all processes saw, what `/proc/locks` has besides, and the verdict for each pin.

use std::collections::BTreeSet;

use pinwatch_common::{FileKey, LeaseRecord, WaiterRecord, lease_flag};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::files::Files;
use super::{Clocks, LeaseRules, calls, names};
use crate::model::coverage::{on_file, worst};
use crate::model::{
    Backing, Breaker, Coverage, CoverageState, FileIndex, Holding, Lease, LeaseKind, LeaseMode, LeaseState,
    Name, OnFile, Pin, ProcessIndex, Table, Via, Waiter, Who,
};
use crate::source::proc::locks::Lock;

/// A lease whose file has its place already.
pub struct Found {
    /// The kernel's object; 0 if it is known from `/proc/locks` only.
    object: u64,
    file: FileIndex,
    kind: LeaseKind,
    mode: LeaseMode,
    state: LeaseState,
    pid: u32,
    /// Whether the file is one of overlayfs: pins are on the files below, and nothing here tells which that is.
    overlay: bool,
}

/// `OVERLAYFS_SUPER_MAGIC` (include/uapi/linux/magic.h)
const OVERLAYFS: u32 = 0x794c_7630;

/// The leases of the pass, and those that only `/proc/locks` has: no process has their file open, the kernel itself does
/// (nfsd). `ticks` is the rate of `jiffies`, asked for only if a lease is being broken.
pub fn find(
    records: &[(u64, LeaseRecord)],
    locks: &[Lock],
    files: &mut Files<'_>,
    mut ticks: impl FnMut() -> u64,
) -> Vec<Found> {
    let mut found: Vec<Found> = records
        .iter()
        .filter_map(|(object, record)| {
            let (mode, state) = (mode(record.kind)?, state(record, &mut ticks));
            let (_, file) = files.of(&record.key);
            let overlay = record.magic == OVERLAYFS;
            Some(Found {
                object: *object,
                file,
                kind: kind(record.flags),
                mode,
                state,
                pid: record.pid,
                overlay,
            })
        })
        .collect();
    let seen: HashSet<(u32, u64, u32)> =
        records.iter().map(|(_, record)| (record.key.dev, record.key.ino, record.pid)).collect();
    let keys = if locks.is_empty() { HashMap::default() } else { files.by_number() };
    for lock in locks.iter().filter(|lock| !seen.contains(&(lock.dev, lock.ino, lock.pid))) {
        // What is pinned has a generation, which is not told here.
        let unknown = FileKey { ino: lock.ino, dev: lock.dev, generation: 0 };
        let key = keys.get(&(lock.dev, lock.ino)).copied().unwrap_or(unknown);
        let state =
            if lock.breaking { LeaseState::Breaking { seconds_left: None } } else { LeaseState::Active };
        let (_, file) = files.of(&key);
        found.push(Found {
            object: 0,
            file,
            kind: lock.kind,
            mode: lock.mode,
            state,
            pid: lock.pid,
            overlay: false,
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
    let call = calls::name(call).map(Name::from);
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
        let comm = Name::from(names::until_nul(&actor.comm));
        let who = Who { pid: actor.pid, comm, uid: Some(actor.uid) };
        let waiter =
            Waiter { breaker: breaker(who, actor.call, record.wanted), since: clocks.of(record.since) };
        by_file.entry(files.of(&record.file).1).or_default().push(waiter);
    }
    by_file
}

/// Puts the leases into the table, and their verdicts into its pins. `by_object`: who holds what, by the kernel's object.
/// `taker`: the place in the table of the process that took a lease, by its number and by who has the leased file.
pub fn judge(
    found: Vec<Found>,
    by_object: &HashMap<u64, Holding>,
    waiters: HashMap<FileIndex, Vec<Waiter>>,
    table: &mut Table,
    rules: &LeaseRules<'_>,
    mut taker: impl FnMut(&mut Table, u32, &Holding) -> Option<ProcessIndex>,
) {
    let mut leases = Vec::with_capacity(found.len());
    // Who has a lease on an overlay's file: it may be on the file of any pin of theirs.
    let mut overlaid: BTreeSet<ProcessIndex> = BTreeSet::new();
    for lease in found {
        let holding = by_object.get(&lease.object).cloned().unwrap_or_else(Holding::nobody);
        name(table, lease.file, &holding);
        if lease.overlay {
            overlaid.extend(holding.holders.iter().map(|holder| holder.process));
        }
        let Found { object, file, kind, mode, state, pid, .. } = lease;
        let taker = taker(table, pid, &holding);
        let holding = table.add_holding(holding);
        let (taken, broken) = (rules.times)(object);
        let broken = broken.filter(|_| state != LeaseState::Active);
        let waiters = Vec::new();
        leases.push(Lease { file, kind, mode, state, taker, holding, taken, broken, waiters });
    }
    // Who waits does so for the leases that are being broken, all of them.
    for lease in leases.iter_mut().filter(|lease| lease.state != LeaseState::Active) {
        lease.waiters = waiters.get(&lease.file).cloned().unwrap_or_default();
    }
    leases.sort_by_key(|lease| (lease.file, lease.kind, lease.taker));
    let mut on_files: HashMap<FileIndex, Vec<OnFile<'_>>> = HashMap::default();
    for lease in &leases {
        on_files.entry(lease.file).or_default().push(on(table, lease));
    }
    let mut pins = std::mem::take(&mut table.pins);
    for pin in &mut pins {
        pin.coverage = verdict(table, pin, &on_files, rules.hugetlb);
        let may_be = || table.holders(pin).iter().any(|holder| overlaid.contains(&holder.process));
        if pin.coverage.state == CoverageState::None && !overlaid.is_empty() && may_be() {
            pin.coverage = Coverage::default();
        }
    }
    table.pins = pins;
    table.leases = Some(leases);
}

fn on<'a>(table: &Table, lease: &'a Lease) -> OnFile<'a> {
    let holding = table.holdings.get(lease.holding.0 as usize);
    let holders: BTreeSet<ProcessIndex> =
        holding.into_iter().flat_map(|holding| &holding.holders).map(|holder| holder.process).collect();
    let asked = if holders.is_empty() { lease.taker.into_iter().collect() } else { holders.clone() };
    let pids = asked.iter().filter_map(|at| table.process(*at)).map(|process| process.pid).collect();
    OnFile { lease, holders, pids }
}

/// The verdict on one pin.
fn verdict(
    table: &Table,
    pin: &Pin,
    on_files: &HashMap<FileIndex, Vec<OnFile<'_>>>,
    hugetlb: bool,
) -> Coverage {
    let leasable = |backing| match backing {
        Backing::File | Backing::Shmem => true,
        Backing::Hugetlb => hugetlb,
        _ => false,
    };
    let files = || pin.parts.iter().filter(|part| leasable(part.backing)).filter_map(|part| part.file);
    if files().next().is_none() {
        let unknown = pin.parts.iter().any(|part| part.backing == Backing::Unknown);
        let state = if unknown { CoverageState::Unknown } else { CoverageState::NotApplicable };
        return Coverage { state, ..Coverage::default() };
    }
    let holding = table.holding(pin);
    let none = || Coverage {
        state: CoverageState::None,
        holders: u32::try_from(holding.map_or(0, |holding| holding.holders.len())).unwrap_or(u32::MAX),
        ..Coverage::default()
    };
    // Most files have no lease: nothing to weigh up.
    if on_files.is_empty() || files().all(|file| !on_files.contains_key(&file)) {
        return none();
    }
    let Some(holding) = holding else { return Coverage::default() };
    let holders: BTreeSet<ProcessIndex> = holding.holders.iter().map(|holder| holder.process).collect();
    worst(files().map(|file| on_files.get(&file).map_or_else(none, |leases| on_file(&holders, leases))))
}

/// A leased file that is not pinned has no name yet: its holder's descriptor has one.
fn name(table: &mut Table, at: FileIndex, holding: &Holding) {
    let Some(file) = table.files.get(at.0 as usize).filter(|file| file.path.as_bytes().is_empty()) else {
        return;
    };
    let ways = holding.holders.iter().flat_map(|holder| holder.via.iter().map(|via| (holder.process, via)));
    let link = ways.filter_map(|(process, via)| match via {
        Via::Fd(fd) => Some((table.process(process)?.pid, *fd)),
        _ => None,
    });
    let ino = file.id.ino;
    let named = link.into_iter().find_map(|(pid, fd)| {
        let link = format!("/proc/{pid}/fd/{fd}");
        // Closed meanwhile, the number may be another file's.
        let stat = rustix::fs::stat(&link).ok().filter(|stat| stat.st_ino == ino)?;
        let target = rustix::fs::readlink(&link, Vec::new()).ok()?.into_bytes();
        let path = target.strip_suffix(b" (deleted)").unwrap_or(&target).to_vec();
        Some((path, stat.st_nlink == 0))
    });
    if let (Some((path, deleted)), Some(file)) = (named, table.files.get_mut(at.0 as usize)) {
        (file.path, file.path_complete, file.deleted) = (Name::from(path), true, Some(deleted));
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
        files.of(&key);
        let lock =
            Lock { kind: LeaseKind::Layout, mode: LeaseMode::Read, breaking: false, pid: 77, dev: 9, ino: 5 };
        let found = find(&[], &[lock.clone(), Lock { ino: 6, ..lock }], &mut files, || 250);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].file, found[0].kind), (FileIndex(0), LeaseKind::Layout));
        assert_eq!(found[1].file, FileIndex(1));
    }
}
