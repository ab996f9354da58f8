//! What a kernel module is built with in a guest: Debian's headers for the guest's kernel, and the compiler that the
//! kernel was built with. Each is a read-only image; `guest/module-build` lays one over the other.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::apt::private::source_line;
use crate::apt::sources::Mirrors;
use crate::apt::tree::{Tree, Variant, beside, squash_filled, unpack};
use crate::cache::{Cache, key, progress, remove};
use crate::kernels::lock::LockedKernel;
use crate::kernels::{Compiler, Kernel};

/// Changes with the steps below, so that images of an older recipe are not used.
const RECIPE: &str = "1";
const MEGABYTES: u64 = 1000;

/// What the kernel's makefiles run beside the compiler: a shell with its usual programs, and what their own programs
/// (modpost, objtool) are linked with.
const PROGRAMS: &[&str] = &[
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "grep",
    "libc6",
    "libelf1",
    "libssl3",
    "make",
    "mawk",
    "pahole",
    "sed",
    "zlib1g",
];

/// The images.
#[derive(Debug, Clone)]
pub struct Headers {
    /// The compiler with all that it needs to run.
    pub compiler: PathBuf,
    /// The headers, as they are installed.
    pub headers: PathBuf,
}

/// Prepares what is not there.
///
/// # Errors
/// When a package cannot be fetched, or a step fails.
pub fn ensure(cache: &Cache, mirrors: &Mirrors, kernel: &Kernel, locked: &LockedKernel) -> Result<Headers> {
    Ok(Headers {
        compiler: compiler(cache, mirrors, kernel.compiler)?,
        headers: headers(cache, mirrors, locked)?,
    })
}

fn compiler(cache: &Cache, mirrors: &Mirrors, compiler: Compiler) -> Result<PathBuf> {
    let Compiler { release, gcc } = compiler;
    let packages: Vec<&str> = PROGRAMS.iter().copied().chain([gcc]).collect();
    let name = format!(
        "compilers/{release}-{gcc}-{}.squashfs",
        key([RECIPE].into_iter().chain(packages.iter().copied()))
    );
    cache.make(&name, MEGABYTES, |image| {
        progress(&format!("unpacking {release}'s {gcc}, which modules are built with"));
        let tree = Tree {
            release,
            variant: Variant::Files,
            sources: source_line(&mirrors.main, release),
            settings: "",
            packages: &packages,
        };
        squash_filled(image, gcc, &cache.log("compiler-squash"), |root| {
            tree.make(root, &format!("unpack {gcc}"), &cache.log("compiler"))?;
            // What its script would have done.
            symlink("mawk", root.join("usr/bin/awk")).context("cannot write to the unpacked compiler")
        })
    })
}

fn headers(cache: &Cache, mirrors: &Mirrors, kernel: &LockedKernel) -> Result<PathBuf> {
    let sums = kernel.headers.iter().map(|package| package.sha256.as_str());
    let name = format!("headers/{}-{}.squashfs", kernel.key, key([RECIPE].into_iter().chain(sums)));
    cache.make(&name, MEGABYTES, |image| {
        progress(&format!("fetching the headers of kernel {}", kernel.version));
        let deb = beside(image, "deb");
        let log = |step: &str| cache.log(&format!("headers-{}-{step}", kernel.key));
        // In the compiler's tree lib may be a link to usr/lib, which a folder would hide.
        let left_out = ["./usr/share", "./lib"].map(str::to_owned);
        let made = squash_filled(image, "the headers", &log("squash"), |root| {
            kernel.headers.iter().try_for_each(|package| {
                kernel.fetch(cache, mirrors, package, &deb)?;
                unpack(&deb, root, &left_out, "the headers", &log("unpack"))
            })
        });
        remove(&deb)?;
        made
    })
}
