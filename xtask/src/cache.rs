//! The folder where prepared things are kept between runs. A thing is built under a temporary name and renamed
//! when it is whole, so what has its final name can be used; a lock lets one xtask at a time build it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The cache folder: `$PINWATCH_CACHE`, else `pinwatch` in the user's cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Finds the cache folder and creates it.
    ///
    /// # Errors
    /// When neither `PINWATCH_CACHE` nor `XDG_CACHE_HOME` nor `HOME` is set, or the folder cannot be created.
    pub fn open() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let Some(root) = set("PINWATCH_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("pinwatch")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/pinwatch")))
        else {
            bail!("no folder for the cache: set PINWATCH_CACHE or HOME");
        };
        for folder in ["locks", "log", "tmp"] {
            fs::create_dir_all(root.join(folder))
                .with_context(|| format!("cannot create the cache folder {}", root.display()))?;
        }
        let root = root.canonicalize().with_context(|| format!("cannot use the cache {}", root.display()))?;
        Ok(Self { root })
    }

    /// The path of `name` in the cache, whether it exists or not.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where a step's output goes.
    pub fn log(&self, step: &str) -> PathBuf {
        self.root.join("log").join(format!("{}.log", flat(step)))
    }

    /// The path of `name`, which `build` makes at the temporary path it is given when it is not there.
    ///
    /// # Errors
    /// When fewer than `megabytes` are free, or `build` fails; nothing is left under the final name then.
    pub fn make(
        &self,
        name: &str,
        megabytes: u64,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.path(name);
        if path.exists() {
            return Ok(path);
        }
        let _lock = self.lock(name)?;
        if path.exists() {
            return Ok(path);
        }
        self.need_space(name, megabytes)?;
        self.remove_leftovers();
        // A name of this process alone: programs of a killed xtask may still be ending, and writing to theirs.
        let unfinished = self.root.join("tmp").join(format!("{}.{}", flat(name), std::process::id()));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        if let Err(error) = build(&unfinished) {
            let full = free_megabytes(&self.root).is_ok_and(|free| free < 64);
            // The first error matters more than what happens while tidying up after it.
            let _ = remove(&unfinished);
            if full {
                return Err(error.context(format!(
                    "the disk with the cache {} is full: preparing {name} needs {megabytes} MB",
                    self.root.display()
                )));
            }
            return Err(error);
        }
        fs::rename(&unfinished, &path)
            .with_context(|| format!("cannot put {} in its place", path.display()))?;
        Ok(path)
    }

    /// Holds the lock `name` until the returned file is dropped or this process ends.
    ///
    /// # Errors
    /// When the lock file cannot be created or locked.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join("locks").join(flat(name));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if !try_lock(&file, libc::LOCK_NB)? {
            progress(&format!("waiting for another xtask that prepares {name}"));
            try_lock(&file, 0)?;
        }
        Ok(file)
    }

    /// Removes what builds of processes that no longer live left. What cannot be removed yet, a later build will remove.
    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("tmp")) else { return };
        for entry in entries.flatten() {
            let owner = owner(&entry.file_name().to_string_lossy());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                let _ = remove(&entry.path());
            }
        }
    }

    fn need_space(&self, name: &str, megabytes: u64) -> Result<()> {
        let free = free_megabytes(&self.root)?;
        if free < megabytes {
            bail!(
                "not enough space in {} for {name}: it needs {megabytes} MB and there are {free} MB; make room or \
                 point PINWATCH_CACHE to another disk",
                self.root.display()
            );
        }
        Ok(())
    }
}

/// Tries to lock `file`; false means that another process has it (only with `LOCK_NB` in `flags`).
pub fn try_lock(file: &File, flags: libc::c_int) -> Result<bool> {
    // SAFETY: flock takes an open descriptor and no memory; `file` keeps it open through the call.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | flags) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        return Ok(false);
    }
    Err(error).context("cannot lock a file in the cache")
}

fn free_megabytes(folder: &Path) -> Result<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())
        .with_context(|| format!("{} is no usable path", folder.display()))?;
    let mut figures = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` is a terminated string and `figures` has room for the structure that statvfs fills.
    if unsafe { libc::statvfs(path.as_ptr(), figures.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("cannot see how much space {} has", folder.display()));
    }
    // SAFETY: zeroed is a valid value of this plain structure, and statvfs has succeeded.
    let figures = unsafe { figures.assume_init() };
    Ok(figures.f_bavail * figures.f_frsize / (1024 * 1024))
}

/// Removes a file or a folder with all that is in it; nothing there is no error.
///
/// # Errors
/// When something is there and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let result = if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// A short key for a thing that was made from `inputs`: another input, another key.
pub fn key<'a>(inputs: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update(input.as_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize()[..6])
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says what is being done, on standard error, so that standard output stays the guest's.
pub fn progress(what: &str) {
    eprintln!("xtask: {what}");
}

/// The process that a temporary name belongs to: `NAME.PID`, with up to two endings.
fn owner(name: &str) -> Option<u32> {
    name.rsplit('.').take(3).find_map(|part| part.parse().ok())
}

fn flat(name: &str) -> String {
    name.replace(['/', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> Cache {
        let root = std::env::temp_dir().join(format!("xtask-cache-{name}-{}", std::process::id()));
        for folder in ["locks", "log", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        Cache { root }
    }

    #[test]
    fn a_failed_build_leaves_nothing_behind() {
        let cache = cache("failed");
        let build = |path: &Path| {
            fs::write(path, "half")?;
            bail!("no")
        };
        assert!(cache.make("a/b", 1, build).is_err());
        assert!(!cache.path("a/b").exists() && fs::read_dir(cache.path("tmp")).unwrap().next().is_none());
        fs::remove_dir_all(&cache.root).unwrap();
    }

    #[test]
    fn a_thing_is_built_once() {
        let cache = cache("once");
        cache.make("x", 1, |path| Ok(fs::write(path, "1")?)).unwrap();
        let path = cache.make("x", 1, |_| bail!("built again")).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "1");
        fs::remove_dir_all(&cache.root).unwrap();
    }

    #[test]
    fn too_little_space_is_a_sentence() {
        let cache = cache("space");
        let error = cache.make("x", u64::MAX, |_| Ok(())).unwrap_err().to_string();
        assert!(error.starts_with("not enough space in "), "{error}");
        fs::remove_dir_all(&cache.root).unwrap();
    }

    #[test]
    fn temporary_names_tell_their_owner() {
        assert_eq!(owner("kernels_7.3-ab12.4711"), Some(4711));
        assert_eq!(owner("rootfs_x.squashfs.4711.root.conf"), Some(4711));
        assert_eq!(owner("rust-src.deb"), None);
    }

    #[test]
    fn keys_differ_by_input_and_by_boundary() {
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_eq!(key(["a"]).len(), 12);
    }
}
