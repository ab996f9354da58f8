//! One pass over all processes: who has a ring or an AF_XDP socket open or mapped.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::maps;
use crate::model::Device;
use crate::source::host::{bounded, process};

/// An anchor that a process has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The process.
    pub pid: u32,
    /// Address of the mapping.
    pub address: u64,
    /// Inode number of the anchor.
    pub ino: u64,
}

/// A descriptor of an RDMA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UverbsFd {
    /// The process.
    pub pid: u32,
    /// Its number.
    pub fd: u32,
    /// The device itself.
    pub device: Device,
    /// The device's node: file system and inode number, by which mappings name it.
    pub node: (Device, u64),
}

/// A mapping of what is called like an RDMA device's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UverbsMap {
    /// The process.
    pub pid: u32,
    /// Address of the mapping.
    pub address: u64,
    /// File system and inode number.
    pub node: (Device, u64),
}

/// What the pass found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Descriptors of rings: process and number.
    pub rings: Vec<(u32, u32)>,
    /// Mappings of rings.
    pub ring_maps: Vec<Anchor>,
    /// Descriptors of the wanted sockets, by inode number: process and number.
    pub sockets: HashMap<u64, Vec<(u32, u32)>>,
    /// Mappings of the wanted sockets.
    pub socket_maps: Vec<Anchor>,
    /// Descriptors of RDMA devices.
    pub uverbs: Vec<UverbsFd>,
    /// Mappings of RDMA devices.
    pub uverbs_maps: Vec<UverbsMap>,
    /// Processes that this user may not look into.
    pub denied: usize,
    targets: HashMap<u32, (PathBuf, u64)>,
}

impl Scan {
    /// Looks at all processes. `wanted` are inode numbers of sockets.
    pub fn run(wanted: &[u64]) -> io::Result<Self> {
        let mut scan = Self { sockets: wanted.iter().map(|i| (*i, Vec::new())).collect(), ..Self::default() };
        for pid in process::pids()? {
            let Some(stat) = process::stat(pid).filter(|s| !s.kernel) else { continue };
            let dir = process::directory(pid, &stat);
            let before = scan.found();
            let result = scan.descriptors(pid, &dir).and_then(|()| scan.mappings(pid, &dir));
            if result.is_err_and(|e| bounded::denied(&e)) {
                scan.denied += 1;
            }
            if scan.found() > before {
                scan.targets.insert(pid, (dir, stat.start));
            }
        }
        Ok(scan)
    }

    /// The directory in procfs of a process that was found to have something.
    pub fn dir(&self, pid: u32) -> Option<&Path> {
        self.targets.get(&pid).map(|(dir, _)| dir.as_path())
    }

    /// Start time of such a process, in ticks since boot.
    pub fn start(&self, pid: u32) -> Option<u64> {
        self.targets.get(&pid).map(|(_, start)| *start)
    }

    fn found(&self) -> usize {
        let sockets: usize = self.sockets.values().map(Vec::len).sum();
        let uverbs = self.uverbs.len() + self.uverbs_maps.len();
        self.rings.len() + self.ring_maps.len() + sockets + self.socket_maps.len() + uverbs
    }

    fn descriptors(&mut self, pid: u32, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir.join("fd"))? {
            let entry = entry?;
            let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            match rustix::fs::readlink(entry.path(), Vec::new()) {
                Ok(link) => match anchor(link.as_bytes()) {
                    Some(Kind::Ring) => self.rings.push((pid, fd)),
                    Some(Kind::Socket(ino)) => {
                        if let Some(fds) = self.sockets.get_mut(&ino) {
                            fds.push((pid, fd));
                        }
                    }
                    None if is_uverbs(link.as_bytes()) => {
                        // The name is only a name: what is open there has to be the device.
                        let found =
                            fs::metadata(entry.path()).ok().filter(|m| m.file_type().is_char_device());
                        self.uverbs.extend(found.map(|m| UverbsFd {
                            pid,
                            fd,
                            device: Device::from_user(m.rdev()),
                            node: (Device::from_user(m.dev()), m.ino()),
                        }));
                    }
                    None => {}
                },
                // Closed meanwhile.
                Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn mappings(&mut self, pid: u32, dir: &Path) -> io::Result<()> {
        let text = bounded::read(&dir.join("maps"))?;
        for line in text.split(|&b| b == b'\n') {
            // Cheap test first: few lines are of interest, and there may be very many.
            if !line.ends_with(b"]") && !is_uverbs(line) {
                continue;
            }
            let Some(mapping) = maps::parse_line(line) else { continue };
            let anchored = Anchor { pid, address: mapping.start, ino: mapping.ino };
            match anchor(&mapping.name) {
                Some(Kind::Ring) => self.ring_maps.push(anchored),
                Some(Kind::Socket(ino)) if self.sockets.contains_key(&ino) => self.socket_maps.push(anchored),
                None if is_uverbs(&mapping.name) => {
                    let node = (mapping.dev, mapping.ino);
                    self.uverbs_maps.push(UverbsMap { pid, address: mapping.start, node });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What keeps pins alive.
enum Kind {
    Ring,
    Socket(u64),
}

/// Whether a name ends like that of an RDMA device's node: `uverbs` and a number.
fn is_uverbs(name: &[u8]) -> bool {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && name[..name.len() - digits].ends_with(b"/uverbs")
}

/// What a link of `/proc/PID/fd`, or the name of a mapping, stands for. A path always starts with a slash, so that no
/// file can pretend to be one of these.
fn anchor(name: &[u8]) -> Option<Kind> {
    if name == b"anon_inode:[io_uring]" {
        return Some(Kind::Ring);
    }
    let (ino, rest) = bounded::decimal(name.strip_prefix(b"socket:[")?)?;
    (rest == b"]").then_some(Kind::Socket(ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_anchors_count() {
        assert!(matches!(anchor(b"anon_inode:[io_uring]"), Some(Kind::Ring)));
        assert!(matches!(anchor(b"socket:[12]"), Some(Kind::Socket(12))));
        for other in
            [&b"/anon_inode:[io_uring]"[..], b"socket:[12", b"socket:[x]", b"socket:[12]x", b"", b"pipe:[1]"]
        {
            assert!(anchor(other).is_none());
        }
    }

    #[test]
    fn names_of_rdma_devices() {
        for name in [&b"/dev/infiniband/uverbs0"[..], b"7f0-7f1 rw-s 0 00:06 9 /dev/infiniband/uverbs12"] {
            assert!(is_uverbs(name));
        }
        for other in [&b"/dev/infiniband/uverbs"[..], b"uverbs0", b"/uverbs0 (deleted)", b"0", b""] {
            assert!(!is_uverbs(other));
        }
    }

    #[test]
    fn a_scan_finds_this_process_alive() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let ino = rustix::fs::fstat(&socket).unwrap().st_ino;
        let scan = Scan::run(&[ino]).unwrap();
        assert_eq!(scan.sockets[&ino][0].0, std::process::id());
        assert!(scan.start(std::process::id()).is_some());
    }
}
