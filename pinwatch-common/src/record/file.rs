//! Files: which one, and what it is called.

use super::no_padding;

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

/// Asks which files are below one of overlayfs, and has the answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayQuery {
    /// The open file.
    pub file: u64,
    /// Its inode, by which it is known still to be there.
    pub inode: u64,
    /// `ovl_file.realfile`, plus 1; 0 where `file.private_data` is the file below itself (before 6.13).
    pub through: u64,
    /// `ovl_inode.vfs_inode`
    pub vfs_inode: u64,
    /// `ovl_inode.__upperdentry`
    pub upper: u64,
    /// `dentry.d_inode`
    pub dentry_inode: u64,
    /// The file that was opened below, and the one that is written to, if there is one.
    pub below: [FileKey; 2],
}

const _: () = {
    no_padding::<FileKey>(16);
    no_padding::<FileRecord>(6 * 8 + 4 * 4 + 32 + SHORT_PATH);
    no_padding::<LongPath>(LONG_PATH);
    no_padding::<OverlayQuery>(6 * 8 + 2 * 16);
};
