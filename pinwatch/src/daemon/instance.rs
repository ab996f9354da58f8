//! One daemon for a socket: a lock file beside it, held for as long as the process lives.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Why this process cannot be the daemon.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another one is.
    #[error("another pinwatch (pid {pid}) is running here. Stop it, or use --socket for a second one")]
    Running {
        /// Its process id, as it wrote it down.
        pid: String,
    },
    /// The folder or the lock file cannot be made.
    #[error("cannot use {path}: {error}. Run pinwatch as root, or name another place with --socket", path = path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The lock of the running daemon.
#[derive(Debug)]
pub struct Instance {
    _lock: File,
}

/// Becomes the daemon of a socket, or says who is. The kernel lets go of the lock however the process ends, so that a
/// lock file left behind locks nobody out.
pub fn claim(socket: &Path) -> Result<Instance, InstanceError> {
    let lock = socket.with_extension("lock");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| InstanceError::Path { path, error }
    };
    if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists())
    {
        fs::create_dir_all(folder).map_err(failed(folder))?;
        // World-connectable on purpose: replies are filtered by SO_PEERCRED.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(failed(folder))?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&lock)
        .map_err(failed(&lock))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.take(32).read_to_string(&mut pid);
            let pid = pid.trim().to_owned();
            return Err(InstanceError::Running {
                pid: if pid.is_empty() { "unknown".to_owned() } else { pid },
            });
        }
        Err(error) => return Err(failed(&lock)(error.into())),
    }
    let write = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed(&lock))?;
    Ok(Instance { _lock: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_of_the_first_and_a_stale_lock_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("new/pinwatch.sock");
        let first = claim(&socket).unwrap();
        let second = claim(&socket).unwrap_err().to_string();
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        drop(first);
        assert!(socket.with_extension("lock").exists());
        claim(&socket).unwrap();
    }
}
