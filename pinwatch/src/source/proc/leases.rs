//! Leases without the daemon: `/proc/locks` lists them, and the `lock:` lines of fdinfo show which descriptors are of the open
//! file that has one. Nothing shows a mapping or a message that keeps such a file.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use super::collector::Collector;
use crate::model::{
    Device, File, FileId, FileIndex, Holder, Holding, Lease, LeaseState, Name, ProcessIndex, Table, Via,
};
use crate::source::host::locks::{self, Lock};
use crate::source::host::{bounded, process};
use crate::source::observation::LeaseObservations;

/// `PROC_PID_INIT_INO` (include/linux/proc_ns.h): the first pid namespace. In others `/proc/locks` leaves out leases.
const FIRST_NAMESPACE: u64 = 0xeffffffc;

/// Which lease: file, and who took it. Two of one process on one file look the same.
type Key = (u32, u64, u32);

/// A lease, who has its file open, and the name it is open by.
struct ProcLease {
    lock: Lock,
    taker: Option<ProcessIndex>,
    holders: Vec<Holder>,
    path: Option<Vec<u8>>,
}

/// The leases of this machine.
pub struct Leases {
    found: Vec<ProcLease>,
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
        ProcLease { taker, holders, path: of.and_then(|of| of.path.clone()), lock }
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

/// The leases, and what is in doubt. `table` has the files and processes so far.
pub fn observe(leases: Leases, kernel: (u32, u32), table: &mut Table) -> LeaseObservations {
    let Leases { found, denied } = leases;
    let mut seen = LeaseObservations {
        // Leases on hugetlbfs are refused from 7.0 on.
        hugetlb: kernel < (7, 0),
        some_unseen: denied,
        unknown_may_be_files: true,
        ..LeaseObservations::default()
    };
    for ProcLease { lock, taker, holders, path } in found {
        let id = FileId { dev: Device::from_kernel(lock.dev), ino: lock.ino, generation: None };
        let known = table.files.iter().position(|file| (file.id.dev, file.id.ino) == (id.dev, id.ino));
        let file = match known {
            Some(at) => FileIndex(u32::try_from(at).unwrap_or(u32::MAX)),
            None => table.add_file(named(id, path)),
        };
        let of_kernel = taker.and_then(|at| table.process(at)).is_some_and(|p| process::is_nfsd(p.pid));
        // Nobody is known to have it open: who has it mapped would be covered.
        if holders.is_empty() && !of_kernel {
            seen.unclear_files.insert(file);
        }
        let state =
            if lock.breaking { LeaseState::Breaking { seconds_left: None } } else { LeaseState::Active };
        let holding = table.add_holding(Holding { holders, ..Holding::default() });
        seen.leases.push(Lease {
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
    seen
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
