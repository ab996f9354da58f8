//! RDMA memory regions, from the RDMA netlink (include/uapi/rdma/rdma_netlink.h), which any user may ask.
//! It names the object, never the memory: a row from here has a size and no file.

use std::collections::{HashMap, HashSet};
use std::io;

use rustix::net::netlink;

use super::Collector;
use super::netlink::{Dump, attribute, attributes, dump, make_attribute, u32_at, u64_at};
use super::process;
use super::scan::Scan;
use super::uverbs::{self, Context};
use crate::model::{Coverage, Doubt, Gap, HoldingIndex, Mode, Origin, Part, Pin, Subsystem, object};

/// `RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command)`.
const fn kind(command: u16) -> u16 {
    (5 << 10) + command
}

/// `RDMA_NLDEV_CMD_GET`: devices.
const DEVICES: u16 = kind(1);
/// `RDMA_NLDEV_CMD_RES_MR_GET`: memory regions of a device.
const REGIONS: u16 = kind(13);
/// `RDMA_NLDEV_CMD_RES_PD_GET`: protection domains.
const DOMAINS: u16 = kind(14);
/// `RDMA_NLDEV_CMD_RES_CTX_GET`: contexts.
const CONTEXTS: u16 = kind(22);

// enum rdma_nldev_attr, without the prefix RDMA_NLDEV_ATTR_.
const DEV_INDEX: u16 = 1;
const DEV_NAME: u16 = 2;
const RES_PID: u16 = 28;
const RES_KERN_NAME: u16 = 29;
const RES_MR: u16 = 40;
const RES_MR_ENTRY: u16 = 41;
const RES_RKEY: u16 = 42;
const RES_LKEY: u16 = 43;
const RES_IOVA: u16 = 44;
const RES_MRLEN: u16 = 45;
const RES_PD: u16 = 46;
const RES_PD_ENTRY: u16 = 47;
const RES_PDN: u16 = 60;
const RES_MRN: u16 = 62;
const RES_CTXN: u16 = 64;
const RES_CTX: u16 = 86;
const RES_CTX_ENTRY: u16 = 87;

/// An entry of the dump.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Region {
    mrn: u32,
    /// Bytes.
    length: u64,
    lkey: Option<u32>,
    rkey: Option<u32>,
    iova: Option<u64>,
    /// Number of its protection domain.
    domain: Option<u32>,
    /// Thread that made it; `None` once that has exited.
    tid: Option<u32>,
}

/// Adds all memory regions that processes have registered.
pub fn collect(scan: &Scan, cx: &mut Collector) {
    let devices = match dump(netlink::RDMA, DEVICES, &[]) {
        Ok(devices) => devices,
        Err(e) => {
            // A kernel without RDMA has no such family, or no one to answer.
            if !absent(&e) {
                cx.gaps.push(Gap::RdmaNotListed { device: None, why: e.to_string() });
            }
            return;
        }
    };
    let mut any = false;
    let mut unheld = 0;
    let mut interrupted = devices.interrupted;
    for message in &devices.messages {
        let Some(index) = attribute(message, DEV_INDEX).and_then(|c| u32_at(c, 0)) else { continue };
        let name = attribute(message, DEV_NAME).map(text).unwrap_or_else(|| format!("device {index}"));
        any = true;
        let ask = |what| dump(netlink::RDMA, what, &make_attribute(DEV_INDEX, index.to_ne_bytes()));
        // First: a region found later has its domain and context in these, unless both are newer.
        let contexts = ask(CONTEXTS).map(|found| all(&found, contexts_in)).unwrap_or_default();
        let domains: HashMap<u32, u32> =
            ask(DOMAINS).map(|found| all(&found, domains_in).into_iter().collect()).unwrap_or_default();
        let holdings = uverbs::holdings(&name, &contexts, scan, cx);
        match ask(REGIONS) {
            Ok(found) => {
                interrupted |= found.interrupted;
                for region in all(&found, regions_in) {
                    let context = region.domain.and_then(|domain| domains.get(&domain));
                    let holding = context.and_then(|context| holdings.get(context)).copied();
                    unheld += u64::from(holding.is_none());
                    add(&name, &region, holding, cx);
                }
            }
            Err(e) => cx.gaps.push(Gap::RdmaNotListed { device: Some(name), why: e.to_string() }),
        }
    }
    if interrupted {
        cx.gaps.push(Gap::ListingChanged { subsystem: Subsystem::Rdma });
    }
    if any {
        cx.gaps.push(Gap::RdmaRegionsOnly);
    }
    if unheld > 0 {
        cx.gaps.push(Gap::RdmaHoldersUnknown { regions: unheld });
    }
}

/// The memory regions that there are, for who wants to know whether one still is.
#[derive(Debug, Default)]
pub struct Regions {
    /// Devices, by index, whose regions are all here.
    devices: HashSet<u32>,
    /// Device and mrn.
    regions: HashSet<(u32, u32)>,
}

impl Regions {
    /// Asks the kernel. A device whose list changed while it was told, or that is in another network namespace, is not among
    /// them.
    pub fn read() -> Self {
        let mut all = Self::default();
        let devices = dump(netlink::RDMA, DEVICES, &[]).unwrap_or_default();
        let index = |message: &Vec<u8>| number(message, DEV_INDEX);
        for device in devices.messages.iter().filter_map(index) {
            let found = dump(netlink::RDMA, REGIONS, &make_attribute(DEV_INDEX, device.to_ne_bytes()));
            let Some(found) = found.ok().filter(|found| !found.interrupted) else { continue };
            all.devices.insert(device);
            all.regions.extend(self::all(&found, regions_in).iter().map(|region| (device, region.mrn)));
        }
        all
    }

    /// Whether a region is certainly gone.
    pub fn lack(&self, device: u32, mrn: u32) -> bool {
        self.devices.contains(&device) && !self.regions.contains(&(device, mrn))
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EPROTONOSUPPORT
                | libc::EAFNOSUPPORT
                | libc::ESOCKTNOSUPPORT
                | libc::EINVAL
                | libc::ECONNREFUSED
        )
    )
}

/// A string attribute, which ends with a NUL.
fn text(content: &[u8]) -> String {
    let end = content.iter().position(|&b| b == 0).unwrap_or(content.len());
    String::from_utf8_lossy(&content[..end]).into_owned()
}

/// Everything of one kind in a dump.
fn all<T>(dump: &Dump, of: fn(&[u8]) -> Vec<T>) -> Vec<T> {
    dump.messages.iter().flat_map(|message| of(message)).collect()
}

/// The entries of a message's table.
fn entries(message: &[u8], table: u16, entry: u16) -> impl Iterator<Item = &[u8]> {
    let tables = attributes(message).filter(move |(n, _)| *n == table);
    let entries = tables.flat_map(|(_, table)| attributes(table)).filter(move |(n, _)| *n == entry);
    entries.map(|(_, entry)| entry)
}

fn number(entry: &[u8], attr: u16) -> Option<u32> {
    attribute(entry, attr).and_then(|c| u32_at(c, 0))
}

/// The contexts in a message.
fn contexts_in(message: &[u8]) -> Vec<Context> {
    let context = |entry: &[u8]| {
        let opener = number(entry, RES_PID).filter(|tid| *tid != 0).and_then(process::thread_group);
        Some(Context { number: number(entry, RES_CTXN)?, opener })
    };
    entries(message, RES_CTX, RES_CTX_ENTRY).filter_map(context).collect()
}

/// The protection domains in a message: their numbers, and those of their contexts.
fn domains_in(message: &[u8]) -> Vec<(u32, u32)> {
    let domain = |entry: &[u8]| Some((number(entry, RES_PDN)?, number(entry, RES_CTXN)?));
    entries(message, RES_PD, RES_PD_ENTRY).filter_map(domain).collect()
}

/// The regions in a message that belong to processes. The kernel's own (those with `KERN_NAME`) pin no user memory.
fn regions_in(message: &[u8]) -> Vec<Region> {
    let region = |entry: &[u8]| {
        if attribute(entry, RES_KERN_NAME).is_some() {
            return None;
        }
        Some(Region {
            mrn: number(entry, RES_MRN)?,
            length: attribute(entry, RES_MRLEN).and_then(|c| u64_at(c, 0))?,
            lkey: number(entry, RES_LKEY),
            rkey: number(entry, RES_RKEY),
            iova: attribute(entry, RES_IOVA).and_then(|c| u64_at(c, 0)),
            domain: number(entry, RES_PDN),
            tid: number(entry, RES_PID).filter(|t| *t != 0),
        })
    };
    entries(message, RES_MR, RES_MR_ENTRY).filter_map(region).collect()
}

fn add(device: &str, region: &Region, holding: Option<HoldingIndex>, cx: &mut Collector) {
    // The number is a thread's: libraries register from service threads.
    let creator = region.tid.and_then(process::thread_group).and_then(|pid| cx.process(pid));
    let id = cx.next_id(Subsystem::Rdma);
    cx.table.pins.push(Pin {
        id,
        object: object::rdma::Object::Region {
            device: device.to_owned(),
            mrn: region.mrn,
            lkey: region.lkey,
            rkey: region.rkey,
        }
        .into(),
        mode: Mode::Unknown,
        bytes: region.length,
        // Without the address it is not known how many pages the ends touch; an iova usually is the address.
        pages: cx.pages(region.iova.unwrap_or(0), region.length),
        address: None,
        parts: Part::unknown(region.length),
        doubts: [Doubt::MemoryUnknown, Doubt::MaybeNotPinned].into_iter().collect(),
        orphan_pages: None,
        creator,
        holding,
        coverage: Coverage::default(),
        created: None,
        origin: Origin::Proc,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(number: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = ((content.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&number.to_ne_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().div_ceil(4) * 4, 0);
        bytes
    }

    fn message() -> Vec<u8> {
        let entry = [
            attr(RES_RKEY, &0x1234u32.to_ne_bytes()),
            attr(RES_MRLEN, &(64u64 << 20).to_ne_bytes()),
            attr(RES_MRN, &7u32.to_ne_bytes()),
            attr(RES_PID, &812u32.to_ne_bytes()),
        ]
        .concat();
        let kernel = [
            attr(RES_MRLEN, &8u64.to_ne_bytes()),
            attr(RES_MRN, &8u32.to_ne_bytes()),
            attr(RES_KERN_NAME, b"nvme\0"),
        ]
        .concat();
        let gone = [attr(RES_MRLEN, &16u64.to_ne_bytes()), attr(RES_MRN, &9u32.to_ne_bytes())].concat();
        let table =
            [attr(RES_MR_ENTRY | 0x8000, &entry), attr(RES_MR_ENTRY, &kernel), attr(RES_MR_ENTRY, &gone)]
                .concat();
        [attr(DEV_INDEX, &0u32.to_ne_bytes()), attr(DEV_NAME, b"rxe0\0"), attr(RES_MR | 0x8000, &table)]
            .concat()
    }

    #[test]
    fn regions_of_processes_only() {
        let regions = regions_in(&message());
        assert_eq!(regions.len(), 2);
        let first = Region {
            mrn: 7,
            length: 64 << 20,
            lkey: None,
            rkey: Some(0x1234),
            iova: None,
            domain: None,
            tid: Some(812),
        };
        assert_eq!(regions[0], first);
        assert_eq!((regions[1].mrn, regions[1].tid), (9, None));
    }

    #[test]
    fn a_region_is_gone_only_if_all_of_its_device_are_known() {
        let known = Regions { devices: HashSet::from([0]), regions: HashSet::from([(0, 7), (1, 8)]) };
        assert_eq!((known.lack(0, 7), known.lack(0, 8), known.lack(1, 9)), (false, true, false));
    }

    #[test]
    fn contexts_and_domains() {
        let context = [attr(RES_CTXN, &4u32.to_ne_bytes()), attr(RES_PID, &0u32.to_ne_bytes())].concat();
        let message = attr(RES_CTX, &attr(RES_CTX_ENTRY, &context));
        assert_eq!(contexts_in(&message), [Context { number: 4, opener: None }]);
        let domain = [attr(RES_PDN, &6u32.to_ne_bytes()), attr(RES_CTXN, &4u32.to_ne_bytes())].concat();
        assert_eq!(domains_in(&attr(RES_PD, &attr(RES_PD_ENTRY, &domain))), [(6, 4)]);
        assert_eq!(domains_in(&message), []);
    }

    #[test]
    fn cut_and_changed_messages_are_no_panic() {
        let whole = message();
        for at in 0..whole.len() {
            let _ = regions_in(&whole[..at]);
            let mut bad = whole.clone();
            bad[at] ^= 0xff;
            let _ = regions_in(&bad);
        }
    }

    #[test]
    fn strings_end_at_the_nul() {
        assert_eq!(
            (text(b"rxe0\0x").as_str(), text(b"rxe0").as_str(), text(b"").as_str()),
            ("rxe0", "rxe0", "")
        );
    }
}
