//! Files that a process has open, through `/proc/PID/fd`.

use std::path::Path;

use crate::model::Name;

/// What the kernel appends to the name of a file that has none any more.
pub const DELETED: &[u8] = b" (deleted)";

/// A file that a process has open, seen through its link in procfs.
pub struct OpenFile {
    /// The file itself.
    pub stat: rustix::fs::Stat,
    /// The name it was opened by.
    pub path: Name,
    /// Whether no name is left.
    pub deleted: bool,
}

impl OpenFile {
    /// The one behind a link; `None` if it was closed meanwhile.
    pub fn at(link: &Path) -> Option<Self> {
        let stat = rustix::fs::stat(link).ok()?;
        let target = rustix::fs::readlink(link, Vec::new()).ok()?.into_bytes();
        let path = Name::from(target.strip_suffix(DELETED).unwrap_or(&target));
        Some(Self { deleted: stat.st_nlink == 0, stat, path })
    }
}
