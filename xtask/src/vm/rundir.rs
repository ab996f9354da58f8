//! The folder that one run shares with its guest: scripts, the project's binaries, the command's arguments. It goes with
//! the run; what a killed run left is removed by the next.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use super::Prepared;
use crate::cache::{Cache, remove, try_lock};

const START: &str = include_str!("guest/start");
const COMMANDS: &[(&str, &str)] = &[
    ("rdma-up", include_str!("guest/rdma-up")),
    ("pmem-up", include_str!("guest/pmem-up")),
    ("nfs-up", include_str!("guest/nfs-up")),
    ("nfs-down", include_str!("guest/nfs-down")),
    ("module-build", include_str!("guest/module-build")),
    ("vfio-up", include_str!("guest/vfio-up")),
];

/// A run's folder; dropped, it is removed.
pub struct RunDir {
    path: PathBuf,
    /// Its lock tells the next xtask that this run still lives.
    _alive: File,
}

impl RunDir {
    /// Creates the folder with all that every run needs.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn create(prepared: &Prepared) -> Result<Self> {
        let runs = prepared.cache.path("runs");
        let _lock = prepared.cache.lock("runs")?;
        sweep(&runs);
        // One process may run several guests at a time.
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{}.{run}", std::process::id()));
        remove(&path)?;
        for folder in ["vm/bin", "vm/guest"] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let alive = path.join("alive");
        let alive = File::create(&alive).with_context(|| format!("cannot write {}", alive.display()))?;
        try_lock(&alive, libc::LOCK_NB)?;
        let run = Self { path, _alive: alive };
        run.program("vm/start", START)?;
        for (name, text) in COMMANDS {
            run.program(&format!("vm/guest/{name}"), text)?;
        }
        for binary in &prepared.binaries {
            let name = binary.file_name().unwrap_or_default();
            let place = run.path.join("vm/bin").join(name);
            // A link costs nothing, and a build during the run replaces the file, not what is in it.
            if fs::hard_link(binary, &place).is_err() {
                fs::copy(binary, &place).with_context(|| format!("cannot copy {}", binary.display()))?;
            }
        }
        Ok(run)
    }

    /// The folder that the guest sees as `/vm`.
    pub fn shared(&self) -> PathBuf {
        self.path.join("vm")
    }

    /// Where the guest's console is recorded.
    pub fn console(&self) -> PathBuf {
        self.path.join("console")
    }

    /// The file behind the NVDIMM `number`.
    pub fn nvdimm(&self, number: u8) -> PathBuf {
        self.path.join(format!("nvdimm{number}"))
    }

    /// Writes a file of the shared folder.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.shared().join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Keeps the console where it outlives the run, and returns that place.
    pub fn keep_console(&self, cache: &Cache, kernel: &str) -> PathBuf {
        let kept = cache.log(&format!("console-{kernel}"));
        // Only for a reader who wants more than what was shown: its loss changes nothing.
        let _ = fs::copy(self.console(), &kept);
        kept
    }

    fn program(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What stays, the next run's sweep removes.
        let _ = remove(&self.path);
    }
}

/// Removes the folders of runs that no longer live.
fn sweep(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    for entry in entries.flatten() {
        let free = File::open(entry.path().join("alive"))
            .is_ok_and(|file| try_lock(&file, libc::LOCK_NB).unwrap_or(false));
        if free || !entry.path().join("alive").exists() {
            let _ = remove(&entry.path());
        }
    }
}

/// The arguments of a command, each ended by a NUL: any byte an argument can have comes through.
pub fn nul_separated(command: &[OsString]) -> Vec<u8> {
    command.iter().flat_map(|argument| argument.as_bytes().iter().copied().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_spaces_quotes_newlines_and_emptiness() {
        let command = ["sh", "-c", "echo 'a b'\n\"$x\"", ""].map(OsString::from);
        assert_eq!(nul_separated(&command), b"sh\0-c\0echo 'a b'\n\"$x\"\0\0");
    }
}
