//! What a build and a virtual machine need on a fresh Debian machine. Each step looks for what is there first, so that
//! a second run costs milliseconds.

mod bpf_linker;
mod host_packages;
mod qemu;
mod rust_src;
mod toolchain;

use anyhow::Result;

use crate::apt::sources::Mirrors;
use crate::cache::{Cache, progress};

pub use qemu::Qemu;

/// Everything: what `cargo xtask setup` does.
///
/// # Errors
/// When a step fails; the steps before it stay done.
pub fn everything() -> Result<()> {
    let cache = Cache::open()?;
    for_build(&cache)?;
    let qemu = for_vm(&cache)?;
    progress(&format!("set up: eBPF toolchain, bpf-linker, {qemu}"));
    Ok(())
}

/// What `cargo build` needs for the BPF programs.
///
/// # Errors
/// When rust-src or bpf-linker is missing and cannot be had.
pub fn for_build(cache: &Cache) -> Result<()> {
    let toolchain = rust_src::ensure(cache)?;
    bpf_linker::ensure(cache, &toolchain)
}

/// What preparing and running a virtual machine needs; returns the QEMU to use.
///
/// # Errors
/// When packages or QEMU are missing and cannot be installed.
pub fn for_vm(cache: &Cache) -> Result<Qemu> {
    host_packages::ensure(cache, host_packages::FOR_VM)?;
    qemu::ensure(cache, Mirrors::of_this_machine)
}
