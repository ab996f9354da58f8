//! Finding the newest package set of a kernel in a suite's index, and moving the lock to it.

use std::cmp::Ordering;

use anyhow::{Result, bail};

use super::lock::{Lock, LockedKernel, LockedPackage};
use super::{KERNELS, Kernel, find, split_name};
use crate::apt::index::{self, Package};
use crate::apt::private::{PrivateApt, Suite};
use crate::apt::sources::Mirrors;
use crate::apt::version;
use crate::cache::{Cache, progress};

/// A package smaller than this has no kernel in it, it only depends on one.
const SMALLEST_KERNEL: u64 = 5_000_000;

/// Moves the lock of the kernels `keys` (all when empty) to the newest that the mirror has.
///
/// # Errors
/// When a key is unknown, the mirror cannot be asked or has no such kernel; the lock stays as it was then.
pub fn update(cache: &Cache, keys: &[String]) -> Result<()> {
    let kernels: Vec<&Kernel> = match keys {
        [] => KERNELS.iter().collect(),
        keys => keys.iter().map(|key| find(key)).collect::<Result<_>>()?,
    };
    let mirrors = Mirrors::of_this_machine()?;
    let mut suites: Vec<Suite> = Vec::new();
    for kernel in &kernels {
        if !suites.contains(&kernel.suite) {
            suites.push(kernel.suite);
        }
    }
    progress("fetching the suites' package lists");
    let apt = PrivateApt::update(cache, &mirrors, &suites)?;
    let mut lock = Lock::read()?;
    for kernel in kernels {
        let packages = index::parse(&apt.packages(kernel.suite.name)?, |name| name.starts_with("linux-"));
        let Some(set) = newest(&packages, kernel.key) else {
            bail!("{} has no kernel {} any more; nothing was changed", kernel.suite.name, kernel.key);
        };
        let Some(headers) = headers(&packages, &set) else {
            bail!("{} has kernel {} without its headers; nothing was changed", kernel.suite.name, kernel.key);
        };
        let found = locked(kernel, set, headers);
        match lock.kernel(kernel.key) {
            Ok(before) if before.version == found.version => {
                progress(&format!("{}: stays {}", kernel.key, found.version))
            }
            Ok(before) => progress(&format!("{}: {} -> {}", kernel.key, before.version, found.version)),
            Err(_) => progress(&format!("{}: {}", kernel.key, found.version)),
        }
        lock.set(found);
    }
    lock.write()
}

fn locked(kernel: &Kernel, set: Vec<Package>, headers: Vec<Package>) -> LockedKernel {
    let version = set.first().map(|package| package.version.clone()).unwrap_or_default();
    let lock = |package: Package| LockedPackage {
        name: package.name,
        version: package.version,
        suite: kernel.suite.name.to_owned(),
        archive: kernel.suite.archive.to_owned(),
        filename: package.filename,
        sha256: package.sha256,
    };
    LockedKernel {
        key: kernel.key.to_owned(),
        version,
        suite: kernel.suite.name.to_owned(),
        packages: set.into_iter().map(lock).collect(),
        headers: headers.into_iter().map(lock).collect(),
    }
}

/// What modules for the kernel of `set` are built with: its own headers, those of all flavours, and the programs that
/// its makefiles run.
fn headers(packages: &[Package], set: &[Package]) -> Option<Vec<Package>> {
    let image = set.first()?;
    let (_, release) = split_name(&image.name);
    let all_flavours = release.strip_suffix("-amd64")?;
    let of_version = || packages.iter().filter(|package| package.version == image.version);
    let named = |name: String| of_version().find(|package| package.name == name).cloned();
    // Of the release (6.12.107+deb13), or of the series (6.1).
    let programs = of_version().find(|package| {
        package.name.strip_prefix("linux-kbuild-").is_some_and(|version| release.starts_with(version))
    })?;
    Some(vec![
        named(format!("linux-headers-{release}"))?,
        named(format!("linux-headers-{all_flavours}-common"))?,
        programs.clone(),
    ])
}

/// The packages of the newest kernel `key` of the normal flavour; of one version, the signed image is taken.
fn newest(packages: &[Package], key: &str) -> Option<Vec<Package>> {
    let sets = packages
        .iter()
        .filter(|package| of_series(&package.version, key))
        .filter_map(|package| set(packages, package));
    let (_, best) = sets.max_by(|(one_signed, one), (other_signed, other)| {
        version_order(one, other).then(one_signed.cmp(other_signed))
    })?;
    Some(best)
}

fn version_order(one: &[Package], other: &[Package]) -> Ordering {
    match (one.first(), other.first()) {
        (Some(one), Some(other)) => version::compare(&one.version, &other.version),
        _ => Ordering::Equal,
    }
}

fn of_series(version: &str, key: &str) -> bool {
    version::upstream(version)
        .strip_prefix(key)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '~']))
}

/// The whole set that the image package `image` belongs to, and whether it is signed. Until 6.18 one package has all;
/// from 7.0 on image, base files and modules are apart.
fn set(packages: &[Package], image: &Package) -> Option<(bool, Vec<Package>)> {
    if image.size < SMALLEST_KERNEL {
        return None;
    }
    let release = |prefix: &str| {
        let release = image.name.strip_prefix(prefix)?.strip_suffix("-amd64")?;
        let flavours = release.split('-').any(|word| ["cloud", "rt", "unsigned"].contains(&word));
        (release.starts_with(|c: char| c.is_ascii_digit()) && !flavours).then_some(release)
    };
    if release("linux-image-").is_some() {
        return Some((true, vec![image.clone()]));
    }
    let (signed, release) = match release("linux-binary-") {
        Some(release) => (true, release),
        None => (false, release("linux-binary-unsigned-")?),
    };
    let part = |kind: &str| {
        let name = format!("linux-{kind}-{release}-amd64");
        packages.iter().find(|package| package.name == name && package.version == image.version).cloned()
    };
    let modules = part("modules")?;
    Some((signed, [Some(image.clone()), part("base"), Some(modules)].into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, size: u64) -> Package {
        let (name, version) = (name.to_owned(), version.to_owned());
        Package { filename: format!("pool/{name}.deb"), name, version, size, sha256: String::new() }
    }

    fn names(set: Option<Vec<Package>>) -> Vec<String> {
        set.unwrap_or_default().into_iter().map(|package| package.name).collect()
    }

    #[test]
    fn one_package_until_6_18_and_never_another_flavour() {
        let all = [
            package("linux-image-6.1.0-9-amd64", "6.1.27-1", 70_000_000),
            package("linux-image-6.1.0-56-amd64", "6.1.192-2", 70_000_000),
            package("linux-image-6.1.0-57-cloud-amd64", "6.1.193-1", 20_000_000),
            package("linux-image-6.1.0-57-amd64-unsigned", "6.1.193-1", 70_000_000),
            package("linux-image-6.12.95+deb12-amd64", "6.12.95-1", 100_000_000),
            package("linux-image-6.12-amd64", "6.12.99-1", 1_500),
        ];
        assert_eq!(names(newest(&all, "6.1")), ["linux-image-6.1.0-56-amd64"]);
        assert_eq!(names(newest(&all, "6.12")), ["linux-image-6.12.95+deb12-amd64"]);
        assert_eq!(newest(&all, "7.2"), None);
    }

    #[test]
    fn three_packages_from_7_on_signed_where_there_is_one() {
        let mut all = Vec::new();
        for version in ["7.3.4", "7.3.3"] {
            for kind in ["binary-unsigned", "base", "modules"] {
                let size = if kind == "base" { 1_000 } else { 14_000_000 };
                all.push(package(
                    &format!("linux-{kind}-{version}+deb13-amd64"),
                    &format!("{version}-1"),
                    size,
                ));
            }
        }
        all.push(package("linux-binary-7.3.3+deb13-amd64", "7.3.3-1", 14_000_000));
        assert_eq!(
            names(newest(&all, "7.3")),
            [
                "linux-binary-unsigned-7.3.4+deb13-amd64",
                "linux-base-7.3.4+deb13-amd64",
                "linux-modules-7.3.4+deb13-amd64"
            ]
        );
        all.push(package("linux-binary-7.3.4+deb13-amd64", "7.3.4-1", 14_000_000));
        assert_eq!(names(newest(&all, "7.3"))[0], "linux-binary-7.3.4+deb13-amd64");
    }

    #[test]
    fn headers_are_of_the_same_version() {
        let image = [package("linux-image-6.1.0-56-amd64", "6.1.192-2", 70_000_000)];
        let mut all = vec![
            package("linux-headers-6.1.0-56-amd64", "6.1.192-2", 1),
            package("linux-headers-6.1.0-56-common", "6.1.192-2", 1),
            package("linux-kbuild-6.1", "6.1.190-1", 1),
        ];
        assert_eq!(headers(&all, &image), None);
        all.push(package("linux-kbuild-6.1", "6.1.192-2", 1));
        assert_eq!(
            names(headers(&all, &image)),
            ["linux-headers-6.1.0-56-amd64", "linux-headers-6.1.0-56-common", "linux-kbuild-6.1"]
        );
        let image = [package("linux-binary-unsigned-7.3.4+deb13-amd64", "7.3.4-1", 14_000_000)];
        let of = |kind: &str| package(&format!("linux-{kind}"), "7.3.4-1", 1);
        let all = ["headers-7.3.4+deb13-amd64", "headers-7.3.4+deb13-common", "kbuild-7.3.4+deb13"].map(of);
        assert_eq!(names(headers(&all, &image)).len(), 3);
    }

    #[test]
    fn a_release_candidate_counts_until_the_release() {
        assert!(of_series("7.3~rc7-1~exp1", "7.3") && of_series("7.3.4-1", "7.3"));
        assert!(!of_series("6.12.95-1", "6.1"));
    }
}
