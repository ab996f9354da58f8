//! Files of pins: from the kernel's records to the model's files, and whether each still has its name.

use rustc_hash::FxHashMap as HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pinwatch_common::{FileKey, FileRecord, LongPath, PinRecord, S_DAX, magic, path_flag};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::names;
use crate::kernel::bpf::Programs;
use crate::model::{Backing, Device, File, FileId, FileIndex, Name};
use crate::source::proc::mounts;

/// A character device that can be mapped and pinned as memory is device-dax; all others map `VM_IO`, which GUP refuses.
const S_IFMT: u32 = 0o170_000;
const S_IFCHR: u32 = 0o020_000;

/// The files of one table.
pub struct Files<'a> {
    records: &'a HashMap<FileKey, FileRecord>,
    long_paths: &'a HashMap<FileKey, LongPath>,
    keys: Vec<FileKey>,
    places: HashMap<FileKey, (Backing, FileIndex)>,
}

impl<'a> Files<'a> {
    pub fn new(
        records: &'a HashMap<FileKey, FileRecord>,
        long_paths: &'a HashMap<FileKey, LongPath>,
    ) -> Self {
        Self { records, long_paths, keys: Vec::new(), places: HashMap::default() }
    }

    /// The place of a file in the table, and what kind of memory its pages are.
    pub fn of(&mut self, key: &FileKey) -> (Backing, FileIndex) {
        *self.places.entry(*key).or_insert_with(|| {
            self.keys.push(*key);
            let backing = self.records.get(key).map_or(Backing::File, backing);
            (backing, FileIndex((self.keys.len() - 1) as u32))
        })
    }

    /// The keys of the files so far, by device and inode number.
    pub fn by_number(&self) -> HashMap<(u32, u64), FileKey> {
        self.keys.iter().map(|key| ((key.dev, key.ino), *key)).collect()
    }

    /// All files, in the order of their places.
    pub fn into_files(
        self,
        pins: &[(u64, PinRecord)],
        states: &mut FileStates,
        programs: &mut Programs,
    ) -> Vec<File> {
        states.refresh();
        // One creator for each file is enough to look through its eyes.
        let mut creators: HashMap<FileKey, u32> = HashMap::default();
        for (_, pin) in pins {
            creators.entry(pin.first.file).or_insert((pin.pid_tgid >> 32) as u32);
        }
        self.keys
            .iter()
            .map(|key| {
                let Some(record) = self.records.get(key) else { return nameless(key) };
                let file = named(key, record, self.long_paths.get(key));
                let deleted = if record.flags & path_flag::DETACHED != 0 {
                    // It never had a name that could go: a memfd, shared anonymous memory.
                    Some(false)
                } else if file.path_complete {
                    let creator = creators.get(key).copied();
                    states.deleted(file.path.as_bytes(), (key, record), &file.fstype, creator, programs)
                } else {
                    None
                };
                File { deleted, ..file }
            })
            .collect()
    }
}

/// A file of which nothing but its identity is known.
pub fn nameless(key: &FileKey) -> File {
    let id = FileId { dev: Device::from_kernel(key.dev), ino: key.ino, generation: Some(key.generation) };
    File { id, path: Name::default(), path_complete: false, fstype: String::new(), deleted: None, dax: false }
}

/// A file as its record has it; whether it still has its name is not looked at.
pub fn named(key: &FileKey, record: &FileRecord, long: Option<&LongPath>) -> File {
    let (path, path_complete) = names::path(record, long);
    File {
        path: Name::from(path),
        path_complete,
        fstype: String::from_utf8_lossy(names::until_nul(&record.fstype)).into_owned(),
        dax: record.mode >> 16 & S_DAX != 0,
        ..nameless(key)
    }
}

fn backing(record: &FileRecord) -> Backing {
    if record.mode & S_IFMT == S_IFCHR {
        return Backing::Devdax;
    }
    match record.magic {
        magic::TMPFS | magic::RAMFS => Backing::Shmem,
        magic::HUGETLBFS => Backing::Hugetlb,
        _ => Backing::File,
    }
}

/// Finds out whether files still have a name. It is asked at the moment of listing: a file may be unlinked long after it
/// was pinned, and nothing on that path is hooked.
#[derive(Default)]
pub struct FileStates {
    /// Mount points by device, in our own mount namespace.
    mounts: HashMap<Device, PathBuf>,
}

impl FileStates {
    /// Forgets what is only true for a moment.
    fn refresh(&mut self) {
        self.mounts = mount_points(Path::new("/proc/self"));
    }

    /// Whether a file's name is gone; `None` if that cannot be found out.
    ///
    /// The path is tried first, as its creator sees it or, when that is gone, as we do. If something else or nothing is
    /// there, the file may have been renamed, or its file system unmounted: the inode itself is asked for.
    fn deleted(
        &self,
        path: &[u8],
        (key, record): (&FileKey, &FileRecord),
        fstype: &str,
        creator: Option<u32>,
        programs: &mut Programs,
    ) -> Option<bool> {
        let eyes = creator.map(|pid| PathBuf::from(format!("/proc/{pid}")));
        let views: Vec<PathBuf> =
            eyes.iter().map(|process| process.join("root")).chain([PathBuf::from("/")]).collect();
        let there = |path: &[u8]| views.iter().any(|root| is_at(root, path, key));
        if there(path) {
            return Some(false);
        }
        let dev = Device::from_kernel(key.dev);
        let theirs = || {
            let process = eyes.as_ref()?;
            let mount = mount_points(process).remove(&dev)?;
            Some(process.join("root").join(mount.strip_prefix("/").unwrap_or(&mount)))
        };
        let mount = self.mounts.get(&dev).cloned().or_else(theirs)?;
        // Renamed: the dentry has another name now. (tmpfs finds no inode by its handle, so that this is the only way.)
        if let Some((again, long)) = programs.look_again(record)
            && let (path, true) = names::path(&again, long.as_ref())
            && there(&path)
        {
            return Some(false);
        }
        links(&mount, fstype, key).map(|links| links == 0)
    }
}

fn mount_points(process: &Path) -> HashMap<Device, PathBuf> {
    let mounts = mounts::of(process);
    mounts.into_iter().map(|mount| (mount.dev, PathBuf::from(OsStr::from_bytes(&mount.point)))).collect()
}

/// Whether the file is where it was, seen from `root`.
fn is_at(root: &Path, path: &[u8], key: &FileKey) -> bool {
    let Ok(root) = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    else {
        return false;
    };
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    let Ok(stat) = rustix::fs::statat(&root, OsStr::from_bytes(relative), AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    // stat's device is not the kernel's on btrfs and overlayfs (KERNEL.md, section 6): there the inode number decides.
    stat.st_ino == key.ino
}

/// How many names the inode still has: 0 if it is gone; `None` if the file system cannot be asked.
fn links(mount: &Path, fstype: &str, key: &FileKey) -> Option<u64> {
    let (kind, words): (i32, Vec<u32>) = match fstype {
        // FILEID_INO32_GEN (include/linux/exportfs.h): inode number, generation.
        "ext2" | "ext3" | "ext4" | "f2fs" => (1, vec![key.ino as u32, key.generation]),
        "xfs" if key.ino <= u64::from(u32::MAX) => (1, vec![key.ino as u32, key.generation]),
        // 64-bit inode number, generation: XFS_FILEID_TYPE_64FLAG (fs/xfs/xfs_export.h).
        "xfs" => (0x81, vec![key.ino as u32, (key.ino >> 32) as u32, key.generation]),
        // Generation, inode number (shmem_encode_fh, mm/shmem.c).
        "tmpfs" => (1, vec![key.generation, key.ino as u32, (key.ino >> 32) as u32]),
        _ => return None,
    };
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        words: [u32; 4],
    }
    let mut handle = Handle { bytes: words.len() as u32 * 4, kind, words: [0; 4] };
    for (to, from) in handle.words.iter_mut().zip(words) {
        *to = from;
    }
    let mount =
        rustix::fs::open(mount, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // SAFETY: a whole `struct file_handle` with as many bytes behind it as it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return (error.raw_os_error() == Some(libc::ESTALE)).then_some(0);
    }
    // SAFETY: a descriptor that the kernel has just given us.
    let file = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let stat = rustix::fs::fstat(&file).ok()?;
    (stat.st_ino == key.ino).then_some(stat.st_nlink)
}
