//! AF_XDP umems, from socket diagnostics (include/uapi/linux/xdp_diag.h). They name the umem and its sockets, never
//! the memory: a row from here has a size and no file.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rustix::net::netlink;

use super::collector::Collector;
use super::reader::Reader;
use super::scan::Scan;
use crate::model::{Doubt, Gap, Holder, Holding, Mode, Origin, Subsystem, Via, object};
use crate::source::host::netlink::{attribute, dump, u32_at, u64_at};
use crate::source::host::{bounded, process};
use crate::source::observation::{Held, Memory, PinObservation};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `AF_XDP`.
const FAMILY: u8 = 44;
/// `XDP_SHOW_INFO | XDP_SHOW_UMEM`.
const SHOW: u32 = 0b101;
/// Bytes of `struct xdp_diag_msg`, before the attributes.
const MESSAGE: usize = 16;
/// `XDP_DIAG_UMEM`, a `struct xdp_diag_umem`.
const UMEM: u16 = 5;

/// A umem, with the inode numbers of the sockets that share it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Umem {
    /// Bytes.
    size: u64,
    pages: u64,
    /// In ascending order.
    sockets: Vec<u64>,
}

/// The umems of this network namespace.
#[derive(Default)]
pub struct Umems(ByNumber);

type ByNumber = BTreeMap<u32, Umem>;

impl Reader for Umems {
    fn sockets(&mut self, cx: &mut Collector) -> Vec<u64> {
        self.0 = umems(cx);
        self.0.values().flat_map(|umem| umem.sockets.iter().copied()).collect()
    }

    fn collect(&mut self, scan: &Scan, cx: &mut Collector) {
        collect(&self.0, scan, cx);
    }
}

/// Asks the kernel for all umems.
fn umems(cx: &mut Collector) -> ByNumber {
    let mut request = vec![FAMILY, 0, 0, 0];
    request.extend_from_slice(&0u32.to_ne_bytes());
    request.extend_from_slice(&SHOW.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    let mut umems = ByNumber::new();
    match dump(netlink::SOCK_DIAG, BY_FAMILY, &request) {
        Ok(dump) => {
            dump.messages.iter().for_each(|m| read(m, &mut umems));
            if dump.interrupted {
                cx.gaps.push(Gap::ListingChanged { subsystem: Subsystem::Xdp });
            }
        }
        // Without diagnostics (xsk_diag) it only matters if there is something to diagnose.
        Err(e) => match sockets_in_use(Path::new("/proc/self")) {
            0 => {}
            sockets => cx.gaps.push(Gap::XdpNotListed { sockets, why: e.to_string() }),
        },
    }
    umems
}

/// Takes one socket's message.
fn read(message: &[u8], umems: &mut ByNumber) {
    let attributes = message.get(MESSAGE..).unwrap_or_default();
    let (Some(inode), Some(umem)) = (u32_at(message, 4), attribute(attributes, UMEM)) else { return };
    let (Some(size), Some(id), Some(pages)) = (u64_at(umem, 0), u32_at(umem, 8), u32_at(umem, 12)) else {
        return;
    };
    let entry = umems.entry(id).or_insert(Umem { size, pages: u64::from(pages), sockets: Vec::new() });
    if let Err(at) = entry.sockets.binary_search(&u64::from(inode)) {
        entry.sockets.insert(at, u64::from(inode));
    }
}

/// AF_XDP sockets in the network namespace of a process, as `/proc/PID/net/protocols` counts them.
fn sockets_in_use(dir: &Path) -> u64 {
    bounded::read(&dir.join("net/protocols")).map(|text| parse_protocols(&text)).unwrap_or(0)
}

fn parse_protocols(text: &[u8]) -> u64 {
    let line = text.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(b"XDP "));
    let fields = line.map(|l| l.split(|&b| b == b' ').filter(|f| !f.is_empty()));
    fields.and_then(|mut f| bounded::decimal(f.nth(1)?)).map_or(0, |(n, _)| n)
}

/// Adds the umems, with the processes that the scan found to hold their sockets.
fn collect(umems: &ByNumber, scan: &Scan, cx: &mut Collector) {
    for (id, umem) in umems {
        let holders = holders(umem, scan, cx);
        let sequence = cx.next_sequence();
        let creator = match holders.as_slice() {
            [only] if scan.denied == 0 => Some(only.process),
            _ => None,
        };
        // Holders that cannot be seen are not the same as none.
        let known = scan.denied == 0 || !holders.is_empty();
        let holding = Holding { holders, ..Holding::default() };
        let holding = known.then(|| cx.into.add_holding(holding));
        cx.into.observe(PinObservation {
            origin: Origin::Proc,
            sequence,
            object: object::xdp::Object { umem: *id }.into(),
            mode: Mode::ReadWrite,
            bytes: umem.size,
            pages: umem.pages,
            address: None,
            memory: Memory::Unknown,
            doubts: Doubt::MemoryUnknown.into(),
            creator,
            held: holding.map_or(Held::Unknown, Held::By),
            created: None,
        });
    }
    elsewhere(cx);
}

fn holders(umem: &Umem, scan: &Scan, cx: &mut Collector) -> Vec<Holder> {
    let mut via: BTreeMap<u32, Vec<Via>> = BTreeMap::new();
    for (pid, fd) in umem.sockets.iter().filter_map(|s| scan.sockets.get(s)).flatten() {
        via.entry(*pid).or_default().push(Via::Fd(*fd));
    }
    for anchor in scan.socket_maps.iter().filter(|a| umem.sockets.contains(&a.ino)) {
        via.entry(anchor.pid).or_default().push(Via::Mapping(anchor.address));
    }
    via.into_iter().filter_map(|(pid, via)| Some(Holder { process: cx.process(pid)?, via })).collect()
}

/// Says so if other network namespaces have AF_XDP sockets: diagnostics end at one's own.
fn elsewhere(cx: &mut Collector) {
    let namespace = |dir: &Path| rustix::fs::readlink(dir.join("ns/net"), Vec::new()).ok();
    let mut known = HashSet::from([namespace(Path::new("/proc/self"))]);
    let mut sockets = 0;
    for pid in process::pids().unwrap_or_default() {
        let dir = std::path::PathBuf::from(format!("/proc/{pid}"));
        let namespace = namespace(&dir);
        if namespace.is_some() && known.insert(namespace) {
            sockets += sockets_in_use(&dir);
        }
    }
    if sockets > 0 {
        cx.gaps.push(Gap::XdpOtherNamespaces { sockets });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(inode: u32, id: u32) -> Vec<u8> {
        let mut bytes = vec![FAMILY, 3, 0, 0];
        bytes.extend_from_slice(&inode.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&44u16.to_ne_bytes());
        bytes.extend_from_slice(&UMEM.to_ne_bytes());
        bytes.extend_from_slice(&9_701_376u64.to_ne_bytes());
        bytes.extend_from_slice(&id.to_ne_bytes());
        bytes.extend_from_slice(&2369u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 24]);
        bytes
    }

    #[test]
    fn sockets_of_one_umem_are_one_pin() {
        let mut umems = ByNumber::new();
        [message(9, 3), message(5, 3), message(9, 3), message(7, 4)].iter().for_each(|m| read(m, &mut umems));
        assert_eq!(umems[&3], Umem { size: 9_701_376, pages: 2369, sockets: vec![5, 9] });
        assert_eq!(umems[&4].sockets, [7]);
    }

    #[test]
    fn cut_messages_are_nothing() {
        let whole = message(9, 3);
        for end in 0..MESSAGE + 44 {
            let mut umems = ByNumber::new();
            read(&whole[..end], &mut umems);
            assert!(umems.is_empty(), "{end}");
        }
    }

    #[test]
    fn sockets_are_counted() {
        let text = b"protocol  size sockets  memory\nXDP       1024      2      -1   NI\nUNIX 1 9 9\n";
        assert_eq!(parse_protocols(text), 2);
        assert_eq!(parse_protocols(b"XDP \n"), 0);
        assert_eq!(parse_protocols(b""), 0);
    }
}
