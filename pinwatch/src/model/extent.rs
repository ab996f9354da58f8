//! Runs of pinned pages, and how those of one pin are grouped by file.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use super::file::Backing;
use super::index::FileIndex;

/// A run of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Runs in one file: mostly one.
pub type Extents = SmallVec<[Extent; 1]>;

/// What a pin holds, by file: mostly of one.
pub type Parts = SmallVec<[Part; 1]>;

/// All that a pin holds of one file, or of anonymous memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What the pages belong to.
    pub backing: Backing,
    /// Which file; `None` for anonymous memory and where it is not known.
    pub file: Option<FileIndex>,
    /// Where in the file, in ascending order, neighbours merged; empty without a file.
    pub extents: Extents,
    /// Bytes of the pin that lie in this part.
    pub bytes: u64,
}

impl Part {
    /// Memory of which only the size is known.
    pub fn unknown(bytes: u64) -> Parts {
        smallvec![Self { backing: Backing::Unknown, file: None, extents: Extents::new(), bytes }]
    }
}

/// One run of the pin's address range with a single backing, before grouping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What the pages belong to.
    pub backing: Backing,
    /// Which file, if any.
    pub file: Option<FileIndex>,
    /// Offset in the file, in bytes; of no meaning without a file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Groups segments by file, largest part first; runs that touch become one. Ranges that overlap (a file mapped twice in
/// one buffer) stay apart: the pages are pinned twice.
pub fn parts_of(segments: &[Segment]) -> Parts {
    let extents = |s: &Segment| match s.file {
        Some(_) => smallvec![Extent { offset: s.offset, length: s.length }],
        None => Extents::new(),
    };
    let part = |s: &Segment| Part { backing: s.backing, file: s.file, extents: extents(s), bytes: s.length };
    if let [only] = segments {
        return smallvec![part(only)];
    }
    let mut parts = Parts::new();
    for s in segments {
        match parts.iter_mut().find(|p| p.backing == s.backing && p.file == s.file) {
            Some(part) => {
                part.bytes = part.bytes.saturating_add(s.length);
                part.extents.extend(extents(s));
            }
            None => parts.push(part(s)),
        }
    }
    for part in &mut parts {
        part.extents.sort();
        let mut merged = Extents::new();
        for e in part.extents.drain(..) {
            match merged.last_mut() {
                Some(last) if last.offset.checked_add(last.length) == Some(e.offset) => {
                    last.length += e.length
                }
                _ => merged.push(e),
            }
        }
        part.extents = merged;
    }
    parts.sort_by_key(|p| std::cmp::Reverse(p.bytes));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(n: u32, offset: u64, length: u64) -> Segment {
        Segment { backing: Backing::File, file: Some(FileIndex(n)), offset, length }
    }

    #[test]
    fn neighbours_merge_and_files_keep_apart() {
        let anon = Segment { backing: Backing::Anon, file: None, offset: 0, length: 4096 };
        let parts = parts_of(&[file(0, 8192, 4096), anon, file(1, 0, 16384), file(0, 4096, 4096)]);
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0].file, Some(FileIndex(1)));
        assert_eq!(parts[1].extents[..], [Extent { offset: 4096, length: 8192 }]);
        assert_eq!((parts[2].backing, parts[2].extents.len(), parts[2].bytes), (Backing::Anon, 0, 4096));
    }

    #[test]
    fn a_range_mapped_twice_is_counted_twice() {
        let parts = parts_of(&[file(0, 0, 4096), file(0, 0, 4096)]);
        assert_eq!((parts[0].bytes, parts[0].extents.len()), (8192, 2));
    }

    #[test]
    fn hostile_numbers_do_not_overflow() {
        let parts = parts_of(&[file(0, u64::MAX - 1, u64::MAX), file(0, 5, u64::MAX)]);
        assert_eq!(parts[0].bytes, u64::MAX);
    }
}
