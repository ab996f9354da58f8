//! The verdict on each pin's leases, wherever pins and leases are known from.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap as HashMap;

use super::observation::LeaseObservations;
use crate::model::coverage::{coverage_on_file, weakest};
use crate::model::{
    Backing, Coverage, CoverageState, FileIndex, Lease, OnFile, Part, Pin, ProcessIndex, Table,
};

/// Puts the leases into the table, and their verdicts into its pins.
pub fn apply_coverage(table: &mut Table, seen: LeaseObservations) {
    let mut on_files: HashMap<FileIndex, Vec<OnFile<'_>>> = HashMap::default();
    for lease in &seen.leases {
        for file in lease.files() {
            on_files.entry(file).or_default().push(on(table, lease));
        }
    }
    let mut pins = std::mem::take(&mut table.pins);
    for pin in &mut pins {
        pin.coverage = verdict(table, pin, &on_files, seen.hugetlb);
        if is_doubtful(table, pin, &seen) {
            pin.coverage = Coverage::default();
        }
    }
    table.pins = pins;
    table.leases = Some(seen.leases);
}

/// Whether the verdict on a pin may be another because of a lease or a file that the source has not seen.
fn is_doubtful(table: &Table, pin: &Pin, seen: &LeaseObservations) -> bool {
    let is_unknown = |part: &Part| part.backing == Backing::Unknown;
    if seen.unknown_may_be_files && pin.parts.iter().any(is_unknown) {
        return true;
    }
    let could_be_better = match pin.coverage.state {
        CoverageState::None | CoverageState::Other | CoverageState::Partial => true,
        CoverageState::Write
        | CoverageState::Read
        | CoverageState::Delegation
        | CoverageState::Layout
        | CoverageState::Breaking
        | CoverageState::NotApplicable
        | CoverageState::Unknown => false,
    };
    let is_unclear = |part: &Part| part.file.is_some_and(|file| seen.unclear_files.contains(&file));
    let by_whom = || table.holders(pin).iter().any(|holder| seen.unclear_holders.contains(&holder.process));
    could_be_better
        && (seen.some_unseen
            || !seen.unclear_files.is_empty() && pin.parts.iter().any(is_unclear)
            || !seen.unclear_holders.is_empty() && by_whom())
}

fn on<'a>(table: &Table, lease: &'a Lease) -> OnFile<'a> {
    let holding = table.holdings.get(lease.holding.0 as usize);
    let holders: BTreeSet<ProcessIndex> =
        holding.into_iter().flat_map(|holding| &holding.holders).map(|holder| holder.process).collect();
    // The kernel signals whoever took the lease; without holders nobody else is known.
    let signalled = if holders.is_empty() { lease.taker.into_iter().collect() } else { holders.clone() };
    let pids = signalled.iter().filter_map(|at| table.process(*at)).map(|process| process.pid).collect();
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
        Backing::Devdax | Backing::Anon | Backing::Device | Backing::Unknown => false,
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
    // Most files have no lease.
    if on_files.is_empty() || files().all(|file| !on_files.contains_key(&file)) {
        return none();
    }
    let Some(holding) = holding else { return Coverage::default() };
    let holders: BTreeSet<ProcessIndex> = holding.holders.iter().map(|holder| holder.process).collect();
    weakest(
        files()
            .map(|file| on_files.get(&file).map_or_else(none, |leases| coverage_on_file(&holders, leases))),
    )
}
