//! What is gathered of procfs and netlink, and what all parts of this source need for it.

use std::collections::HashMap;
use std::path::Path;

use super::files::Files;
use crate::model::{Gap, ProcessIndex};
use crate::source::assemble::Assembler;
use crate::source::host::process::{self, Users};
use crate::source::host::{bounded, mounts};

/// What is gathered, and what all parts of this source need for it.
pub struct Collector {
    /// What was observed.
    pub into: Assembler,
    /// The files met so far.
    pub files: Files,
    users: Users,
    processes: HashMap<u32, Option<ProcessIndex>>,
    /// What could not be seen.
    pub gaps: Vec<Gap>,
    sequence: u64,
    page_size: u64,
    /// Version of the running kernel, major and minor.
    pub kernel: (u32, u32),
}

impl Collector {
    /// Nothing is gathered yet. `gaps`: what can never be seen.
    pub fn new(gaps: &[Gap]) -> Self {
        let release = rustix::system::uname();
        Self {
            into: Assembler::default(),
            files: Files::new(),
            users: Users::default(),
            processes: HashMap::new(),
            gaps: gaps.to_vec(),
            sequence: 0,
            page_size: rustix::param::page_size() as u64,
            kernel: version(release.release().to_bytes()),
        }
    }

    /// All that was gathered.
    pub fn finish(self) -> Assembler {
        let mut into = self.into;
        self.gaps.into_iter().for_each(|gap| into.add_gap(gap));
        into.set_files(self.files.into_files());
        into
    }

    /// A number for the next pin.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The row of a process in the table; `None` once it is gone.
    pub fn process(&mut self, pid: u32) -> Option<ProcessIndex> {
        let Self { into, users, .. } = self;
        let add = || Some(into.add_process(process::describe(pid, users)?));
        *self.processes.entry(pid).or_insert_with(add)
    }

    /// How many base pages a range of bytes touches.
    pub fn pages(&self, address: u64, length: u64) -> u64 {
        match address.saturating_add(length).checked_sub(1) {
            Some(last) if length > 0 => last / self.page_size - address / self.page_size + 1,
            _ => 0,
        }
    }

    /// Adds the gaps that come of processes which this user may not read, or not even see.
    pub fn add_unreadable(&mut self, denied: u64) {
        let root = rustix::process::geteuid().is_root();
        let hidden = |m: &mounts::Mount| {
            m.point == b"/proc"
                && m.fstype == "proc"
                && contains(&m.options, b"hidepid=")
                && !contains(&m.options, b"hidepid=0")
        };
        let hides = !root && mounts::of(Path::new("/proc/self")).iter().any(hidden);
        self.gaps.extend(unreadable(denied, root, hides));
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

    #[test]
    fn releases() {
        assert_eq!(version(b"6.12.107-deb13"), (6, 12));
        assert_eq!(version(b"7.3-rc7"), (7, 3));
        assert_eq!((version(b""), version(b"x"), version(b"7")), ((0, 0), (0, 0), (7, 0)));
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
