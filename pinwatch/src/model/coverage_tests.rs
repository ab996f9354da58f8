//! The verdicts of the design, as a table.

use super::*;
use crate::model::{Device, FileId, FileIndex, HoldingIndex, Name};

fn lease(kind: LeaseKind, mode: LeaseMode, state: LeaseState) -> Lease {
    Lease {
        file: FileIndex(0),
        below: Vec::new(),
        kind,
        mode,
        state,
        taker: None,
        holding: HoldingIndex(0),
        taken: None,
        broken: None,
        waiters: Vec::new(),
    }
}

fn processes(all: &[u32]) -> BTreeSet<ProcessIndex> {
    all.iter().map(|n| ProcessIndex(*n)).collect()
}

/// Holders, leases with their holders, and the verdict: state, covered, pids.
fn check(holders: &[u32], leases: &[(Lease, &[u32])], expected: (CoverageState, u32, &[u32])) {
    let on: Vec<OnFile<'_>> = leases
        .iter()
        .map(|(lease, holders)| OnFile { lease, holders: processes(holders), pids: holders.to_vec() })
        .collect();
    let coverage = coverage_on_file(&processes(holders), &on);
    let said = (coverage.state, coverage.covered, &coverage.lease_pids[..]);
    assert_eq!(said, expected, "{holders:?} with {leases:?}");
    assert_eq!(coverage.holders as usize, holders.len());
}

#[test]
fn verdicts() {
    use CoverageState as Is;
    use LeaseState::{Active, Expired};
    let write = lease(LeaseKind::Lease, LeaseMode::Write, Active);
    let read = lease(LeaseKind::Lease, LeaseMode::Read, Active);
    let deleg = lease(LeaseKind::Delegation, LeaseMode::Read, Active);
    let layout = lease(LeaseKind::Layout, LeaseMode::Read, Active);
    let breaking = lease(LeaseKind::Lease, LeaseMode::Read, LeaseState::Breaking { seconds_left: Some(9) });
    let expired = lease(LeaseKind::Lease, LeaseMode::Write, Expired);
    check(&[1], &[], (Is::None, 0, &[]));
    check(&[], &[], (Is::None, 0, &[]));
    check(&[1], &[(write.clone(), &[1])], (Is::Write, 1, &[1]));
    check(&[1, 2], &[(write.clone(), &[1, 2, 3])], (Is::Write, 2, &[1, 2, 3]));
    check(&[1, 2], &[(write.clone(), &[2])], (Is::Partial, 1, &[2]));
    check(&[1, 2], &[(read.clone(), &[1]), (deleg.clone(), &[2])], (Is::Delegation, 2, &[1, 2]));
    check(&[1], &[(deleg, &[1])], (Is::Delegation, 1, &[1]));
    check(&[1], &[(layout.clone(), &[1])], (Is::Layout, 1, &[1]));
    check(&[1], &[(write.clone(), &[7])], (Is::Other, 0, &[7]));
    // The kernel's own: nobody in user space is asked.
    check(&[1], &[(layout, &[])], (Is::Other, 0, &[]));
    // Nobody holds the pin: whoever is asked cannot let go of it.
    check(&[], &[(write, &[7])], (Is::Other, 0, &[7]));
    check(&[1], &[(breaking.clone(), &[1])], (Is::Breaking, 0, &[1]));
    check(&[1], &[(breaking.clone(), &[7])], (Is::Breaking, 0, &[7]));
    check(&[1], &[(breaking, &[7]), (read, &[1])], (Is::Read, 1, &[1, 7]));
    // Its time is up: the kernel may take it at any moment, and then asks nobody.
    check(&[1], &[(expired, &[1])], (Is::None, 0, &[]));
}

#[test]
fn seconds_are_those_of_the_break() {
    for (left, said) in [(Some(9), Some(9)), (None, None)] {
        let breaking = lease(LeaseKind::Lease, LeaseMode::Write, LeaseState::Breaking { seconds_left: left });
        let on = OnFile { lease: &breaking, holders: processes(&[1]), pids: vec![1] };
        let coverage = coverage_on_file(&processes(&[1]), &[on]);
        assert_eq!((coverage.state, coverage.seconds_left), (CoverageState::Breaking, said));
    }
}

#[test]
fn the_worst_file_counts() {
    let of = |state| Coverage { state, ..Coverage::default() };
    assert_eq!(weakest([]).state, CoverageState::NotApplicable);
    assert_eq!(weakest([of(CoverageState::Write), of(CoverageState::None)]).state, CoverageState::None);
    assert_eq!(weakest([of(CoverageState::Partial), of(CoverageState::Read)]).state, CoverageState::Partial);
    assert_eq!(weakest([of(CoverageState::None), of(CoverageState::Unknown)]).state, CoverageState::Unknown);
    let mut words: Vec<&str> = CoverageState::ALL.iter().map(|state| state.word()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), CoverageState::ALL.len());
}

#[test]
fn policies() {
    let id = FileId { dev: Device { major: 253, minor: 1 }, ino: 131, generation: Some(9) };
    let path = Name::from("/srv/pool.dat");
    let mut file =
        File { id, path, path_complete: true, fstype: "xfs".to_owned(), deleted: Some(false), dax: false };
    let of = |file: &File, backing| {
        [LeasePolicy::Persistent, LeasePolicy::All, LeasePolicy::Dax, LeasePolicy::Never]
            .map(|policy| policy.requires(backing, Some(file)))
    };
    assert_eq!(of(&file, Backing::File), [true, true, false, false]);
    assert_eq!(of(&file, Backing::Shmem), [false, true, false, false]);
    assert_eq!(of(&file, Backing::Devdax), [false; 4]);
    file.dax = true;
    assert_eq!(of(&file, Backing::File), [true, true, true, false]);
    file.fstype = "ramfs".to_owned();
    assert!(!of(&file, Backing::File)[0]);
    assert!(!LeasePolicy::All.requires(Backing::Anon, None));
}
