//! Values of the kernel's own that are the same in all kernels, of which both sides need some.

/// Bits of `vm_flags` (include/linux/mm.h; the same since 2.6).
pub mod vm {
    /// It may be written to.
    pub const WRITE: u64 = 0x2;
    /// `VM_SHARED | VM_MAYSHARE`: what is written there is the file's.
    pub const SHARED: u64 = 0x8 | 0x80;
    /// It has no pages.
    pub const PFNMAP: u64 = 0x400;
    /// It is a device's.
    pub const IO: u64 = 0x4000;
}

/// Values of `s_magic` (include/uapi/linux/magic.h).
pub mod magic {
    /// tmpfs, and so memfds, System V shared memory and devtmpfs.
    pub const TMPFS: u64 = 0x0102_1994;
    /// hugetlbfs, and so memfds of huge pages.
    pub const HUGETLBFS: u64 = 0x9584_58f6;
    /// ramfs, and on machines without tmpfs devtmpfs.
    pub const RAMFS: u64 = 0x8584_58f6;
    /// `memfd_secret`.
    pub const SECRETMEM: u64 = 0x5345_434d;
}

/// The bit of `i_flags` of a file on DAX (include/linux/fs.h).
pub const S_DAX: u32 = 1 << 13;
/// Pages are asked for to be written to (include/linux/mm_types.h; the same since it exists).
pub const FOLL_WRITE: u32 = 1;
/// A device may write there (include/linux/iommu.h).
pub const IOMMU_WRITE: u32 = 2;
/// `ib_access_writable` (include/rdma/ib_verbs.h): LOCAL_WRITE, REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND.
pub const RDMA_WRITABLE: u32 = 1 | 2 | 8 | 16;
