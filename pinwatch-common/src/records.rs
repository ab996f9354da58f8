//! Records in the BPF maps and in the ring buffer.

/// Bits of [`PinRecord::doubt`]: why the extents may not be exact.
pub mod doubt {
    /// Looking up a VMA failed: the memory was being remapped all the time.
    pub const BUSY: u32 = 1;
    /// A part of the range had no VMA any more.
    pub const UNMAPPED: u32 = 2;
    /// More VMAs than [`super::MAX_EXTENTS`].
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

/// Bits of [`ExtentRecord::flags`].
pub mod extent_flag {
    /// A file is mapped here.
    pub const FILE: u32 = 1;
    /// The mapping is private: what is written through it is anonymous memory.
    pub const PRIVATE: u32 = 2;
    /// The first page was seen to be anonymous.
    pub const PAGE_ANON: u32 = 4;
    /// The first page was seen to belong to the file.
    pub const PAGE_FILE: u32 = 8;
    /// It is a device's memory, which has no pages to pin.
    pub const DEVICE: u32 = 16;
}

/// Bits of [`FileRecord::flags`].
pub mod path_flag {
    /// The walk reached the top of a mount tree: the path is absolute in its mount namespace.
    pub const ABSOLUTE: u32 = 1;
    /// The path was cut: its beginning is missing.
    pub const CUT: u32 = 2;
    /// The name hangs below no mount (memfd, pseudo file systems).
    pub const DETACHED: u32 = 4;
    /// A read failed on the way.
    pub const FAULT: u32 = 8;
}

/// Indices of the map of counters.
pub mod counter {
    /// Next sequence number of a pin.
    pub const SEQUENCE: u32 = 0;
    /// Pins that found no room in the map of pins.
    pub const PINS_FULL: u32 = 1;
    /// Extents that found no room.
    pub const EXTENTS_FULL: u32 = 2;
    /// Files that found no room.
    pub const FILES_FULL: u32 = 3;
    /// Calls that found no room in the map of calls under way.
    pub const CALLS_FULL: u32 = 4;
    /// Returns that were never seen (kretprobe instances ran out).
    pub const RETURNS_MISSED: u32 = 5;
    /// Records that a new object replaced: its predecessor's end was missed.
    pub const REPLACED: u32 = 6;
    /// Ring buffer events that found no room. No pin is lost by that.
    pub const EVENTS_LOST: u32 = 7;
    /// VMA look-ups that had to be repeated.
    pub const VMA_RETRIES: u32 = 8;
    /// Calls whose first instance could leave no mark for the second: so many of `RECOVERED` may be none.
    pub const UNMARKED: u32 = 9;
    /// Rings that a buffer was cloned into and that found no room.
    pub const SHARES_FULL: u32 = 10;
    /// Times that buffers were cloned.
    pub const CLONES: u32 = 11;
    /// Leases that found no room.
    pub const LEASES_FULL: u32 = 12;
    /// Threads that wait for a lease and that found no room.
    pub const WAITERS_FULL: u32 = 13;
    /// Pins that nobody claimed at once; most are claimed by a subsystem a moment later.
    pub const UNCLAIMED: u32 = 14;
    /// Records whose kind no version known here gives: their subsystem's totals are not exact.
    pub const UNKNOWN_KIND: u32 = 15;
    /// Plus a hook's number: calls that the first instance of its program missed, and the second one saw and had work with.
    pub const RECOVERED: u32 = 16;
    /// How many counters there are.
    pub const COUNT: u32 = RECOVERED + crate::subsystems::HookId::COUNT;
}

/// The first size class of [`Totals::sizes`], a power of two; each further one is four times as large.
pub const SMALLEST_SIZE: u32 = 12;
/// How many size classes there are; the last one has no upper bound.
pub const SIZES: usize = 16;

/// What a subsystem has registered since it is watched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Pins made.
    pub made: u64,
    /// Pins whose release was seen.
    pub released: u64,
    /// Bytes of the pins made.
    pub bytes: u64,
    /// Pins made by size: the first has those of at most 4 KiB, the next of at most 16 KiB.
    pub sizes: [u64; SIZES],
}

/// At most so many VMAs of one pin are looked at.
pub const MAX_EXTENTS: u32 = 4096;
/// Path bytes kept in a [`FileRecord`]; longer ones go to a [`LongPath`].
pub const SHORT_PATH: usize = 416;
/// Path bytes kept in a [`LongPath`]: `PATH_MAX`.
pub const LONG_PATH: usize = 4096;

/// Which file: as [`ExtentRecord`] has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// Inode number.
    pub ino: u64,
    /// `s_dev`, the kernel's encoding.
    pub dev: u32,
    /// Inode generation.
    pub generation: u32,
}

/// The key under which a path that was looked at again is left: no file has it.
pub const AGAIN: FileKey = FileKey { ino: u64::MAX, dev: u32::MAX, generation: u32::MAX };

/// A run of pages behind one VMA.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtentRecord {
    /// Which file; zero where none is mapped.
    pub file: FileKey,
    /// Offset in the file in bytes; of no meaning without a file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// `extent_flag` bits.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Second and later extents of a pin.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtentKey {
    /// [`PinRecord::sequence`].
    pub sequence: u64,
    /// 1 for the second.
    pub index: u64,
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
    /// `kind`.
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

/// A file's name, the last component first, each ended by NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileRecord {
    /// Address of the dentry that the name was read from.
    pub dentry: u64,
    /// Address of the `struct vfsmount` that the file was opened through.
    pub mount: u64,
    /// The dentry's parent: with `hash_len` tells a renamed file.
    pub parent: u64,
    /// `d_name.hash_len`.
    pub hash_len: u64,
    /// `s_magic`.
    pub magic: u64,
    /// CLOCK_BOOTTIME nanoseconds of the latest pin of this file.
    pub used: u64,
    /// Bytes of the path; more than [`SHORT_PATH`]: it is in the map of long paths.
    pub length: u32,
    /// `path_flag` bits.
    pub flags: u32,
    /// `i_mode`, and in the upper half the lower one of `i_flags`.
    pub mode: u32,
    /// Components of the path.
    pub components: u32,
    /// File system type, ended by NUL unless it fills the array.
    pub fstype: [u8; 32],
    /// The path, if short.
    pub path: [u8; SHORT_PATH],
}

/// A path that does not fit into [`FileRecord`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LongPath {
    /// As [`FileRecord::path`].
    pub path: [u8; LONG_PATH],
}

/// An RDMA device's name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceName {
    /// Ended by NUL unless it fills the array (`IB_DEVICE_NAME_MAX`).
    pub name: [u8; 64],
}

/// How an anchor is kept: values of [`HolderRecord::via`].
pub mod via {
    /// A file descriptor; the value is its number.
    pub const FD: u32 = 1;
    /// A mapping; the value is its address.
    pub const MAPPING: u32 = 2;
    /// A registered ring; the value is its place.
    pub const REGISTERED: u32 = 3;
    /// In a message that nobody has received; the value is the descriptor of the receiving socket.
    pub const IN_FLIGHT: u32 = 4;
    /// Registered as a file with a ring; the value is the ring's descriptor, or [`NO_FD`] if the process has it otherwise.
    pub const RING_FILE: u32 = 5;
    /// No descriptor.
    pub const NO_FD: u64 = u32::MAX as u64;
}

/// One way in which a process keeps an anchor, as an iterator found it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HolderRecord {
    /// [`PinRecord::anchor`].
    pub anchor: u64,
    /// See `via`.
    pub value: u64,
    /// In flight: the message's address, and which of its files, to tell them apart when seen through several descriptors.
    pub message: u64,
    /// `start_boottime` of the thread group's leader, nanoseconds.
    pub start: u64,
    /// Command name of the thread group's leader.
    pub comm: [u8; 16],
    /// Thread group id.
    pub pid: u32,
    /// Effective user id in the initial user namespace.
    pub uid: u32,
    /// `via`.
    pub via: u32,
    /// In flight: which of the message's files.
    pub index: u32,
}

/// What happened: values of [`Event::what`].
pub mod event {
    /// A pin was made.
    pub const MADE: u32 = 1;
    /// A pin was released.
    pub const RELEASED: u32 = 2;
    /// A kernel module was loaded or is being removed.
    pub const MODULES: u32 = 3;
    /// A lease was taken: a [`crate::LeaseEvent`], as are those that follow.
    pub const LEASE_TAKEN: u32 = 4;
    /// A lease is being changed, or taken away if `wanted` is `F_UNLCK`.
    pub const LEASE_CHANGED: u32 = 5;
    /// A thread begins to wait for a lease to go.
    pub const BREAK_WAITS: u32 = 6;
    /// A thread is turned away because of a lease: it does not want to wait.
    pub const BREAK_REFUSED: u32 = 7;
    /// A thread no longer waits, or is about to wait for another lease on the same file.
    pub const BREAK_DONE: u32 = 8;
    /// A pin was made that nobody claimed yet.
    pub const UNCLAIMED: u32 = 9;
    /// A pin was refused: a [`super::RefusedEvent`].
    pub const REFUSED: u32 = 10;
}

/// History, and a reason to wake up. Losing one never loses a pin.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub time: u64,
    /// [`PinRecord::sequence`].
    pub sequence: u64,
    /// `event`.
    pub what: u32,
    /// [`PinRecord::kind`].
    pub kind: u32,
    /// Thread group id of the process that did it.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}

/// A pin that was made or released, told while somebody listens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinEvent {
    /// What happened to which pin.
    pub event: Event,
    /// The file of its first extent.
    pub file: FileKey,
    /// [`PinRecord::length`].
    pub length: u64,
    /// [`PinRecord::start`].
    pub start: u64,
    /// [`PinRecord::comm`]: of its creator.
    pub comm: [u8; 16],
    /// Process id of its creator.
    pub creator: u32,
    /// [`PinRecord::uid`].
    pub uid: u32,
}

pub(crate) const fn no_padding<T>(sum_of_fields: usize) {
    assert!(size_of::<T>() == sum_of_fields && size_of::<T>().is_multiple_of(8));
}

const _: () = {
    no_padding::<FileKey>(16);
    no_padding::<ExtentRecord>(40);
    no_padding::<ExtentKey>(16);
    no_padding::<PinRecord>(11 * 8 + 16 + 10 * 4 + 40);
    no_padding::<ShareKey>(16);
    no_padding::<Totals>((3 + SIZES) * 8);
    no_padding::<HolderRecord>(4 * 8 + 16 + 4 * 4);
    no_padding::<FileRecord>(6 * 8 + 4 * 4 + 32 + SHORT_PATH);
    no_padding::<LongPath>(LONG_PATH);
    no_padding::<DeviceName>(64);
    no_padding::<Event>(32);
    no_padding::<PinEvent>(32 + 16 + 2 * 8 + 16 + 2 * 4);
};
