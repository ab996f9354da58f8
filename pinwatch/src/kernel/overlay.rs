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
    use super::super::btf::writer::{NewField, Writer};
    use super::*;

    /// BTF with overlayfs' structures; `ovl_file` is of 6.13 and later.
    fn with_overlay(has_ovl_file: bool) -> Vec<u8> {
        let field = |name: &str, type_id, bytes: u32| NewField {
            name: name.to_owned(),
            type_id,
            bit_offset: bytes * 8,
        };
        let mut writer = Writer::new(1, 0);
        let pointer = writer.pointer(0);
        let inode = writer.structure("inode", false, 600, &[]);
        writer.structure("dentry", false, 192, &[field("d_inode", pointer, 48)]);
        let members = [field("__upperdentry", pointer, 16), field("vfs_inode", inode, 40)];
        writer.structure("ovl_inode", false, 700, &members);
        if has_ovl_file {
            writer.structure("ovl_file", false, 16, &[field("realfile", pointer, 8)]);
        }
        writer.finish()
    }

    #[test]
    fn members_are_where_btf_has_them() {
        let read = |bytes: Vec<u8>| {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("sys/kernel/btf");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("vmlinux"), bytes).unwrap();
            Overlay::read(root.path())
        };
        let expected = Overlay { through: 9, vfs_inode: 40, upper: 16, dentry_inode: 48 };
        assert_eq!(read(with_overlay(true)).unwrap(), expected);
        assert_eq!(read(with_overlay(false)).unwrap(), Overlay { through: 0, ..expected });
        let mut writer = Writer::new(1, 0);
        writer.int(4);
        let error = read(writer.finish()).unwrap_err();
        assert!(matches!(error, OverlayError::NoMember("ovl_inode.vfs_inode")), "{error}");
        assert!(matches!(read(vec![0; 8]), Err(OverlayError::Btf(_))));
    }

    #[test]
    fn without_btf_there_is_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let error = Overlay::read(folder.path()).unwrap_err();
        assert!(matches!(error, OverlayError::NoBtf { of: "vmlinux", .. }), "{error}");
    }
}
