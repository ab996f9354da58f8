//! The files that the web configuration is made of: reading them, with a bound, and noticing that one has changed. What
//! stands in them is read above this, in `config` and `tls`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::problem::{ConfigError, Problem};

/// No file of a web configuration is longer than this, in bytes.
const LONGEST: u64 = 1 << 20;

/// What a file is known to be unchanged by: inode number, size, time of the last change. `None` for one that is not there.
pub type Mark = Option<(u64, u64, i64, i64)>;

/// The mark of a file as it is now.
pub fn mark(path: &Path) -> Mark {
    let stat = std::fs::metadata(path).ok()?;
    Some((stat.ino(), stat.size(), stat.mtime(), stat.mtime_nsec()))
}

/// A file and its mark, read after the mark was taken: what changes meanwhile is noticed the next time.
///
/// # Errors
/// [`ConfigError`]
pub fn read_marked(path: &Path) -> Result<(Vec<u8>, Mark), ConfigError> {
    let before = mark(path);
    read(path).map(|bytes| (bytes, before))
}

/// Reads a file, unless it is too long.
///
/// # Errors
/// [`ConfigError`]
pub fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |error: std::io::Error| ConfigError::new(path, error);
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > LONGEST {
        return Err(ConfigError::new(path, Problem::TooLong { size, most: LONGEST }));
    }
    std::fs::read(path).map_err(failed)
}
