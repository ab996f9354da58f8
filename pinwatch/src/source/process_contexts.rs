//! Processes as the kernel's records name them (pid, start, command, user), with what procfs adds: whether they still are,
//! their control group and namespaces.

use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::file_records;
use super::host::process::{self, Users};
use crate::model::{Holding, Name, Namespaces, Process, ProcessIndex, Table};

/// What a process belongs to.
#[derive(Clone, Default)]
struct ProcessContext {
    cgroup: Option<Name>,
    namespaces: Namespaces,
}

/// The contexts of processes that pins refer to, by pid and start. procfs forgets a process that has ended, and yet people
/// ask which service or container it was.
#[derive(Default)]
pub struct ProcessContexts(HashMap<(u32, u64), ProcessContext>);

impl ProcessContexts {
    /// Forgets all but these.
    pub fn retain(&mut self, processes: &HashSet<(u32, u64)>) {
        self.0.retain(|process, _| processes.contains(process));
    }

    /// The context of a process: as it is now, or remembered if it is gone.
    fn context_of(&mut self, pid: u32, start: u64, alive: bool) -> ProcessContext {
        if alive {
            let context =
                ProcessContext { cgroup: process::cgroup(pid), namespaces: process::namespaces(pid) };
            // It may have ended meanwhile, and another have its number.
            if is_alive(pid, start) {
                self.0.insert((pid, start), context);
            }
        }
        self.0.get(&(pid, start)).cloned().unwrap_or_default()
    }
}

/// The processes of one table, each of them once.
pub struct Processes<'a> {
    contexts: &'a mut ProcessContexts,
    users: Users,
    /// By pid, start and name: exec makes another program of a process, whose name then was not the pin's creator's.
    rows: HashMap<(u32, u64, [u8; 16]), ProcessIndex>,
}

impl<'a> Processes<'a> {
    /// None yet.
    pub fn new(contexts: &'a mut ProcessContexts) -> Self {
        Self { contexts, users: Users::default(), rows: HashMap::default() }
    }

    /// The row of a process, which is added if it is new; `start` in nanoseconds since boot.
    pub fn intern(
        &mut self,
        pid: u32,
        start: u64,
        comm: [u8; 16],
        uid: u32,
        table: &mut Table,
    ) -> ProcessIndex {
        let Self { contexts, users, rows } = self;
        *rows
            .entry((pid, start, comm))
            .or_insert_with(|| table.add_process(describe(pid, start, &comm, uid, users, contexts)))
    }

    /// Who took a lease, by process id. The kernel keeps no more of it than that number, which may be another process's by
    /// now: it is believed of one that has the lease's file, and of the kernel's own threads where no process has it.
    pub fn lease_taker(&mut self, pid: u32, holding: &Holding, table: &mut Table) -> Option<ProcessIndex> {
        if pid == 0 {
            return None;
        }
        let mut holders = holding.holders.iter().map(|holder| holder.process);
        let is_it = |at: &ProcessIndex| table.process(*at).is_some_and(|process| process.pid == pid);
        if let Some(at) = holders.find(is_it) {
            return Some(at);
        }
        let is_kernel = holding.holders.is_empty() && process::stat(pid).is_some_and(|stat| stat.kernel);
        let described = is_kernel.then(|| process::describe(pid, &mut self.users)).flatten();
        let process = described.unwrap_or_else(|| Process { pid, ..Process::default() });
        let known = table.processes.iter().position(|other| *other == process);
        Some(known.map_or_else(|| table.add_process(process), |at| ProcessIndex(at as u32)))
    }
}

/// A process as the kernel saw it, `start` being nanoseconds since boot, and whether it still is.
fn describe(
    pid: u32,
    start: u64,
    comm: &[u8],
    uid: u32,
    users: &mut Users,
    contexts: &mut ProcessContexts,
) -> Process {
    let alive = is_alive(pid, start);
    let ProcessContext { cgroup, namespaces } = contexts.context_of(pid, start, alive);
    Process {
        pid,
        start: Some(start / NANOSECONDS_PER_TICK),
        comm: Name::from(file_records::until_nul(comm)),
        uid: Some(uid),
        user: users.name(uid),
        alive,
        cgroup,
        namespaces,
    }
}

/// `/proc/PID/stat` counts the start in ticks of 1/100 s.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Whether this very process still is; `start` in nanoseconds since boot.
fn is_alive(pid: u32, start: u64) -> bool {
    process::stat(pid).is_some_and(|stat| stat.start == start / NANOSECONDS_PER_TICK && !stat.ended())
}
