//! Scratch memory: where a record and a path are put together, and where loops over kernel structures keep their state. A stack
//! has 512 bytes, callbacks included.
//!
//! The whole plan of that memory is here, also the state of loops that other files run: so none of them has to know another.
//! State that is here and not on the stack is unknown to the verifier, which then neither follows the loops step by step nor
//! (6.1) deletes what the first step does not need.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use pinwatch_common::{
    ExtentRecord, FileKey, FileRecord, LONG_PATH, PinRecord, SHORT_PATH, SampledPages,
    subsystems::SCRATCH_SLOTS,
};

/// One slot for each program that makes pins: they can preempt each other, but no program can preempt itself.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCH_SLOTS, 0);

/// See [`SCRATCH`]. The path is read into `file.path`, and runs on into `overflow`.
#[repr(C)]
pub struct Scratch {
    pub pin: PinRecord,
    /// The latest file whose name was looked up.
    pub file: FileRecord,
    overflow: [u8; LONG_PATH - SHORT_PATH + 256],
    pub path: PathWalk,
    pub samples: SampledPages,
    pub sampling: Sampling,
    pub mappings: Mappings,
    /// Which file `file` is.
    pub latest: FileKey,
    pub search: Search,
}

/// From a dentry up to the top of the mount tree (`file::path`).
#[repr(C)]
pub struct PathWalk {
    pub dentry: u64,
    pub mount: u64,
    pub root: u64,
    pub position: u64,
    pub components: u32,
    pub flags: u32,
    pub parent: u64,
    pub name: u64,
    pub hash_len: u64,
}

/// Over a pin's three pages (`pin::liveness`).
#[repr(C)]
pub struct Sampling {
    pub array: u64,
    /// The last place in the array.
    pub last: u64,
    pub next: u64,
}

/// Over the mappings of what was refused (`pin::refused`).
#[repr(C)]
pub struct Mappings {
    pub address: u64,
    pub end: u64,
    pub vma: [u64; 2],
    /// Address of the `struct file`.
    pub file: u64,
    pub flags: u64,
    pub magic: u64,
    pub inode_flags: u64,
    /// 1: something was found, 2: it may be the reason.
    pub found: u64,
    /// Address that has no mapping.
    pub hole: u64,
    /// What was asked for: where from, the errno, and whether to write.
    pub caller: u64,
    pub errno: u64,
    pub write: u64,
}

/// Over the VMAs, or the pages, of a range (`file::vma_extents`, `file::page_extents`).
#[repr(C)]
pub struct Search {
    pub address: u64,
    pub end: u64,
    pub start: u64,
    pub counts: Counts,
    pub mapping: u64,
    /// Start and end of the VMA at `address`.
    pub vma: [u64; 2],
    pub pages: Pages,
    pub scatter_want: u64,
    pub extent: ExtentRecord,
    pub last: ExtentRecord,
    /// What one page says, where the VMAs are not to be had.
    pub of_page: ExtentRecord,
}

/// What a search begins with at zero.
#[repr(C)]
pub struct Counts {
    pub found: u64,
    pub retries: u64,
    pub doubt: u64,
    /// The page that the scatterlist entry at hand begins with.
    pub scatter_page: u64,
    /// The number of extents there were, if the first one that is found may go on the last one; 0 otherwise.
    pub joins: u64,
    /// The first page, if it is of a file or anonymous: the one shared page of zeros, which nobody pins, is neither.
    pub page: u64,
}

/// Where an object keeps its pages, so that the one at an extent's start can be found.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Pages {
    /// `file::page::PAGES_*`
    pub form: u64,
    /// Address of the array or of the first scatterlist entry; 0 if it could not be found.
    pub at: u64,
    /// For bio_vecs: log2 of the folio size, when all entries but the first cover one folio each.
    pub shift: u64,
    /// The first `struct page`; 0 if it was not read yet.
    pub first: u64,
}
