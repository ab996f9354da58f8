//! The checks that need no kernel: formatting, lints, unit tests, the manifest. All of them are done even if one fails.

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
    Own(fn() -> Result<Tally>),
}

/// All of them, those that end soonest first.
pub const ALL: &[Check] = &[
    Check { name: "cargo fmt", what: What::Cargo(&["fmt", "--all", "--check", "--", "--color", "never"]) },
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
