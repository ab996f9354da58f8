//! Reading files of procfs: never more than a bound, and an end of the process is no error worth telling.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The most that is read of any file of procfs, in bytes: room for some 600,000 mappings.
pub const LIMIT: u64 = 64 << 20;

/// Reads a file of procfs up to [`LIMIT`] bytes.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether an error means "not allowed" and not "gone meanwhile".
pub fn denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// A decimal number at the start of a text, and what follows it.
pub fn decimal(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// A hexadecimal number at the start of a text, and what follows it.
pub fn hex(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(decimal(b"12x"), Some((12, &b"x"[..])));
        assert_eq!(decimal(b"x"), None);
        assert_eq!(decimal(b"99999999999999999999999"), None);
        assert_eq!(hex(b"fF-"), Some((255, &b"-"[..])));
        assert_eq!(hex(b"11111111111111111"), None);
    }
}
