//! Records of pins, and what hangs on them.

use super::{ExtentRecord, no_padding};

/// Bits of [`PinRecord::doubt`]: why the extents may not be exact.
pub mod doubt {
    /// Looking up a VMA failed: the memory was being remapped all the time.
    pub const BUSY: u32 = 1;
    /// A part of the range had no VMA any more.
    pub const UNMAPPED: u32 = 2;
    /// More VMAs than [`crate::MAX_EXTENTS`].
    pub const TOO_MANY: u32 = 4;
    /// The map of extents was full.
    pub const MAP_FULL: u32 = 8;
    /// The page at the start of an extent is not one of the file that is mapped there now.
    pub const PAGE_MISMATCH: u32 = 16;
    /// The map of files was full, so a path is missing.
    pub const NO_PATH: u32 = 32;
    /// The page at the start of an extent was not looked at.
    pub const UNCHECKED: u32 = 64;
    /// The memory is another process's: only its first page was looked at.
    pub const FOREIGN: u32 = 128;
}

/// One live pin. Its key is the address of the kernel object that holds the pages; that of an unclaimed one, whose object
/// nobody knows, is its sequence number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinRecord {
    /// Counted from 1.
    pub sequence: u64,
    /// When it was made, CLOCK_BOOTTIME in nanoseconds.
    pub created: u64,
    /// User address of the first byte.
    pub address: u64,
    /// Bytes asked for.
    pub length: u64,
    /// The object's owner: the ring's `io_ring_ctx`; for RDMA the `ib_umem` made before it by the same call, if unnamed; the
    /// address that an unclaimed pin was asked for from; VFIO: the first address that the device uses.
    pub owner: u64,
    /// What the anchor's `struct file` has in `private_data`, or leads to: `io_ring_ctx`, `ib_uverbs_file`, `xdp_umem`,
    /// `dma_buf`, `vfio_container`, whatever a V4L2 driver has; 0 if not known.
    pub anchor: u64,
    /// Thread group id in the upper half, thread id in the lower.
    pub pid_tgid: u64,
    /// io_uring: how many unmaps of a shared buffer are under way.
    pub leaving: u64,
    /// How many references the kernel counts for it; 0: one for each page.
    pub references: u64,
    /// Address of its first page's `struct page`; 0 if not known.
    pub page: u64,
    /// `start_boottime` of the thread group's leader, nanoseconds.
    pub start: u64,
    /// Command name of the thread group's leader.
    pub comm: [u8; 16],
    /// User id in the initial user namespace.
    pub uid: u32,
    /// A [`Kind`](crate::subsystems::Kind), as a number.
    pub kind: u32,
    /// `doubt` bits.
    pub doubt: u32,
    /// How many extents there are; the first is in this record.
    pub extents: u32,
    /// The anchor's file descriptor in the creator; -1 if not known.
    pub anchor_fd: i32,
    /// io_uring: slot, -1 if not known; RDMA: access flags; AF_XDP: umem id; unclaimed and V4L2: `FOLL_*` flags; VFIO:
    /// `IOMMU_*` flags; udmabuf: inode number.
    pub number: i32,
    /// RDMA: the device's index; V4L2: `i_rdev` of its node.
    pub device: u32,
    /// RDMA memory regions: mrn.
    pub mrn: u32,
    /// RDMA memory regions: local key.
    pub lkey: u32,
    /// RDMA memory regions: remote key.
    pub rkey: u32,
    /// The first extent.
    pub first: ExtentRecord,
}

/// A buffer, and a ring that it was cloned into.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShareKey {
    /// The key of the pin.
    pub object: u64,
    /// As [`PinRecord::anchor`].
    pub anchor: u64,
}

/// An RDMA device's name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceName {
    /// Ended by NUL unless it fills the array (`IB_DEVICE_NAME_MAX`).
    pub name: [u8; 64],
}

/// Return addresses that are kept of a stack.
pub const STACK: usize = 16;

/// By which a pin that nobody claimed is known to be there still: one for each, by [`crate::PinRecord::sequence`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledPages {
    /// The first page, one in the middle of the first call, and the last one.
    pub pages: [PageRecord; 3],
    /// Where the system call's registers are in which it was made.
    pub registers: u64,
    /// The kernel's stack then, innermost first; 0 behind its end.
    pub stack: [u64; STACK],
}

/// A page as it was when it was pinned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRecord {
    /// Address of the `struct page`.
    pub page: u64,
    /// `mapping` of its folio.
    pub mapping: u64,
    /// `index` of its folio.
    pub index: u64,
}

const _: () = {
    no_padding::<PinRecord>(11 * 8 + 16 + 10 * 4 + 40);
    no_padding::<ShareKey>(16);
    no_padding::<DeviceName>(64);
    no_padding::<SampledPages>((3 * 3 + 1 + STACK) * 8);
};
