use pinwatch_common::{Actor, Event as RingEvent, lease_flag, left};

use super::*;
use crate::model::{LeaseMode, Outcome};

const FILE: FileKey = FileKey { ino: 131, dev: 253 << 20 | 1, generation: 9 };
const CLOCKS: Clocks = Clocks { realtime: 0, boottime: 0 };
const SECOND: u64 = 1_000_000_000;
const READ: u32 = 0;
const WRITE: u32 = 1;
const NONE: u32 = 2;

fn actor(pid: u32) -> Actor {
    let mut comm = [0; 16];
    comm[..3].copy_from_slice(b"app");
    Actor { start: 1, comm, pid, tid: pid, uid: pid % 10, call: 76 }
}

/// An event at a second: of the lease 0x10 that process 812 has, if it is one of a lease.
fn record(seconds: u64, what: u32, pid: u32, wanted: u32) -> LeaseEvent {
    let of_lease = matches!(what, event::LEASE_TAKEN | event::LEASE_CHANGED);
    LeaseEvent {
        event: RingEvent {
            time: seconds * SECOND,
            sequence: u64::from(of_lease) * 0x10,
            what,
            ..RingEvent::default()
        },
        file: FILE,
        actor: actor(pid),
        flags: lease_flag::LEASE,
        kind: WRITE,
        wanted,
        pid: if of_lease { 812 } else { 0 },
        ..LeaseEvent::default()
    }
}

fn all(history: &mut History, now: u64) -> Vec<Happened> {
    let before = history.latest();
    history.publish((now * SECOND) as i64, |_, _| None);
    history.after(before, 0).into_iter().map(|event| event.what).collect()
}

#[test]
fn a_break_that_ends_by_release() {
    let mut history = History::default();
    history.lease(&record(1, event::LEASE_TAKEN, 812, WRITE), CLOCKS);
    history.lease(&record(5, event::BREAK_WAITS, 990, WRITE), CLOCKS);
    assert_eq!(history.times(0x10), (Some(SECOND as i64), Some(5 * SECOND as i64)));
    let events = all(&mut history, 5);
    assert!(matches!(&events[0], Happened::LeaseTaken { lease } if lease.taker.pid == 812));
    let Happened::BreakBegan { by, waits: true, leases } = &events[1] else { panic!("{events:?}") };
    assert_eq!((by.who.pid, by.doing().as_str(), leases.len()), (990, "truncate", 1));
    history.lease(&record(8, event::LEASE_CHANGED, 812, NONE), CLOCKS);
    history.lease(&record(8, event::BREAK_DONE, 990, WRITE), CLOCKS);
    let events = all(&mut history, 8);
    let dropped = |what: &Happened| matches!(what, Happened::LeaseDropped { how: Outcome::Released, broken_for: Some(n), .. } if *n == 3 * SECOND);
    assert!(dropped(&events[0]), "{events:?}");
    let ended = |what: &Happened| matches!(what, Happened::BreakEnded { waited, outcome: Outcome::Released, .. } if *waited == 3 * SECOND);
    assert!(ended(&events[1]), "{events:?}");
    assert_eq!(history.times(0x10), (None, None));
}

#[test]
fn one_that_times_out_and_one_that_is_a_downgrade() {
    let mut history = History::default();
    history.lease(&record(1, event::BREAK_WAITS, 990, WRITE), CLOCKS);
    let late = LeaseEvent { left: left::OVERDUE, ..record(46, event::BREAK_DONE, 990, WRITE) };
    history.lease(&late, CLOCKS);
    history.lease(&LeaseEvent { overdue: 1, ..record(46, event::LEASE_CHANGED, 990, NONE) }, CLOCKS);
    let events = all(&mut history, 46);
    assert!(matches!(&events[1], Happened::BreakEnded { outcome: Outcome::TimedOut, .. }), "{events:?}");
    // It was taken before anybody watched: who took it is known by its number only.
    let how = |what: &Happened| matches!(what, Happened::LeaseDropped { how: Outcome::TimedOut, lease, by, .. } if lease.taker.pid == 812 && by.pid == 990);
    assert!(how(&events[2]), "{events:?}");
    history.lease(&record(50, event::BREAK_WAITS, 990, READ), CLOCKS);
    history.lease(&record(51, event::LEASE_CHANGED, 812, READ), CLOCKS);
    history.lease(&record(51, event::BREAK_DONE, 990, READ), CLOCKS);
    let events = all(&mut history, 51);
    assert!(matches!(&events[1], Happened::LeaseChanged { to: LeaseMode::Read, .. }), "{events:?}");
    assert!(matches!(&events[2], Happened::BreakEnded { outcome: Outcome::Downgraded, .. }), "{events:?}");
}

#[test]
fn who_waits_for_one_lease_after_the_other_waits_once_and_who_is_interrupted_gives_up() {
    let mut history = History::default();
    history.lease(&record(1, event::BREAK_WAITS, 990, WRITE), CLOCKS);
    history.lease(&LeaseEvent { left: left::LEASE, ..record(2, event::BREAK_DONE, 990, WRITE) }, CLOCKS);
    history.lease(&record(2, event::BREAK_WAITS, 990, WRITE), CLOCKS);
    assert_eq!(all(&mut history, 3).len(), 1);
    history.lease(&LeaseEvent { left: left::LEASE, ..record(4, event::BREAK_DONE, 990, WRITE) }, CLOCKS);
    let events = all(&mut history, 5);
    let gave_up = |what: &Happened| matches!(what, Happened::BreakEnded { outcome: Outcome::GivenUp, waited, .. } if *waited == 3 * SECOND);
    assert!(events.len() == 1 && gave_up(&events[0]), "{events:?}");
}

#[test]
fn a_lease_that_is_taken_away_just_after_its_waiter_woke_up_has_timed_out() {
    let mut history = History::default();
    history.lease(&record(1, event::BREAK_WAITS, 990, WRITE), CLOCKS);
    history.lease(&LeaseEvent { left: left::LEASE, ..record(2, event::BREAK_DONE, 990, WRITE) }, CLOCKS);
    let mut taken = LeaseEvent { overdue: 1, ..record(2, event::LEASE_CHANGED, 990, NONE) };
    taken.event.time += 9000;
    history.lease(&taken, CLOCKS);
    let events = all(&mut history, 3);
    let timed_out = |what: &Happened| matches!(what, Happened::BreakEnded { outcome: Outcome::TimedOut, .. });
    assert!(events.iter().any(timed_out), "{events:?}");
}

#[test]
fn a_process_that_tries_again_and_again_is_one_event() {
    let mut history = History::default();
    for second in 1..50 {
        history.lease(&record(second, event::BREAK_REFUSED, 990, WRITE), CLOCKS);
    }
    assert_eq!(all(&mut history, 50).len(), 1);
    history.lease(&record(51, event::LEASE_CHANGED, 812, NONE), CLOCKS);
    history.lease(&record(52, event::BREAK_REFUSED, 990, WRITE), CLOCKS);
    assert_eq!(all(&mut history, 53).len(), 2);
}

#[test]
fn a_break_is_of_the_leases_that_are_in_its_way() {
    let mut history = History::default();
    let layout =
        LeaseEvent { flags: lease_flag::LAYOUT, kind: READ, ..record(1, event::LEASE_TAKEN, 812, READ) };
    history.lease(&layout, CLOCKS);
    let mut deleg = LeaseEvent { flags: lease_flag::DELEG, pid: 5, ..record(2, event::LEASE_TAKEN, 5, READ) };
    (deleg.kind, deleg.event.sequence) = (READ, 0x20);
    history.lease(&deleg, CLOCKS);
    all(&mut history, 2);
    let of = |history: &mut History, flags, wanted| {
        history.lease(&LeaseEvent { flags, ..record(3, event::BREAK_REFUSED, 900 + flags, wanted) }, CLOCKS);
        match all(history, 3).remove(0) {
            Happened::BreakBegan { leases, .. } => {
                leases.iter().map(|tag| tag.kind.word()).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of(&mut history, lease_flag::LEASE, WRITE), ["deleg"]);
    assert_eq!(history.times(0x10), (Some(SECOND as i64), None));
    assert_eq!(of(&mut history, lease_flag::LAYOUT, WRITE), ["layout"]);
    assert!(of(&mut history, 0, READ).is_empty());
}

#[test]
fn a_flood_is_bounded_and_breaks_outlive_it() {
    let mut history = History::default();
    history.lease(&record(1, event::BREAK_WAITS, 990, WRITE), CLOCKS);
    for second in 0..20_000 {
        let what = if second % 2 == 0 { event::LEASE_TAKEN } else { event::LEASE_CHANGED };
        history.lease(&record(second, what, 812, NONE * (second % 2) as u32), CLOCKS);
    }
    let events = all(&mut history, 20_000);
    assert_eq!(events.len(), KEPT + 1);
    assert!(matches!(events[0], Happened::BreakBegan { .. }));
    assert!(matches!(events[KEPT], Happened::Lost { events: 10_001 }), "{:?}", events[KEPT]);
}

#[test]
fn verdicts_that_change_are_events_for_those_concerned_only() {
    let mut table = crate::listing::sample::table();
    table.leases = Some(Vec::new());
    table.pins.iter_mut().for_each(|pin| pin.coverage.state = CoverageState::None);
    let mut history = History::default();
    assert!(history.observe(&table, i64::MAX / 2).is_empty());
    // The first lease appears, and with it a verdict that no pass had before.
    table.pins[1].coverage.state = CoverageState::Write;
    table.leases = None;
    assert_eq!(history.observe(&table, i64::MAX / 2).len(), 1);
    table.pins[1].coverage.state = CoverageState::None;
    let changed = history.observe(&table, i64::MAX / 2);
    assert_eq!(changed[0].id, table.pins[1].id);
    history.publish(0, |_, _| None);
    let events = history.after(0, 0);
    let (from, to) = (CoverageState::Write, CoverageState::None);
    assert_eq!((events.len(), &events[1].what), (2, &Happened::Coverage { from, to }));
    let concerned = events[1].uids[0];
    assert_eq!(history.after(0, concerned).len(), 2);
    assert!(history.after(0, 4711).is_empty() && history.after(0, concerned)[0].uids.is_empty());
}

#[test]
fn damaged_events_are_no_panic() {
    let mut history = History::default();
    for what in 0..12 {
        let mut event = record(u64::MAX / SECOND, what, 0, 77);
        event.kind = 99;
        event.file = FileKey::default();
        history.lease(&event, CLOCKS);
    }
    all(&mut history, 1);
}

#[test]
fn many_pins_on_one_file_are_one_event_that_names_some() {
    let mut table = crate::listing::sample::table();
    let pin = table.pins[1].clone();
    table.pins = (0..5000)
        .map(|sequence| {
            let mut pin = pin.clone();
            pin.id.sequence = sequence;
            pin.coverage.state = CoverageState::Write;
            pin
        })
        .collect();
    table.leases = None;
    let mut history = History::default();
    history.observe(&table, 0);
    table.pins.iter_mut().for_each(|pin| pin.coverage.state = CoverageState::None);
    assert_eq!(history.observe(&table, 1).len(), 5000);
    history.publish(2, |_, _| None);
    let events = history.after(0, 0);
    assert_eq!((events.len(), events[0].pins.len(), events[0].pin_count), (1, Event::PINS, 5000));
}
