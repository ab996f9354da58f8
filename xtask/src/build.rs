//! Building the project's own binaries for the guests, and finding where cargo put them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::command;

/// The packages whose binaries go into a guest.
const PACKAGES: &[&str] = &["pinwatch", "pinwatch-tests"];

/// One message of `cargo build --message-format=json`, as far as it says where a program is.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// How the binaries are built: a profile of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As users build them.
    Release,
    /// As `cargo xtask test` does: the same build serves lints and unit tests.
    Tests,
}

impl Profile {
    /// What cargo calls it; the folder in the target folder is called the same.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Tests => "tests",
        }
    }
}

/// Builds the binaries (cargo does nothing when they are fresh) and returns their paths.
///
/// # Errors
/// When the build fails; cargo has printed why by then.
pub fn binaries(profile: Profile) -> Result<Vec<PathBuf>> {
    build(PACKAGES, profile)
}

/// The same of one package.
///
/// # Errors
/// When the build fails; cargo has printed why by then.
pub fn of_package(package: &str, profile: Profile) -> Result<Vec<PathBuf>> {
    build(&[package], profile)
}

fn build(packages: &[&str], profile: Profile) -> Result<Vec<PathBuf>> {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args([
        "build",
        "--profile",
        profile.name(),
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]);
    for package in packages {
        cargo.args(["-p", package]);
    }
    let result = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot build the project: cannot start cargo")?;
    if !result.status.success() {
        bail!("the project does not build, see above (--no-build takes the binaries that are there)");
    }
    Ok(executables(&String::from_utf8_lossy(&result.stdout)))
}

/// Binaries under names of their own, which no later build replaces; dropped, the names go.
pub struct Binaries {
    folder: PathBuf,
    /// Where they are.
    pub paths: Vec<PathBuf>,
}

impl Binaries {
    /// Keeps what `built` is now.
    ///
    /// # Errors
    /// When the target folder cannot be written.
    pub fn keep(built: &[PathBuf]) -> Result<Self> {
        let folder = target().join(format!("xtask-binaries.{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut binaries = Self { folder, paths: Vec::new() };
        for path in built {
            let kept = binaries.folder.join(path.file_name().unwrap_or_default());
            // The linker writes a new file, it does not change the old one: a link keeps that. Not on every file system.
            if fs::hard_link(path, &kept).is_err() {
                fs::copy(path, &kept).with_context(|| format!("cannot copy {}", path.display()))?;
            }
            binaries.paths.push(kept);
        }
        Ok(binaries)
    }
}

impl Drop for Binaries {
    fn drop(&mut self) {
        // What stays is a few links in the target folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The binaries that an earlier build left, whatever their age.
pub fn binaries_there(profile: Profile) -> Vec<PathBuf> {
    let target = target();
    let names = ["pinwatch", "lspins", "mkpins", "scenarios"];
    names.iter().map(|name| target.join(profile.name()).join(name)).filter(|path| path.exists()).collect()
}

fn executables(messages: &str) -> Vec<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok()?.executable).collect()
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_binaries_are_those_of_then_and_go_in_the_end() {
        let built = std::env::temp_dir().join(format!("xtask-built-{}", std::process::id()));
        fs::write(&built, "old").unwrap();
        let kept = Binaries::keep(std::slice::from_ref(&built)).unwrap();
        fs::remove_file(&built).unwrap();
        fs::write(&built, "new").unwrap();
        let path = kept.paths[0].clone();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        drop(kept);
        assert!(!path.exists());
        fs::remove_file(&built).unwrap();
    }

    #[test]
    fn only_programs_are_taken_from_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/lspins\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\nnoise\n";
        assert_eq!(executables(messages), [PathBuf::from("/t/release/lspins")]);
    }
}
