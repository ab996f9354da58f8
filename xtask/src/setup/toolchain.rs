//! The Rust toolchain that compiles the BPF programs: a nightly with rust-src where there is one, else the active one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::{command, find_program, output};

/// A Rust compiler with what set-up must know of it.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// `rustc --print sysroot`.
    pub sysroot: PathBuf,
    /// Release, e.g. `1.95.0`.
    pub release: String,
    /// Major version of the LLVM it is built with.
    pub llvm: u32,
}

impl Toolchain {
    /// Finds the toolchain that the BPF programs will be built with.
    ///
    /// # Errors
    /// When rustc cannot be run.
    pub fn find() -> Result<Self> {
        let nightly = nightly_sysroot().filter(|sysroot| has_rust_src(sysroot));
        let rustc = match &nightly {
            Some(sysroot) => sysroot.join("bin/rustc"),
            None => PathBuf::from("rustc"),
        };
        let about = output(command(&rustc).arg("-vV"), "ask rustc for its version")?;
        let sysroot = output(command(&rustc).args(["--print", "sysroot"]), "ask rustc for its sysroot")?;
        let (release, llvm) =
            parse(&about).with_context(|| "rustc -vV names no release or no LLVM version")?;
        Ok(Self { sysroot: PathBuf::from(sysroot.trim()), release, llvm })
    }

    /// Whether `core` can be built from source with it.
    pub fn has_rust_src(&self) -> bool {
        has_rust_src(&self.sysroot)
    }
}

fn has_rust_src(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

fn parse(about: &str) -> Option<(String, u32)> {
    let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let release = field("release:")?.to_owned();
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

/// rustup is only asked: with its automatic installs off it fetches nothing.
fn nightly_sysroot() -> Option<PathBuf> {
    find_program("rustup")?;
    let mut rustup = command("rustup");
    rustup.env("RUSTUP_AUTO_INSTALL", "0").args(["toolchain", "list", "-v"]);
    let list = output(&mut rustup, "list the Rust toolchains").ok()?;
    let line = list.lines().find(|line| line.starts_with("nightly-"))?;
    line.split_whitespace().next_back().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_release_and_llvm() {
        let about = "rustc 1.95.0 (abc)\nhost: x\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(parse(about), Some(("1.95.0".to_owned(), 22)));
        assert_eq!(parse("rustc 1.95.0"), None);
    }
}
