//! What procfs knows of a process. Processes end at any time: then there is simply nothing.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::bounded;
use crate::model::{Name, Namespaces, Process};

/// The flag of kernel threads in `/proc/PID/stat` (`PF_KTHREAD`, include/linux/sched.h).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Command name.
    pub comm: Name,
    /// State letter; `Z` is a leader that has ended, though other threads may live.
    pub state: u8,
    /// Whether it is a kernel thread, which has no memory and no descriptors.
    pub kernel: bool,
    /// Start time since boot, in ticks of 1/100 s.
    pub start: u64,
    /// How many threads it has.
    pub threads: u64,
}

impl Stat {
    /// Whether it has ended and only waits for its parent to take note: a leader that ended before its other threads has
    /// not.
    pub fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

/// Reads the text of `/proc/PID/stat`. The command name may hold spaces and parentheses: its end is the last one.
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|&b| b == b'(')?;
    let close = text.iter().rposition(|&b| b == b')')?;
    let comm = Name::from(text.get(open + 1..close)?);
    let mut fields = text.get(close + 1..)?.split(|b| b.is_ascii_whitespace()).filter(|f| !f.is_empty());
    let state = *fields.next()?.first()?;
    let flags = bounded::decimal(fields.nth(5)?)?.0 as u32;
    let threads = bounded::decimal(fields.nth(10)?)?.0;
    let start = bounded::decimal(fields.nth(1)?)?.0;
    Some(Stat { comm, state, kernel: flags & KERNEL_THREAD != 0, start, threads })
}

/// All process ids that procfs shows, in ascending order.
pub fn pids() -> io::Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?.flatten();
    let mut pids: Vec<u32> = names.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// What `/proc/PID/stat` says of a process.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&bounded::read(&PathBuf::from(format!("/proc/{pid}/stat"))).ok()?)
}

/// Whether a process is a thread of the kernel's NFS server.
pub fn is_nfsd(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.kernel && stat.comm.as_bytes() == b"nfsd")
}

/// Where to look for a process's descriptors and mappings: `/proc/PID`, or one of its threads where the leader has
/// ended, which leaves `/proc/PID/fd` empty.
pub fn directory(pid: u32, stat: &Stat) -> PathBuf {
    let own = PathBuf::from(format!("/proc/{pid}"));
    if stat.state != b'Z' {
        return own;
    }
    let threads = fs::read_dir(own.join("task")).into_iter().flatten().flatten();
    let mut threads = threads.filter(|t| t.file_name().to_str() != Some(&pid.to_string())).map(|t| t.path());
    threads.next().unwrap_or(own)
}

/// The process (thread group) that a thread belongs to.
pub fn thread_group(tid: u32) -> Option<u32> {
    status_field(&bounded::read(&PathBuf::from(format!("/proc/{tid}/status"))).ok()?, b"Tgid:", 0)
}

/// A number in a line of `/proc/PID/status`.
fn status_field(text: &[u8], name: &[u8], at: usize) -> Option<u32> {
    let line = text.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(name))?;
    let field = line.split(|b| b.is_ascii_whitespace()).filter(|f| !f.is_empty()).nth(at)?;
    u32::try_from(bounded::decimal(field)?.0).ok()
}

/// The cgroup in `/proc/PID/cgroup`: the one of the unified hierarchy; where version 1 is in use and that one is only the
/// root, systemd's own; or else the first that is not the root.
pub fn parse_cgroup(text: &[u8]) -> Option<Name> {
    let lines = || {
        let lines = text.split(|&b| b == b'\n').map(|line| line.splitn(3, |&b| b == b':'));
        lines.filter_map(|mut fields| Some((fields.next()?, fields.next()?, fields.next()?)))
    };
    let root = |path: &[u8]| path == b"/";
    let unified = || lines().find(|(number, controllers, _)| *number == b"0" && controllers.is_empty());
    let systemd = || lines().find(|(_, controllers, path)| *controllers == b"name=systemd" && !root(path));
    let other = || lines().find(|(_, _, path)| !root(path));
    let best = unified()
        .filter(|(_, _, path)| !root(path))
        .or_else(systemd)
        .or_else(other)
        .or_else(|| lines().next());
    best.map(|(_, _, path)| Name::from(path))
}

/// The cgroup that a process is in now.
pub fn cgroup(pid: u32) -> Option<Name> {
    parse_cgroup(&bounded::read(&PathBuf::from(format!("/proc/{pid}/cgroup"))).ok()?)
}

/// User names, each looked up once: the name service may be slow.
#[derive(Default)]
pub struct Users {
    names: HashMap<u32, Option<String>>,
}

impl Users {
    /// The name of a user id, if the system knows one.
    pub fn name(&mut self, uid: u32) -> Option<String> {
        let look_up = || nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|u| u.name);
        self.names.entry(uid).or_insert_with(look_up).clone()
    }
}

/// The namespaces that a process is in now, as far as they are not ours.
pub fn namespaces(pid: u32) -> Namespaces {
    let number = |whose: &dyn std::fmt::Display, name: &str| {
        let link = rustix::fs::readlink(format!("/proc/{whose}/ns/{name}"), Vec::new()).ok()?;
        let text = link.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b":[")?;
        Some(bounded::decimal(text)?.0)
    };
    let other = |name| number(&pid, name).filter(|theirs| Some(*theirs) != number(&"self", name));
    Namespaces { pid: other("pid"), mount: other("mnt") }
}

/// A process as it is now; `None` once it is gone.
pub fn describe(pid: u32, users: &mut Users) -> Option<Process> {
    let stat = stat(pid)?;
    let read = |name: &str| bounded::read(&PathBuf::from(format!("/proc/{pid}/{name}"))).ok();
    let uid = read("status").and_then(|s| status_field(&s, b"Uid:", 1));
    Some(Process {
        pid,
        start: Some(stat.start),
        comm: stat.comm,
        uid,
        user: uid.and_then(|u| users.name(u)),
        alive: true,
        cgroup: read("cgroup").and_then(|c| parse_cgroup(&c)),
        namespaces: namespaces(pid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = b"812 (a) b (c)) S 1 812 812 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 81234 9 9";

    #[test]
    fn a_hostile_command_name_moves_no_field() {
        let stat = parse_stat(STAT).unwrap();
        assert_eq!(
            (stat.comm.as_bytes(), stat.state, stat.kernel, stat.start, stat.threads),
            (&b"a) b (c)"[..], b'S', false, 81234, 1)
        );
    }

    #[test]
    fn a_process_has_ended_once_its_last_thread_has() {
        let with = |state, threads| Stat { state, threads, ..parse_stat(STAT).unwrap() }.ended();
        assert_eq!((with(b'Z', 1), with(b'Z', 2), with(b'S', 1)), (true, false, false));
    }

    #[test]
    fn a_command_name_that_is_no_text_hides_nothing() {
        let status = b"Name:\ta\xff\nState:\tS (sleeping)\nTgid:\t77\nUid:\t1\t2\t3\t4\n";
        assert_eq!(
            (status_field(status, b"Tgid:", 0), status_field(status, b"Uid:", 1)),
            (Some(77), Some(2))
        );
    }

    #[test]
    fn cut_texts_are_nothing() {
        for end in 0..STAT.len() - 6 {
            assert!(parse_stat(&STAT[..end]).is_none_or(|s| s.start != 81234), "{end}");
        }
        assert_eq!(parse_stat(b")("), None);
    }

    #[test]
    fn this_process() {
        let own = describe(std::process::id(), &mut Users::default()).unwrap();
        assert!(own.alive && own.start.is_some());
        assert_eq!(own.uid, Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(own.namespaces, Namespaces::default());
        assert!(pids().unwrap().contains(&own.pid));
        assert_eq!(thread_group(own.pid), Some(own.pid));
    }

    #[test]
    fn cgroup_prefers_the_unified_hierarchy() {
        assert_eq!(parse_cgroup(b"4:cpu:/a\n0::/b:c\n"), Some(Name::from("/b:c")));
        assert_eq!(parse_cgroup(b"4:cpu:/a\n"), Some(Name::from("/a")));
        let first = b"4:cpu:/\n1:name=systemd:/system.slice/a.service\n0::/\n";
        assert_eq!(parse_cgroup(first), Some(Name::from("/system.slice/a.service")));
        assert_eq!(parse_cgroup(b"4:cpu:/docker/x\n1:name=systemd:/\n"), Some(Name::from("/docker/x")));
        assert_eq!(parse_cgroup(b"4:cpu:/\n0::/\n"), Some(Name::from("/")));
        assert_eq!(parse_cgroup(b"4\n:\n\xff"), None);
        assert_eq!(parse_cgroup(b""), None);
    }
}
