//! The standard library's source, from which `core` is built for BPF. Where no toolchain has it, Debian's rust-src of
//! exactly the compiler's version is unpacked into the sysroot.

use std::fs;

use anyhow::{Context as _, Result, bail};

use super::toolchain::Toolchain;
use crate::apt::private::{Fetched, PrivateApt, Suite, fetch};
use crate::apt::sources::Mirrors;
use crate::apt::{index, version};
use crate::cache::{Cache, progress, remove};
use crate::process::{command, run_logged};

const SUITE: Suite = Suite { archive: "main", name: "trixie-backports" };

/// Makes sure that the toolchain for the BPF programs has rust-src, and returns that toolchain.
///
/// # Errors
/// When Debian has no rust-src of the compiler's version, with the rustup command that helps.
pub fn ensure(cache: &Cache) -> Result<Toolchain> {
    let toolchain = Toolchain::find()?;
    if toolchain.has_rust_src() {
        return Ok(toolchain);
    }
    let _lock = cache.lock("rust-src")?;
    if !toolchain.has_rust_src() {
        from_debian(cache, &toolchain).with_context(|| {
            format!(
                "no rust-src for rustc {}; on a machine with rustup's servers `rustup toolchain install nightly \
                 --component rust-src` brings one",
                toolchain.release
            )
        })?;
    }
    Ok(toolchain)
}

fn from_debian(cache: &Cache, toolchain: &Toolchain) -> Result<()> {
    let release = &toolchain.release;
    progress(&format!(
        "fetching rust-src {release} from Debian's {}: BPF programs need core from source",
        SUITE.name
    ));
    let mirrors = Mirrors::of_this_machine()?;
    let apt = PrivateApt::update(cache, &mirrors, &[SUITE])?;
    let all = index::parse(&apt.packages(SUITE.name)?, |name| name == "rust-src");
    let same =
        |package: &index::Package| version::upstream(&package.version).split('+').next() == Some(release);
    let Some(package) = index::newest(all.into_iter().filter(same)) else {
        bail!("Debian's {} has no rust-src {release}", SUITE.name);
    };
    let deb = cache.path("tmp/rust-src.deb");
    if fetch(cache, &mirrors.main, &package.filename, &package.sha256, &deb)? == Fetched::Gone {
        bail!("the mirror's package list names {} but it has no such file", package.filename);
    }
    let parent = toolchain.sysroot.join("lib/rustlib/src/rust");
    // Unpacked beside its final place, so that the rename stays in one file system.
    let unfinished = parent.join("library.unfinished");
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot write to the sysroot {}", parent.display()))?;
    let mut unpack = command("sh");
    let library = format!("./usr/src/rustc-{release}/library");
    unpack.args(["-ec", r#"dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --strip-components=5 "$3""#, "sh"]);
    unpack.arg(&deb).arg(&unfinished).arg(&library);
    run_logged(&mut unpack, "unpack rust-src", &cache.log("rust-src"))?;
    remove(&deb)?;
    let place = parent.join("library");
    remove(&place)?;
    fs::rename(&unfinished, &place).with_context(|| format!("cannot put {} in its place", place.display()))
}
