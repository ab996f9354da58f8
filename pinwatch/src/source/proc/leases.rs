//! Leases without the daemon: `/proc/locks` lists them, and the `lock:` lines of fdinfo tell which descriptors are of the open
//! file that has one. A mapping or a message that keeps such a file is not told by anything.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use super::Collector;
use crate::model::{
    Backing, Coverage, Device, File, FileId, FileIndex, Holder, Holding, Lease, LeaseState, Name, Pin,
    ProcessIndex, Table, Via,
};
use crate::source::coverage::apply_coverage;
use crate::source::host::locks::{self, Lock};
use crate::source::host::{bounded, process};

/// `PROC_PID_INIT_INO` (include/linux/proc_ns.h): the first pid namespace. In others `/proc/locks` leaves out leases.
const FIRST_NAMESPACE: u64 = 0xeffffffc;

/// Which lease: file, and who took it. Two of one process on one file look the same.
type Key = (u32, u64, u32);

/// A lease, who has its file open, and the name it is open by.
struct Found {
    lock: Lock,
    taker: Option<ProcessIndex>,
    holders: Vec<Holder>,
    path: Option<Vec<u8>>,
}

/// The leases of this machine.
pub struct Leases {
    found: Vec<Found>,
    /// Whether some processes could not be looked into.
    denied: bool,
}

/// Looks for them; `None` where they cannot be seen.
pub fn find(cx: &mut Collector) -> Option<Leases> {
    let namespace = rustix::fs::stat("/proc/self/ns/pid").ok()?;
    if namespace.st_ino != FIRST_NAMESPACE {
        return None;
    }
    let before = locks::leases(process::is_nfsd);
    if before.is_empty() {
        return Some(Leases { found: Vec::new(), denied: false });
    }
    let (mut descriptors, mut denied) = (HashMap::new(), false);
    for pid in process::pids().ok()? {
        let Some(stat) = process::stat(pid).filter(|stat| !stat.kernel) else { continue };
        let dir = process::directory(pid, &stat);
        denied |= look(pid, &dir, &mut descriptors).is_err_and(|error| bounded::denied(&error));
    }
    let leases = locks::both(before, locks::leases(process::is_nfsd));
    let found = leases.into_iter().map(|lock| {
        let of = descriptors.get(&key(&lock));
        let mut holders = Vec::new();
        for (pid, fds) in of.iter().flat_map(|of| &of.fds) {
            if let Some(process) = cx.process(*pid) {
                holders.push(Holder { process, via: fds.iter().map(|fd| Via::Fd(*fd)).collect() });
            }
        }
        let taker = cx.process(lock.pid);
        Found { taker, holders, path: of.and_then(|of| of.path.clone()), lock }
    });
    Some(Leases { found: found.collect(), denied })
}

fn key(lock: &Lock) -> Key {
    (lock.dev, lock.ino, lock.pid)
}

/// Descriptors of an open file that has a lease.
#[derive(Default)]
struct Descriptors {
    fds: BTreeMap<u32, Vec<u32>>,
    path: Option<Vec<u8>>,
}

/// Looks through the descriptors of a process.
fn look(pid: u32, dir: &Path, into: &mut HashMap<Key, Descriptors>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir.join("fdinfo"))? {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Closed meanwhile, it is no holder.
        let text = match bounded::read(&entry.path()) {
            Err(error) if bounded::denied(&error) => return Err(error),
            text => text.unwrap_or_default(),
        };
        let lines = text.split(|&b| b == b'\n').filter_map(|line| line.strip_prefix(b"lock:\t"));
        for lock in lines.filter_map(locks::parse) {
            let of = into.entry(key(&lock)).or_default();
            of.fds.entry(pid).or_default().push(fd);
            if of.path.is_none() {
                let link = rustix::fs::readlink(dir.join("fd").join(fd.to_string()), Vec::new());
                of.path = link.ok().map(std::ffi::CString::into_bytes);
            }
        }
    }
    Ok(())
}

/// Puts the leases into the table, and their verdicts into its pins.
pub fn judge(table: &mut Table, leases: Leases, kernel: (u32, u32)) {
    let Leases { found, denied } = leases;
    let mut all = Vec::new();
    // Files that have a lease of which nobody is known to have it open: who has it mapped would be covered.
    let mut unclear: Vec<FileIndex> = Vec::new();
    for Found { lock, taker, holders, path } in found {
        let id = FileId { dev: Device::from_kernel(lock.dev), ino: lock.ino, generation: None };
        let known = table.files.iter().position(|file| (file.id.dev, file.id.ino) == (id.dev, id.ino));
        let file = match known {
            Some(at) => FileIndex(u32::try_from(at).unwrap_or(u32::MAX)),
            None => table.add_file(named(id, path)),
        };
        let of_kernel = taker.and_then(|at| table.process(at)).is_some_and(|p| process::is_nfsd(p.pid));
        if holders.is_empty() && !of_kernel {
            unclear.push(file);
        }
        let state =
            if lock.breaking { LeaseState::Breaking { seconds_left: None } } else { LeaseState::Active };
        let holding = table.add_holding(Holding { holders, ..Holding::default() });
        all.push(Lease {
            file,
            below: Vec::new(),
            kind: lock.kind,
            mode: lock.mode,
            state,
            taker,
            holding,
            taken: None,
            broken: None,
            waiters: Vec::new(),
        });
    }
    // Leases on hugetlbfs are refused from 7.0 on.
    let hugetlb = kernel < (7, 0);
    let is_unclear =
        |pin: &Pin| pin.parts.iter().any(|part| part.file.is_some_and(|at| unclear.contains(&at)));
    apply_coverage(table, all, hugetlb, |_, pin| denied || is_unclear(pin));
    // What is not known to be on a file may be on one without a lease.
    for pin in &mut table.pins {
        if pin.parts.iter().any(|part| part.backing == Backing::Unknown) {
            pin.coverage = Coverage::default();
        }
    }
}

fn named(id: FileId, path: Option<Vec<u8>>) -> File {
    let path = path.unwrap_or_default();
    let deleted = path.strip_suffix(b" (deleted)");
    File {
        id,
        path: Name::from(deleted.unwrap_or(&path)),
        path_complete: true,
        fstype: String::new(),
        deleted: (!path.is_empty()).then_some(deleted.is_some()),
        dax: false,
    }
}
