//! bpf-linker, linked against the libLLVM that the Rust compiler itself ships: bitcode and linker then always agree,
//! and no LLVM package is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::toolchain::Toolchain;
use crate::cache::{Cache, progress, remove};
use crate::process::{command, output, run_logged};

const VERSION: &str = "0.13.0";

/// Builds bpf-linker when there is none that runs.
///
/// # Errors
/// When the compiler ships no libLLVM that can be linked to, or `cargo install` fails.
pub fn ensure(cache: &Cache, toolchain: &Toolchain) -> Result<()> {
    if runs() {
        return Ok(());
    }
    let _lock = cache.lock("bpf-linker")?;
    if runs() {
        return Ok(());
    }
    if !(21..=23).contains(&toolchain.llvm) {
        bail!(
            "bpf-linker {VERSION} cannot be built for LLVM {}, which rustc {} has",
            toolchain.llvm,
            toolchain.release
        );
    }
    progress(&format!(
        "building bpf-linker {VERSION} against rustc's own LLVM {} (about a minute)",
        toolchain.llvm
    ));
    let lib = toolchain.sysroot.join("lib");
    let prefix = cache.path("rustc-llvm");
    remove(&prefix)?;
    fs::create_dir_all(prefix.join("lib")).with_context(|| format!("cannot create {}", prefix.display()))?;
    symlink(lib_llvm(&lib)?, prefix.join("lib/libLLVM.so"))
        .with_context(|| format!("cannot write to {}", prefix.display()))?;
    let target = cache.path("tmp/bpf-linker-build");
    let mut install = command("cargo");
    // Settings of the build that runs this xtask must not leak into that of another crate.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_BOOTSTRAP", "CARGO_BUILD_TARGET"] {
        install.env_remove(name);
    }
    install
        .current_dir(cache.path("tmp"))
        .env("LLVM_PREFIX", &prefix)
        .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{} -C debuginfo=0", lib.display()))
        .env("CARGO_TARGET_DIR", &target)
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--no-default-features"])
        .arg(format!("--features=llvm-{}", toolchain.llvm));
    run_logged(&mut install, "build bpf-linker", &cache.log("bpf-linker"))?;
    remove(&target)?;
    if !runs() {
        bail!("bpf-linker was installed but does not run: try `bpf-linker --version` in cargo's bin folder");
    }
    Ok(())
}

fn runs() -> bool {
    output(command("bpf-linker").arg("--version"), "run bpf-linker").is_ok()
}

/// The library itself: `libLLVM-NN-rust-*.so` beside it is a linker script, which bpf-linker's build cannot use.
fn lib_llvm(lib: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let found =
        entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with("libLLVM.so."));
    match found {
        Some(entry) => Ok(entry.path()),
        None => {
            bail!("no libLLVM.so in {}: this Rust toolchain was not built with a shared LLVM", lib.display())
        }
    }
}
