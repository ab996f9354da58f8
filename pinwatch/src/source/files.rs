//! Files of pins: from the kernel's records to the model's files, and whether each still has its name.

use rustc_hash::FxHashMap as HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pinwatch_common::{FileKey, FileRecord, LongPath, path_flag};

use super::file_records::{self, backing, named, nameless};
use super::host::mounts;
use super::lookup::Lookup;
use crate::kernel::bpf::Programs;
use crate::model::{Backing, Device, File, FileIndex};

/// The files of one table.
pub struct Files<'a> {
    records: &'a HashMap<FileKey, FileRecord>,
    long_paths: &'a HashMap<FileKey, LongPath>,
    keys: Vec<FileKey>,
    rows: HashMap<FileKey, (Backing, FileIndex)>,
}

impl<'a> Files<'a> {
    /// None yet. `records` and `long_paths`: what the kernel knows of them.
    pub fn new(
        records: &'a HashMap<FileKey, FileRecord>,
        long_paths: &'a HashMap<FileKey, LongPath>,
    ) -> Self {
        Self { records, long_paths, keys: Vec::new(), rows: HashMap::default() }
    }

    /// The row of a file in the table, which is made if it is new, and what kind of memory its pages are.
    pub fn intern(&mut self, key: &FileKey) -> (Backing, FileIndex) {
        *self.rows.entry(*key).or_insert_with(|| {
            self.keys.push(*key);
            let backing = self.records.get(key).map_or(Backing::File, backing);
            (backing, FileIndex((self.keys.len() - 1) as u32))
        })
    }

    /// The keys of the files so far, by device and inode number.
    pub fn by_number(&self) -> HashMap<(u32, u64), FileKey> {
        self.keys.iter().map(|key| ((key.dev, key.ino), *key)).collect()
    }

    /// All files, in the order of their rows. `makers`: files, and a process that has pinned each.
    pub fn into_rows(
        self,
        makers: impl Iterator<Item = (FileKey, u32)>,
        states: &mut FileStates,
        programs: &mut Programs,
    ) -> Vec<File> {
        states.refresh();
        // One for each file is enough to see its name as that process does.
        let mut creators: HashMap<FileKey, u32> = HashMap::default();
        for (file, pid) in makers {
            creators.entry(file).or_insert(pid);
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

/// Finds out whether files still have a name. That is done in each pass: a file may be unlinked long after it was pinned, and
/// nothing on that path is hooked.
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
    /// been renamed, or its file system unmounted: then the inode itself is looked up.
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
            && let (path, true) = file_records::path(&again, long.as_ref())
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
