//! The checks that need no kernel: formatting, lints, unit tests. Each prints through, one after another, all of them
//! even if one fails.

use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::tally::Tally;
use crate::build::workspace;
use crate::process::command;

/// A check: what it is called, and the arguments of cargo.
const CHECKS: &[(&str, &[&str])] = &[
    ("cargo fmt", &["fmt", "--all", "--check", "--", "--color", "never"]),
    ("cargo clippy", &["clippy", "--quiet", "--profile", "tests", "--all-targets", "--", "-D", "warnings"]),
    ("cargo test", &["test", "--profile", "tests", "--no-fail-fast"]),
];

/// Runs them. Each counts as one, however many tests it has.
///
/// # Errors
/// When cargo cannot be started.
pub fn check() -> Result<Tally> {
    let mut tally = Tally::default();
    for (name, arguments) in CHECKS {
        println!("== {name}");
        match run(arguments)? {
            Verdict::Passed => {
                println!("{name}: ok");
                tally.passed += 1;
            }
            Verdict::Failed => {
                println!("{name}: FAILED; repeat it with: cargo {}", arguments.join(" "));
                tally.fail(*name);
            }
            Verdict::Missing => {
                let reason =
                    format!("cargo has no {0} here; `rustup component add {0}` adds it", component(name));
                println!("{name}: skipped: {reason}");
                tally.skipped.push(((*name).to_owned(), reason));
            }
        }
    }
    Ok(tally)
}

/// What stands in for the checks when they are not wanted.
pub fn skipped(reason: &str) -> Tally {
    let skipped = CHECKS.iter().map(|(name, _)| ((*name).to_owned(), reason.to_owned())).collect();
    Tally { skipped, ..Tally::default() }
}

enum Verdict {
    Passed,
    Failed,
    Missing,
}

fn run(arguments: &[&str]) -> Result<Verdict> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let installed = command(&program)
        .args([arguments[0], "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // `cargo test --version` answers with cargo's own version, so only what is a program of its own can be missing.
    if !installed.context("cannot start cargo")?.success() && arguments[0] != "test" {
        return Ok(Verdict::Missing);
    }
    let status = command(&program)
        .current_dir(workspace())
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    Ok(if status.success() { Verdict::Passed } else { Verdict::Failed })
}

fn component(name: &str) -> &str {
    if name.ends_with("fmt") { "rustfmt" } else { "clippy" }
}
