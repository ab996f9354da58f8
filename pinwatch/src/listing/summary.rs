//! Totals of the listed pins: by subsystem, by file, by process.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

use serde::Serialize;

use super::columns::Context;
use super::grid::Grid;
use super::json::Kernel;
use super::render::RenderOptions;
use super::{Row, escape, path, size};
use crate::model::{FileIndex, PinId, ProcessIndex, Table};

/// What to add up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The part of the kernel.
    Subsystem,
    /// The file, or what else the memory is.
    File,
    /// Each process that keeps pins, or, where that is not known, has made them. What several keep counts for each.
    Process,
}

impl By {
    /// The word used in JSON and options.
    pub fn word(self) -> &'static str {
        match self {
            Self::Subsystem => "subsystem",
            Self::File => "file",
            Self::Process => "process",
        }
    }
}

/// A total.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Of what, escaped.
    pub name: String,
    /// The process's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Pins.
    pub pins: u64,
    /// Bytes of them, in this file if files were asked for.
    pub bytes: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Subsystem(&'static str),
    File(FileIndex),
    Memory(&'static str),
    Process(ProcessIndex),
    Nobody,
}

/// Totals, largest first.
pub fn totals(rows: &[Row], by: By) -> Vec<Total> {
    let mut sums: BTreeMap<Key, (HashSet<PinId>, u64)> = BTreeMap::new();
    for row in rows {
        for key in keys(row, by) {
            let sum = sums.entry(key).or_default();
            sum.0.insert(row.pin.id);
            sum.1 = sum.1.saturating_add(row.part.bytes);
        }
    }
    let Some(table) = rows.first().map(|row| row.table) else { return Vec::new() };
    let total = |(key, (pins, bytes)): (Key, (HashSet<PinId>, u64))| {
        let (name, pid) = named(table, &key);
        Total { name, pid, pins: pins.len() as u64, bytes }
    };
    let mut totals: Vec<Total> = sums.into_iter().map(total).collect();
    totals.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (&a.name, a.pid).cmp(&(&b.name, b.pid))));
    totals
}

fn keys(row: &Row, by: By) -> Vec<Key> {
    match by {
        By::Subsystem => vec![Key::Subsystem(row.pin.subsystem().word())],
        By::File => vec![row.part.file.map_or(Key::Memory(row.part.backing.word()), Key::File)],
        By::Process => {
            let holders = row.table.holders(row.pin);
            if !holders.is_empty() {
                return holders.iter().map(|holder| Key::Process(holder.process)).collect();
            }
            let maker = row.pin.creator.filter(|_| row.pin.holding.is_none());
            vec![maker.map_or(Key::Nobody, Key::Process)]
        }
    }
}

fn named(table: &Table, key: &Key) -> (String, Option<u32>) {
    match key {
        Key::Subsystem(word) => ((*word).to_owned(), None),
        Key::Memory(word) => (format!("[{word}]"), None),
        Key::Nobody => ("[no process]".to_owned(), None),
        Key::File(at) => match table.file(*at) {
            None => ("?".to_owned(), None),
            Some(file) => {
                let deleted = if file.deleted == Some(true) { " (deleted)" } else { "" };
                (format!("{}{deleted}", path(file)), None)
            }
        },
        Key::Process(at) => match table.process(*at) {
            None => ("?".to_owned(), None),
            Some(process) => (escape::name(process.comm.as_bytes()), Some(process.pid)),
        },
    }
}

/// For people.
pub fn text(totals: &[Total], by: By, options: RenderOptions, context: &Context) -> String {
    if totals.is_empty() {
        return String::new();
    }
    let size = |bytes: u64| if context.bytes { bytes.to_string() } else { size::short(bytes) };
    let name = |total: &Total| match total.pid {
        Some(pid) => format!("{}[{pid}]", total.name),
        None => total.name.clone(),
    };
    // The numbers have room from the start: with `-r` the columns stay where they are as pins come and go.
    let line = |pins: &str, bytes: &str, name: String| [format!("{pins:>7}"), format!("{bytes:>8}"), name];
    let mut grid = Grid::new([0, 1]);
    if options.header {
        grid.push(line("PINS", "PINNED", by.word().to_uppercase()));
    }
    for total in totals {
        grid.push(line(&total.pins.to_string(), &size(total.bytes), name(total)));
    }
    grid.draw()
}

/// The kernel's count, a line for each figure; nothing if nobody has compared.
pub fn kernel(table: &Table) -> String {
    let Some(count) = table.kernel else { return String::new() };
    let uncertain = match count.uncertain {
        Some(0) => String::new(),
        Some(pages) => format!(", give or take {pages}"),
        None => "; pins were made or released while counting".to_owned(),
    };
    let lines = [
        (count.references, "references to pinned pages by the kernel's own count".to_owned()),
        (count.attributed.cast_signed(), "of pins whose subsystem is known".to_owned()),
        (count.unclaimed.cast_signed(), "of pins that no subsystem claims".to_owned()),
        (count.unattributed(), format!("that no pin explains{uncertain}")),
    ];
    lines.iter().map(|(pages, what)| format!("{pages:>16} {what}\n")).collect()
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    complete: bool,
    kernel: Option<Kernel>,
    by: &'static str,
    totals: &'a [Total],
}

/// For machines: one document, or a line for each total.
pub fn json(out: &mut impl Write, table: &Table, totals: &[Total], by: By, whole: bool) -> io::Result<()> {
    if whole {
        let kernel = table.kernel.map(Kernel::new);
        let document = Document { version: 1, complete: table.complete(), kernel, by: by.word(), totals };
        serde_json::to_writer(&mut *out, &document)?;
        return out.write_all(b"\n");
    }
    for total in totals {
        serde_json::to_writer(&mut *out, total)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;
    use crate::listing::select::Selection;
    use crate::model::LeasePolicy;

    fn drawn(by: By, header: bool) -> String {
        let table = sample::table();
        let totals = totals(&Selection::default().rows(&table), by);
        let options = RenderOptions { width: None, may_drop: true, colour: false, header };
        text(&totals, by, options, &Context { now: 0, bytes: false, policy: LeasePolicy::Persistent })
    }

    fn lines(by: By) -> Vec<String> {
        let text = drawn(by, false);
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn by_subsystem_file_and_process() {
        assert_eq!(lines(By::Subsystem), ["1 64.0M rdma", "1 16.0M io_uring", "1 4.0M xdp"]);
        let files = lines(By::File);
        assert_eq!(files[..2], ["1 64.0M /srv/pool.dat", "1 16.0M /srv/q\\n\\x1b[31m\\xff (deleted)"]);
        assert_eq!(files[2..], ["1 4.0M [anon]", "1 8.0K /srv/deep/r"]);
        let processes = lines(By::Process);
        let expected =
            ["1 64.0M ib_server[812]", "1 16.0M helper[1044]", "1 16.0M worker[990]", "1 4.0M [no process]"];
        assert_eq!(processes, expected);
    }

    #[test]
    fn columns_have_room_for_numbers() {
        let expected = "   PINS   PINNED SUBSYSTEM\n      1    64.0M rdma\n      1    16.0M io_uring\n      1     4.0M xdp\n";
        assert_eq!(drawn(By::Subsystem, true), expected);
    }

    #[test]
    fn nothing_is_no_table_and_an_empty_document() {
        let table = Table::default();
        let none = totals(&[], By::File);
        let options = RenderOptions { width: None, may_drop: true, colour: false, header: true };
        assert_eq!(
            text(
                &none,
                By::File,
                options,
                &Context { now: 0, bytes: false, policy: LeasePolicy::Persistent }
            ),
            ""
        );
        let mut out = Vec::new();
        json(&mut out, &table, &none, By::File, true).unwrap();
        assert_eq!(out, b"{\"version\":1,\"complete\":true,\"kernel\":null,\"by\":\"file\",\"totals\":[]}\n");
    }
}
