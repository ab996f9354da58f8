//! Debian packages that the steps of this tool run: found by their programs, installed only where a program is missing.

use anyhow::{Result, bail};

use crate::cache::{Cache, progress};
use crate::process::{command, find_program, is_root, run_logged};

/// A program and the package that has it.
pub type Need = (&'static str, &'static str);

/// What preparing a kernel and a root file system runs.
pub const FOR_VM: &[Need] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("mksquashfs", "squashfs-tools"),
    ("cpio", "cpio"),
    ("busybox", "busybox-static"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("lz4", "lz4"),
    ("depmod", "kmod"),
];

/// Installs the packages of those `needs` whose program is missing.
///
/// # Errors
/// When apt refuses, or this is not root.
pub fn ensure(cache: &Cache, needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let _lock = cache.lock("host-packages")?;
    progress(&format!("installing {} with apt", missing.join(", ")));
    install(cache, &missing)?;
    if let Some((program, package)) = needs.iter().find(|(program, _)| find_program(program).is_none()) {
        bail!("{package} is installed but there is no {program}");
    }
    Ok(())
}

/// Installs `packages`, with nothing removed for them; where the machine's package lists are absent or too old they are
/// fetched and it is tried again.
///
/// # Errors
/// When apt refuses, or this is not root.
pub fn install(cache: &Cache, packages: &[&str]) -> Result<()> {
    if !is_root() {
        bail!(
            "packages are missing and only root can install them: run `apt-get install --no-install-recommends {}` as root",
            packages.join(" ")
        );
    }
    let log = cache.log("apt-install");
    let attempt = || {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-q", "-y", "--no-remove"]);
        apt.args(["--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]).args(packages);
        run_logged(&mut apt, &format!("install {}", packages.join(", ")), &log)
    };
    let Err(error) = attempt() else { return Ok(()) };
    if error.to_string().contains("remove is disabled") {
        return Err(error);
    }
    progress("fetching the machine's package lists, apt could not install with what it has");
    run_logged(
        command("apt-get").args(["update", "-q"]),
        "fetch the machine's package lists",
        &cache.log("apt-update"),
    )?;
    attempt()
}
