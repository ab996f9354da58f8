//! One step of the random run: chosen by the seed from what the model allows, done by a process, then done in the model.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::actors::{Actors, Hello};

use super::model::{Anchor, Descriptor, Pin, Process, What, World};

/// Processes at most.
const PROCESSES: usize = 8;
const KINDS: [&str; 3] = ["rdma-mr", "io_uring", "xdp"];
/// Bounds that keep the world small enough to meet itself.
const MOST_ANCHORS: usize = 14;
const MOST_PINS: usize = 6;
const MOST_FDS: usize = 12;
const PAGE: u64 = 4096;
const PASSED: &str = "/tmp/random-run-passed";

/// What can be done, each as often as it is likely.
#[derive(Clone, Copy)]
pub enum Action {
    Open,
    Register,
    Release,
    Dup,
    Close,
    Map,
    Unmap,
    Enroll,
    Discharge,
    File,
    Unfile,
    Box,
    Put,
    Take,
    Pass,
    Renew,
    Fork,
    Exec,
    Exit,
    Kill,
    OpenFile,
    PinFile,
    Lease,
    Unlease,
    Break,
}

const ACTIONS: [(Action, usize); 25] = [
    (Action::Open, 4),
    (Action::Register, 5),
    (Action::Release, 2),
    (Action::Dup, 2),
    (Action::Close, 4),
    (Action::Map, 2),
    (Action::Unmap, 1),
    (Action::Enroll, 1),
    (Action::Discharge, 1),
    (Action::File, 2),
    (Action::Unfile, 1),
    (Action::Box, 1),
    (Action::Put, 3),
    (Action::Take, 2),
    (Action::Pass, 3),
    (Action::Renew, 1),
    (Action::Fork, 3),
    (Action::Exec, 1),
    (Action::Exit, 1),
    (Action::Kill, 1),
    (Action::OpenFile, 5),
    (Action::PinFile, 12),
    (Action::Lease, 20),
    (Action::Unlease, 1),
    (Action::Break, 1),
];

/// A small generator whose sequence a seed repeats (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> Option<T> {
        if choices.is_empty() { None } else { choices.get(self.below(choices.len())).cloned() }
    }
}

/// The random run.
pub struct RandomRun {
    pub world: World,
    pub actors: Actors,
    pub dice: Dice,
}

impl RandomRun {
    pub fn new(seed: u64) -> Result<Self> {
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Ok(Self { world: World::default(), actors: Actors::new()?, dice })
    }

    /// Does one step; says which.
    pub fn step(&mut self) -> Result<String> {
        loop {
            let at = self.dice.below(PROCESSES);
            if !self.world.processes.contains_key(&at) {
                // A place is filled by a new process as rarely as by a fork.
                if self.dice.below(4) > 0 && !self.world.processes.is_empty() {
                    continue;
                }
                let hello = self.actors.spawn()?;
                self.enter(at, &hello, Process::default());
                return Ok(format!("process {} is started", hello.pid));
            }
            let total = ACTIONS.iter().map(|(_, weight)| weight).sum();
            let mut pick = self.dice.below(total);
            let action = ACTIONS.iter().find(|(_, weight)| {
                let found = pick < *weight;
                pick = pick.saturating_sub(*weight);
                found
            });
            let (action, _) = action.context("the weights do not add up")?;
            let Some(done) = self.act(at, *action)? else { continue };
            let pid = self.world.processes.get(&at).map_or(0, |process| process.pid);
            self.world.settle();
            return Ok(format!("[{at}] {pid}: {done}"));
        }
    }

    fn enter(&mut self, at: usize, hello: &Hello, with: Process) {
        let process = Process { pid: hello.pid, address: hello.address, ino: hello.ino, ..with };
        self.world.processes.insert(at, process);
    }

    pub fn process(&mut self, at: usize) -> Result<&mut Process> {
        self.world.processes.get_mut(&at).context("no such process")
    }

    /// Descriptors of a process, with the anchors that they are of.
    pub fn anchors(&self, at: usize) -> Vec<(u32, u32, Anchor)> {
        let fds = self.world.processes[&at].fds.iter();
        let anchor = |(fd, of): (&u32, &Descriptor)| match of.what {
            What::Anchor(number) => Some((*fd, number, self.world.anchors.get(&number)?.clone())),
            _ => None,
        };
        fds.filter_map(anchor).collect()
    }

    pub fn keep(&mut self) -> (bool, &'static str) {
        let keep = self.dice.below(2) == 0;
        (keep, if keep { "keep" } else { "cloexec" })
    }

    /// Does it if it can be done; says what was done.
    fn act(&mut self, at: usize, action: Action) -> Result<Option<String>> {
        let pid = self.process(at)?.pid;
        let full = self.process(at)?.fds.len() >= MOST_FDS;
        Ok(match action {
            Action::Open if !full && self.world.anchors.len() < MOST_ANCHORS => {
                let kind = KINDS[self.dice.below(KINDS.len())];
                let (keep, word) = self.keep();
                let order = format!("open {kind} {word}");
                let answer = self.actors.tell(pid, &order)?;
                let number = self.world.number();
                let pd = answer["pd"].as_u64().unwrap_or(0);
                self.world.anchors.insert(number, Anchor::new(kind, pd));
                let fd = answer["fd"].as_u64().context("no fd")? as u32;
                self.process(at)?.fds.insert(fd, Descriptor { what: What::Anchor(number), keep });
                Some(format!("{order}: fd {fd}"))
            }
            Action::Register => self.register(at, pid)?,
            Action::Release => self.release(at, pid)?,
            Action::Dup | Action::Close | Action::Map | Action::Unmap => self.copies(at, pid, action)?,
            Action::Enroll | Action::Discharge => self.rings(at, pid, action)?,
            Action::File | Action::Unfile => self.files(at, pid, action)?,
            Action::Box | Action::Put | Action::Take | Action::Pass => self.messages(at, pid, action)?,
            Action::OpenFile if !full && self.world.anchors.len() < MOST_ANCHORS => {
                self.open_file(at, pid)?
            }
            Action::PinFile => self.pin_file(at, pid)?,
            Action::Lease | Action::Unlease => self.lease(at, pid, action)?,
            Action::Break => self.break_lease(pid)?,
            Action::Renew => {
                let answer = self.actors.tell(pid, "renew")?;
                let number = |name: &str| answer[name].as_u64().context("no number");
                let (address, ino) = (number("address")?, number("ino")?);
                let process = self.process(at)?;
                (process.address, process.ino) = (address, ino);
                Some("renew".to_owned())
            }
            Action::Fork => {
                let place = (0..PROCESSES).find(|place| !self.world.processes.contains_key(place));
                let Some(place) = place else { return Ok(None) };
                let child = self.actors.number(pid, "fork", "pid")? as u32;
                let hello = self.actors.welcome(child)?;
                // What a thread has registered with itself is not inherited.
                let with = Process { enrolled: BTreeMap::new(), ..self.world.processes[&at].clone() };
                self.enter(place, &hello, with);
                Some(format!("fork: {child}"))
            }
            Action::Exec => {
                self.actors.order(pid, "exec")?;
                let hello = self.actors.welcome(pid)?;
                self.world.exec(at);
                let with = self.world.processes[&at].clone();
                self.enter(at, &hello, with);
                Some("exec".to_owned())
            }
            Action::Exit | Action::Kill => {
                let by_force = matches!(action, Action::Kill);
                self.actors.end(pid, by_force)?;
                self.world.processes.remove(&at);
                Some(format!("{pid} {}", if by_force { "is killed" } else { "exits" }))
            }
            _ => None,
        })
    }

    /// An anchor that takes one more pin, and what to register it with.
    pub fn room(&mut self, at: usize) -> Option<(u32, u32, Anchor, u64)> {
        let most = |kind: &str| match kind {
            "file" => 0,
            "xdp" => 1,
            _ => MOST_PINS,
        };
        let mut fit = self.anchors(at);
        fit.retain(|(_, _, anchor)| anchor.pins.len() < most(anchor.kind));
        let (fd, number, anchor) = self.dice.of(&fit)?;
        let free = (0..MOST_PINS as u64).find(|slot| anchor.pins.iter().all(|pin| pin.with != *slot));
        let with = match anchor.kind {
            "rdma-mr" => anchor.pd,
            "io_uring" => free.unwrap_or(0),
            _ => 0,
        };
        Some((fd, number, anchor, with))
    }

    fn register(&mut self, at: usize, pid: u32) -> Result<Option<String>> {
        let Some((fd, number, anchor, with)) = self.room(at) else { return Ok(None) };
        let (page, pages) = (self.dice.below(24), 1 + self.dice.below(8));
        let order = format!("register {fd} {} {page} {pages} {with}", anchor.kind);
        let object = self.actors.tell(pid, &order)?["object"].as_u64();
        let process = self.process(at)?;
        let pin = Pin {
            creator: pid,
            address: process.address + page as u64 * PAGE,
            bytes: pages as u64 * PAGE,
            ino: process.ino,
            named: false,
            with: object.unwrap_or(with),
        };
        self.world.anchors.get_mut(&number).context("no such anchor")?.pins.push(pin);
        Ok(Some(order))
    }

    fn release(&mut self, at: usize, pid: u32) -> Result<Option<String>> {
        let mut fit = self.anchors(at);
        // A umem has no other end than its socket's.
        fit.retain(|(_, _, anchor)| anchor.kind != "xdp" && !anchor.pins.is_empty());
        let Some((fd, number, anchor)) = self.dice.of(&fit) else { return Ok(None) };
        let which = self.dice.below(anchor.pins.len());
        let order = format!("release {fd} {} {}", anchor.kind, anchor.pins[which].with);
        self.actors.tell(pid, &order)?;
        self.world.anchors.get_mut(&number).context("no such anchor")?.pins.remove(which);
        Ok(Some(order))
    }

    /// Descriptors and mappings, more and fewer.
    fn copies(&mut self, at: usize, pid: u32, action: Action) -> Result<Option<String>> {
        let fds: Vec<(u32, Descriptor)> =
            self.process(at)?.fds.iter().map(|(fd, what)| (*fd, *what)).collect();
        let order;
        match action {
            Action::Dup if fds.len() < MOST_FDS => {
                let Some((fd, what)) = self.dice.of(&fds) else { return Ok(None) };
                let (keep, word) = self.keep();
                order = format!("dup {fd} {word}");
                let copy = self.actors.number(pid, &order, "fd")? as u32;
                self.process(at)?.fds.insert(copy, Descriptor { keep, ..what });
            }
            Action::Close => {
                let Some((fd, _)) = self.dice.of(&fds) else { return Ok(None) };
                order = format!("close {fd}");
                self.actors.tell(pid, &order)?;
                self.process(at)?.fds.remove(&fd);
            }
            Action::Map if self.process(at)?.maps.len() < MOST_FDS => {
                let Some((fd, number, anchor)) = self.dice.of(&self.anchors(at)) else { return Ok(None) };
                order = format!("map {fd} {}", anchor.kind);
                let answer = self.actors.tell(pid, &order)?;
                let number_of = |name: &str| answer[name].as_u64().context("no number");
                let (address, length) = (number_of("address")?, number_of("length")?);
                self.process(at)?.maps.insert(address, (length, number));
            }
            Action::Unmap => {
                let maps: Vec<(u64, u64)> =
                    self.process(at)?.maps.iter().map(|(address, (length, _))| (*address, *length)).collect();
                let Some((address, length)) = self.dice.of(&maps) else { return Ok(None) };
                order = format!("unmap {address} {length}");
                self.actors.tell(pid, &order)?;
                self.process(at)?.maps.remove(&address);
            }
            _ => return Ok(None),
        }
        Ok(Some(order))
    }

    /// Rings that a thread registers with itself.
    fn rings(&mut self, at: usize, pid: u32, action: Action) -> Result<Option<String>> {
        if let Action::Discharge = action {
            let places: Vec<u32> = self.process(at)?.enrolled.keys().copied().collect();
            let Some(place) = self.dice.of(&places) else { return Ok(None) };
            let order = format!("discharge {place}");
            self.actors.tell(pid, &order)?;
            self.process(at)?.enrolled.remove(&place);
            return Ok(Some(order));
        }
        let mut fit = self.anchors(at);
        fit.retain(|(_, _, anchor)| anchor.kind == "io_uring");
        let Some((fd, number, _)) = self.dice.of(&fit) else { return Ok(None) };
        let order = format!("enroll {fd}");
        let place = self.actors.number(pid, &order, "index")? as u32;
        self.process(at)?.enrolled.insert(place, number);
        Ok(Some(order))
    }

    /// Files that are registered with a ring.
    fn files(&mut self, at: usize, pid: u32, action: Action) -> Result<Option<String>> {
        let (rings, others): (Vec<_>, Vec<_>) =
            self.anchors(at).into_iter().partition(|(_, _, anchor)| anchor.kind == "io_uring");
        if let Action::Unfile = action {
            let rings: Vec<_> = rings.into_iter().filter(|(_, _, ring)| !ring.files.is_empty()).collect();
            let Some((fd, number, ring)) = self.dice.of(&rings) else { return Ok(None) };
            let places: Vec<u32> = ring.files.keys().copied().collect();
            let Some(place) = self.dice.of(&places) else { return Ok(None) };
            let order = format!("unfile {fd} {place}");
            self.actors.tell(pid, &order)?;
            self.world.anchors.get_mut(&number).context("no such ring")?.files.remove(&place);
            return Ok(Some(order));
        }
        let Some(((ring, number, _), (fd, file, _))) = self.dice.of(&rings).zip(self.dice.of(&others)) else {
            return Ok(None);
        };
        let place = self.dice.below(8) as u32;
        let order = format!("file {ring} {place} {fd}");
        self.actors.tell(pid, &order)?;
        self.world.anchors.get_mut(&number).context("no such ring")?.files.insert(place, file);
        Ok(Some(order))
    }

    /// Descriptors in messages. Rings cannot be in them: the kernel refuses it.
    fn messages(&mut self, at: usize, pid: u32, action: Action) -> Result<Option<String>> {
        let mut passed = self.anchors(at);
        passed.retain(|(_, _, anchor)| anchor.kind != "io_uring");
        let ends = |process: &Process, wanted: fn(What) -> Option<u32>| -> Vec<(u32, u32)> {
            process.fds.iter().filter_map(|(fd, of)| Some((*fd, wanted(of.what)?))).collect()
        };
        match action {
            Action::Box if self.process(at)?.fds.len() + 2 <= MOST_FDS => {
                let answer = self.actors.tell(pid, "box")?;
                let number = self.world.number();
                self.world.boxes.insert(number, Vec::new());
                for (name, what) in [("a", What::Into(number)), ("b", What::OutOf(number))] {
                    let fd = answer[name].as_u64().context("no end")? as u32;
                    self.process(at)?.fds.insert(fd, Descriptor { what, keep: false });
                }
                Ok(Some("box".to_owned()))
            }
            Action::Put => {
                let into =
                    ends(self.process(at)?, |what| if let What::Into(of) = what { Some(of) } else { None });
                // Into one whose other end is closed nothing can be sent.
                let into: Vec<_> =
                    into.into_iter().filter(|(_, of)| self.world.boxes.contains_key(of)).collect();
                let Some(((end, of), (fd, number, _))) = self.dice.of(&into).zip(self.dice.of(&passed))
                else {
                    return Ok(None);
                };
                let order = format!("put {end} {fd}");
                self.actors.tell(pid, &order)?;
                self.world.boxes.entry(of).or_default().push(number);
                Ok(Some(order))
            }
            Action::Take if self.process(at)?.fds.len() < MOST_FDS => {
                let out =
                    ends(self.process(at)?, |what| if let What::OutOf(of) = what { Some(of) } else { None });
                let out: Vec<_> =
                    out.into_iter().filter(|(_, of)| !self.world.boxes[of].is_empty()).collect();
                let Some((end, of)) = self.dice.of(&out) else { return Ok(None) };
                let (keep, word) = self.keep();
                let order = format!("take {end} {word}");
                let fd = self.actors.number(pid, &order, "fd")? as u32;
                let number = self.world.boxes.get_mut(&of).context("no such box")?.remove(0);
                self.process(at)?.fds.insert(fd, Descriptor { what: What::Anchor(number), keep });
                Ok(Some(order))
            }
            Action::Pass => {
                let others: Vec<usize> = (self.world.processes.iter())
                    .filter(|(place, process)| **place != at && process.fds.len() < MOST_FDS)
                    .map(|(place, _)| *place)
                    .collect();
                let Some((to, (fd, number, _))) = self.dice.of(&others).zip(self.dice.of(&passed)) else {
                    return Ok(None);
                };
                let receiver = self.process(to)?.pid;
                let (keep, word) = self.keep();
                self.actors.order(receiver, &format!("recv {PASSED} {word}"))?;
                self.actors.tell(pid, &format!("send {PASSED} {fd}"))?;
                let answer = self.actors.answer(receiver)?;
                let got = answer["fd"].as_u64().context("no fd")? as u32;
                self.process(to)?.fds.insert(got, Descriptor { what: What::Anchor(number), keep });
                Ok(Some(format!("fd {fd} is passed to {receiver} as {got}")))
            }
            _ => Ok(None),
        }
    }
}
