//! Files of pins: from the kernel's records to the model's files, and whether each still has its name.

use rustc_hash::FxHashMap as HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pinwatch_common::{FileKey, FileRecord, LongPath, PinRecord, S_DAX, magic, path_flag};

use super::lookup::Lookup;
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
    /// Asks the file systems.
    pub lookup: Lookup,
}

impl FileStates {
    /// Forgets what is only true for a moment.
    fn refresh(&mut self) {
        self.mounts = mount_points(Path::new("/proc/self"));
    }

    /// Whether a file's name is gone; `None` if that cannot be found out.
    ///
    /// The path is tried first, as we see it or as its creator does. If something else or nothing is there, the file may have
    /// been renamed, or its file system unmounted: the inode itself is asked for.
    fn deleted(
        &mut self,
        path: &[u8],
        (key, record): (&FileKey, &FileRecord),
        fstype: &str,
        creator: Option<u32>,
        programs: &mut Programs,
    ) -> Option<bool> {
        let eyes = creator.map(|pid| PathBuf::from(format!("/proc/{pid}")));
        let roots: Vec<PathBuf> =
            eyes.iter().map(|process| process.join("root")).chain([PathBuf::from("/")]).collect();
        if self.lookup.is_there(key, path, &roots)? {
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
            && self.lookup.is_there(key, &path, &roots)?
        {
            return Some(false);
        }
        self.lookup.links(mount, fstype, key).map(|links| links == 0)
    }
}

fn mount_points(process: &Path) -> HashMap<Device, PathBuf> {
    let mounts = mounts::of(process);
    mounts.into_iter().map(|mount| (mount.dev, PathBuf::from(OsStr::from_bytes(&mount.point)))).collect()
}
