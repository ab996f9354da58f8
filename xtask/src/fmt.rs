//! `cargo xtask fmt`: formats all Rust files, those too that `cargo fmt` does not see: it follows `mod` lines, and some of
//! ours come from a macro (a subsystem's rooms follow from the one table).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::build::workspace;
use crate::process::{command, output};

/// Folders that have no source of ours.
const LEFT_OUT: [&str; 3] = ["target", ".git", "fixtures"];
const EDITION: &str = "2024";

/// Formats, or with `check` only says whether all is formatted; the exit status.
///
/// # Errors
/// When cargo or rustfmt cannot be started, or there is no rustfmt.
pub fn run(check: bool) -> Result<u8> {
    let followed = run_through(cargo_fmt(check))?;
    let seen = seen(&output(cargo_fmt(true).arg("-v"), "ask cargo fmt for its files").unwrap_or_default());
    // With something to format in them the list comes with a bad status, and not at all.
    let seen = if seen.is_empty() && !followed { return Ok(1) } else { seen };
    let unseen: Vec<PathBuf> = all(workspace())?.difference(&seen).cloned().collect();
    if unseen.is_empty() {
        return Ok(u8::from(!followed));
    }
    let mut rustfmt = command("rustfmt");
    rustfmt.current_dir(workspace()).args(["--edition", EDITION, "--color", "never"]);
    if check {
        rustfmt.arg("--check");
    }
    rustfmt.args(&unseen);
    let others = run_through(rustfmt)?;
    Ok(u8::from(!(followed && others)))
}

fn cargo_fmt(check: bool) -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(["fmt", "--all"]);
    if check {
        cargo.arg("--check");
    }
    cargo.args(["--", "--color", "never"]);
    cargo
}

fn run_through(mut command: Command) -> Result<bool> {
    let status = command.stdin(Stdio::null()).status();
    Ok(status.with_context(|| format!("cannot start {:?}", command.get_program()))?.success())
}

/// The files that rustfmt says it looks at.
fn seen(verbose: &str) -> BTreeSet<PathBuf> {
    verbose.lines().filter_map(|line| line.strip_prefix("Formatting ")).map(PathBuf::from).collect()
}

/// All Rust files under `folder`.
fn all(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            let path = entry.path();
            let kind = entry.file_type().with_context(|| format!("cannot look at {}", path.display()))?;
            if kind.is_dir() && !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
                waiting.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_cargo_fmt_follows_are_read_from_what_it_says() {
        let verbose = "Using rustfmt config file /w/rustfmt.toml for /w/a.rs\nFormatting /w/a.rs\nFormatting /w/b/c.rs\n\
                       Spent 0.001 secs in the parsing phase\n";
        assert_eq!(seen(verbose), BTreeSet::from([PathBuf::from("/w/a.rs"), PathBuf::from("/w/b/c.rs")]));
    }

    #[test]
    fn all_files_are_found_but_what_is_built() {
        let all = all(workspace()).unwrap();
        assert!(all.contains(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/fmt.rs"))));
        assert!(all.iter().all(|path| !path.components().any(|part| part.as_os_str() == "target")));
    }
}
