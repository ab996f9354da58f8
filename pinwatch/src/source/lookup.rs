//! Queries of file systems, any of which may hang: of one whose server is gone, or one that runs in user space. Each query
//! times out, and a file system that has not answered one is not queried again until it has.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pinwatch_common::FileKey;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};

use super::blocking::TimedWorker;
use super::file_records::nameless;
use super::host::open_file::OpenFile;
use crate::kernel::sys::{self, FileHandle};
use crate::model::{Device, File, FileId};

/// How long a query may take. A disk that has to spin up takes longer, and answers the next time.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many queries may hang, each with a thread that waits for it, before no further one is made.
const MOST_HUNG: usize = 4;
/// So many descriptors of a process are looked through.
const DESCRIPTORS: usize = 1024;

/// What a query may hang on: while one does, no other is made to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A file system.
    Device(Device),
    /// All that a process has open.
    Descriptors(u32),
}

/// Queries file systems.
pub struct Lookup {
    worker: TimedWorker,
    /// What hangs.
    hung: Vec<(Target, TimedWorker)>,
    unanswered: usize,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { worker: thread(), hung: Vec::new(), unanswered: 0 }
    }
}

fn thread() -> TimedWorker {
    TimedWorker::new("pinwatch-files")
}

impl Lookup {
    /// How many queries had no answer since this was last called.
    pub fn unanswered(&mut self) -> usize {
        std::mem::take(&mut self.unanswered)
    }

    /// Whether the file is at a path, as seen from one of these roots. `None` if the file system does not answer.
    pub fn is_there(&mut self, key: &FileKey, path: &[u8], roots: &[PathBuf]) -> Option<bool> {
        if is_at_hand(path, key) {
            return Some(true);
        }
        let (key, path, roots) = (*key, path.to_vec(), roots.to_vec());
        self.query(device_of(&key), move || roots.iter().any(|root| is_at(root, &path, &key)))
    }

    /// How many names a file still has: 0 if it is gone; `None` if its type is not known or it does not answer.
    pub fn links(&mut self, mount: PathBuf, fstype: &str, key: &FileKey) -> Option<u64> {
        let (key, handle) = (*key, handle(fstype, key)?);
        self.query(device_of(&key), move || links(&mount, handle, &key))?
    }

    /// A file that a process has open, by its descriptor.
    pub fn behind(&mut self, pid: u32, fd: u32, id: FileId) -> Option<OpenFile> {
        let link = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
        // If it was closed meanwhile, the number may be another file's.
        self.query(Target::Device(id.dev), move || {
            OpenFile::at(&link).filter(|file| file.stat.st_ino == id.ino)
        })?
    }

    /// A file that a process has open, by which one it is.
    pub fn opened(&mut self, pid: u32, key: &FileKey) -> Option<File> {
        if pid == 0 {
            return None;
        }
        let (ino, dev) = (key.ino, Device::from_kernel(key.dev));
        // Where stat shows another device than the kernel has (btrfs, overlayfs) a file is not found here.
        let is_it =
            move |file: &OpenFile| file.stat.st_ino == ino && Device::from_user(file.stat.st_dev) == dev;
        let found = self.query(Target::Descriptors(pid), move || {
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().take(DESCRIPTORS);
            fds.filter_map(|fd| OpenFile::at(&fd.path())).find(is_it)
        });
        let OpenFile { path, deleted, .. } = found??;
        Some(File { path, path_complete: true, deleted: Some(deleted), ..nameless(key) })
    }

    fn query<T: Send + 'static>(
        &mut self,
        target: Target,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.hung.retain_mut(|(_, worker)| worker.is_hung());
        let would_hang = self.hung.len() == MOST_HUNG || self.hung.iter().any(|(hung, _)| *hung == target);
        let answer = if would_hang { None } else { self.worker.call_timeout(call, PATIENCE) };
        if self.worker.is_hung() {
            self.hung.push((target, std::mem::replace(&mut self.worker, thread())));
        }
        self.unanswered += usize::from(answer.is_none());
        answer
    }
}

fn device_of(key: &FileKey) -> Target {
    Target::Device(Device::from_kernel(key.dev))
}

/// Whether the file is at a path as we see it, and the kernel knows that without asking the file system. Most are.
fn is_at_hand(path: &[u8], key: &FileKey) -> bool {
    if !path.starts_with(b"/") {
        return false;
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(CWD, OsStr::from_bytes(path), flags, Mode::empty(), ResolveFlags::CACHED);
    let stat = file.and_then(|file| {
        rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::INO)
    });
    stat.is_ok_and(|stat| stat.stx_ino == key.ino)
}

/// Whether the file is where it was, seen from `root`.
fn is_at(root: &Path, path: &[u8], key: &FileKey) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(root, flags, Mode::empty()) else { return false };
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    let Ok(stat) = rustix::fs::statat(&root, OsStr::from_bytes(relative), AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    // On btrfs and overlayfs stat's device is not the kernel's (docs/kernel-notes.md, Files and devices), so the inode number
    // alone decides.
    stat.st_ino == key.ino
}

/// A file's handle; `None` if this is not known of the file system.
fn handle(fstype: &str, key: &FileKey) -> Option<FileHandle> {
    let (low, high) = (key.ino as u32, (key.ino >> 32) as u32);
    match fstype {
        // FILEID_INO32_GEN (include/linux/exportfs.h): inode number, generation.
        "ext2" | "ext3" | "ext4" | "f2fs" => FileHandle::new(1, &[low, key.generation]),
        "xfs" if high == 0 => FileHandle::new(1, &[low, key.generation]),
        // 64-bit inode number, generation: XFS_FILEID_TYPE_64FLAG (fs/xfs/xfs_export.h).
        "xfs" => FileHandle::new(0x81, &[low, high, key.generation]),
        // Generation, inode number (shmem_encode_fh, mm/shmem.c).
        "tmpfs" => FileHandle::new(1, &[key.generation, low, high]),
        _ => None,
    }
}

fn links(mount: &Path, handle: FileHandle, key: &FileKey) -> Option<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mount = rustix::fs::open(mount, flags, Mode::empty()).ok()?;
    let file = match sys::open_by_handle(mount, handle) {
        Ok(file) => file,
        Err(error) => return (error.raw_os_error() == Some(libc::ESTALE)).then_some(0),
    };
    let stat = rustix::fs::fstat(&file).ok()?;
    (stat.st_ino == key.ino).then_some(stat.st_nlink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_hangs_is_not_queried_again_and_others_are() {
        let (let_go, waits) = std::sync::mpsc::channel::<()>();
        let mut lookup = Lookup::default();
        assert_eq!(lookup.query(Target::Descriptors(1), move || waits.recv().is_ok()), None);
        assert_eq!(lookup.query(Target::Descriptors(1), || true), None);
        assert_eq!(lookup.query(Target::Descriptors(2), || true), Some(true));
        assert_eq!((lookup.unanswered(), lookup.unanswered()), (2, 0));
        drop(let_go);
        let again =
            std::iter::repeat_with(|| lookup.query(Target::Descriptors(1), || true)).find(Option::is_some);
        assert_eq!((again, lookup.hung.len()), (Some(Some(true)), 0));
    }

    #[test]
    fn only_so_many_queries_may_hang() {
        let mut lookup = Lookup::default();
        let owing: Vec<_> = (0..MOST_HUNG as u32)
            .map(|pid| {
                let (let_go, waits) = std::sync::mpsc::channel::<()>();
                assert_eq!(lookup.query(Target::Descriptors(pid), move || waits.recv().is_ok()), None);
                let_go
            })
            .collect();
        assert_eq!(lookup.query(Target::Descriptors(99), || true), None);
        assert_eq!(lookup.unanswered(), MOST_HUNG + 1);
        drop(owing);
        assert!(
            std::iter::repeat_with(|| lookup.query(Target::Descriptors(99), || true))
                .any(|answer| answer.is_some())
        );
    }

    #[test]
    fn our_own_file_is_found_at_its_path() {
        let path = std::env::current_exe().unwrap();
        let stat = rustix::fs::stat(&path).unwrap();
        let (dev, ino) = (0, stat.st_ino);
        let mut lookup = Lookup::default();
        let bytes = path.as_os_str().as_bytes();
        let there = |lookup: &mut Lookup, ino| {
            lookup.is_there(&FileKey { dev, ino, ..Default::default() }, bytes, &[PathBuf::from("/")])
        };
        assert_eq!(there(&mut lookup, ino), Some(true));
        assert_eq!(there(&mut lookup, ino + 1), Some(false));
        assert!(is_at(Path::new("/"), bytes, &FileKey { dev, ino, ..Default::default() }));
        let missing = FileKey { dev, ino, ..Default::default() };
        assert_eq!(lookup.is_there(&missing, b"/nowhere/to/be/found", &[PathBuf::from("/")]), Some(false));
    }
}
