//! From one record to one pin. Pure.

use rustc_hash::FxHashMap as HashMap;

use pinwatch_common::{
    DeviceName, ExtentKey, ExtentRecord, FOLL_WRITE, IOMMU_WRITE, MAX_EXTENTS, PinRecord, RDMA_WRITABLE,
    doubt, extent_flag, subsystems::Kind,
};

use crate::model::object::{io_uring, rdma, udmabuf, v4l2, vfio, xdp};
use crate::model::{Backing, Doubt, Doubts, Mode, Object, Origin, ProcessIndex, Segment};
use crate::source::clocks::Clocks;
use crate::source::file_records;
use crate::source::files::Files;
use crate::source::host::char_devices::CharDevices;
use crate::source::observation::{Held, Memory, PinObservation};
use crate::source::stacks::Callers;

/// Base pages: all that this version runs on has them of 4 KiB.
pub const PAGE: u64 = 4096;

/// The kernel object of a record; `None` for a kind of a newer version.
pub fn object(
    record: &PinRecord,
    devices: &HashMap<u32, DeviceName>,
    nodes: &CharDevices,
    callers: &Callers,
) -> Option<Object> {
    let device = || {
        let name = devices.get(&record.device).map(|device| file_records::until_nul(&device.name));
        name.map_or_else(
            || format!("device {}", record.device),
            |name| String::from_utf8_lossy(name).into_owned(),
        )
    };
    let known = |number: i32| u32::try_from(number).ok();
    let buffer = |kind| Some(rdma::Object::Buffer { device: device(), kind }.into());
    match Kind::try_from(record.kind).ok()? {
        Kind::RdmaMr => Some(
            rdma::Object::Region {
                device: device(),
                mrn: record.mrn,
                lkey: Some(record.lkey),
                rkey: Some(record.rkey),
            }
            .into(),
        ),
        Kind::RdmaCq => buffer(rdma::BufferKind::Cq),
        Kind::RdmaQp => buffer(rdma::BufferKind::Qp),
        Kind::RdmaSrq => buffer(rdma::BufferKind::Srq),
        Kind::RdmaBuffer => buffer(rdma::BufferKind::Other),
        Kind::IoUring => Some(
            io_uring::Object::Buffer { ring_fd: known(record.anchor_fd), slot: known(record.number) }.into(),
        ),
        Kind::IoUringMemory => Some(io_uring::Object::Memory { ring_fd: known(record.anchor_fd) }.into()),
        Kind::Xdp => Some(xdp::Object { umem: record.number as u32 }.into()),
        Kind::Udmabuf => Some(udmabuf::Object { ino: record.number as u32 }.into()),
        Kind::Vfio => Some(vfio::Object { iova: record.owner }.into()),
        Kind::V4l2 => Some(v4l2::Object { device: nodes.name(record.device) }.into()),
        Kind::Unclaimed => Some(callers.object(record.sequence).into()),
    }
}

/// Puts the runs of a pin, in the order of its addresses, in the place of what was in `segments`.
pub fn segments(
    record: &PinRecord,
    extents: &HashMap<ExtentKey, ExtentRecord>,
    files: &mut Files<'_>,
    segments: &mut Vec<Segment>,
) {
    segments.clear();
    let mut covered = 0u64;
    for index in 0..record.extents.min(MAX_EXTENTS) {
        let extent = if index == 0 {
            Some(&record.first)
        } else {
            extents.get(&ExtentKey { sequence: record.sequence, index: u64::from(index) })
        };
        // An extent may be missing when the pin was released between the reading of two maps.
        let Some(extent) = extent else { break };
        covered = covered.saturating_add(extent.length);
        segments.push(segment(extent, files));
    }
    if covered < record.length || segments.is_empty() {
        segments.push(Segment {
            backing: Backing::Unknown,
            file: None,
            offset: 0,
            length: record.length.saturating_sub(covered),
        });
    }
}

fn segment(extent: &ExtentRecord, files: &mut Files<'_>) -> Segment {
    let anonymous = Segment { backing: Backing::Anon, file: None, offset: 0, length: extent.length };
    let has = |flag| extent.flags & flag != 0;
    // What is written through a private mapping is no longer the file's. Pins for writing copy it first; only a page seen
    // in the file's own cache (pinned for reading, 6.1) still is.
    if !has(extent_flag::FILE) || (has(extent_flag::PRIVATE) && !has(extent_flag::PAGE_FILE)) {
        return anonymous;
    }
    let (backing, file) = files.intern(&extent.file);
    Segment { backing, file: Some(file), offset: extent.offset, length: extent.length }
}

/// Why a pin's extents may not be exact. That a first page could not be looked at (`UNCHECKED`) is no doubt: the mappings
/// were.
fn doubts(record: &PinRecord) -> Doubts {
    const BITS: [(u32, Doubt); 7] = [
        (doubt::BUSY, Doubt::MappingsBusy),
        (doubt::UNMAPPED, Doubt::Unmapped),
        (doubt::TOO_MANY, Doubt::TooManyMappings),
        (doubt::MAP_FULL, Doubt::ExtentsFull),
        (doubt::PAGE_MISMATCH, Doubt::PageMismatch),
        (doubt::NO_PATH, Doubt::NoPath),
        (doubt::FOREIGN, Doubt::ForeignMemory),
    ];
    BITS.iter().filter(|(bit, _)| record.doubt & bit != 0).map(|(_, doubt)| *doubt).collect()
}

/// The pages that a record's range touches.
pub fn pages(record: &PinRecord) -> u64 {
    let last = record.address.saturating_add(record.length.max(1) - 1);
    last / PAGE - record.address / PAGE + 1
}

/// What a record says of its pin. `key`: the address of the kernel's object.
pub fn observation<'a>(
    record: &PinRecord,
    key: u64,
    object: Object,
    creator: ProcessIndex,
    runs: &'a [Segment],
    clocks: Clocks,
) -> PinObservation<'a> {
    PinObservation {
        origin: Origin::Trace,
        sequence: record.sequence,
        mode: {
            let flags = record.number as u32;
            let by = |bits| if flags & bits == 0 { Mode::ReadOnly } else { Mode::ReadWrite };
            match &object {
                Object::Rdma(_) => by(RDMA_WRITABLE),
                Object::Unclaimed(_) | Object::V4l2(_) => by(FOLL_WRITE),
                Object::Vfio(_) => by(IOMMU_WRITE),
                Object::IoUring(_) | Object::Xdp(_) | Object::Udmabuf(_) => Mode::ReadWrite,
            }
        },
        object,
        bytes: record.length,
        pages: pages(record),
        // What is pinned of a file without a mapping has no address.
        address: Some(record.address).filter(|_| match Kind::try_from(record.kind) {
            Ok(Kind::Udmabuf) => false,
            Ok(Kind::Unclaimed) => record.device == 0,
            _ => true,
        }),
        memory: Memory::Runs(runs),
        doubts: doubts(record),
        creator: Some(creator),
        held: Held::Anchor { object: key, anchor: record.anchor },
        created: Some(clocks.of(record.created)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> PinRecord {
        PinRecord {
            sequence: 7,
            address: 0x1ff0,
            length: 0x20,
            kind: Kind::IoUring as u32,
            number: -1,
            ..Default::default()
        }
    }

    #[test]
    fn pages_are_those_touched() {
        let object =
            object(&record(), &HashMap::default(), &CharDevices::default(), &Callers::default()).unwrap();
        let clocks = Clocks { realtime: 1_000_000, boottime: 400 };
        let pin = observation(&record(), 16, object, ProcessIndex(0), &[], clocks);
        assert_eq!((pin.pages, pin.bytes, pin.created), (2, 32, Some(999_600)));
        assert_eq!((pin.sequence, pin.held), (7, Held::Anchor { object: 16, anchor: 0 }));
    }

    #[test]
    fn unknown_numbers_and_kinds() {
        assert_eq!(
            object(&record(), &HashMap::default(), &CharDevices::default(), &Callers::default()),
            Some(io_uring::Object::Buffer { ring_fd: Some(0), slot: None }.into())
        );
        assert_eq!(
            object(
                &PinRecord { kind: 99, ..record() },
                &HashMap::default(),
                &CharDevices::default(),
                &Callers::default()
            ),
            None
        );
    }

    #[test]
    fn a_region_without_write_access_is_read_only() {
        let clocks = Clocks { realtime: 0, boottime: 0 };
        for (access, mode) in [(0, Mode::ReadOnly), (4, Mode::ReadOnly), (1, Mode::ReadWrite)] {
            let record = PinRecord { kind: Kind::RdmaMr as u32, number: access, ..record() };
            let object =
                object(&record, &HashMap::default(), &CharDevices::default(), &Callers::default()).unwrap();
            assert_eq!(observation(&record, 16, object, ProcessIndex(0), &[], clocks).mode, mode);
        }
    }

    #[test]
    fn hostile_lengths_do_not_overflow() {
        let record = PinRecord { address: u64::MAX - 1, length: u64::MAX, ..record() };
        let object =
            object(&record, &HashMap::default(), &CharDevices::default(), &Callers::default()).unwrap();
        let clocks = Clocks { realtime: 0, boottime: 0 };
        assert!(observation(&record, 16, object, ProcessIndex(0), &[], clocks).pages >= 1);
    }
}
