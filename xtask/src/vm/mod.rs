//! Virtual machines with real kernels: a [`Guest`] says what machine is wanted, [`Guest::run`] prepares what is missing,
//! boots it, runs one command in it and returns how that ended.

mod console;
mod headers;
mod image;
mod machine;
mod qemu;
mod rootfs;
mod rundir;
mod shell;
mod vmlinux;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::apt::sources::Mirrors;
use crate::build::{self, Profile};
use crate::cache::Cache;
use crate::kernels::{self, KERNELS, lock::Lock};
use crate::setup;

pub use machine::Outcome;

/// The machine that is wanted.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Key of the kernel, e.g. `6.1`.
    pub kernel: String,
    /// Folder of the host that the guest sees, writable, as `/share`.
    pub share: Option<PathBuf>,
    /// Debian packages beyond those that every guest has.
    pub packages: Vec<String>,
    /// How many NVDIMMs of 512 MiB.
    pub nvdimm: u8,
    /// With an IOMMU and a device (`edu`) for VFIO behind it.
    pub iommu: bool,
    /// More devices, each the argument of one `-device` of QEMU. They are behind the IOMMU if there is one.
    pub devices: Vec<String>,
    /// With the kernel's headers and its compiler, for building modules.
    pub headers: bool,
    /// Guest time counts instructions: slow, repeatable, one CPU.
    pub icount: bool,
    /// Memory in MiB; 0 is what the rest asks for.
    pub memory: u32,
    /// Number of CPUs.
    pub cpus: u32,
    /// More kernel arguments.
    pub append: String,
    /// How long the whole may take, the boot included.
    pub timeout: Duration,
    /// Whether the project is built first; if not, the binaries that are there are taken.
    pub build: bool,
    /// These binaries of ours, without a build; empty: those of the release build.
    pub binaries: Vec<PathBuf>,
}

impl Guest {
    /// A plain guest with the kernel `kernel`.
    pub fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            share: None,
            packages: Vec::new(),
            nvdimm: 0,
            iommu: false,
            devices: Vec::new(),
            headers: false,
            icount: false,
            memory: 0,
            cpus: 1,
            append: String::new(),
            timeout: Duration::from_secs(600),
            build: true,
            binaries: Vec::new(),
        }
    }

    /// Boots the guest, runs `command` in it and gives its output, as it comes, to `on_output`.
    ///
    /// # Errors
    /// When the guest cannot be prepared or started. A command that fails, hangs or takes the kernel down is an
    /// [`Outcome`].
    pub fn run(&self, command: &[OsString], on_output: &mut dyn FnMut(&[u8])) -> Result<Outcome> {
        self.run_counting(command, on_output).map(|(outcome, _)| outcome)
    }

    /// As [`Guest::run`], with the CPU time that the emulator took.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run_counting(
        &self,
        command: &[OsString],
        on_output: &mut dyn FnMut(&[u8]),
    ) -> Result<(Outcome, Duration)> {
        let prepared = self.prepare()?;
        machine::run(self, &prepared, command, on_output)
    }

    /// Boots the guest with a root shell on this terminal and returns the shell's status.
    ///
    /// # Errors
    /// When the guest cannot be prepared or started, or standard input is no terminal.
    pub fn shell(&self) -> Result<Outcome> {
        shell::check_terminal()?;
        let prepared = self.prepare()?;
        shell::run(self, &prepared)
    }

    /// Fetches and makes all that a boot takes, but for the project's binaries.
    ///
    /// # Errors
    /// When something cannot be had.
    pub fn fetch(&self) -> Result<()> {
        self.machine().map(drop)
    }

    fn prepare(&self) -> Result<Prepared> {
        let mut prepared = self.machine()?;
        prepared.binaries = if !self.binaries.is_empty() {
            self.binaries.clone()
        } else if self.build {
            setup::for_build(&prepared.cache)?;
            build::binaries(Profile::Release)?
        } else {
            build::binaries_there(Profile::Release)
        };
        Ok(prepared)
    }

    fn machine(&self) -> Result<Prepared> {
        let kernel = kernels::find(&self.kernel)?;
        if let Some(share) = self.share.as_ref().filter(|share| !share.is_dir()) {
            bail!("cannot share {}: it is no folder", share.display());
        }
        let lock = Lock::read()?;
        let locked = lock.kernel(kernel.key)?;
        let cache = Cache::open()?;
        let qemu = setup::for_vm(&cache)?;
        let mirrors = Mirrors::of_this_machine()?;
        let rootfs = rootfs::ensure(&cache, &mirrors, &self.packages)?;
        let image = image::ensure(&cache, &mirrors, locked)?;
        let headers = self.headers.then(|| headers::ensure(&cache, &mirrors, kernel, locked)).transpose()?;
        Ok(Prepared { cache, qemu, rootfs, image, headers, binaries: Vec::new() })
    }
}

/// All that a boot takes.
struct Prepared {
    cache: Cache,
    qemu: setup::Qemu,
    rootfs: PathBuf,
    image: image::Image,
    headers: Option<headers::Headers>,
    binaries: Vec<PathBuf>,
}

/// The kernels as a table: key, locked version, suite, whether prepared.
///
/// # Errors
/// When the lock file or the cache cannot be used.
pub fn list() -> Result<String> {
    let lock = Lock::read()?;
    let cache = Cache::open()?;
    let mut table = format!("{:<7} {:<22} {:<18} {}\n", "KERNEL", "VERSION", "SUITE", "CACHED");
    for kernel in KERNELS {
        let (version, cached) = match lock.kernel(kernel.key) {
            Ok(locked) => (locked.version.as_str(), cache.path(&image::name(locked)).exists()),
            Err(_) => ("not locked", false),
        };
        let cached = if cached { "yes" } else { "no" };
        table += &format!("{:<7} {:<22} {:<18} {}\n", kernel.key, version, kernel.suite.name, cached);
    }
    Ok(table)
}
