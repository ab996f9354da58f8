//! Steps with files and leases: opened, pinned, leased, broken.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::model::{Anchor, Descriptor, Lease, OpenFile, Pin, What};
use super::steps::{Action, RandomRun};

/// Files that are pinned and leased.
const PATHS: [&str; 3] = ["/mnt/tmpfs/random-a", "/mnt/tmpfs/random-b", "/mnt/tmpfs/random-c"];
const PAGES: u64 = 4;
const PAGE: u64 = 4096;
const BREAK_TIME: &str = "/proc/sys/fs/lease-break-time";
/// A process that was killed lets go of its files a little after its connection.
const TRIES: u32 = 40;

/// No break has an end by itself while this lives: the random run has no clock.
pub struct Unhurried(String);

impl Unhurried {
    pub fn begin() -> Result<Self> {
        for path in PATHS {
            fs::write(path, vec![7_u8; (PAGES * PAGE) as usize])?;
        }
        let usual = fs::read_to_string(BREAK_TIME)?;
        fs::write(BREAK_TIME, "0")?;
        Ok(Self(usual))
    }
}

impl Drop for Unhurried {
    fn drop(&mut self) {
        let _ = fs::write(BREAK_TIME, &self.0);
        for path in PATHS {
            let _ = fs::remove_file(path);
        }
    }
}

fn ino(path: &str) -> Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

impl RandomRun {
    /// Opens a file, if nobody has a lease that is in the way.
    pub fn open_file(&mut self, at: usize, pid: u32) -> Result<Option<String>> {
        let path = PATHS[self.dice.below(PATHS.len())];
        let writable = self.dice.below(3) == 0;
        let (keep, word) = self.keep();
        let ino = ino(path)?;
        let in_way = |lease: &Lease| writable || lease.writes;
        if self.world.opened(ino).filter_map(|(_, file)| file.lease.as_ref()).any(in_way) {
            return Ok(None);
        }
        let order = format!("open-file {path} {} {word}", if writable { "rw" } else { "ro" });
        let fd = self.actors.number(pid, &order, "fd")? as u32;
        let number = self.world.number();
        let file = Some(OpenFile { ino, writable, lease: None });
        self.world.anchors.insert(number, Anchor { file, ..Anchor::new("file", 0) });
        self.process(at)?.fds.insert(fd, Descriptor { what: What::Anchor(number), keep });
        Ok(Some(format!("{order}: fd {fd}")))
    }

    /// Pins a file through one of its descriptors.
    pub fn pin_file(&mut self, at: usize, pid: u32) -> Result<Option<String>> {
        let mut files = self.anchors(at);
        files.retain(|(_, _, anchor)| anchor.file.as_ref().is_some_and(|file| file.writable));
        let Some((file, _, of)) = self.dice.of(&files) else { return Ok(None) };
        let Some((fd, number, anchor, with)) = self.room(at) else { return Ok(None) };
        let order = format!("pin {fd} {} {with} {file} {PAGES} rw", anchor.kind);
        let answer = self.actors.tell(pid, &order)?;
        let pin = Pin {
            creator: pid,
            address: answer["address"].as_u64().context("no address")?,
            bytes: PAGES * PAGE,
            ino: of.file.map_or(0, |file| file.ino),
            named: true,
            with: answer["object"].as_u64().unwrap_or(with),
        };
        self.world.anchors.get_mut(&number).context("no such anchor")?.pins.push(pin);
        Ok(Some(order))
    }

    /// Takes a lease, makes another of it, or drops it, if the kernel should allow it.
    pub fn lease(&mut self, at: usize, pid: u32, action: Action) -> Result<Option<String>> {
        let mut files = self.anchors(at);
        files.retain(|(_, _, anchor)| anchor.file.is_some());
        let Some((fd, number, anchor)) = self.dice.of(&files) else { return Ok(None) };
        let file = anchor.file.context("no file")?;
        let others = || self.world.opened(file.ino).filter(|(at, _)| *at != number).map(|(_, other)| other);
        let writes = self.dice.below(2) == 0;
        let allowed = match (action, &file.lease) {
            (Action::Unlease, lease) => lease.is_some(),
            // What is to go cannot become another.
            (_, Some(lease)) if lease.breaking => false,
            _ if writes => others().next().is_none(),
            _ => !file.writable && !others().any(|other| other.writable || other.is_exclusive()),
        };
        if !allowed {
            return Ok(None);
        }
        let word = match action {
            Action::Unlease => "none",
            _ if writes => "write",
            _ => "read",
        };
        let order = format!("lease {fd} {word}");
        self.insist(pid, &order)?;
        let anchor = self.world.anchors.get_mut(&number).context("no such file")?;
        let file = anchor.file.as_mut().context("no file")?;
        let taker = file.lease.as_ref().map_or(pid, |lease| lease.taker);
        let lease = Lease { writes, breaking: false, taker };
        file.lease = (word != "none").then_some(lease);
        Ok(Some(order))
    }

    /// Somebody wants to write, and does not wait.
    pub fn break_lease(&mut self, pid: u32) -> Result<Option<String>> {
        let path = PATHS[self.dice.below(PATHS.len())];
        let ino = ino(path)?;
        if self.world.opened(ino).all(|(_, file)| file.lease.is_none()) {
            return Ok(None);
        }
        let order = format!("break {path}");
        if self.actors.tell(pid, &order)?["waits"] != true {
            bail!("{order}: the lease is in nobody's way");
        }
        for file in self.world.anchors.values_mut().filter_map(|anchor| anchor.file.as_mut()) {
            if let Some(lease) = file.lease.as_mut().filter(|_| file.ino == ino) {
                lease.breaking = true;
            }
        }
        Ok(Some(order))
    }

    fn insist(&mut self, pid: u32, order: &str) -> Result<()> {
        for _ in 0..TRIES {
            match self.actors.tell(pid, order) {
                Err(error) if format!("{error:#}").contains("EAGAIN") => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                other => return other.map(drop),
            }
        }
        bail!("{order} is refused, though nothing is in its way")
    }
}

impl OpenFile {
    fn is_exclusive(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.writes || lease.breaking)
    }
}
