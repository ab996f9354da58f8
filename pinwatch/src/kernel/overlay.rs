//! Where overlayfs keeps the files below its own. It is mostly a module, and may be loaded at any time: so it is asked for when
//! a lease on such a file is met, not when the hooks are planned.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use super::btf::{Btf, BtfError};

/// What the programs are told; see [`pinwatch_common::OverlayQuery`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// `ovl_file.realfile`, plus 1; 0 before 6.13, where `file.private_data` is that file.
    pub through: u64,
    /// `ovl_inode.vfs_inode`
    pub vfs_inode: u64,
    /// `ovl_inode.__upperdentry`
    pub upper: u64,
    /// `dentry.d_inode`
    pub dentry_inode: u64,
}

/// Why it is not known where overlayfs keeps the files below.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// There is no BTF that could be read.
    #[error("there is no BTF of {of}: {error}")]
    NoBtf {
        /// Of what.
        of: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The BTF cannot be understood.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A member is not there.
    #[error("this kernel's BTF does not have {0}")]
    NoMember(&'static str),
}

impl Overlay {
    /// Reads it from BTF under a root directory.
    ///
    /// # Errors
    /// [`OverlayError`]
    pub fn read(root: &Path) -> Result<Self, OverlayError> {
        let folder = root.join("sys/kernel/btf");
        let read =
            |of: &'static str| fs::read(folder.join(of)).map_err(|error| OverlayError::NoBtf { of, error });
        let kernel = Arc::new(Btf::parse(read("vmlinux")?)?);
        // Built in, it is part of the kernel's own.
        let module = match read("overlay") {
            Ok(bytes) => Some(Btf::parse_split(bytes, &kernel)?),
            Err(_) => None,
        };
        Self::of(module.as_ref().unwrap_or(&kernel))
    }

    fn of(btf: &Btf) -> Result<Self, OverlayError> {
        let member = |path: &'static str| {
            let offset = btf.member(path).and_then(|member| member.bytes());
            offset.ok_or(OverlayError::NoMember(path))
        };
        Ok(Self {
            through: member("ovl_file.realfile").map_or(0, |offset| offset + 1),
            vfs_inode: member("ovl_inode.vfs_inode")?,
            upper: member("ovl_inode.__upperdentry")?,
            dentry_inode: member("dentry.d_inode")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_btf_there_is_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let error = Overlay::read(folder.path()).unwrap_err();
        assert!(matches!(error, OverlayError::NoBtf { of: "vmlinux", .. }), "{error}");
    }
}
