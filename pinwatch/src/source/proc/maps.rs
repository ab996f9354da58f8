//! `/proc/PID/maps`: which memory is mapped at an address now. Pure.

use crate::model::Device;
use crate::source::host::bounded;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Whether writes go to the file itself and not to a private copy.
    pub shared: bool,
    /// Offset in the file of the first address, in bytes.
    pub offset: u64,
    /// The file system's device.
    pub dev: Device,
    /// The inode number; 0 for anonymous memory.
    pub ino: u64,
    /// The name, as the kernel prints it: newlines as `\012`, ` (deleted)` at its end.
    pub name: Vec<u8>,
}

/// Reads one line.
pub fn parse_line(line: &[u8]) -> Option<Mapping> {
    let (start, rest) = bounded::hex(line)?;
    let (end, rest) = bounded::hex(rest.strip_prefix(b"-")?)?;
    let perms = rest.strip_prefix(b" ")?.get(..4)?;
    let (offset, rest) = bounded::hex(rest.get(6..)?)?;
    let (major, rest) = bounded::hex(rest.strip_prefix(b" ")?)?;
    let (minor, rest) = bounded::hex(rest.strip_prefix(b":")?)?;
    let (ino, rest) = bounded::decimal(rest.strip_prefix(b" ")?)?;
    let name = rest.trim_ascii_start().to_vec();
    let dev = Device { major: u32::try_from(major).ok()?, minor: u32::try_from(minor).ok()? };
    (start < end).then_some(Mapping { start, end, shared: perms[3] == b's', offset, dev, ino, name })
}

/// Reads the whole file. What cannot be read is left out; the kernel lists in ascending order, and mappings that
/// break it are left out too.
pub fn parse(text: &[u8]) -> Vec<Mapping> {
    let mut maps: Vec<Mapping> = Vec::new();
    for mapping in text.split(|&b| b == b'\n').filter_map(parse_line) {
        if maps.last().is_none_or(|last| last.end <= mapping.start) {
            maps.push(mapping);
        }
    }
    maps
}

/// A piece of an address range: its length in bytes, and what is mapped there with the file offset of its first byte.
pub type Piece<'a> = (u64, Option<(&'a Mapping, u64)>);

/// Splits an address range by what is mapped there. The lengths add up to `length` (cut at the end of the address
/// space).
pub fn pieces(maps: &[Mapping], address: u64, length: u64) -> Vec<Piece<'_>> {
    let end = address.saturating_add(length);
    let mut at = address;
    let mut pieces = Vec::new();
    for mapping in &maps[maps.partition_point(|m| m.end <= address)..] {
        if mapping.start >= end {
            break;
        }
        if mapping.start > at {
            pieces.push((mapping.start - at, None));
            at = mapping.start;
        }
        let stop = mapping.end.min(end);
        let offset = mapping.offset.saturating_add(at - mapping.start);
        pieces.push((stop - at, Some((mapping, offset))));
        at = stop;
    }
    if at < end {
        pieces.push((end - at, None));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
10000-12000 rw-s 00003000 00:1b 1034                       /srv/a b (deleted)
12000-13000 rw-p 00000000 00:00 0 
14000-15000 rw-p 00000000 103:02 9                         /x\\012y
nonsense
20000-1f000 rw-p 00000000 00:00 0
13000-14000 rw-p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0    [vsyscall]
";

    #[test]
    fn lines() {
        let maps = parse(MAPS);
        assert_eq!(maps.len(), 4);
        assert_eq!((maps[0].shared, maps[0].ino, maps[0].offset), (true, 1034, 0x3000));
        assert_eq!(maps[0].dev, Device { major: 0, minor: 0x1b });
        assert_eq!(maps[0].name, b"/srv/a b (deleted)");
        assert_eq!((maps[1].shared, maps[1].name.as_slice()), (false, &b""[..]));
        assert_eq!(maps[2].dev, Device { major: 0x103, minor: 2 });
    }

    #[test]
    fn a_name_that_is_no_text_hides_nothing() {
        let maps = parse(b"10000-12000 rw-s 0 00:1b 5 /srv/\xff\n12000-13000 rw-p 0 00:00 0\n");
        assert_eq!((maps.len(), maps[0].name.as_slice()), (2, &b"/srv/\xff"[..]));
    }

    #[test]
    fn a_range_is_split_and_holes_are_kept() {
        let maps = parse(MAPS);
        let pieces = pieces(&maps, 0x11800, 0x4000);
        let lengths: Vec<u64> = pieces.iter().map(|p| p.0).collect();
        assert_eq!(lengths, [0x800, 0x1000, 0x1000, 0x1000, 0x800]);
        assert_eq!(pieces[0].1.map(|p| p.1), Some(0x4800));
        assert!(pieces[2].1.is_none() && pieces[4].1.is_none());
    }

    #[test]
    fn ranges_at_the_edges() {
        let maps = parse(MAPS);
        assert_eq!(pieces(&maps, u64::MAX - 5, u64::MAX), [(5, None)]);
        assert_eq!(pieces(&[], 0, 10), [(10, None)]);
        assert!(pieces(&maps, 0x10000, 0).is_empty());
    }

    #[test]
    fn cut_lines_are_no_panic() {
        for line in MAPS.split(|&b| b == b'\n') {
            for end in 0..line.len() {
                let _ = parse_line(&line[..end]);
            }
        }
    }
}
