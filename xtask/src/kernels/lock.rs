//! `kernels.lock`: the exact packages of each kernel. Reading, writing and their text form.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{KERNELS, split_name};
use crate::apt::private::{Fetched, fetch};
use crate::apt::sources::Mirrors;
use crate::apt::version;
use crate::cache::{self, Cache};

const HEAD: &str =
    "# Written by `cargo xtask vm update`: the exact packages that each kernel is made of.\n\n";

/// The whole file.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Lock {
    /// One entry for each kernel, in the order of [`KERNELS`].
    #[serde(default, rename = "kernel")]
    pub kernels: Vec<LockedKernel>,
}

/// One kernel at an exact version.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct LockedKernel {
    /// As in [`KERNELS`].
    pub key: String,
    /// Debian version.
    pub version: String,
    /// Suite it was found in.
    pub suite: String,
    /// What it is made of.
    #[serde(rename = "package")]
    pub packages: Vec<LockedPackage>,
    /// What modules for it are built with.
    pub headers: Vec<LockedPackage>,
}

/// One .deb.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct LockedPackage {
    /// Name of the binary package.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// Suite it was found in.
    pub suite: String,
    /// `main` or `security`.
    pub archive: String,
    /// Path relative to the archive's root.
    pub filename: String,
    /// SHA-256 of the .deb, in hexadecimal.
    pub sha256: String,
}

impl Lock {
    /// Reads the lock file; no file is an empty lock.
    ///
    /// # Errors
    /// When it cannot be read or is no lock file.
    pub fn read() -> Result<Self> {
        let path = path();
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes the lock file, kernels in their order.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self) -> Result<()> {
        let place = |key: &str| KERNELS.iter().position(|kernel| kernel.key == key);
        self.kernels.sort_by_key(|kernel| place(&kernel.key));
        let path = path();
        let unfinished = path.with_extension("lock.new");
        fs::write(&unfinished, self.text()?)
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The entry of the kernel `key`.
    ///
    /// # Errors
    /// When the lock has none.
    pub fn kernel(&self, key: &str) -> Result<&LockedKernel> {
        self.kernels.iter().find(|kernel| kernel.key == key).with_context(|| {
            format!("kernel {key} is not in kernels.lock: `cargo xtask vm update {key}` puts it there")
        })
    }

    /// Replaces or adds an entry.
    pub fn set(&mut self, kernel: LockedKernel) {
        self.kernels.retain(|other| other.key != kernel.key);
        self.kernels.push(kernel);
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    fn text(&self) -> Result<String> {
        Ok(HEAD.to_owned() + &toml::to_string(self)?)
    }
}

impl LockedKernel {
    /// A key that changes with any of the packages.
    pub fn fingerprint(&self) -> String {
        cache::key(self.packages.iter().map(|package| package.sha256.as_str()))
    }

    /// Fetches one of its packages to `target`.
    ///
    /// # Errors
    /// When the mirror cannot be reached, or has it no longer.
    pub fn fetch(
        &self,
        cache: &Cache,
        mirrors: &Mirrors,
        package: &LockedPackage,
        target: &Path,
    ) -> Result<()> {
        let archive = mirrors.archive(&package.archive)?;
        if fetch(cache, archive, &package.filename, &package.sha256, target)? == Fetched::Gone {
            bail!(
                "the mirror no longer has {} {} (HTTP 404); `cargo xtask vm update {}` moves the lock to what it has now",
                split_name(&package.name).0,
                version::upstream(&package.version),
                self.key
            );
        }
        Ok(())
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels.lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(key: &str, sha256: &str) -> LockedKernel {
        let package = LockedPackage {
            name: "linux-image-6.1.0-56-amd64".into(),
            version: "6.1.192-2".into(),
            suite: "bookworm-security".into(),
            archive: "security".into(),
            filename: "pool/updates/main/l/linux.deb".into(),
            sha256: sha256.into(),
        };
        let (version, suite) = (package.version.clone(), package.suite.clone());
        LockedKernel { key: key.into(), version, suite, packages: vec![package], headers: Vec::new() }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut lock = Lock::default();
        lock.set(kernel("6.1", "aa"));
        lock.set(kernel("6.1", "bb"));
        let again = Lock::parse(&lock.text().unwrap()).unwrap();
        assert_eq!(again, lock);
        assert_eq!(again.kernel("6.1").unwrap().packages[0].sha256, "bb");
        assert!(again.kernel("7.2").unwrap_err().to_string().contains("vm update 7.2"));
    }

    #[test]
    fn the_fingerprint_follows_the_packages() {
        assert_ne!(kernel("6.1", "aa").fingerprint(), kernel("6.1", "bb").fingerprint());
    }

    #[test]
    fn a_damaged_lock_is_refused() {
        assert!(Lock::parse("[[kernel]]\nkey = 1\n").is_err());
    }

    #[test]
    fn the_lock_of_this_checkout_has_every_kernel() {
        let lock = Lock::read().unwrap();
        for kernel in KERNELS {
            let locked = lock.kernel(kernel.key).unwrap();
            assert!(!locked.packages.is_empty() && locked.headers.len() == 3, "{}", kernel.key);
        }
    }
}
