//! `/proc/PID/fdinfo/FD` of an io_uring. Pure.

use crate::source::host::bounded;

/// One registered buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// Its place in the ring's table.
    pub slot: u32,
    /// User address of the first byte.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

/// What the text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingInfo {
    /// The inode number of the ring's file; each ring has its own since 5.12, `ino:` is printed since 5.15.
    pub ino: Option<u64>,
    /// The registered buffers; `None` if the kernel did not list them because the ring was busy (6.1 and 6.12 then
    /// leave out the entries, newer kernels the whole table).
    pub buffers: Option<Vec<Buffer>>,
    /// Entries that cannot be: kept apart so that they are not silently lost.
    pub strange: u32,
}

/// Reads the text. Entries look like `    5: 0x7f0000000000/4096` on all kernels; an empty slot is `<none>` (7.3), or
/// an address of all ones (6.1, 6.12). Buffers that the kernel registers itself (ublk) have address 0 and pin nothing.
pub fn parse(text: &[u8]) -> RingInfo {
    let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').collect();
    let ino = lines.iter().find_map(|l| l.strip_prefix(b"ino:\t")).and_then(bounded::decimal).map(|(n, _)| n);
    let mut info = RingInfo { ino, ..RingInfo::default() };
    // The last such line: before it come the names of registered files, which anyone can choose.
    let Some(at) = lines.iter().rposition(|l| l.starts_with(b"UserBufs:\t")) else { return info };
    let Some((count, _)) = bounded::decimal(&lines[at][b"UserBufs:\t".len()..]) else { return info };
    let mut buffers = Vec::new();
    let mut entries = 0;
    for line in &lines[at + 1..] {
        let Some((slot, rest)) = bounded::decimal(line.trim_ascii_start()) else { break };
        let (Ok(slot), Some(rest)) = (u32::try_from(slot), rest.strip_prefix(b": ")) else { break };
        entries += 1;
        if rest == b"<none>" {
            continue;
        }
        match buffer(slot, rest) {
            Some(Buffer { address: 0 | u64::MAX, .. } | Buffer { length: 0, .. }) => {}
            Some(b) if b.address.checked_add(b.length).is_some() => buffers.push(b),
            _ => info.strange += 1,
        }
    }
    info.buffers = (entries >= count).then_some(buffers);
    info
}

fn buffer(slot: u32, text: &[u8]) -> Option<Buffer> {
    let (address, rest) = bounded::hex(text.strip_prefix(b"0x")?)?;
    let (length, rest) = bounded::decimal(rest.strip_prefix(b"/")?)?;
    rest.is_empty().then_some(Buffer { slot, address, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &str) -> String {
        format!(
            "pos:\t0\nflags:\t02000002\nino:\t77\nUserFiles:\t1\n    0: x\n{table}PollList:\nCqOverflowList:\n"
        )
    }

    #[test]
    fn entries_of_all_kernels() {
        let info = parse(
            text("UserBufs:\t5\n    0: 0x7f00/4096\n    1: <none>\n    2: 0xffffffffffffffff/1\n    3: 0x0/8\n    4: 0xff/1099511627776\n").as_bytes(),
        );
        assert_eq!((info.ino, info.strange), (Some(77), 0));
        let buffers = info.buffers.unwrap();
        assert_eq!(buffers[0], Buffer { slot: 0, address: 0x7f00, length: 4096 });
        assert_eq!(buffers[1], Buffer { slot: 4, address: 0xff, length: 1 << 40 });
        assert_eq!(buffers.len(), 2);
    }

    #[test]
    fn a_busy_ring_is_not_an_empty_one() {
        assert_eq!(parse(text("UserBufs:\t2\n").as_bytes()).buffers, None);
        assert_eq!(parse(text("").as_bytes()).buffers, None);
        assert_eq!(parse(text("UserBufs:\t0\n").as_bytes()).buffers, Some(vec![]));
    }

    #[test]
    fn a_file_name_cannot_hide_buffers() {
        let info = parse(b"UserFiles:\t1\n    0: a\nUserBufs:\t0\nUserBufs:\t1\n    0: 0x1000/4096\n");
        assert_eq!(info.buffers.unwrap().len(), 1);
    }

    #[test]
    fn strange_entries_are_counted() {
        let info = parse(b"UserBufs:\t3\n    0: 0xfffffffffffffff0/4096\n    1: 0x1000\n    2: 0x1000/1\n");
        assert_eq!((info.strange, info.buffers.unwrap().len()), (2, 1));
        assert_eq!(parse(b"UserBufs:\t99999999999999999999\n").buffers, None);
    }
}
