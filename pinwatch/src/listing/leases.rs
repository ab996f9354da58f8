//! `--leases`: the leases themselves, with the pins behind each.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::columns::Context;
use super::grid::Grid;
use super::json::writer::{self, Ready, key};
use super::render::RenderOptions;
use super::select::Selection;
use super::{escape, json, label, path_or_number, size};
use crate::model::{Breaker, CoverageState, Holding, Lease, LeaseState, Part, Pin, Process, Table, Waiter};

/// A lease of a table, and the pins on its file.
struct Entry<'a> {
    lease: &'a Lease,
    holding: Option<&'a Holding>,
    taker: Option<&'a Process>,
    pins: Vec<&'a Pin>,
}

/// The leases on the files that are selected.
pub struct Leases<'a> {
    table: &'a Table,
    entries: Vec<Entry<'a>>,
}

impl<'a> Leases<'a> {
    /// Those of a table; `None` if leases were not read.
    pub fn of(table: &'a Table, selection: &Selection) -> Option<Self> {
        let entry = |lease: &'a Lease| {
            let behind = |pin: &&Pin| pin.is_leased_by(lease);
            Entry {
                lease,
                holding: table.holdings.get(lease.holding.0 as usize),
                taker: lease.taker.and_then(|at| table.process(at)),
                pins: table.pins.iter().filter(behind).collect(),
            }
        };
        let leases = table.leases.as_ref()?.iter();
        let entries = leases.filter(|lease| selection.has_file(table.file(lease.file))).map(entry).collect();
        Some(Self { table, entries })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// For people.
    pub fn text(&self, options: RenderOptions, context: &Context) -> String {
        let mut grid = Grid::new([3, 6, 7]);
        if options.header {
            grid.push(["KIND", "MODE", "STATE", "AGE", "HELDBY", "WAITING", "PINS", "PINNED", "NAME"]);
        }
        self.entries.iter().for_each(|entry| grid.push(self.line(entry, context)));
        grid.draw()
    }

    fn line(&self, entry: &Entry, context: &Context) -> [String; 9] {
        let Entry { lease, pins, .. } = entry;
        let state = match lease.state {
            LeaseState::Breaking { seconds_left: Some(left) } => format!("breaking {left}s"),
            state => state.word().to_owned(),
        };
        let bytes = pinned(lease, pins);
        let bytes = if context.bytes { bytes.to_string() } else { size::short(bytes) };
        let name = match self.table.file(lease.file) {
            Some(file) => path_or_number(file),
            None => "?".to_owned(),
        };
        let (kind, mode) = (lease.kind.word().to_owned(), lease.mode.word().to_owned());
        let age = lease.taken.map_or_else(|| "?".to_owned(), |taken| age(taken, context.now));
        let waiting: Vec<String> = lease.waiters.iter().map(|waiter| waits(waiter, context.now)).collect();
        let waiting = if waiting.is_empty() { "-".to_owned() } else { waiting.join(",") };
        [kind, mode, state, age, self.held_by(entry), waiting, pins.len().to_string(), bytes, name]
    }

    fn held_by(&self, entry: &Entry) -> String {
        let holders = entry.holding.into_iter().flat_map(|holding| &holding.holders);
        let mut names: Vec<String> =
            holders.filter_map(|holder| self.table.process(holder.process)).map(label).collect();
        if let Some(waiting) = entry.holding.and_then(|holding| holding.in_flight).filter(|n| *n > 0) {
            names.push(format!("+{waiting} in flight"));
        }
        match (names.is_empty(), entry.taker) {
            (false, _) => names.join(","),
            (true, Some(taker)) if !taker.comm.as_bytes().is_empty() => format!("kernel ({})", label(taker)),
            // Nobody was found who has it; only who took it is known.
            (true, Some(taker)) => format!("? (taken by {})", taker.pid),
            (true, None) => "?".to_owned(),
        }
    }

    /// For machines: one document, or a line for each lease.
    pub fn json(&self, out: &mut impl Write, whole: bool) -> io::Result<()> {
        let mut text = Vec::new();
        if whole {
            let mut failed = Ok(());
            writer::object(&mut text, |o| {
                o.number(key!("version"), u64::from(json::VERSION));
                o.flag(key!("complete"), self.table.complete());
                o.list(key!("leases"), &self.entries, |out, entry| {
                    if let Err(error) = self.object(out, entry) {
                        failed = Err(error);
                    }
                });
            });
            failed?;
            text.push(b'\n');
        } else {
            for entry in &self.entries {
                self.object(&mut text, entry)?;
                text.push(b'\n');
            }
        }
        out.write_all(&text)
    }

    fn object(&self, out: &mut Vec<u8>, entry: &Entry) -> serde_json::Result<()> {
        let Entry { lease, holding, taker, pins } = entry;
        let file = self.table.file(lease.file).map(|file| Ready::of_serde(&json::File::new(file)));
        let file = file.transpose()?;
        let seconds = match lease.state {
            LeaseState::Breaking { seconds_left } => seconds_left,
            _ => None,
        };
        let taker = taker.map(|taker| {
            Ready::written(|out| {
                writer::object(out, |o| {
                    o.number(key!("pid"), u64::from(taker.pid));
                    o.text(key!("comm"), Some(&taker.comm.text()));
                });
            })
        });
        let nobody = Holding::nobody();
        let waiters: Vec<Value> = (lease.waiters.iter())
            .map(|waiter| {
                let Breaker { who, call, wants } = &waiter.breaker;
                json!({
                    "pid": who.pid,
                    "comm": who.comm.text(),
                    "uid": who.uid,
                    "call": call.as_ref().map(|call| call.text()),
                    "wants": wants.word(),
                    "since": json::time(waiter.since),
                })
            })
            .collect();
        let waiters = Ready::of_serde(&waiters)?;
        let time = |at: Option<i64>| Ready::of_serde(&at.and_then(json::time));
        let (taken, broken) = (time(lease.taken)?, time(lease.broken)?);
        let holders = json::holding_fields(self.table, holding.unwrap_or(&nobody));
        writer::object(out, |o| {
            o.word(key!("kind"), lease.kind.word());
            o.word(key!("mode"), lease.mode.word());
            o.word(key!("state"), lease.state.word());
            o.number(key!("seconds_left"), seconds);
            o.ready(key!("taken"), Some(&taken));
            o.ready(key!("broken"), Some(&broken));
            o.ready(key!("waiters"), Some(&waiters));
            o.ready(key!("file"), file.as_ref());
            o.ready(key!("taker"), taker.as_ref());
            o.ready_fields(&holders);
            o.list(key!("pins"), pins, |out, pin| writer::text(out, &pin.id.to_string()));
            o.number(key!("pinned_bytes"), pinned(lease, pins));
        });
        Ok(())
    }
}

/// Bytes that the pins have of the lease's file.
fn pinned(lease: &Lease, pins: &[&Pin]) -> u64 {
    let is_its = |part: &&Part| part.file.is_some_and(|file| lease.files().any(|of| of == file));
    let of_file = pins.iter().flat_map(|pin| &pin.parts).filter(is_its);
    of_file.fold(0, |sum, part| sum.saturating_add(part.bytes))
}

/// Whole seconds, minutes, hours or days since a moment.
fn age(since: i64, now: i64) -> String {
    size::age(u64::try_from((now - since) / 1_000_000_000).unwrap_or(0))
}

/// Who waits, what they do, and for how long.
fn waits(waiter: &Waiter, now: i64) -> String {
    let Breaker { who, .. } = &waiter.breaker;
    let doing = escape::sentence(&waiter.breaker.doing());
    format!("{}[{}] {doing} {}", escape::name(who.comm.as_bytes()), who.pid, age(waiter.since, now))
}

/// The lease of a pin in a sentence for `--explain`.
pub fn explain(table: &Table, pin: &Pin, now: i64) -> Vec<String> {
    let coverage = &pin.coverage;
    let on_pin = |lease: &&Lease| pin.is_leased_by(lease);
    let leases: Vec<&Lease> = table.leases.iter().flatten().filter(on_pin).collect();
    let mut lines = vec![match coverage.state {
        CoverageState::Unknown => {
            "not known: this source does not read leases, or not all of them".to_owned()
        }
        CoverageState::NotApplicable => "nothing to lease".to_owned(),
        CoverageState::None => {
            "none: no holder gets a signal before the file is truncated under the pin".to_owned()
        }
        CoverageState::Partial => {
            format!("partial: {} of {} holders are covered", coverage.covered, coverage.holders)
        }
        CoverageState::Other => {
            "held only by processes that do not hold the pin: whoever gets the signal cannot release it"
                .to_owned()
        }
        CoverageState::Breaking => "being broken: soon there is none".to_owned(),
        state @ (CoverageState::Write
        | CoverageState::Read
        | CoverageState::Delegation
        | CoverageState::Layout) => {
            format!("{}: every holder gets a signal before the file is truncated under the pin", state.word())
        }
    }];
    for lease in leases.iter().take(8) {
        let holding = table.holdings.get(lease.holding.0 as usize);
        let taker = lease.taker.and_then(|at| table.process(at));
        let entry = Entry { lease, holding, taker, pins: Vec::new() };
        let held = Leases { table, entries: Vec::new() }.held_by(&entry);
        let state = match lease.state {
            LeaseState::Active => String::new(),
            LeaseState::Breaking { seconds_left: Some(left) } => format!(", being broken, {left} s are left"),
            LeaseState::Breaking { seconds_left: None } => ", being broken".to_owned(),
            LeaseState::Expired => ", its break time has expired".to_owned(),
        };
        let signal = taker.filter(|taker| taker.pid != 0).map(|taker| {
            let holds = table
                .holders(pin)
                .iter()
                .any(|h| table.process(h.process).is_some_and(|p| p.pid == taker.pid));
            let can = if holds { "which holds the pin" } else { "which does not hold the pin" };
            let who = match taker.comm.as_bytes() {
                [] => format!("process {}", taker.pid),
                _ => label(taker),
            };
            format!("; the signal goes to {who}, {can}")
        });
        let (kind, mode) = (lease.kind.word(), lease.mode.word());
        lines.push(format!("{mode} {kind} of {held}{state}{}", signal.unwrap_or_default()));
        lines.extend(
            lease
                .waiters
                .iter()
                .map(|waiter| format!("{} waits for the lease to be released", waits(waiter, now))),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;
    use crate::model::{
        Coverage, CoverageState, FileIndex, HoldingIndex, LeaseKind, LeaseMode, LeasePolicy, ProcessIndex,
        Who,
    };

    /// The sample with a lease of ib_server on the first file, one of the kernel and one of nobody known on the second.
    fn table() -> Table {
        let mut table = sample::table();
        table.processes.push(Process { pid: 77, comm: "nfsd".into(), alive: true, ..Process::default() });
        table.processes.push(Process { pid: 9, ..Process::default() });
        let lease = |file, kind, state, taker, holding| Lease {
            file: FileIndex(file),
            below: Vec::new(),
            kind,
            mode: LeaseMode::Write,
            state,
            taker: Some(ProcessIndex(taker)),
            holding: HoldingIndex(holding),
            taken: Some(0),
            broken: None,
            waiters: Vec::new(),
        };
        let breaking = LeaseState::Breaking { seconds_left: Some(38) };
        let breaker = Breaker {
            who: Who { pid: 990, comm: "cp".into(), uid: Some(0) },
            call: Some("truncate".into()),
            wants: LeaseMode::Write,
        };
        let waiters = vec![Waiter { breaker, since: 2_000_000_000 }];
        table.leases = Some(vec![
            lease(0, LeaseKind::Lease, LeaseState::Active, 0, 0),
            Lease { waiters, ..lease(1, LeaseKind::Layout, breaking, 4, 2) },
            lease(1, LeaseKind::Lease, LeaseState::Expired, 5, 2),
        ]);
        table
    }

    #[test]
    fn text_for_people() {
        let table = table();
        let options = crate::listing::render::RenderOptions {
            width: None,
            may_drop: false,
            colour: false,
            header: true,
        };
        let context = Context { now: 5_900_000_000, bytes: false, policy: LeasePolicy::Persistent };
        let text = Leases::of(&table, &Selection::default()).unwrap().text(options, &context);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "KIND MODE STATE AGE HELDBY WAITING PINS PINNED NAME",
                "lease write active 5s ib_server[812] - 1 64.0M /srv/pool.dat",
                "layout write breaking 38s 5s kernel (nfsd[77]) cp[990] truncate 3s 1 16.0M /srv/q\\n\\x1b[31m\\xff",
                "lease write expired 5s ? (taken by 9) - 1 16.0M /srv/q\\n\\x1b[31m\\xff",
            ]
        );
        assert!(Leases::of(&sample::table(), &Selection::default()).is_none());
    }

    #[test]
    fn json_for_machines() {
        let table = table();
        let leases = Leases::of(&table, &Selection::default()).unwrap();
        let mut out = Vec::new();
        leases.json(&mut out, true).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let first = &document["leases"][0];
        assert_eq!(
            (first["state"].as_str(), first["pinned_bytes"].as_u64()),
            (Some("active"), Some(64 << 20))
        );
        assert_eq!((&first["pins"][0], &first["holders"][0]["pid"]), (&json!("r1"), &json!(812)));
        assert_eq!(document["leases"][1]["seconds_left"], 38);
        let mut out = Vec::new();
        leases.json(&mut out, false).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 3);
    }

    #[test]
    fn the_signal_goes_to_who_took_it() {
        let mut table = table();
        table.pins[1].coverage = Coverage { state: CoverageState::Write, ..Coverage::default() };
        let lines = explain(&table, &table.pins[1], 0);
        assert!(lines[1].ends_with("the signal goes to ib_server[812], which holds the pin"), "{lines:?}");
        let lines = explain(&table, &table.pins[2], 9_000_000_000);
        assert!(lines[1].contains("being broken, 38 s are left"), "{lines:?}");
        assert_eq!(lines[2], "cp[990] truncate 7s waits for the lease to be released");
        assert!(lines[3].ends_with("the signal goes to process 9, which does not hold the pin"), "{lines:?}");
    }
}
