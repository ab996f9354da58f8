//! What procfs and netlink know, without any privilege: registered io_uring buffers, RDMA memory regions, AF_XDP
//! umems. Root sees those of all users.
//!
//! Everything here races with the processes it looks at, and everything it reads may be hostile: all is bounded,
//! and what vanishes meanwhile is left out. What cannot be known is in [`Table::gaps`]. Why the crate procfs does not read it:
//! see `source::host`.

mod fdinfo;
mod files;
mod leases;
mod maps;
mod rdma;
mod same_file;
mod scan;
mod uring;
mod uverbs;
mod xdp;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use self::files::Files;
use self::scan::Scan;
use crate::model::{Gap, ProcessIndex, Table};
use crate::source::assemble::Assembler;
use crate::source::host::process::{self, Users};
use crate::source::host::{bounded, mounts};

/// What this source can never know; always part of [`Table::gaps`].
const BY_NATURE: [Gap; 2] = [Gap::ProcfsSubsystems, Gap::ProcfsMappedFiles];

/// What is gathered, and what all parts of this source need for it.
pub struct Collector {
    into: Assembler,
    files: Files,
    users: Users,
    processes: HashMap<u32, Option<ProcessIndex>>,
    gaps: Vec<Gap>,
    sequence: u64,
    page_size: u64,
    /// Version of the running kernel, major and minor.
    kernel: (u32, u32),
}

/// All pins that procfs and netlink show this user. An error only if there is no usable procfs.
pub fn table() -> io::Result<Table> {
    let release = rustix::system::uname();
    let mut cx = Collector {
        into: Assembler::default(),
        files: Files::new(),
        users: Users::default(),
        processes: HashMap::new(),
        gaps: BY_NATURE.to_vec(),
        sequence: 0,
        page_size: rustix::param::page_size() as u64,
        kernel: version(release.release().to_bytes()),
    };
    let umems = xdp::umems(&mut cx);
    let wanted = xdp::sockets(&umems);
    let scan = Scan::run(&wanted)?;
    uring::collect(&scan, &mut cx);
    rdma::collect(&scan, &mut cx);
    xdp::collect(&umems, &scan, &mut cx);
    cx.not_allowed(&scan);
    let leases = leases::find(&mut cx);
    let mut into = cx.into;
    cx.gaps.into_iter().for_each(|gap| into.add_gap(gap));
    into.set_files(cx.files.into_files());
    if let Some(leases) = leases {
        let seen = leases::observe(leases, cx.kernel, into.rows());
        into.apply_leases(seen);
    }
    Ok(into.finish())
}

impl Collector {
    /// A number for the next pin.
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The place of a process in the table; `None` once it is gone.
    fn process(&mut self, pid: u32) -> Option<ProcessIndex> {
        let Self { into, users, .. } = self;
        let add = || Some(into.add_process(process::describe(pid, users)?));
        *self.processes.entry(pid).or_insert_with(add)
    }

    /// How many base pages a range of bytes touches.
    fn pages(&self, address: u64, length: u64) -> u64 {
        match address.saturating_add(length).checked_sub(1) {
            Some(last) if length > 0 => last / self.page_size - address / self.page_size + 1,
            _ => 0,
        }
    }

    /// Says whose processes could not be read.
    fn not_allowed(&mut self, scan: &Scan) {
        let root = rustix::process::geteuid().is_root();
        let hidden = |m: &mounts::Mount| {
            m.point == b"/proc"
                && m.fstype == "proc"
                && contains(&m.options, b"hidepid=")
                && !contains(&m.options, b"hidepid=0")
        };
        let hides = !root && mounts::of(Path::new("/proc/self")).iter().any(hidden);
        self.gaps.extend(unreadable(scan.denied as u64, root, hides));
    }
}

/// The gaps that come of processes that could not be read, or not even be seen.
fn unreadable(denied: u64, root: bool, hides: bool) -> impl Iterator<Item = Gap> {
    let denied = (denied > 0).then_some(Gap::ProcessesDenied { processes: denied, root });
    denied.into_iter().chain(hides.then_some(Gap::ProcessesHidden))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w == part)
}

/// The first two numbers of a kernel's release; zeros if there are none.
fn version(release: &[u8]) -> (u32, u32) {
    let number = |text| bounded::decimal(text).and_then(|(n, rest)| Some((u32::try_from(n).ok()?, rest)));
    let Some((major, rest)) = number(release) else { return (0, 0) };
    let minor = rest.strip_prefix(b".").and_then(number).map_or(0, |(n, _)| n);
    (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GapCode;

    #[test]
    fn releases() {
        assert_eq!(version(b"6.12.107-deb13"), (6, 12));
        assert_eq!(version(b"7.3-rc7"), (7, 3));
        assert_eq!((version(b""), version(b"x"), version(b"7")), ((0, 0), (0, 0), (7, 0)));
    }

    #[test]
    fn this_machine_gives_a_table_that_says_what_it_lacks() {
        let table = table().unwrap();
        let codes: Vec<GapCode> = table.gaps.iter().map(Gap::code).collect();
        assert!(codes.starts_with(&[GapCode::ProcfsSubsystems, GapCode::ProcfsMappedFiles]), "{codes:?}");
        assert!(codes.iter().all(|code| code.is_of_procfs()), "{codes:?}");
    }

    #[test]
    fn processes_that_cannot_be_read_are_counted() {
        let gaps = |denied, root, hides| unreadable(denied, root, hides).collect::<Vec<_>>();
        assert_eq!(gaps(0, false, false), []);
        assert_eq!(gaps(3, false, false), [Gap::ProcessesDenied { processes: 3, root: false }]);
        assert_eq!(gaps(1, true, false), [Gap::ProcessesDenied { processes: 1, root: true }]);
        assert_eq!(gaps(0, false, true), [Gap::ProcessesHidden]);
    }
}
