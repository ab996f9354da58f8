//! The truth of the random run: which process has what, and which pins live for it. Pure: orders and answers in, what should be
//! listed out.

use std::collections::{BTreeMap, BTreeSet};

/// How an anchor is kept by a process, in lspins' words.
pub type Ways = BTreeMap<u32, BTreeSet<String>>;

/// What should be listed of one pin. Sorted, these are compared with the rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub kind: String,
    pub creator: u32,
    pub alive: bool,
    pub address: u64,
    pub bytes: u64,
    pub ino: u64,
    pub slot: Option<u64>,
    pub holders: Ways,
    pub in_flight: u64,
    pub receivers: Ways,
    pub verdict: Verdict,
}

/// What should be said of the leases on a pin's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verdict {
    pub state: String,
    /// How many holders are covered.
    pub covered: u64,
    /// Who would be asked.
    pub pids: BTreeSet<u32>,
}

/// A file on tmpfs, opened: what a lease is of.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// Which of the files.
    pub ino: u64,
    pub writable: bool,
    pub lease: Option<Lease>,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub writes: bool,
    pub breaking: bool,
    /// Who took it first.
    pub taker: u32,
}

/// What a descriptor is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An anchor, by its number here.
    Anchor(u32),
    /// The sending end of a socket pair.
    Into(u32),
    /// The end at which its messages wait.
    OutOf(u32),
}

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub what: What,
    /// Whether it stays at exec.
    pub keep: bool,
}

/// One process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub pid: u32,
    /// The memory that it pins.
    pub address: u64,
    pub ino: u64,
    pub fds: BTreeMap<u32, Descriptor>,
    /// Mappings of anchors: by address, length and anchor.
    pub maps: BTreeMap<u64, (u64, u32)>,
    /// Rings registered with its thread, by place.
    pub enrolled: BTreeMap<u32, u32>,
}

/// One pin on an anchor.
#[derive(Clone, Debug)]
pub struct Pin {
    pub creator: u32,
    pub address: u64,
    pub bytes: u64,
    pub ino: u64,
    /// Whether that is one of the files that are opened, rather than a memfd, whose numbers are the same.
    pub named: bool,
    /// What releases it: an MR's handle or a slot.
    pub with: u64,
}

/// What keeps pins.
#[derive(Clone, Debug)]
pub struct Anchor {
    pub kind: &'static str,
    /// The protection domain of an RDMA context.
    pub pd: u64,
    pub pins: Vec<Pin>,
    /// Anchors that a ring has registered as files, by their place.
    pub files: BTreeMap<u32, u32>,
    /// It is no anchor but an open file: kept in the same ways.
    pub file: Option<OpenFile>,
}

impl Anchor {
    pub fn new(kind: &'static str, pd: u64) -> Self {
        Self { kind, pd, pins: Vec::new(), files: BTreeMap::new(), file: None }
    }
}

/// Everything.
#[derive(Default)]
pub struct World {
    /// By their place among the eight.
    pub processes: BTreeMap<usize, Process>,
    pub anchors: BTreeMap<u32, Anchor>,
    /// Socket pairs: anchors in the messages that wait in them.
    pub boxes: BTreeMap<u32, Vec<u32>>,
    next: u32,
}

impl World {
    /// A number for a new anchor or box.
    pub fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Lets go of what nobody has any more.
    pub fn settle(&mut self) {
        let fds = |wanted: fn(What) -> Option<u32>| -> BTreeSet<u32> {
            let all = self.processes.values().flat_map(|process| process.fds.values());
            all.filter_map(|fd| wanted(fd.what)).collect()
        };
        // Messages go with the end at which they wait.
        let boxes = fds(|what| if let What::OutOf(at) = what { Some(at) } else { None });
        let mut kept = fds(|what| if let What::Anchor(at) = what { Some(at) } else { None });
        self.boxes.retain(|at, _| boxes.contains(at));
        kept.extend(self.boxes.values().flatten());
        for process in self.processes.values() {
            kept.extend(process.maps.values().map(|(_, anchor)| anchor));
            kept.extend(process.enrolled.values());
        }
        // What is registered with a ring lives as long as that; a ring itself cannot be.
        let rings = self.anchors.iter().filter(|(at, _)| kept.contains(at));
        let registered: Vec<u32> = rings.flat_map(|(_, ring)| ring.files.values().copied()).collect();
        kept.extend(registered);
        self.anchors.retain(|at, _| kept.contains(at));
    }

    /// What exec leaves of a process.
    pub fn exec(&mut self, at: usize) {
        if let Some(process) = self.processes.get_mut(&at) {
            process.fds.retain(|_, fd| fd.keep);
            process.maps.clear();
            process.enrolled.clear();
        }
        self.settle();
    }

    /// The open files of an inode, by their number.
    pub fn opened(&self, ino: u64) -> impl Iterator<Item = (u32, &OpenFile)> {
        let files = self.anchors.iter().filter_map(|(at, anchor)| Some((*at, anchor.file.as_ref()?)));
        files.filter(move |(_, file)| file.ino == ino)
    }

    /// How an anchor is kept: by whom, how often in a message, and by whom these messages can be received.
    fn kept(&self, at: u32) -> (Ways, u64, Ways) {
        let (mut holders, mut receivers) = (Ways::new(), Ways::new());
        let waiting = |in_box: u32| {
            let messages = self.boxes.get(&in_box).into_iter().flatten();
            messages.filter(|anchor| **anchor == at).count() as u64
        };
        for process in self.processes.values() {
            let mut keeps = |way: String| holders.entry(process.pid).or_default().insert(way);
            let has = |ring: u32| {
                let ring = self.anchors.get(&ring);
                ring.is_some_and(|ring| ring.files.values().any(|of| *of == at))
            };
            for (number, fd) in &process.fds {
                match fd.what {
                    What::Anchor(ring) if has(ring) => {
                        keeps(format!("ring_file {number}"));
                    }
                    What::Anchor(of) if of == at => {
                        keeps(format!("fd {number}"));
                    }
                    What::OutOf(of) if waiting(of) > 0 => {
                        receivers.entry(process.pid).or_default().insert(format!("fd {number}"));
                    }
                    _ => {}
                }
            }
            for (address, _) in process.maps.iter().filter(|(_, (_, of))| *of == at) {
                keeps(format!("mapping {address}"));
            }
            let otherwise = process.maps.values().map(|(_, ring)| ring).chain(process.enrolled.values());
            if otherwise.into_iter().any(|ring| has(*ring)) {
                keeps("ring_file null".to_owned());
            }
            for (place, _) in process.enrolled.iter().filter(|(_, of)| **of == at) {
                keeps(format!("registered {place}"));
            }
        }
        (holders, self.boxes.keys().map(|of| waiting(*of)).sum(), receivers)
    }

    /// The verdict for a pin with these holders on a file, by the words of the design.
    fn verdict(&self, holders: &Ways, pin: &Pin) -> Verdict {
        let leases: Vec<(&Lease, BTreeSet<u32>)> = self
            .opened(pin.ino)
            .filter(|_| pin.named)
            .filter_map(|(at, file)| Some((file.lease.as_ref()?, self.kept(at).0.into_keys().collect())))
            .collect();
        let mut verdict = Verdict { state: "none".to_owned(), ..Verdict::default() };
        if leases.is_empty() {
            return verdict;
        }
        for (lease, of) in &leases {
            verdict.pids.extend(of);
            if of.is_empty() {
                verdict.pids.insert(lease.taker);
            }
        }
        let covering = |pid: &u32| leases.iter().find(|(lease, of)| !lease.breaking && of.contains(pid));
        let by: Vec<&Lease> = holders.keys().filter_map(covering).map(|(lease, _)| *lease).collect();
        verdict.covered = by.len() as u64;
        verdict.state = match by.len() {
            0 if leases.iter().any(|(lease, _)| lease.breaking) => "breaking",
            0 => "other",
            n if n == holders.len() && by.iter().all(|lease| lease.writes) => "write",
            n if n == holders.len() => "read",
            _ if leases.iter().any(|(lease, _)| lease.breaking) => "breaking",
            _ => "partial",
        }
        .to_owned();
        verdict
    }

    /// All pins that live, as they should be listed.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (at, anchor) in &self.anchors {
            let (holders, in_flight, receivers) = self.kept(*at);
            for pin in &anchor.pins {
                rows.push(Row {
                    kind: anchor.kind.to_owned(),
                    creator: pin.creator,
                    alive: self.processes.values().any(|process| process.pid == pin.creator),
                    address: pin.address,
                    bytes: pin.bytes,
                    ino: pin.ino,
                    slot: (anchor.kind == "io_uring").then_some(pin.with),
                    verdict: self.verdict(&holders, pin),
                    holders: holders.clone(),
                    in_flight,
                    receivers: receivers.clone(),
                });
            }
        }
        rows.sort_unstable();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processes with a descriptor each of one ring that has a pin.
    fn world() -> World {
        let mut world = World::default();
        let ring = world.number();
        let pin = Pin { creator: 10, address: 0x1000, bytes: 4096, ino: 7, named: true, with: 2 };
        world.anchors.insert(ring, Anchor { pins: vec![pin], ..Anchor::new("io_uring", 0) });
        for (at, pid) in [(0, 10), (1, 20)] {
            let fd = Descriptor { what: What::Anchor(ring), keep: at == 0 };
            let fds = BTreeMap::from([(3, fd)]);
            world.processes.insert(at, Process { pid, fds, ..Process::default() });
        }
        world
    }

    #[test]
    fn a_pin_lives_until_its_last_holder_goes() {
        let mut world = world();
        assert_eq!(world.rows()[0].holders.len(), 2);
        world.processes.remove(&0);
        world.settle();
        assert!(!world.rows()[0].alive && world.rows()[0].holders[&20].contains("fd 3"));
        world.exec(1);
        assert!(world.rows().is_empty() && world.anchors.is_empty());
    }

    #[test]
    fn a_message_keeps_an_anchor_and_holds_it_for_nobody() {
        let mut world = world();
        let (ring, pair) = (1, world.number());
        world.boxes.insert(pair, vec![ring, ring]);
        world.processes.remove(&1);
        let process = world.processes.get_mut(&0).unwrap();
        process.fds.clear();
        process.fds.insert(8, Descriptor { what: What::OutOf(pair), keep: false });
        world.settle();
        let row = world.rows().remove(0);
        assert_eq!((row.holders.len(), row.in_flight, row.receivers.len()), (0, 2, 1));
        world.exec(0);
        assert!(world.anchors.is_empty());
    }

    #[test]
    fn a_lease_covers_who_has_the_open_file() {
        let mut world = world();
        let lease = Some(Lease { writes: true, breaking: false, taker: 10 });
        let file = Some(OpenFile { ino: 7, writable: true, lease });
        let number = world.number();
        world.anchors.insert(number, Anchor { file, ..Anchor::new("file", 0) });
        let fd = Descriptor { what: What::Anchor(number), keep: false };
        world.processes.get_mut(&0).unwrap().fds.insert(9, fd);
        let verdict = world.rows()[0].verdict.clone();
        assert_eq!((verdict.state.as_str(), verdict.covered), ("partial", 1));
        world.processes.get_mut(&1).unwrap().maps.insert(4096, (4096, number));
        assert_eq!(world.rows()[0].verdict.state, "write");
        let file = world.anchors.get_mut(&number).unwrap().file.as_mut().unwrap();
        file.lease.as_mut().unwrap().breaking = true;
        assert_eq!(world.rows()[0].verdict.state, "breaking");
    }
}
