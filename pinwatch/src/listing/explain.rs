//! `--explain`: one pin on one screen. What it is, which processes hold it, what the usual tools would say, and what has to be closed or
//! killed to be rid of it. Pure: it kills nothing and asks nobody.

use std::collections::BTreeSet;

use super::argument::ArgumentError;
use super::columns::age_seconds;
use super::size::counted;
use super::{escape, gaps, label, leases, path, size};
use crate::model::object::Release;
use crate::model::{
    Backing, File, HiddenVia, Holder, Holding, Mode, Namespaces, Pin, PinId, Process, ProcessIndex,
    Subsystem, Table, Via,
};

/// Up to so many processes are named in the commands; more are listed by `-t`.
const NAMED: usize = 200;

/// The id in what the user wrote.
///
/// # Errors
/// [`ArgumentError::NoId`]
pub fn id(written: &str) -> Result<PinId, ArgumentError> {
    let parsed = || {
        let mut letters = written.chars();
        let letter = letters.next()?;
        let digits = letters.as_str();
        let digits = Some(digits).filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let subsystem = Subsystem::ALL.into_iter().find(|s| s.letter() == letter)?;
        Some(PinId { subsystem, sequence: u64::from_str_radix(digits, 16).ok()? })
    };
    parsed().ok_or_else(|| ArgumentError::NoId(written.to_owned()))
}

/// The pin with this id.
pub fn find(table: &Table, id: PinId) -> Option<&Pin> {
    table.pins.iter().find(|pin| pin.id == id)
}

/// The screen, each line with its newline. `now` in nanoseconds since the Unix epoch.
pub fn screen(table: &Table, pin: &Pin, now: i64) -> String {
    let mut out = headline(table, pin);
    let mut line = |label: &str, text: &str| out.push_str(&format!("  {label:<11} {text}\n"));
    line("pinned", &pinned(table, pin, now));
    for part in &pin.parts {
        line("pages", &pages(table, pin, part));
    }
    if let Some(doubts) = gaps::doubts(pin) {
        line("not exact", &doubts);
    }
    line("object", &escape::name(format!("{}{}", pin.object, pin.object.described().details()).as_bytes()));
    for (label, text) in pin.object.described().notes() {
        line(label, &escape::name(text.as_bytes()));
    }
    if let Some(creator) = pin.creator.and_then(|at| table.process(at)) {
        workload(creator).iter().for_each(|(label, text)| line(label, text));
    }
    let holding = table.holding(pin);
    match holding {
        None => line("held by", "not known: this source does not read holders"),
        Some(holding) => kept(table, holding).iter().for_each(|text| line("held by", text)),
    }
    leases::explain(table, pin, now).iter().for_each(|text| line("lease", text));
    line("other tools", other_tools(table, pin));
    out.push('\n');
    out.push_str(&way_out(table, pin, holding));
    out
}

/// What to say when there is no such pin, or none that this user may see.
pub fn missing(table: &Table, id: PinId) -> String {
    match table.hidden.0 {
        0 => format!("no pin has the id {id}, or not any more; `lspins -o +ID` shows all ids"),
        n => format!(
            "no pin that you may see has the id {id}, or not any more; `lspins -o +ID` shows the ids of those, and root sees \
             {} more",
            counted(n, "pin")
        ),
    }
}

fn headline(table: &Table, pin: &Pin) -> String {
    let what = pin.object.described().headline();
    let files: Vec<&File> = pin.parts.iter().filter_map(|p| p.file).filter_map(|f| table.file(f)).collect();
    let of = match (&files[..], pin.parts.first().map(|p| p.backing)) {
        ([], Some(Backing::Unknown) | None) => "unknown memory".to_owned(),
        ([], Some(backing)) => format!("{} memory", backing.word()),
        ([file], _) => name(file),
        ([file, rest @ ..], _) => format!("{} and {} more", name(file), counted(rest.len() as u64, "file")),
    };
    format!("{}: {what}, {} of {of}\n", pin.id, size::long(pin.bytes))
}

fn name(file: &File) -> String {
    let deleted = if file.deleted == Some(true) { ", which is deleted" } else { "" };
    format!("{}{deleted}", path(file))
}

fn pinned(table: &Table, pin: &Pin, now: i64) -> String {
    let when = age_seconds(pin.created, now)
        .map_or_else(|| "at an unknown time".to_owned(), |s| format!("{} ago", size::age(s)));
    let who = match pin.creator.and_then(|at| table.process(at)) {
        None => "by an unknown process".to_owned(),
        Some(process) => {
            let user = process.user.clone().or_else(|| process.uid.map(|uid| format!("uid {uid}")));
            let user = user.map(|user| format!(" ({})", escape::name(user.as_bytes()))).unwrap_or_default();
            let gone = if process.alive { "" } else { ", which is gone" };
            format!("by {}{user}{gone}", label(process))
        }
    };
    let how = match pin.mode {
        Mode::ReadWrite => ", for reading and writing",
        Mode::ReadOnly => ", for reading",
        Mode::Unknown => "",
    };
    format!("{when} {who}{how}")
}

fn pages(table: &Table, pin: &Pin, part: &crate::model::Part) -> String {
    let mut text = size::long(part.bytes);
    match part.file.and_then(|f| table.file(f)) {
        None => text.push_str(&format!(" of {} memory", part.backing.word())),
        Some(file) => {
            let runs: Vec<String> = part
                .extents
                .iter()
                .take(4)
                .map(|e| format!("{} from offset {}", size::long(e.length), e.offset))
                .collect();
            let more = part.extents.len().saturating_sub(runs.len());
            let more =
                if more > 0 { format!(", and {} more", counted(more as u64, "run")) } else { String::new() };
            text.push_str(&format!(
                " of {} ({}, device {}, inode {}): {}{more}",
                escape::name(file.path.as_bytes()),
                if file.fstype.is_empty() { part.backing.word() } else { &file.fstype },
                file.id.dev,
                file.id.ino,
                runs.join(", ")
            ));
        }
    }
    if let Some(orphans) = pin.orphan_pages.filter(|n| *n > 0) {
        text.push_str(&format!("; {} no longer part of the file", counted(orphans, "page")));
    }
    text
}

fn workload(process: &Process) -> Vec<(&'static str, String)> {
    let workload = process.workload();
    let Namespaces { pid, mount } = process.namespaces;
    let named = [("pid", pid), ("mount", mount)];
    let namespaces: Vec<String> =
        named.iter().filter_map(|(name, number)| Some(format!("{name} {}", (*number)?))).collect();
    let namespaces = Some(namespaces.join(", ")).filter(|text| !text.is_empty());
    let fields = [
        ("unit", workload.unit),
        ("container", workload.container),
        ("pod", workload.pod),
        ("namespaces", namespaces),
    ];
    fields.into_iter().filter_map(|(label, text)| Some((label, escape::name(text?.as_bytes())))).collect()
}

/// A line for each holder, and one for what is in flight.
fn kept(table: &Table, holding: &Holding) -> Vec<String> {
    let one =
        |holder: &Holder| Some(format!("{}: {}", label(table.process(holder.process)?), ways(&holder.via)));
    let mut lines: Vec<String> = holding.holders.iter().filter_map(one).collect();
    if let Some(waiting) = holding.in_flight.filter(|n| *n > 0) {
        let receive = |holder: &Holder| {
            Some(format!("{} on {}", label(table.process(holder.process)?), ways(&holder.via)))
        };
        let receivers: Vec<String> = holding.receivers.iter().filter_map(receive).collect();
        let by = if receivers.is_empty() {
            String::new()
        } else {
            format!("; {} could receive it", receivers.join(", "))
        };
        let sent = counted(u64::from(waiting), "descriptor");
        lines.push(format!("{sent} in a message over a Unix socket that nobody has received{by}"));
    }
    if lines.is_empty() {
        lines.push("no process: only the kernel holds it, or it is just being released".to_owned());
    }
    lines
}

/// Each kind of way in which a process keeps a pin: what it is, and how to let go of it.
fn ways_and_ends(via: &[Via]) -> Vec<(String, String)> {
    let mut fds: Vec<String> = Vec::new();
    let mut rings: Vec<String> = Vec::new();
    let (mut hidden_fds, mut maps, mut registered) = (0, 0, 0);
    for way in via {
        match way {
            Via::Fd(fd) => fds.push(fd.to_string()),
            Via::Mapping(_) => maps += 1,
            Via::Registered(_) => registered += 1,
            Via::RingFile(Some(fd)) => rings.push(format!("the ring at fd {fd}")),
            Via::RingFile(None) => rings.push("a ring that it has mapped".to_owned()),
            Via::Hidden(HiddenVia::Fd) => hidden_fds += 1,
            Via::Hidden(HiddenVia::Mapping) => maps += 1,
            Via::Hidden(HiddenVia::Registered) => registered += 1,
            Via::Hidden(HiddenVia::RingFile) => rings.push("a ring of its own".to_owned()),
        }
    }
    let mut ways = Vec::new();
    if !fds.is_empty() {
        let fds = format!("fd {}", fds.join(", "));
        ways.push((fds.clone(), format!("close {fds}")));
    }
    if hidden_fds > 0 {
        let fds = counted(hidden_fds, "descriptor");
        ways.push((fds.clone(), format!("close {fds}")));
    }
    if maps > 0 {
        let maps = counted(maps, "mapping");
        ways.push((maps.clone(), format!("unmap {maps}")));
    }
    if registered > 0 {
        ways.push(("a registered ring".to_owned(), "unregister the ring".to_owned()));
    }
    rings.dedup();
    for ring in rings {
        ways.push((format!("a file registered with {ring}"), format!("unregister the file from {ring}")));
    }
    ways
}

fn ways(via: &[Via]) -> String {
    let ways: Vec<String> = ways_and_ends(via).into_iter().map(|(what, _)| what).collect();
    if ways.is_empty() { "in a way that this version does not know".to_owned() } else { ways.join(" and ") }
}

/// What lsof, fuser and df have to say: they know mappings and descriptors of the file, not pins.
fn other_tools(table: &Table, pin: &Pin) -> &'static str {
    let on_file = pin.parts.iter().any(|p| p.file.and_then(|f| table.file(f)).is_some());
    if on_file {
        "lsof, fuser and df show the file only while a process has it open or mapped; this pin needs neither"
    } else {
        "lsof, fuser and df do not show it"
    }
}

/// What must go, and what else goes with it.
fn way_out(table: &Table, pin: &Pin, holding: Option<&Holding>) -> String {
    let undo = match pin.object.described().release() {
        Release::Unknown(sentence) => return format!("{}\n", escape::name(sentence.as_bytes())),
        Release::Close => None,
        Release::CloseOr(undo) => Some(undo),
    };
    let Some(holding) = holding else {
        return "Its holders are not known here: `pinwatch run` as root finds them.\n".to_owned();
    };
    let holders: Vec<(&Process, &Holder)> =
        holding.holders.iter().filter_map(|h| Some((table.process(h.process)?, h))).collect();
    let in_flight = holding.in_flight.unwrap_or(0) > 0;
    let mut out = String::new();
    if holders.is_empty() {
        out.push_str(if in_flight {
            "No process can release it. Receive the message and close the descriptor in it, or close both ends of the socket.\n"
        } else {
            "There is nothing to close or kill: only the kernel holds it.\n"
        });
        return out;
    }
    out.push_str(if holders.len() == 1 && !in_flight {
        "To release it:\n"
    } else {
        "To release it, all of these must go:\n"
    });
    let width = holders.iter().map(|(process, _)| label(process).chars().count()).max().unwrap_or(0);
    for (process, holder) in &holders {
        let who = label(process);
        let pad = " ".repeat(width - who.chars().count());
        out.push_str(&format!("  {who}{pad}  {}\n", advice(undo.as_deref(), process, holder)));
    }
    if in_flight {
        out.push_str(
            "  the message  receive it and close the descriptor in it, or close both ends of the socket\n",
        );
    }
    let all: BTreeSet<ProcessIndex> = holding.holders.iter().map(|h| h.process).collect();
    if holders.len() > 1 {
        for (process, holder) in holders.iter().take(8) {
            let others = released(table, pin, &BTreeSet::from([holder.process]));
            let with = match others {
                (0, _) => "releases nothing".to_owned(),
                (pins, bytes) => {
                    format!("releases {} ({}), not this one", counted(pins, "other pin"), size::long(bytes))
                }
            };
            out.push_str(&format!("Ending {} alone {with}.\n", label(process)));
        }
    }
    let whom = if holders.len() > 1 { "all of them" } else { "it" };
    match released(table, pin, &all) {
        (0, _) => {}
        (pins, bytes) => out.push_str(&format!(
            "Ending {whom} also releases {} ({}).\n",
            counted(pins, "other pin"),
            size::long(bytes)
        )),
    }
    let pids: Vec<String> = holders
        .iter()
        .map(|(process, _)| process.pid)
        .filter(|pid| *pid > 1)
        .take(NAMED)
        .map(|pid| pid.to_string())
        .collect();
    if !pids.is_empty() {
        out.push_str(&format!("  kill {}\n", pids.join(" ")));
    }
    out
}

/// What a holder can do short of ending.
fn advice(undo: Option<&str>, process: &Process, holder: &Holder) -> String {
    let ends: Vec<String> = ways_and_ends(&holder.via).into_iter().map(|(_, end)| end).collect();
    let close = Some(ends.join(" and ")).filter(|ends| !ends.is_empty());
    let end = if process.pid == 1 { "(it is init: do not end it)" } else { "end the process" };
    let ways: Vec<&str> = [close.as_deref(), undo, Some(end)].into_iter().flatten().collect();
    ways.join(", or ")
}

/// How many other pins, and bytes, go when these processes end: those that nobody else keeps.
fn released(table: &Table, this: &Pin, ending: &BTreeSet<ProcessIndex>) -> (u64, u64) {
    let goes = |holding: &Holding| {
        !holding.holders.is_empty()
            && holding.in_flight.unwrap_or(0) == 0
            && holding.holders.iter().all(|holder| ending.contains(&holder.process))
    };
    let others = table.pins.iter().filter(|pin| pin.id != this.id && table.holding(pin).is_some_and(goes));
    others.fold((0, 0), |(pins, bytes), pin| (pins + 1, bytes.saturating_add(pin.bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;

    fn explained(written: &str) -> String {
        let table = sample::table();
        screen(&table, find(&table, id(written).unwrap()).unwrap(), sample::CREATED + 12_000_000_000)
    }

    #[test]
    fn a_pin_that_was_passed_on() {
        let text = explained("u2");
        for part in [
            "u2: io_uring buffer, 16.0 MiB of /srv/q\\n\\x1b[31m\\xff, which is deleted and 1 file more\n",
            "  pinned      12s ago by worker[990] (",
            "), for reading and writing\n",
            "  unit        x.service\n",
            "  namespaces  pid 4026532190\n",
            "  held by     worker[990]: fd 5\n",
            "  held by     helper[1044]: fd 7 and 1 mapping\n",
            "To release it, all of these must go:\n",
            "  worker[990]   close fd 5, or unregister buffer 0, or end the process\n",
            "  helper[1044]  close fd 7 and unmap 1 mapping, or unregister buffer 0, or end the process\n",
            "Ending worker[990] alone releases nothing.\n",
            "  kill 990 1044\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(text.is_ascii() && !text.contains('\u{1b}'));
    }

    #[test]
    fn a_pin_with_one_holder() {
        let text = explained("r1");
        assert!(text.contains("To release it:\n  ib_server[812]  close fd 5, or deregister the memory region, or end the process\n"), "{text}");
        assert!(text.ends_with("  kill 812\n") && !text.contains("alone"), "{text}");
    }

    #[test]
    fn a_pin_that_nobody_holds() {
        let text = explained("x3");
        assert!(text.contains("by old[1201] (") && text.contains(", which is gone"), "{text}");
        assert!(text.contains("held by     no process") && !text.contains("kill "), "{text}");
        let mut table = sample::table();
        let pin = table.pins[0].clone();
        table.holdings[2].in_flight = Some(1);
        table.holdings[2].receivers = vec![Holder { process: ProcessIndex(2), via: vec![Via::Fd(9)] }];
        let text = screen(&table, &pin, 0);
        assert!(text.contains("nobody has received; helper[1044] on fd 9 could receive it"), "{text}");
        assert!(text.contains("No process can release it.") && !text.contains("kill "), "{text}");
        table.pins[0].holding = None;
        assert!(screen(&table, &table.pins[0], 0).contains("are not known here"));
    }

    #[test]
    fn a_pin_that_a_ring_keeps() {
        let mut table = sample::table();
        table.holdings[0].holders[0].via =
            vec![Via::Registered(0), Via::RingFile(None), Via::RingFile(Some(6))];
        let text = screen(&table, &table.pins[1], 0);
        assert!(
            text.contains("unregister the ring and unregister the file from a ring that it has mapped and "),
            "{text}"
        );
        assert!(text.contains("a file registered with the ring at fd 6\n"), "{text}");
    }

    #[test]
    fn others_that_go_too() {
        let mut table = sample::table();
        let mut other = table.pins[1].clone();
        other.id.sequence = 77;
        table.pins.push(other);
        let text = screen(&table, &table.pins[1], 0);
        assert!(text.contains("Ending it also releases 1 other pin (64.0 MiB).\n"), "{text}");
    }

    #[test]
    fn a_pin_that_is_not_there_may_be_hidden() {
        let mut table = sample::table();
        let id = id("u77").unwrap();
        assert!(missing(&table, id).starts_with("no pin has the id u77, "));
        table.hidden = (1, 4096);
        assert!(missing(&table, id).ends_with("root sees 1 pin more"));
    }

    #[test]
    fn ids() {
        assert_eq!(id("u5b0").unwrap(), PinId { subsystem: Subsystem::IoUring, sequence: 0x5b0 });
        for wrong in ["", "u", "5b0", "z1", "u+1", "u1 ", "ué", "u10000000000000000", "\u{1b}[31m"] {
            let error = id(wrong).unwrap_err();
            assert!(
                error == ArgumentError::NoId(wrong.to_owned()) && !error.to_string().contains('\u{1b}'),
                "{error}"
            );
        }
    }
}
