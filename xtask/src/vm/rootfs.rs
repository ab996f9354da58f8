//! The guest's root file system: Debian of this machine's own release, so that binaries built here run there, as a
//! compressed read-only image.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::apt::private::source_line;
use crate::apt::sources::Mirrors;
use crate::apt::tree::{Tree, Variant, squash_filled};
use crate::cache::{Cache, key, progress};
use crate::process::{command, output};

/// Changes with the steps below, so that images of an older recipe are not used.
const RECIPE: &str = "1";
const MEGABYTES: u64 = 2000;

/// What every guest has.
const PACKAGES: &[&str] = &[
    "kmod",
    "rdma-core",
    "libibverbs1",
    "ibverbs-providers",
    "ibverbs-utils",
    "perftest",
    "rdmacm-utils",
    "iproute2",
    "xfsprogs",
    "e2fsprogs",
    "ndctl",
    "daxctl",
    "util-linux",
    "lsof",
    "psmisc",
    "procps",
    "strace",
    "bpftool",
    "busybox-static",
    "curl",
    "openssl",
    "prometheus",
    "prometheus-alertmanager",
    "prometheus-node-exporter",
    "pciutils",
    "nfs-kernel-server",
    "nfs-common",
    "rpcbind",
    "sg3-utils",
    "libelf1",
];

/// The image with `extra` packages, prepared when it is not there.
///
/// # Errors
/// When the mirror fails, or a package is unknown (it is named).
pub fn ensure(cache: &Cache, mirrors: &Mirrors, extra: &[String]) -> Result<PathBuf> {
    let mut packages: Vec<&str> = PACKAGES.iter().copied().chain(extra.iter().map(String::as_str)).collect();
    if let Some(bad) = extra.iter().find(|name| !is_package_name(name)) {
        bail!("\"{bad}\" is no name of a Debian package");
    }
    packages.sort_unstable();
    packages.dedup();
    let inputs = [RECIPE, &mirrors.codename].into_iter().chain(packages.iter().copied());
    let name = format!("rootfs/{}-{}.squashfs", mirrors.codename, key(inputs));
    cache.make(&name, MEGABYTES, |image| {
        let with = if extra.is_empty() { String::new() } else { format!(" with {}", extra.join(", ")) };
        known(extra, &mirrors.codename)?;
        progress(&format!(
            "building the guest's {} root file system{with} (about a minute, once)",
            mirrors.codename
        ));
        squash_filled(image, "the guest's root file system", &cache.log("rootfs-squash"), |root| {
            bootstrap(cache, mirrors, &packages, root)
        })
    })
}

fn bootstrap(cache: &Cache, mirrors: &Mirrors, packages: &[&str], root: &Path) -> Result<()> {
    let tree = Tree {
        release: &mirrors.codename,
        variant: Variant::System,
        sources: source_line(&mirrors.main, &mirrors.codename),
        settings: "",
        packages,
    };
    let log = cache.log("rootfs");
    let result = tree.make(root, "build the guest's root file system", &log);
    if let Err(error) = result {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if let Some(unknown) = unknown_package(&text) {
            bail!("no Debian package \"{unknown}\" in {}", mirrors.codename);
        }
        return Err(error);
    }
    Ok(())
}

/// Asks the machine's own package lists, which cover the same release: a wrong name is told at once and not after half
/// of the bootstrap. Where there are no lists, the bootstrap will tell.
fn known(extra: &[String], codename: &str) -> Result<()> {
    let versions = |name: &str| output(command("apt-cache").args(["madison", name]), "ask apt for a package");
    if extra.is_empty() || versions("rdma-core")?.is_empty() {
        return Ok(());
    }
    for name in extra {
        if versions(name)?.is_empty() {
            bail!("no Debian package \"{name}\" in {codename}");
        }
    }
    Ok(())
}

fn is_package_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed)
}

fn unknown_package(log: &str) -> Option<&str> {
    log.lines().find_map(|line| line.split_once("Unable to locate package ").map(|(_, name)| name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_are_checked_before_they_reach_apt() {
        assert!(is_package_name("libstdc++6") && is_package_name("prometheus"));
        assert!(
            !is_package_name("-o")
                && !is_package_name("a b")
                && !is_package_name("")
                && !is_package_name("?x")
        );
    }

    #[test]
    fn apts_unknown_package_is_found() {
        assert_eq!(unknown_package("x\nE: Unable to locate package nosuch\n"), Some("nosuch"));
        assert_eq!(unknown_package("fine"), None);
    }
}
