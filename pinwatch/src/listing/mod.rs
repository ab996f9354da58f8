//! From a table of pins to what a person or a script reads: selecting, columns, rendering, JSON.
//!
//! Pure: no I/O, no clock, no argument parsing, and nothing here knows where a table came from. Names, commands and sentences are data of other users: they are
//! escaped wherever they are printed.

pub mod argument;
pub mod columns;
pub mod escape;
pub mod events;
pub mod explain;
pub mod gaps;
mod grid;
pub mod json;
pub mod leases;
pub mod refused;
pub mod render;
pub mod select;
pub mod size;
pub mod sort;
pub mod summary;

use crate::model::{File, Part, Pin, Process, Table};

/// A line of the listing: a pin, and what it has of one file.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The table that the pin is of.
    pub table: &'a Table,
    /// The pin.
    pub pin: &'a Pin,
    /// One of its parts.
    pub part: &'a Part,
}

impl<'a> Row<'a> {
    /// The file of this part, if any.
    pub fn file(&self) -> Option<&'a File> {
        self.part.file.and_then(|f| self.table.file(f))
    }

    /// The process to name in the row: who made the pin, or else the first that holds it.
    pub fn process(&self) -> Option<&'a Process> {
        let holder = || self.table.holders(self.pin).first().map(|h| h.process);
        self.pin.creator.or_else(holder).and_then(|p| self.table.process(p))
    }
}

/// A process for a sentence or a list: `comm[pid]`.
pub fn label(process: &Process) -> String {
    format!("{}[{}]", escape::name(process.comm.as_bytes()), process.pid)
}

/// A file's path, marked where its beginning is missing.
pub fn path(file: &File) -> String {
    let cut = if file.path_complete { "" } else { "..." };
    format!("{cut}{}", escape::name(file.path.as_bytes()))
}

/// A file's path, or what there is instead of one.
pub fn path_or_number(file: &File) -> String {
    match file.path.as_bytes() {
        [] => format!("[device {}, inode {}]", file.id.dev, file.id.ino),
        _ => path(file),
    }
}

/// All processes that made or hold a pin; the same one may come twice.
pub fn involved<'a>(table: &'a Table, pin: &'a Pin) -> impl Iterator<Item = &'a Process> {
    let holders = table.holders(pin).iter().map(|h| h.process);
    pin.creator.into_iter().chain(holders).filter_map(|p| table.process(p))
}

/// The ids of the processes that a set of pins needs to end: holders, and creators that are alive. Ascending, each once.
pub fn pids<'a>(table: &'a Table, pins: &[&'a Pin]) -> Vec<u32> {
    let alive = pins.iter().flat_map(|pin| involved(table, pin)).filter(|p| p.alive && p.pid != 0);
    let mut pids: Vec<u32> = alive.map(|p| p.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
pub(crate) mod sample;
