//! Where overlayfs keeps the files below its own. It is mostly a module, and may be loaded at any time: so it is asked for when
//! a lease on such a file is met, not when the hooks are planned.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::btf::Btf;

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

impl Overlay {
    /// Reads it from BTF under a root directory.
    ///
    /// # Errors
    /// Why it is not known, as a clause.
    pub fn read(root: &Path) -> Result<Self, String> {
        let folder = root.join("sys/kernel/btf");
        let read =
            |name: &str| fs::read(folder.join(name)).map_err(|error| format!("no BTF of {name}: {error}"));
        let kernel = Arc::new(Btf::parse(read("vmlinux")?).map_err(|error| error.to_string())?);
        // Built in, it is part of the kernel's own.
        let module = match read("overlay") {
            Ok(bytes) => Some(Btf::parse_split(bytes, &kernel).map_err(|error| error.to_string())?),
            Err(_) => None,
        };
        Self::of(module.as_ref().unwrap_or(&kernel))
    }

    fn of(btf: &Btf) -> Result<Self, String> {
        let member = |path: &str| {
            let offset = btf.member(path).and_then(|member| member.bytes());
            offset.ok_or_else(|| format!("{path} is not in this kernel's BTF"))
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
        assert!(Overlay::read(folder.path()).unwrap_err().contains("no BTF of vmlinux"));
    }
}
