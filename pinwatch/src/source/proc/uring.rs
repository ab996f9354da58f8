//! Registered io_uring buffers, from fdinfo and maps.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::collector::Collector;
use super::fdinfo::{self, Buffer, RingInfo};
use super::maps::{self, Mapping};
use super::reader::Reader;
use super::same_file::{self, Descriptor, Group};
use super::scan::{Anchor, Scan};
use crate::model::{
    Backing, Doubt, Gap, Holder, Holding, HoldingIndex, Mode, Origin, ProcessIndex, Segment, Via, object,
};
use crate::source::host::bounded;
use crate::source::observation::{Held, Memory, PinObservation};

/// How long, over all rings, to wait for busy ones.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How many processes' mappings are kept at once.
const MAPS_KEPT: usize = 32;

/// A descriptor of a ring in a process.
#[derive(Clone, Debug)]
pub struct RingFd {
    /// The process.
    pub pid: u32,
    /// The descriptor.
    pub fd: u32,
    /// What its fdinfo says.
    pub info: RingInfo,
}

impl Descriptor for RingFd {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn fd(&self) -> u32 {
        self.fd
    }

    fn ino(&self) -> Option<u64> {
        self.info.ino
    }
}

/// The mappings of processes, read once.
type MapsByPid = HashMap<u32, Vec<Mapping>>;

/// The rings that processes have open, and their registered buffers.
pub struct Rings;

impl Reader for Rings {
    fn collect(&mut self, scan: &Scan, cx: &mut Collector) {
        collect(scan, cx);
    }
}

/// Adds all buffers of the rings that the scan found.
fn collect(scan: &Scan, cx: &mut Collector) {
    let fds: Vec<RingFd> = scan
        .rings
        .iter()
        .filter_map(|&(pid, fd)| Some(RingFd { pid, fd, info: info(scan.dir(pid)?, fd)? }))
        .collect();
    let shared_ino = shared_anonymous_inode();
    let (groups, refused) = same_file::group(fds, shared_ino, same_file::compare);
    if refused > 0 {
        cx.gaps.push(Gap::RingsNotCompared { descriptors: refused as u64 });
    }
    let mut run = Run { scan, shared_ino, maps: HashMap::new(), deadline: Instant::now() + PATIENCE };
    let mut busy = 0;
    let mut strange = 0;
    let mut seen: HashSet<(u32, Buffer)> = HashSet::new();
    let mut twice = 0;
    let mut inodes = HashSet::new();
    for group in &groups {
        inodes.extend(group[0].info.ino);
        let Some(info) = run.buffers(group) else {
            busy += 1;
            continue;
        };
        strange += info.strange;
        let buffers = info.buffers.unwrap_or_default();
        if !buffers.is_empty() {
            let owner = run.add(group, &buffers, cx);
            let key = |b: &Buffer| (owner, Buffer { slot: 0, ..*b });
            // Within one ring, the same memory twice is two pins; only other rings can share one by cloning.
            twice += buffers.iter().filter(|b| seen.contains(&key(b))).count();
            seen.extend(buffers.iter().map(key));
        }
    }
    if busy > 0 {
        cx.gaps.push(Gap::RingsBusy { rings: busy });
    }
    if strange > 0 {
        cx.gaps.push(Gap::RingBuffersUnreadable { buffers: strange as u64 });
    }
    if twice > 0 && cx.kernel >= (6, 12) {
        cx.gaps.push(Gap::RingBuffersTwice { buffers: twice as u64 });
    }
    let mapped_only: HashSet<u64> = scan
        .ring_maps
        .iter()
        .map(|a| a.ino)
        .filter(|i| !inodes.contains(i) && Some(*i) != shared_ino)
        .collect();
    if !mapped_only.is_empty() {
        cx.gaps.push(Gap::RingsMappedOnly { rings: mapped_only.len() as u64 });
    }
}

/// Reads the fdinfo of a descriptor; `None` once it is gone.
fn info(dir: &Path, fd: u32) -> Option<RingInfo> {
    Some(fdinfo::parse(&bounded::read(&dir.join(format!("fdinfo/{fd}"))).ok()?))
}

/// The inode number that the kernel's ordinary anonymous files (here: an inotify) have in common.
fn shared_anonymous_inode() -> Option<u64> {
    let fd = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).ok()?;
    Some(rustix::fs::fstat(fd).ok()?.st_ino)
}

/// One pass over the rings.
struct Run<'a> {
    scan: &'a Scan,
    shared_ino: Option<u64>,
    maps: MapsByPid,
    deadline: Instant,
}

impl Run<'_> {
    /// The buffers of a ring, read again for a while if it is busy; `None` if it stayed busy.
    fn buffers(&self, group: &Group<RingFd>) -> Option<RingInfo> {
        let listed = |i: &RingInfo| i.buffers.is_some();
        if let Some(fd) = group.iter().find(|r| listed(&r.info)) {
            return Some(fd.info.clone());
        }
        let mut pause = Duration::from_micros(200);
        loop {
            let infos: Vec<RingInfo> =
                group.iter().filter_map(|r| info(self.scan.dir(r.pid)?, r.fd)).collect();
            if infos.is_empty() {
                // Gone with all its processes: nothing to list.
                return Some(RingInfo::default());
            }
            if let Some(info) = infos.into_iter().find(listed) {
                return Some(info);
            }
            if Instant::now() + pause >= self.deadline {
                return None;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Adds the buffers of one ring; gives the process whose mappings name them.
    fn add(&mut self, group: &Group<RingFd>, buffers: &[Buffer], cx: &mut Collector) -> u32 {
        let holders = self.holders(group, cx);
        let mut pids: Vec<u32> = holders.iter().map(|(pid, _)| *pid).collect();
        // Older processes first: of parent and child with the same mappings, the parent made the ring.
        pids.sort_by_key(|pid| (self.scan.start(*pid), *pid));
        let fits: Vec<(u32, u64)> = pids.iter().map(|&pid| (pid, self.fit(pid, buffers, cx))).collect();
        let (owner, fit) =
            fits.iter().copied().min_by_key(|(_, fit)| Reverse(*fit)).unwrap_or((group[0].pid, 0));
        let maps_ring = holders.iter().any(|(_, h)| h.via.iter().any(|v| matches!(v, Via::Mapping(_))));
        // Only one holder that has the memory or the ring mapped: it made the pin. Of several, procfs does not show which.
        let creator = match holders.as_slice() {
            [(_, only)] if fit > 0 || maps_ring => Some(only.process),
            _ => None,
        };
        let ring_fd = group.iter().filter(|r| r.pid == owner).map(|r| r.fd).min();
        let holders = holders.into_iter().map(|(_, h)| h).collect();
        let holding = cx.into.add_holding(Holding { holders, ..Holding::default() });
        for &buffer in buffers {
            self.add_buffer(owner, ring_fd, buffer, creator, holding, cx);
        }
        owner
    }

    fn add_buffer(
        &mut self,
        owner: u32,
        ring_fd: Option<u32>,
        buffer: Buffer,
        creator: Option<ProcessIndex>,
        holding: HoldingIndex,
        cx: &mut Collector,
    ) {
        let segments = self.segments(owner, buffer, cx);
        let lost: u64 = segments.iter().filter(|s| s.backing == Backing::Unknown).map(|s| s.length).sum();
        let doubt = match lost {
            0 => Doubt::MappedNow,
            n if n == buffer.length => Doubt::NoLongerMapped,
            _ => Doubt::PartlyUnmapped,
        };
        let sequence = cx.next_sequence();
        cx.into.observe(PinObservation {
            origin: Origin::Proc,
            sequence,
            object: object::io_uring::Object::Buffer { ring_fd, slot: Some(buffer.slot) }.into(),
            mode: Mode::ReadWrite,
            bytes: buffer.length,
            pages: cx.pages(buffer.address, buffer.length),
            address: Some(buffer.address),
            memory: Memory::Runs(&segments),
            doubts: doubt.into(),
            creator,
            held: Held::By(holding),
            created: None,
        });
    }

    /// The processes that keep a ring, each once, by pid.
    fn holders(&self, group: &Group<RingFd>, cx: &mut Collector) -> Vec<(u32, Holder)> {
        let mut via: HashMap<u32, Vec<Via>> = HashMap::new();
        for fd in group {
            via.entry(fd.pid).or_default().push(Via::Fd(fd.fd));
        }
        let ino = group[0].info.ino.filter(|i| self.shared_ino.is_some_and(|s| s != *i));
        for Anchor { pid, address, .. } in self.scan.ring_maps.iter().filter(|a| Some(a.ino) == ino) {
            via.entry(*pid).or_default().push(Via::Mapping(*address));
        }
        let mut holders: Vec<(u32, Holder)> = via
            .into_iter()
            .filter_map(|(pid, via)| Some((pid, Holder { process: cx.process(pid)?, via })))
            .collect();
        holders.sort_by_key(|(pid, _)| *pid);
        holders
    }

    fn maps(&mut self, pid: u32) -> &[Mapping] {
        if self.maps.len() >= MAPS_KEPT && !self.maps.contains_key(&pid) {
            self.maps.clear();
        }
        let scan = self.scan;
        self.maps.entry(pid).or_insert_with(|| {
            let text = scan.dir(pid).and_then(|dir| bounded::read(&dir.join("maps")).ok());
            maps::parse(&text.unwrap_or_default())
        })
    }

    /// How many bytes of the buffers a process has mapped with memory that io_uring can pin.
    fn fit(&mut self, pid: u32, buffers: &[Buffer], cx: &mut Collector) -> u64 {
        let segments = buffers.iter().flat_map(|b| self.segments(pid, *b, cx));
        segments.filter(|s| s.backing != Backing::Unknown).fold(0, |sum, s| sum.saturating_add(s.length))
    }

    /// What a process has mapped where a buffer lies.
    fn segments(&mut self, pid: u32, buffer: Buffer, cx: &mut Collector) -> Vec<Segment> {
        let Some(dir) = self.scan.dir(pid) else { return Vec::new() };
        let maps = self.maps(pid);
        let pieces = maps::pieces(maps, buffer.address, buffer.length);
        let unknown = |length| Segment { backing: Backing::Unknown, file: None, offset: 0, length };
        let segment = |(length, at): maps::Piece<'_>| {
            let Some((mapping, offset)) = at else { return unknown(length) };
            let (backing, file) = cx.files.backing(dir, mapping);
            if !cx.files.possible_for_io_uring(backing, file) {
                return unknown(length);
            }
            Segment { backing, file, offset, length }
        };
        pieces.into_iter().map(segment).collect()
    }
}
