//! From what the user wrote to what can be compared: paths to files, names to users. All questions to the system that a
//! selection takes are asked here; `listing` compares, and asks nobody.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;

use pinwatch::listing::argument::ArgumentError;
use pinwatch::listing::escape;
use pinwatch::listing::select::Operand;
use pinwatch::model::Device;
use pinwatch::source::host::mounts;

/// Why an operand cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperandError {
    /// The file is there, but cannot be looked at.
    #[error("cannot look at {}: {}; check the path and who may search its directories", escape::name(.path), words(*.errno))]
    File {
        /// As written.
        path: Vec<u8>,
        /// Why.
        errno: Errno,
    },
    /// There is no such user.
    #[error("no user \"{}\"; give a name that `getent passwd` knows, or a number", escape::sentence(.0))]
    NoUser(String),
    /// The users cannot be looked up.
    #[error("cannot look up user \"{}\": {}; give the number", escape::sentence(.name), .errno.desc())]
    Users {
        /// As written.
        name: String,
        /// Why.
        errno: nix::errno::Errno,
    },
    /// Not a process id.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
}

/// A file operand.
///
/// # Errors
/// [`OperandError::File`]
pub fn file(written: &OsStr) -> Result<Operand, OperandError> {
    let mut operand = operand(written);
    match rustix::fs::stat(written) {
        Ok(stat) => {
            operand.exists = true;
            operand.ids.push((Device::from_user(stat.st_dev), stat.st_ino));
            // On btrfs the kernel's maps have another device than stat: the one of the mount.
            operand.ids.extend(mount_device(written).map(|dev| (dev, stat.st_ino)));
            operand.ids.dedup();
            Ok(operand)
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(operand),
        Err(errno) => Err(OperandError::File { path: written.as_bytes().to_vec(), errno }),
    }
}

/// Whether a file operand is a directory, on which there can be no pin.
pub fn is_directory(written: &OsStr) -> bool {
    Path::new(written).is_dir()
}

/// A directory whose files are asked for. It need not exist any more.
pub fn directory(written: &OsStr) -> Operand {
    operand(written)
}

/// A mount. It need not be mounted any more.
pub fn mount(written: &OsStr) -> Operand {
    let mut operand = operand(written);
    // The last one listed lies on top.
    let mounts = mounts::of(Path::new("/proc/self"));
    operand.device = mounts.iter().rev().find(|m| operand.paths.contains(&m.point)).map(|m| m.dev);
    operand
}

/// A user, by name or number.
///
/// # Errors
/// [`OperandError::NoUser`], [`OperandError::Users`]
pub fn user(written: &str) -> Result<u32, OperandError> {
    let number = |otherwise| written.parse().map_err(|_| otherwise);
    match nix::unistd::User::from_name(written) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => number(OperandError::NoUser(written.to_owned())),
        Err(errno) => number(OperandError::Users { name: written.to_owned(), errno }),
    }
}

/// A process id.
///
/// # Errors
/// [`ArgumentError::NoPid`]
pub fn pid(written: &str) -> Result<u32, ArgumentError> {
    match written.parse::<u32>() {
        Ok(pid) if pid > 0 && pid <= i32::MAX as u32 => Ok(pid),
        _ => Err(ArgumentError::NoPid(written.to_owned())),
    }
}

/// A path for a sentence.
pub fn shown(path: &OsStr) -> String {
    escape::name(path.as_bytes())
}

/// Why a system call failed, in the words of the C library.
fn words(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}

fn operand(written: &OsStr) -> Operand {
    let path = Path::new(written);
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut paths = vec![bytes(absolute.clone())];
    // Without the file itself, the directory that it was in still tells where it was.
    let real = absolute
        .canonicalize()
        .ok()
        .or_else(|| Some(absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?)));
    paths.extend(real.map(bytes));
    paths.dedup();
    Operand { written: written.as_bytes().to_vec(), paths, ..Operand::default() }
}

fn bytes(path: PathBuf) -> Vec<u8> {
    let mut bytes = path.into_os_string().into_vec();
    while bytes.len() > 1 && bytes.ends_with(b"/") {
        bytes.pop();
    }
    bytes
}

/// The kernel's device of the mount that a file is on.
fn mount_device(path: &OsStr) -> Option<Device> {
    let statx = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    if statx.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return None;
    }
    let mounts = mounts::of(Path::new("/proc/self"));
    mounts.iter().find(|m| m.id == statx.stx_mnt_id).map(|m| m.dev)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_there_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "x").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let operand = file(link.as_os_str()).unwrap();
        assert!(
            operand.exists
                && operand.paths.contains(&bytes(path.clone()))
                && operand.paths.contains(&bytes(link))
        );
        assert_eq!(operand.ids.first(), file(path.as_os_str()).unwrap().ids.first());
        let gone = file(dir.path().join("b").as_os_str()).unwrap();
        assert!(!gone.exists && gone.ids.is_empty() && !gone.paths.is_empty());
        let below = file(path.join("x").as_os_str()).unwrap();
        assert!(!below.exists);
        assert!(file(OsStr::new(&"x".repeat(5000))).is_err());
    }

    #[test]
    fn mounts_by_where_they_are() {
        assert!(mount(OsStr::new("/proc/")).device.is_some());
        assert!(mount(OsStr::new("/proc/self")).device.is_none());
        assert_eq!(mount(OsStr::new("/")).paths, [b"/".to_vec()]);
    }

    #[test]
    fn users_and_processes() {
        assert_eq!(user("root"), Ok(0));
        assert_eq!(user("4242"), Ok(4242));
        let nobody = user("x y\n").unwrap_err();
        assert_eq!(nobody, OperandError::NoUser("x y\n".to_owned()));
        assert!(nobody.to_string().starts_with("no user \"x y\\n\"; "), "{nobody}");
        assert_eq!(pid("812"), Ok(812));
        for bad in ["", "0", "-1", "1x", "4294967296", "3000000000"] {
            assert!(pid(bad).is_err());
        }
    }
}
