//! Building the project's own binaries for the guests, and finding where cargo put them.

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
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args([
        "build",
        "--profile",
        profile.name(),
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]);
    for package in PACKAGES {
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

/// The binaries that an earlier build left, whatever their age.
pub fn binaries_there(profile: Profile) -> Vec<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
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
    fn only_programs_are_taken_from_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/lspins\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\nnoise\n";
        assert_eq!(executables(messages), [PathBuf::from("/t/release/lspins")]);
    }
}
