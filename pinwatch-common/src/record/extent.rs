//! Extents: runs of pages of one file.

use super::{FileKey, no_padding};

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

/// At most so many VMAs of one pin are looked at.
pub const MAX_EXTENTS: u32 = 4096;

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

const _: () = {
    no_padding::<ExtentRecord>(40);
    no_padding::<ExtentKey>(16);
};
