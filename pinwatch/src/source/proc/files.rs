//! From a mapping to what its pages belong to: backing, file, file system.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, MemfdFlags};

use super::maps::Mapping;
use crate::model::{Backing, Device, File, FileId, FileIndex, Name};
use crate::source::host::mounts;
use crate::source::host::open_file::DELETED;

/// File systems whose shared pages io_uring has never pinned: EOPNOTSUPP up to 6.1, EFAULT since (docs/kernel-notes.md, What can
/// be pinned where).
const NEVER_BY_IO_URING: [&str; 6] = ["btrfs", "ext2", "ext3", "ext4", "f2fs", "xfs"];

/// Magic numbers of `statfs` (include/uapi/linux/magic.h) for file systems that are mounted nowhere to be seen.
const MAGIC: [(u32, &str); 7] = [
    (0x0102_1994, "tmpfs"),
    (0x9584_58f6, "hugetlbfs"),
    (0x0000_ef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x794c_7630, "overlay"),
    (0x0000_6969, "nfs"),
];

/// What a mapping's backing depends on: device, inode, whether shared, name.
type Key = (Device, u64, bool, Vec<u8>);

/// The files met so far, and the file systems they are on.
pub struct Files {
    /// The device of memfds and shared anonymous memory, which is mounted nowhere.
    shm: Option<Device>,
    fstypes: HashMap<Device, String>,
    known: HashMap<Key, (Backing, Option<FileIndex>)>,
    files: Vec<File>,
}

impl Files {
    /// Learns which devices are which on this kernel, without any privilege: a memfd of one's own shows the device of
    /// all others.
    pub fn new() -> Self {
        let shm = memfd_device(MemfdFlags::empty());
        let mut fstypes: HashMap<Device, String> = shm.into_iter().map(|d| (d, "tmpfs".to_owned())).collect();
        let sizes = [MemfdFlags::empty(), MemfdFlags::HUGE_2MB, MemfdFlags::HUGE_1GB, MemfdFlags::HUGE_64KB];
        for size in
            sizes.into_iter().chain([MemfdFlags::HUGE_16MB, MemfdFlags::HUGE_32MB, MemfdFlags::HUGE_512MB])
        {
            if let Some(dev) = memfd_device(MemfdFlags::HUGETLB | size) {
                fstypes.insert(dev, "hugetlbfs".to_owned());
            }
        }
        let mut files = Self { shm, fstypes, known: HashMap::new(), files: Vec::new() };
        files.learn(Path::new("/proc/self"));
        files
    }

    /// The files, in the order of their indices.
    pub fn into_files(self) -> Vec<File> {
        self.files
    }

    /// What the pages of a mapping belong to. `dir` is the process's directory in procfs.
    pub fn backing(&mut self, dir: &Path, mapping: &Mapping) -> (Backing, Option<FileIndex>) {
        if mapping.ino == 0 {
            return (Backing::Anon, None);
        }
        let key = (mapping.dev, mapping.ino, mapping.shared, mapping.name.clone());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let fstype = self.fstype(dir, mapping);
        let backing = match fstype.as_str() {
            "hugetlbfs" => Backing::Hugetlb,
            _ if !mapping.shared => Backing::Anon,
            "tmpfs" | "devtmpfs" if self.shm == Some(mapping.dev) => Backing::Shmem,
            "tmpfs" | "devtmpfs" => device_node(dir, mapping).unwrap_or(Backing::Shmem),
            _ if !mapping.name.starts_with(b"/") => Backing::Device,
            _ => device_node(dir, mapping).unwrap_or(Backing::File),
        };
        // A private mapping is pinned for writing, so its pages are copies and no longer the file's.
        let file = mapping.shared.then(|| {
            self.files.push(file(dir, mapping, fstype));
            FileIndex((self.files.len() - 1) as u32)
        });
        self.known.insert(key, (backing, file));
        (backing, file)
    }

    /// Whether io_uring can have pinned pages of this file; if not, something else was mapped there at the time.
    pub fn possible_for_io_uring(&self, backing: Backing, file: Option<FileIndex>) -> bool {
        let fstype = file.and_then(|f| self.files.get(f.0 as usize)).map_or("", |f| f.fstype.as_str());
        backing != Backing::File || !NEVER_BY_IO_URING.contains(&fstype)
    }

    fn learn(&mut self, dir: &Path) {
        for mount in mounts::of(dir) {
            self.fstypes.entry(mount.dev).or_insert(mount.fstype);
        }
    }

    /// The type of the file system that a mapping is of; empty if it cannot be found out.
    fn fstype(&mut self, dir: &Path, mapping: &Mapping) -> String {
        if !self.fstypes.contains_key(&mapping.dev) {
            self.learn(dir);
        }
        if let Some(fstype) = self.fstypes.get(&mapping.dev) {
            return fstype.clone();
        }
        // Unmounted lazily, or of a namespace that is gone; root may look through the mapping itself.
        let magic = rustix::fs::statfs(map_file(dir, mapping)).ok().map(|s| s.f_type as u32);
        let known = MAGIC.iter().find(|(m, _)| Some(*m) == magic);
        known.map(|(_, name)| (*name).to_owned()).unwrap_or_default()
    }
}

/// The device that files made by `memfd_create` with these flags live on.
fn memfd_device(flags: MemfdFlags) -> Option<Device> {
    // Since 6.3 the kernel warns in its log about a memfd that does not say whether it may be executed; older ones
    // refuse the flag.
    let create = |flags| rustix::fs::memfd_create("lspins", flags | MemfdFlags::CLOEXEC);
    let fd = create(flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| create(flags)).ok()?;
    Some(Device::from_user(rustix::fs::fstat(&fd).ok()?.st_dev))
}

/// The link to a mapped file in procfs.
fn map_file(dir: &Path, mapping: &Mapping) -> PathBuf {
    dir.join(format!("map_files/{:x}-{:x}", mapping.start, mapping.end))
}

/// Where a name leads in the process's own file system tree.
fn inside(dir: &Path, name: &[u8]) -> PathBuf {
    let mut path = dir.join("root").into_os_string();
    path.push(std::ffi::OsStr::from_bytes(name));
    path.into()
}

/// For a mapped character device, what its memory is; `None` if it is no device.
fn device_node(dir: &Path, mapping: &Mapping) -> Option<Backing> {
    if !mapping.name.starts_with(b"/dev/") {
        return None;
    }
    let stat = rustix::fs::lstat(inside(dir, &mapping.name)).ok()?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !character || stat.st_ino != mapping.ino {
        return None;
    }
    Some(if mapping.name.starts_with(b"/dev/dax") { Backing::Devdax } else { Backing::Device })
}

fn file(dir: &Path, mapping: &Mapping, fstype: String) -> File {
    let mut name = mapping.name.clone();
    // The kernel writes a newline as \012 and escapes nothing else, so that a name may really have a \012 in it; the
    // link has the name as it is.
    if name.windows(4).any(|w| w == b"\\012")
        && let Ok(link) = rustix::fs::readlink(map_file(dir, mapping), Vec::new())
    {
        name = link.into_bytes();
    }
    let id = FileId { dev: mapping.dev, ino: mapping.ino, generation: None };
    let (path, deleted) =
        split_deleted(name, |n| rustix::fs::lstat(inside(dir, n)).is_ok_and(|s| s.st_ino == mapping.ino));
    File { id, path: Name::from(path), path_complete: true, fstype, deleted: Some(deleted), dax: false }
}

/// Takes the mark of a deleted file off a name, unless `exists` finds the very file under the name with the mark:
/// anyone may call a file `x (deleted)`.
fn split_deleted(mut name: Vec<u8>, exists: impl FnOnce(&[u8]) -> bool) -> (Vec<u8>, bool) {
    if !name.ends_with(DELETED) || exists(&name) {
        return (name, false);
    }
    name.truncate(name.len() - DELETED.len());
    (name, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_deleted_file() {
        assert_eq!(split_deleted(b"/a (deleted)".to_vec(), |_| false), (b"/a".to_vec(), true));
        assert_eq!(split_deleted(b"/a (deleted)".to_vec(), |_| true), (b"/a (deleted)".to_vec(), false));
        assert_eq!(split_deleted(b"/a".to_vec(), |_| false), (b"/a".to_vec(), false));
    }

    #[test]
    fn memfds_are_shmem_and_private_mappings_anonymous() {
        let mut files = Files::new();
        let dev = files.shm.unwrap();
        let own = Path::new("/proc/self");
        let memfd = Mapping {
            start: 0,
            end: 4096,
            shared: true,
            offset: 0,
            dev,
            ino: 5,
            name: b"/memfd:x (deleted)".to_vec(),
        };
        let (backing, file) = files.backing(own, &memfd);
        assert_eq!((backing, file), (Backing::Shmem, Some(FileIndex(0))));
        assert_eq!(files.backing(own, &memfd).1, Some(FileIndex(0)));
        assert_eq!(files.backing(own, &Mapping { shared: false, ..memfd.clone() }), (Backing::Anon, None));
        assert_eq!(files.backing(own, &Mapping { ino: 0, ..memfd }), (Backing::Anon, None));
        let files = files.into_files();
        assert_eq!((files[0].path.text().as_ref(), files[0].deleted), ("/memfd:x", Some(true)));
        assert_eq!(files[0].fstype, "tmpfs");
    }
}
