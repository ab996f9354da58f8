//! The checks that need no kernel: formatting, lints, unit tests, the manifest. All of them are done even if one fails.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::manifest;
use super::summary::{Part, Took};
use super::tally::Tally;
use crate::build::workspace;
use crate::process::{command, wait_counting};

/// One check; it counts as one, however many tests it has.
pub struct Check {
    /// What the summary calls it.
    pub name: &'static str,
    what: What,
}

enum What {
    /// Arguments of cargo.
    Cargo(&'static [&'static str]),
    /// `cargo fmt`, with the files that it does not find by itself.
    Format,
    Own(fn() -> Result<Tally>),
}

/// Folders whose files are modules by a macro: the table of subsystems makes their `mod` lines, and rustfmt does not look into
/// macros.
const ROOMS: [&str; 3] =
    ["pinwatch-ebpf/src/subsystem", "pinwatch/src/model/object", "pinwatch/src/subsystem"];

/// All of them, those that end soonest first.
pub const ALL: &[Check] = &[
    Check { name: "cargo fmt", what: What::Format },
    Check { name: manifest::NAME, what: What::Own(manifest::check) },
    Check {
        name: "cargo clippy",
        what: What::Cargo(&[
            "clippy",
            "--quiet",
            "--profile",
            "tests",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    },
    Check { name: "cargo test", what: What::Cargo(&["test", "--profile", "tests", "--no-fail-fast"]) },
];

impl Check {
    /// Does it.
    ///
    /// # Errors
    /// When cargo cannot be started, or there is no cache.
    pub fn perform(&self) -> Result<Part> {
        let started = Instant::now();
        let (tally, cpu) = match self.what {
            What::Cargo(arguments) => self.cargo(arguments)?,
            What::Format => {
                let files = rooms(workspace()).context("cannot list the rooms of the subsystems")?;
                let arguments = ["fmt", "--all", "--check", "--", "--color", "never"];
                self.cargo(
                    &arguments.into_iter().chain(files.iter().map(String::as_str)).collect::<Vec<_>>(),
                )?
            }
            What::Own(check) => (check()?, None),
        };
        let took = Took { wall: started.elapsed(), cpu };
        Ok(Part { took: Some(took), ..Part::new(self.name, tally) })
    }

    fn cargo(&self, arguments: &[&str]) -> Result<(Tally, Option<Duration>)> {
        let name = self.name;
        println!("== {name}");
        let mut tally = Tally::default();
        let (verdict, cpu) = run(arguments)?;
        match verdict {
            Verdict::Passed => {
                println!("{name}: ok");
                tally.passed += 1;
            }
            Verdict::Failed => {
                println!("{name}: FAILED; repeat it with: cargo {}", arguments.join(" "));
                tally.fail(name);
            }
            Verdict::Missing => {
                let reason =
                    format!("cargo has no {0} here; `rustup component add {0}` adds it", component(name));
                println!("{name}: skipped: {reason}");
                tally.skipped.push((name.to_owned(), reason));
            }
        }
        Ok((tally, cpu))
    }
}

/// The files below [`ROOMS`].
fn rooms(workspace: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ROOMS.iter().map(|room| workspace.join(room)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.display().to_string());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What stands in for the checks when they are not wanted.
pub fn skipped(reason: &str) -> Vec<Part> {
    let one = |check: &Check| {
        let skipped = vec![(check.name.to_owned(), reason.to_owned())];
        Part::new(check.name, Tally { skipped, ..Tally::default() })
    };
    ALL.iter().map(one).collect()
}

enum Verdict {
    Passed,
    Failed,
    Missing,
}

fn run(arguments: &[&str]) -> Result<(Verdict, Option<Duration>)> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let installed = command(&program)
        .args([arguments[0], "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // `cargo test --version` answers with cargo's own version, so only what is a program of its own can be missing.
    if !installed.context("cannot start cargo")?.success() && arguments[0] != "test" {
        return Ok((Verdict::Missing, None));
    }
    let mut cargo = command(&program)
        .current_dir(workspace())
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start cargo")?;
    let (status, cpu) = wait_counting(&mut cargo).context("cannot wait for cargo")?;
    Ok((if status.success() { Verdict::Passed } else { Verdict::Failed }, Some(cpu)))
}

fn component(name: &str) -> &str {
    if name.ends_with("fmt") { "rustfmt" } else { "clippy" }
}
