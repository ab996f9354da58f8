//! `/proc/locks`: the leases among all file locks. It names the file by device and inode number, and who took the lease.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::bounded;
use crate::model::{LeaseKind, LeaseMode};

/// A lease as it is listed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Which kind. A layout lease is listed as a lease; see [`leases`].
    pub kind: LeaseKind,
    /// What it keeps others from.
    pub mode: LeaseMode,
    /// Whether somebody waits for it to go.
    pub breaking: bool,
    /// Who took it.
    pub pid: u32,
    /// The file system's device, in the kernel's encoding.
    pub dev: u32,
    /// The inode number.
    pub ino: u64,
}

/// All leases. `is_nfsd`: whether a process is the kernel's NFS server, whose leases that are no delegations are layouts.
pub fn leases(is_nfsd: impl Fn(u32) -> bool) -> Vec<Lock> {
    let text = bounded::read(Path::new("/proc/locks")).unwrap_or_default();
    let mut locks: Vec<Lock> = text.split(|&b| b == b'\n').filter_map(parse).collect();
    let mut known: HashMap<u32, bool> = HashMap::new();
    for lock in locks.iter_mut().filter(|lock| lock.kind == LeaseKind::Lease) {
        if *known.entry(lock.pid).or_insert_with(|| is_nfsd(lock.pid)) {
            lock.kind = LeaseKind::Layout;
        }
    }
    locks
}

/// The leases that were there both times. What was taken or dropped in between cannot have been seen by a look at all
/// processes in between, and has not to be missed there.
pub fn both(before: Vec<Lock>, after: Vec<Lock>) -> Vec<Lock> {
    let identity = |lock: &Lock| (lock.kind, lock.pid, lock.dev, lock.ino);
    let before: HashSet<_> = before.iter().map(identity).collect();
    after.into_iter().filter(|lock| before.contains(&identity(lock))).collect()
}

/// A line such as `5: LEASE  ACTIVE    WRITE 812 fd:01:131 0 EOF`; `None` for other locks and for those that wait (`->`).
pub fn parse(line: &[u8]) -> Option<Lock> {
    let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let (_, kind, state, mode) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let kind = match kind {
        b"LEASE" => LeaseKind::Lease,
        b"DELEG" => LeaseKind::Delegation,
        _ => return None,
    };
    let breaking = match state {
        b"ACTIVE" => false,
        b"BREAKING" => true,
        _ => return None,
    };
    let mode = match mode {
        // While a lease is breaking the kernel prints the target type; READ therefore means a write lease being downgraded.
        b"READ" if !breaking => LeaseMode::Read,
        b"WRITE" => LeaseMode::Write,
        b"READ" | b"UNLCK" if breaking => LeaseMode::Write,
        _ => return None,
    };
    let pid = u32::try_from(bounded::decimal(words.next()?)?.0).ok()?;
    let (major, rest) = bounded::hex(words.next()?)?;
    let (minor, rest) = bounded::hex(rest.strip_prefix(b":")?)?;
    let ino = bounded::decimal(rest.strip_prefix(b":")?)?.0;
    let dev = u32::try_from(major << 20 | minor & 0xf_ffff).ok()?;
    Some(Lock { kind, mode, breaking, pid, dev, ino })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"5: LEASE  ACTIVE    WRITE 812 fd:01:131 0 EOF";

    #[test]
    fn lines() {
        let lock = parse(LINE).unwrap();
        assert_eq!((lock.kind, lock.mode, lock.breaking), (LeaseKind::Lease, LeaseMode::Write, false));
        assert_eq!((lock.pid, lock.dev, lock.ino), (812, 253 << 20 | 1, 131));
        let deleg = parse(b"1: DELEG  BREAKING  READ 77 00:1b:9 0 EOF").unwrap();
        assert_eq!((deleg.kind, deleg.mode, deleg.breaking), (LeaseKind::Delegation, LeaseMode::Write, true));
        for other in [
            &b"2: POSIX  ADVISORY  WRITE 812 fd:01:131 0 EOF"[..],
            b"1: -> LEASE  BREAKER   WRITE 812 fd:01:131 0 EOF",
            b"1: LEASE  ACTIVE    UNLCK 812 fd:01:131 0 EOF",
            b"",
        ] {
            assert_eq!(parse(other), None);
        }
    }

    #[test]
    fn what_comes_or_goes_meanwhile_is_left_out() {
        let lock = parse(LINE).unwrap();
        let breaking = Lock { breaking: true, ..lock.clone() };
        let other = Lock { ino: 9, ..lock.clone() };
        let left = both(vec![lock.clone(), other.clone()], vec![breaking.clone(), Lock { pid: 1, ..other }]);
        assert_eq!(left, [breaking]);
        assert!(both(vec![], vec![lock]).is_empty());
    }

    #[test]
    fn cut_lines_are_no_panic() {
        for end in 0..LINE.len() {
            let _ = parse(&LINE[..end]);
        }
    }
}
