//! `lspins --leases` and `lspins --events` with daemons, held against the schema.

use pinwatch::model::*;
use pinwatch::wire;
use serde_json::Value;

use crate::daemons::{Daemon, table};
use crate::schema;

const NOON: i64 = 1_795_218_904_000_000_000;

fn who(pid: u32) -> Who {
    Who { pid, comm: Name::from("app"), uid: Some(1) }
}

fn breaker() -> Breaker {
    Breaker { who: who(7), call: Some(Name::from("truncate")), wants: LeaseMode::Write }
}

fn tag() -> LeaseTag {
    LeaseTag { kind: LeaseKind::Lease, mode: LeaseMode::Write, taker: who(1) }
}

/// One of each kind.
fn events() -> Vec<Event> {
    let all = [
        Happened::PinMade { by: who(1), bytes: 4096 },
        Happened::LeaseTaken { lease: tag() },
        Happened::Coverage { from: CoverageState::None, to: CoverageState::Write },
        Happened::BreakBegan { by: breaker(), waits: true, leases: vec![tag()] },
        Happened::LeaseChanged { lease: tag(), to: LeaseMode::Read },
        Happened::LeaseDropped {
            lease: tag(),
            how: Outcome::Released,
            by: who(1),
            broken_for: Some(1 << 30),
        },
        Happened::BreakEnded { by: breaker(), waited: 1 << 31, outcome: Outcome::Released },
        Happened::PinReleased { by: who(1), bytes: 4096 },
        Happened::Lost { events: 3 },
    ];
    let event = |(number, what)| Event {
        number: number as u64 + 1,
        time: NOON,
        what,
        file: table(1).files.pop(),
        pins: table(1).pins.iter().map(|pin| pin.id).collect(),
        pin_count: 1,
        uids: Vec::new(),
    };
    all.into_iter().enumerate().map(event).collect()
}

#[test]
fn leases_fit_the_schema() {
    let mut table = table(2);
    let lease = |file, waiters| Lease {
        file: FileIndex(file),
        below: Vec::new(),
        kind: LeaseKind::Delegation,
        mode: LeaseMode::Read,
        state: LeaseState::Breaking { seconds_left: Some(9) },
        taker: Some(ProcessIndex(file)),
        holding: HoldingIndex(file),
        taken: Some(NOON),
        broken: None,
        waiters,
    };
    table.leases =
        Some(vec![lease(0, vec![Waiter { breaker: breaker(), since: NOON }]), lease(1, Vec::new())]);
    let daemon = Daemon::with(&table);
    let output = daemon.run(&["--leases", "-J"]);
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    schema::check_as("leases", &document);
    assert_eq!(document["leases"].as_array().unwrap().len(), 2);
    let output = daemon.run(&["--leases", "-j"]);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        schema::check_as("lease", &serde_json::from_str(line).unwrap());
    }
    let none = Daemon::with(&Table { leases: Some(Vec::new()), ..table });
    assert_eq!(none.run(&["--leases"]).status.code(), Some(1));
}

#[test]
fn events_fit_the_schema_and_are_selected_by_file() {
    let daemon = Daemon::answering(wire::encode_events(&events()).unwrap());
    let output = daemon.run(&["--events", "-j"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), events().len());
    for line in text.lines() {
        schema::check_as("event", &serde_json::from_str(line).unwrap());
    }
    let output = daemon.run(&["--events"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("app[7] (truncate) waits for write lease of app[1] on /srv/pool/file-0.dat"),
        "{text}"
    );
    // Another folder: only what was lost is told of.
    let output = daemon.run(&["--events", "--dir", "/elsewhere"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
}

#[test]
fn who_follows_is_told_until_the_daemon_ends() {
    let (first, rest) = (events().remove(0), events().split_off(1));
    let mut bytes = wire::encode_events(&[first]).unwrap();
    bytes.extend(wire::encode_events(&rest).unwrap());
    let daemon = Daemon::answering(bytes);
    let output = daemon.run(&["--events", "--follow"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), events().len());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("pinwatch has stopped"), "{:?}", output.stderr);
}

#[test]
fn what_is_no_answer_is_said_so() {
    let cut = wire::encode_events(&events()).unwrap();
    for (bytes, said) in [
        (wire::encode_error("16 others follow already").unwrap(), "16 others follow already"),
        (wire::encode_table(&table(1)).unwrap(), "unexpected reply"),
        (cut[..cut.len() - 9].to_vec(), "cut off"),
        (Vec::new(), "closed the connection"),
    ] {
        for follow in [&["--events"][..], &["--events", "--follow"]] {
            let output = Daemon::answering(bytes.clone()).run(follow);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{error}");
            assert!(error.contains(said), "{follow:?}: {error}");
        }
    }
    let output = crate::support::lspins().args(["--events", "--socket", "/nowhere"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("start it with `pinwatch run`"));
    assert_eq!(output.status.code(), Some(2));
}
