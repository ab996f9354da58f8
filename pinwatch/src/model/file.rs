//! Which file: its identity, and the name it had when it was pinned.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::Name;

/// A device number, major and minor, as in `/proc/PID/maps` (the kernel's `s_dev`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Device {
    /// The driver's number.
    pub major: u32,
    /// The instance's number.
    pub minor: u32,
}

impl Device {
    /// From the kernel's internal `dev_t`: 12 bits of major over 20 bits of minor (`MKDEV`, include/linux/kdev_t.h).
    pub fn from_kernel(dev: u32) -> Self {
        Self { major: dev >> 20, minor: dev & 0xf_ffff }
    }

    /// From what user space calls `dev_t` (`st_dev`, `st_rdev`), in the encoding that glibc and the kernel's `new_encode_dev`
    /// have in common.
    pub fn from_user(dev: u64) -> Self {
        let major = (dev >> 8 & 0xfff) | (dev >> 32 & !0xfff);
        let minor = (dev & 0xff) | (dev >> 12 & !0xff);
        Self { major: major as u32, minor: minor as u32 }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What makes a file this file and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// The file system's device.
    pub dev: Device,
    /// The inode number.
    pub ino: u64,
    /// The inode's generation, which tells a reused number apart; `None` where the source cannot know it.
    pub generation: Option<u32>,
}

/// What pinned pages belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Backing {
    /// The page cache of a file.
    File,
    /// tmpfs, memfd, shared anonymous memory.
    Shmem,
    /// hugetlbfs, huge memfd.
    Hugetlb,
    /// A device-dax character device.
    Devdax,
    /// Anonymous memory, private copies of file pages included.
    Anon,
    /// Memory of another device.
    Device,
    /// The source cannot tell: the memory is no longer mapped.
    Unknown,
}

impl Backing {
    /// All that this version knows.
    pub const ALL: [Self; 7] =
        [Self::File, Self::Shmem, Self::Hugetlb, Self::Devdax, Self::Anon, Self::Device, Self::Unknown];

    /// The word used in columns, JSON and options.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Shmem => "shmem",
            Self::Hugetlb => "hugetlb",
            Self::Devdax => "devdax",
            Self::Anon => "anon",
            Self::Device => "device",
            Self::Unknown => "unknown",
        }
    }
}

/// A file with pinned pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Which file.
    pub id: FileId,
    /// The path it had when it was pinned, in the mount namespace of the process that pinned it.
    pub path: Name,
    /// False if the path was cut short; the part that is there is then the end of it.
    pub path_complete: bool,
    /// The file system's type, such as `xfs`; empty if not known.
    pub fstype: String,
    /// Whether the name is gone; `None` if that could not be found out.
    pub deleted: Option<bool>,
    /// Whether it is mapped without page cache (`S_DAX`), as far as known.
    pub dax: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_in_both_encodings() {
        assert_eq!(Device::from_kernel(253 << 20 | 1), Device { major: 253, minor: 1 });
        for (major, minor) in [(253, 1), (0, 47), (231, 192), (4095, 0xf_ffff), (0x1234, 0x123)] {
            let (high, low) = (u64::from(major), u64::from(minor));
            let dev = (high & !0xfff) << 32 | (high & 0xfff) << 8 | (low & !0xff) << 12 | low & 0xff;
            assert_eq!(Device::from_user(dev), Device { major, minor });
            assert_eq!((rustix::fs::major(dev), rustix::fs::minor(dev)), (major, minor));
        }
    }
}
