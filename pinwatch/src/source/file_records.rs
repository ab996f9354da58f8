//! From the kernel's record of a file to the model's file: its identity, its kind of memory, and its names as the BPF programs
//! wrote them. Pure.

use pinwatch_common::{FileKey, FileRecord, LongPath, S_DAX, SHORT_PATH, magic, path_flag};

use crate::model::{Backing, Device, File, FileId, Name};

/// A character device that can be mapped and pinned as memory is device-dax; all others map `VM_IO`, which GUP refuses.
const S_IFMT: u32 = 0o170_000;
const S_IFCHR: u32 = 0o020_000;

/// What stands before the first NUL, or all.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The path in a record, and whether it is whole. The record has the last component first, each ended by NUL.
pub fn path(file: &FileRecord, long: Option<&LongPath>) -> (Vec<u8>, bool) {
    let length = file.length as usize;
    let bytes =
        if length <= SHORT_PATH { file.path.get(..length) } else { long.and_then(|l| l.path.get(..length)) };
    let Some(bytes) = bytes else {
        // The path did not fit, or its map was full: the last component is there all the same.
        return (until_nul(&file.path).to_vec(), false);
    };
    let mut path = Vec::with_capacity(length + 1);
    let components: Vec<&[u8]> = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    for name in components.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    let whole = file.flags & (path_flag::CUT | path_flag::FAULT) == 0;
    if !whole {
        // It begins in the middle: it must not look as if it began at the root.
        path.remove(0);
    }
    (path, whole)
}

/// A file of which nothing but its identity is known.
pub fn nameless(key: &FileKey) -> File {
    let id = FileId { dev: Device::from_kernel(key.dev), ino: key.ino, generation: Some(key.generation) };
    File { id, path: Name::default(), path_complete: false, fstype: String::new(), deleted: None, dax: false }
}

/// A file as its record has it. Whether it still has its name is not known yet.
pub fn named(key: &FileKey, record: &FileRecord, long: Option<&LongPath>) -> File {
    let (path, path_complete) = path(record, long);
    File {
        path: Name::from(path),
        path_complete,
        fstype: String::from_utf8_lossy(until_nul(&record.fstype)).into_owned(),
        dax: record.mode >> 16 & S_DAX != 0,
        ..nameless(key)
    }
}

/// What kind of memory the pages of a file are.
pub fn backing(record: &FileRecord) -> Backing {
    if record.mode & S_IFMT == S_IFCHR {
        return Backing::Devdax;
    }
    match record.magic {
        magic::TMPFS | magic::RAMFS => Backing::Shmem,
        magic::HUGETLBFS => Backing::Hugetlb,
        _ => Backing::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinwatch_common::LONG_PATH;

    fn record(path: &[u8], flags: u32) -> FileRecord {
        let mut file = FileRecord {
            dentry: 0,
            mount: 0,
            parent: 0,
            hash_len: 0,
            magic: 0,
            used: 0,
            length: path.len() as u32,
            flags,
            mode: 0,
            components: 0,
            fstype: [0; 32],
            path: [0; SHORT_PATH],
        };
        let fits = path.len().min(SHORT_PATH);
        file.path[..fits].copy_from_slice(&path[..fits]);
        file
    }

    #[test]
    fn components_are_turned_round() {
        assert_eq!(path(&record(b"c\0b\0a\0", path_flag::ABSOLUTE), None), (b"/a/b/c".to_vec(), true));
        assert_eq!(path(&record(b"memfd:x\0", path_flag::DETACHED), None), (b"/memfd:x".to_vec(), true));
        assert_eq!(path(&record(b"", path_flag::ABSOLUTE), None), (b"/".to_vec(), true));
    }

    #[test]
    fn a_newline_and_bytes_that_are_no_text_stay_as_they_are() {
        assert_eq!(path(&record(b"\xff\n\0a\0", path_flag::ABSOLUTE), None).0, b"/a/\xff\n");
    }

    #[test]
    fn a_cut_path_does_not_look_absolute() {
        assert_eq!(path(&record(b"c\0b\0", path_flag::CUT), None), (b"b/c".to_vec(), false));
    }

    #[test]
    fn a_long_path_without_its_record_is_its_last_component() {
        let long = vec![b"name\0".as_slice(); 200].concat();
        let mut there = LongPath { path: [0; LONG_PATH] };
        there.path[..long.len()].copy_from_slice(&long);
        let file = record(&long, path_flag::ABSOLUTE);
        assert_eq!(path(&file, Some(&there)).0, b"/name".repeat(200));
        assert_eq!(path(&file, None), (b"name".to_vec(), false));
        let absurd = FileRecord { length: u32::MAX, ..file };
        assert!(!path(&absurd, Some(&there)).1);
    }
}
