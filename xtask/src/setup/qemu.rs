//! QEMU: the one in `PATH`, else Debian's package, else (where installing it would remove another package) a copy of it
//! with its libraries unpacked into the cache, run from there by its own dynamic loader.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::host_packages;
use crate::apt::private::source_line;
use crate::apt::sources::Mirrors;
use crate::apt::tree::{Tree, Variant};
use crate::cache::{Cache, key, progress};
use crate::process::{command_killed_with_us, find_program};

const PROGRAM: &str = "qemu-system-x86_64";
const RECIPE: &str = "1";
const MULTIARCH: &str = "x86_64-linux-gnu";

/// A QEMU that can be started.
#[derive(Debug, Clone)]
pub enum Qemu {
    /// Installed on this machine.
    Installed(PathBuf),
    /// Unpacked under this folder in the cache.
    Unpacked(PathBuf),
}

impl fmt::Display for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed(path) => write!(f, "QEMU {}", path.display()),
            Self::Unpacked(root) => write!(f, "QEMU unpacked in {}", root.display()),
        }
    }
}

impl Qemu {
    /// A command that starts it and that is killed with this process.
    pub fn command(&self) -> Command {
        match self {
            Self::Installed(path) => command_killed_with_us(path),
            Self::Unpacked(root) => {
                let libraries = [root.join("usr/lib").join(MULTIARCH), root.join("lib").join(MULTIARCH)];
                let mut paths: Vec<String> =
                    libraries.iter().map(|path| path.display().to_string()).collect();
                // libpulsecommon and its like live one folder deeper.
                paths.push(libraries[0].join("pulseaudio").display().to_string());
                let mut command = command_killed_with_us(loader(root));
                command.env("QEMU_MODULE_DIR", libraries[0].join("qemu"));
                command.arg("--library-path").arg(paths.join(":")).arg(program(root));
                for data in ["usr/share/qemu", "usr/share/seabios"] {
                    command.arg("-L").arg(root.join(data));
                }
                command
            }
        }
    }
}

fn program(root: &Path) -> PathBuf {
    root.join("usr/bin").join(PROGRAM)
}

fn loader(root: &Path) -> PathBuf {
    // Not through lib64: that link is absolute and would lead out of the unpacked folder.
    let inside = |folder: &str| root.join(folder).join(MULTIARCH).join("ld-linux-x86-64.so.2");
    if inside("lib").exists() { inside("lib") } else { inside("usr/lib") }
}

/// Finds QEMU, or gets it.
///
/// # Errors
/// When it is not there and neither apt nor the cache can have it.
pub fn ensure(cache: &Cache, mirrors: impl FnOnce() -> Result<Mirrors>) -> Result<Qemu> {
    if let Some(path) = find_program(PROGRAM) {
        return Ok(Qemu::Installed(path));
    }
    let recorded = cache.path("qemu/current");
    if program(&recorded).exists() {
        return Ok(Qemu::Unpacked(recorded));
    }
    progress("installing QEMU with apt");
    if host_packages::install(cache, &["qemu-system-x86"]).is_ok() {
        return find_program(PROGRAM)
            .map(Qemu::Installed)
            .with_context(|| format!("qemu-system-x86 is installed but there is no {PROGRAM}"));
    }
    let mirrors = mirrors()?;
    progress(&format!(
        "apt does not install QEMU without removing something; unpacking {}-backports' QEMU into the cache",
        mirrors.codename
    ));
    unpack(cache, &mirrors)
}

fn unpack(cache: &Cache, mirrors: &Mirrors) -> Result<Qemu> {
    let place = cache.make("qemu/current", 1200, |tmp| {
        let suite = &mirrors.codename;
        let backports = format!("{suite}-backports");
        // Only the files are wanted.
        let tree = Tree {
            release: suite,
            variant: Variant::Files,
            sources: source_line(&mirrors.main, suite) + &source_line(&mirrors.main, &backports),
            settings: &format!("APT::Default-Release \"{backports}\";\n"),
            packages: &["qemu-system-x86", "libc6"],
        };
        tree.make(tmp, "unpack QEMU", &cache.log("qemu"))?;
        if !program(tmp).exists() {
            bail!("cannot unpack QEMU: {PROGRAM} is not among its files");
        }
        std::fs::write(tmp.join("recipe"), key([RECIPE])).context("cannot write to the unpacked QEMU")
    })?;
    Ok(Qemu::Unpacked(place))
}
