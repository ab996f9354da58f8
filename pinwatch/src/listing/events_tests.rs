use super::*;
use crate::listing::sample;
use crate::model::{CoverageState, LeaseKind, LeaseMode, PinId, Subsystem};

fn who(pid: u32, comm: &str) -> Who {
    Who { pid, comm: comm.into(), uid: Some(0) }
}

fn event(what: Happened) -> Event {
    let file = Some(sample::table().files.remove(1));
    let pins = vec![PinId { subsystem: Subsystem::Rdma, sequence: 31 }];
    Event { number: 1, time: 1_234_567_890, what, file, pins, pin_count: 1, uids: vec![0] }
}

fn lease() -> LeaseTag {
    LeaseTag { kind: LeaseKind::Lease, mode: LeaseMode::Write, taker: who(812, "ib\nserver") }
}

fn breaker() -> Breaker {
    Breaker { who: who(990, "cp"), call: Some("openat".into()), wants: LeaseMode::Write }
}

#[test]
fn lines_tell_what_happened_and_escape_names() {
    let line = |what| line(&event(what), &TimeZone::UTC);
    let name = "/srv/q\\n\\x1b[31m\\xff";
    assert_eq!(
        line(Happened::LeaseTaken { lease: lease() }),
        format!(
            "1970-01-01 00:00:01.234 lease taken   write lease of ib\\nserver[812] on {name}; pinned: r1f"
        )
    );
    let began = Happened::BreakBegan { by: breaker(), waits: true, leases: vec![lease()] };
    assert!(
        line(began).contains("cp[990] (openat for writing) waits for write lease of ib\\nserver[812] on")
    );
    let ended = Happened::BreakEnded { by: breaker(), waited: 3_200_000_000, outcome: Outcome::TimedOut };
    assert!(line(ended).contains("waited 3.2 s: the break time of the lease expired"));
    let dropped = Happened::LeaseDropped {
        lease: lease(),
        how: Outcome::Released,
        by: who(5, "sh"),
        broken_for: Some(12_000_000_000),
    };
    assert!(line(dropped).contains("through sh[5]: released 12 s after the break began"));
    let coverage = Happened::Coverage { from: CoverageState::Write, to: CoverageState::None };
    assert!(line(coverage).ends_with(&format!("coverage      r1f: write -> none on {name}")));
}

#[test]
fn of_many_pins_some_are_named() {
    let mut event = event(Happened::Coverage { from: CoverageState::Write, to: CoverageState::None });
    event.pins = (1..=256).map(|sequence| PinId { subsystem: Subsystem::Rdma, sequence }).collect();
    event.pin_count = 5000;
    assert!(line(&event, &TimeZone::UTC).contains("r1 r2 r3 r4 r5 r6 r7 r8 and 4992 more: write -> none"));
}

#[test]
fn json_has_a_line_for_each_and_only_the_fields_that_fit() {
    let read = |what| {
        let mut out = Vec::new();
        json(&mut out, &event(what)).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice::<Value>(&out).unwrap()
    };
    let ended =
        read(Happened::BreakEnded { by: breaker(), waited: 3_200_000_000, outcome: Outcome::GivenUp });
    assert_eq!(ended["event"], "break_ended");
    assert_eq!((&ended["outcome"], &ended["waited_seconds"]), (&json!("given_up"), &json!(3.2)));
    assert_eq!((&ended["process"]["pid"], &ended["call"]), (&json!(990), &json!("openat")));
    assert_eq!((&ended["pins"], &ended["time"]), (&json!(["r1f"]), &json!("1970-01-01T00:00:01.23456789Z")));
    assert!(ended.get("lease").is_none());
    let taken = read(Happened::LeaseTaken { lease: lease() });
    assert_eq!(taken["lease"]["taker"]["comm"], "ib\nserver");
    let lost = read(Happened::Lost { events: 7 });
    assert_eq!(lost["events"], 7);
}
