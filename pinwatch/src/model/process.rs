//! A process, told apart from a later one with the same pid.

use serde::{Deserialize, Serialize};

use super::cgroup::Workload;
use super::name::Name;

/// Namespaces of a process by the inode numbers that `lsns` shows, each only where it is another than the observer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Of process ids.
    pub pid: Option<u64>,
    /// Of mounts: paths mean something else there.
    pub mount: Option<u64>,
}

/// A process as it was when it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id (thread group) in the initial pid namespace of the observer; 0 if the kernel names none.
    pub pid: u32,
    /// Start time since boot in clock ticks of 1/100 s, as in field 22 of `/proc/PID/stat`; `None` if not known.
    pub start: Option<u64>,
    /// Command name.
    pub comm: Name,
    /// Effective user id, if known.
    pub uid: Option<u32>,
    /// The user's name, if the system knows one.
    pub user: Option<String>,
    /// Whether this very process (pid and start time) still exists.
    pub alive: bool,
    /// Path of its cgroup, if known.
    pub cgroup: Option<Name>,
    /// Its namespaces.
    pub namespaces: Namespaces,
}

impl Process {
    /// What its control group says of it; nothing if that is not known.
    pub fn workload(&self) -> Workload {
        self.cgroup.as_ref().map(|cgroup| Workload::of(cgroup.as_bytes())).unwrap_or_default()
    }
}
