//! `--events`: what happened, as lines or as lines of JSON.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::select::Selection;
use super::{escape, json, path_or_number, size};
use crate::model::{Breaker, Event, Happened, LeaseTag, Outcome, Who};

/// Pins that a line names; of more it says how many.
const NAMED: usize = 8;

/// Events on the files that are selected.
pub fn selected<'a>(events: &'a [Event], selection: &'a Selection) -> impl Iterator<Item = &'a Event> {
    events.iter().filter(|event| {
        selection.has_file(event.file.as_ref()) || matches!(event.what, Happened::Lost { .. })
    })
}

/// One event for people: time of day, what, and the rest in words.
pub fn line(event: &Event, zone: &TimeZone) -> String {
    let time = Timestamp::from_nanosecond(i128::from(event.time)).unwrap_or_default();
    let time = time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
    let word = event.what.word().replace('_', " ");
    let file = match &event.file {
        Some(file) => format!(" on {}", path_or_number(file)),
        None => String::new(),
    };
    let of_pin = matches!(
        event.what,
        Happened::PinMade { .. } | Happened::PinReleased { .. } | Happened::Coverage { .. }
    );
    let id = || {
        let named: Vec<String> = event.pins.iter().take(NAMED).map(ToString::to_string).collect();
        match event.pin_count.saturating_sub(named.len() as u64) {
            0 => named.join(" "),
            more => format!("{} and {more} more", named.join(" ")),
        }
    };
    let behind = if of_pin || event.pins.is_empty() { String::new() } else { format!("; pinned: {}", id()) };
    let what = match &event.what {
        Happened::PinMade { by, bytes } => format!("{} {} by {}", id(), size::short(*bytes), who(by)),
        Happened::PinReleased { by, bytes } => {
            format!("{} {}, made by {}", id(), size::short(*bytes), who(by))
        }
        Happened::LeaseTaken { lease } => tag(lease),
        Happened::LeaseChanged { lease, to } => format!("{} becomes {}", tag(lease), to.word()),
        Happened::LeaseDropped { lease, how, by, broken_for } => {
            let how = match (how, broken_for) {
                (Outcome::TimedOut, _) => ": its break time expired".to_owned(),
                (_, Some(broken)) => format!(": released {} after the break began", seconds(*broken)),
                _ => String::new(),
            };
            let by = if by.pid == lease.taker.pid { String::new() } else { format!(" through {}", who(by)) };
            format!("{}{by}{how}", tag(lease))
        }
        Happened::BreakBegan { by, waits, leases } => {
            let leases: Vec<String> = leases.iter().map(tag).collect();
            let what = if leases.is_empty() { "a lease".to_owned() } else { leases.join(", ") };
            let waits = if *waits { "waits for" } else { "is refused because of" };
            format!("{} ({}) {waits} {what}", who(&by.who), escape::sentence(&by.doing()))
        }
        Happened::BreakEnded { by, waited, outcome } => {
            let outcome = match outcome {
                Outcome::Released => "the lease was released",
                Outcome::Downgraded => "the lease became a read lease",
                Outcome::TimedOut => "the break time of the lease expired",
                Outcome::GivenUp => "gave up",
            };
            let doing = escape::sentence(&by.doing());
            format!("{} ({doing}) waited {}: {outcome}", who(&by.who), seconds(*waited))
        }
        Happened::Coverage { from, to } => format!("{}: {} -> {}", id(), from.word(), to.word()),
        Happened::Lost { events } => {
            return format!("{time} {word:<13} {events} events were lost: the buffer was full");
        }
    };
    format!("{time} {word:<13} {what}{file}{behind}")
}

fn who(who: &Who) -> String {
    match who.comm.as_bytes() {
        [] => format!("process {}", who.pid),
        comm => format!("{}[{}]", escape::name(comm), who.pid),
    }
}

fn tag(lease: &LeaseTag) -> String {
    format!("{} {} of {}", lease.mode.word(), lease.kind.word(), who(&lease.taker))
}

/// Nanoseconds as seconds, with a digit behind the point where it matters.
fn seconds(nanoseconds: u64) -> String {
    let seconds = nanoseconds as f64 / 1e9;
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// Writes one event as a line of JSON. Fields that do not fit what happened are not there.
pub fn json(out: &mut impl Write, event: &Event) -> io::Result<()> {
    let lease = |lease: &LeaseTag| json!({"kind": lease.kind.word(), "mode": lease.mode.word(), "taker": json::who(&lease.taker)});
    let breaker = |by: &Breaker, fields: &mut Value| {
        fields["process"] = json::who(&by.who);
        fields["call"] = json!(by.call.as_ref().map(|call| call.text()));
        fields["wants"] = json!(by.wants.word());
    };
    let ids: Vec<String> = event.pins.iter().map(ToString::to_string).collect();
    let mut fields = json!({
        "time": json::time(event.time),
        "event": event.what.word(),
        "file": event.file.as_ref().map(json::File::new),
        "pins": ids,
        "pin_count": event.pin_count,
    });
    match &event.what {
        Happened::PinMade { by, bytes } | Happened::PinReleased { by, bytes } => {
            fields["process"] = json::who(by);
            fields["bytes"] = json!(bytes);
        }
        Happened::LeaseTaken { lease: taken } => fields["lease"] = lease(taken),
        Happened::LeaseChanged { lease: was, to } => {
            fields["lease"] = lease(was);
            fields["to"] = json!(to.word());
        }
        Happened::LeaseDropped { lease: was, how, by, broken_for } => {
            fields["lease"] = lease(was);
            fields["outcome"] = json!(how.word());
            fields["process"] = json::who(by);
            fields["broken_seconds"] = json!(broken_for.map(|nanoseconds| nanoseconds as f64 / 1e9));
        }
        Happened::BreakBegan { by, waits, leases } => {
            breaker(by, &mut fields);
            fields["waits"] = json!(waits);
            fields["leases"] = leases.iter().map(lease).collect();
        }
        Happened::BreakEnded { by, waited, outcome } => {
            breaker(by, &mut fields);
            fields["waited_seconds"] = json!(*waited as f64 / 1e9);
            fields["outcome"] = json!(outcome.word());
        }
        Happened::Coverage { from, to } => {
            fields["from"] = json!(from.word());
            fields["to"] = json!(to.word());
        }
        Happened::Lost { events } => fields["events"] = json!(events),
    }
    writeln!(out, "{fields}")
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
