//! RDMA devices and what processes have on them, from the RDMA netlink (include/uapi/rdma/rdma_netlink.h), which any user
//! may ask. It names the objects, never their memory.

use std::collections::HashSet;
use std::io;

use rustix::net::netlink;

use super::netlink::{Dump, attribute, attributes, dump, make_attribute, u32_at, u64_at};
use super::process;

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

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name, such as `rxe0`.
    pub name: String,
}

/// A context of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its number on the device.
    pub number: u32,
    /// The process that opened it; `None` once that is gone.
    pub opener: Option<u32>,
}

/// A memory region that a process has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its number, as in `rdma resource show mr`.
    pub mrn: u32,
    /// Bytes.
    pub length: u64,
    /// Local key; `None` where the user may not see keys.
    pub lkey: Option<u32>,
    /// Remote key; `None` where the user may not see keys.
    pub rkey: Option<u32>,
    /// The address that devices use for its first byte.
    pub iova: Option<u64>,
    /// Number of its protection domain.
    pub domain: Option<u32>,
    /// Thread that made it; `None` once that has exited.
    pub tid: Option<u32>,
}

/// What the kernel listed.
#[derive(Debug)]
pub struct Listing<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Whether some may be missing: the list changed while it was read.
    pub interrupted: bool,
}

impl<T> Listing<T> {
    /// Everything of one kind in a dump.
    fn of(dump: &Dump, of: impl Fn(&[u8]) -> Vec<T>) -> Self {
        let entries = dump.messages.iter().flat_map(|message| of(message)).collect();
        Self { entries, interrupted: dump.interrupted }
    }
}

/// The devices of this network namespace.
///
/// # Errors
/// The system's; see [`is_absent`].
pub fn devices() -> io::Result<Listing<Device>> {
    Ok(Listing::of(&dump(netlink::RDMA, DEVICES, &[])?, |message| device_in(message).into_iter().collect()))
}

/// The contexts of a device.
///
/// # Errors
/// The system's.
pub fn contexts(device: u32) -> io::Result<Listing<Context>> {
    Ok(Listing::of(&of_device(CONTEXTS, device)?, contexts_in))
}

/// The protection domains of a device: their numbers, and those of their contexts.
///
/// # Errors
/// The system's.
pub fn domains(device: u32) -> io::Result<Listing<(u32, u32)>> {
    Ok(Listing::of(&of_device(DOMAINS, device)?, domains_in))
}

/// The memory regions of a device that processes have registered.
///
/// # Errors
/// The system's.
pub fn regions(device: u32) -> io::Result<Listing<Region>> {
    Ok(Listing::of(&of_device(REGIONS, device)?, regions_in))
}

fn of_device(what: u16, device: u32) -> io::Result<Dump> {
    dump(netlink::RDMA, what, &make_attribute(DEV_INDEX, device.to_ne_bytes()))
}

/// The memory regions that there are, to find out whether one still is.
#[derive(Debug, Default)]
pub struct Regions {
    /// Devices, by index, whose regions are all here.
    devices: HashSet<u32>,
    /// Device and mrn.
    regions: HashSet<(u32, u32)>,
}

impl Regions {
    /// Asks the kernel. A device whose list changed while it was read, or that is in another network namespace, is not among
    /// them.
    pub fn read() -> Self {
        let mut all = Self::default();
        for device in devices().map(|found| found.entries).unwrap_or_default() {
            let found = self::regions(device.index).ok().filter(|found| !found.interrupted);
            let Some(found) = found else { continue };
            all.devices.insert(device.index);
            all.regions.extend(found.entries.iter().map(|region| (device.index, region.mrn)));
        }
        all
    }

    /// Whether a region is certainly gone.
    pub fn lack(&self, device: u32, mrn: u32) -> bool {
        self.devices.contains(&device) && !self.regions.contains(&(device, mrn))
    }
}

/// Whether an error means that this kernel has no RDMA, or nothing that answers.
pub fn is_absent(error: &io::Error) -> bool {
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

/// The entries of a message's table.
fn entries(message: &[u8], table: u16, entry: u16) -> impl Iterator<Item = &[u8]> {
    let tables = attributes(message).filter(move |(n, _)| *n == table);
    let entries = tables.flat_map(|(_, table)| attributes(table)).filter(move |(n, _)| *n == entry);
    entries.map(|(_, entry)| entry)
}

fn number(entry: &[u8], attr: u16) -> Option<u32> {
    attribute(entry, attr).and_then(|c| u32_at(c, 0))
}

fn device_in(message: &[u8]) -> Option<Device> {
    let index = number(message, DEV_INDEX)?;
    let name = attribute(message, DEV_NAME).map(text).unwrap_or_else(|| format!("device {index}"));
    Some(Device { index, name })
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
