//! `/proc/PID/mountinfo`: which file system a device number is, and where it is mounted.

use std::path::Path;

use super::bounded;
use crate::model::Device;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number, as in `statx`.
    pub id: u64,
    /// The file system's device, the kernel's `s_dev`.
    pub dev: Device,
    /// Where it is mounted.
    pub point: Vec<u8>,
    /// The file system's type.
    pub fstype: String,
    /// Options of the file system, as one text.
    pub options: Vec<u8>,
}

/// The mounts that a process sees (`/proc/self` for this one); none if they cannot be read.
pub fn of(proc_dir: &Path) -> Vec<Mount> {
    bounded::read(&proc_dir.join("mountinfo")).map(|text| parse(&text)).unwrap_or_default()
}

/// Reads the whole file; lines that make no sense are left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let id = bounded::decimal(fields.next()?)?.0;
    let (major, rest) = bounded::decimal(fields.nth(1)?)?;
    let (minor, _) = bounded::decimal(rest.strip_prefix(b":")?)?;
    let point = unescape(fields.nth(1)?);
    let mut after = fields.skip_while(|f| *f != b"-").skip(1);
    let fstype = String::from_utf8_lossy(after.next()?).into_owned();
    let options = after.nth(1).unwrap_or_default().to_vec();
    let dev = Device { major: u32::try_from(major).ok()?, minor: u32::try_from(minor).ok()? };
    Some(Mount { id, dev, point, fstype, options })
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if byte == b'\\' => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = b"36 35 98:1 /r /mnt\\040a\\\\ rw,noatime master:1 shared:2 - ext3 /dev/root rw,x=y\nbad\n1 2 3:4 / /m rw - tmpfs";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, b"/mnt a\\\\");
        assert_eq!((mounts[0].id, mounts[0].dev), (36, Device { major: 98, minor: 1 }));
        assert_eq!((mounts[0].fstype.as_str(), mounts[0].options.as_slice()), ("ext3", &b"rw,x=y"[..]));
        assert_eq!(mounts[1].fstype, "tmpfs");
        for end in 0..text.len() {
            let _ = parse(&text[..end]);
        }
    }

    #[test]
    fn a_mount_point_that_is_no_text_hides_nothing() {
        let mounts = parse(b"1 2 3:4 / /m\xff rw - tmpfs tmpfs rw\n2 2 3:5 / /n rw - proc proc rw\n");
        assert_eq!((mounts.len(), mounts[0].point.as_slice()), (2, &b"/m\xff"[..]));
    }

    #[test]
    fn own_mounts_have_a_proc() {
        assert!(of(Path::new("/proc/self")).iter().any(|m| m.fstype == "proc"));
    }
}
