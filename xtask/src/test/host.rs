//! The checks that need no kernel: formatting, lints, unit tests, the manifest. All of them are done even if one fails.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::manifest;
use super::summary::{Part, Took};
use super::tally::Tally;
use crate::build::workspace;
use crate::process::{command, find_program, wait_counting};
use crate::{deny, fmt};

/// One check; it counts as one, however many tests it has.
pub struct Check {
    /// What the summary calls it.
    pub name: &'static str,
    /// When it is done, if there are guests.
    pub when: When,
    what: What,
}

/// Guests wait for much of their time: what only compiles is done beside them, with what they leave of the CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the guests: it takes seconds.
    Before,
    /// Beside them.
    Beside,
    /// After them, as it measures time itself; what it runs is built beside them.
    After,
}

enum What {
    /// Arguments of cargo.
    Cargo(&'static [&'static str]),
    Own(fn() -> Result<Tally>),
}

/// All of them, those that end soonest first.
pub const ALL: &[Check] = &[
    Check { name: "cargo xtask fmt", when: When::Before, what: What::Own(format) },
    Check { name: deny::NAME, when: When::Before, what: What::Own(deny) },
    Check { name: manifest::NAME, when: When::Before, what: What::Own(manifest::check) },
    Check {
        name: "cargo clippy",
        when: When::Beside,
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
    Check {
        name: "cargo test",
        when: When::After,
        what: What::Cargo(&["test", "--profile", "tests", "--no-fail-fast"]),
    },
];

impl Check {
    /// Does it.
    ///
    /// # Errors
    /// When cargo cannot be started, or there is no cache.
    pub fn perform(&self, pace: Pace) -> Result<Part> {
        let started = Instant::now();
        let (tally, cpu) = match self.what {
            What::Cargo(arguments) => self.cargo(arguments, pace)?,
            What::Own(check) => (check()?, None),
        };
        let took = Took { wall: started.elapsed(), cpu };
        Ok(Part { took: Some(took), ..Part::new(self.name, tally) })
    }

    fn cargo(&self, arguments: &[&str], pace: Pace) -> Result<(Tally, Option<Duration>)> {
        let name = self.name;
        println!("== {name}");
        let (done, cpu) = run(arguments, pace)?;
        let tally = match done {
            Some(good) => verdict(name, good, &format!("cargo {}", arguments.join(" "))),
            None => skip(name, missing("clippy")),
        };
        Ok((tally, cpu))
    }
}

/// Whether a check has the CPUs for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nothing else runs.
    Alone,
    /// Guests do, and go first.
    BesideGuests,
}

/// Builds what `cargo test` runs, beside the guests. If that fails, `cargo test` says so afterwards.
pub fn build_tests() {
    let _ = run(&["test", "--quiet", "--profile", "tests", "--no-run"], Pace::BesideGuests);
}

/// What stands in for the checks when they are not wanted.
pub fn skipped(reason: &str) -> Vec<Part> {
    let one = |check: &Check| {
        let skipped = vec![(check.name.to_owned(), reason.to_owned())];
        Part::new(check.name, Tally { skipped, ..Tally::default() })
    };
    ALL.iter().map(one).collect()
}

/// Whether cargo is content, and its CPU time; `None`: this cargo has no such command.
fn run(arguments: &[&str], pace: Pace) -> Result<(Option<bool>, Option<Duration>)> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let installed = command(&program)
        .args([arguments[0], "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // `cargo test --version` answers with cargo's own version, so only what is a program of its own can be missing.
    if !installed.context("cannot start cargo")?.success() && arguments[0] != "test" {
        return Ok((None, None));
    }
    let mut cargo = match pace {
        Pace::Alone => command(&program),
        Pace::BesideGuests => {
            let mut nice = command("nice");
            nice.args(["-n", "19"]).arg(&program);
            nice
        }
    };
    let mut cargo = cargo
        .current_dir(workspace())
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start cargo")?;
    let (status, cpu) = wait_counting(&mut cargo).context("cannot wait for cargo")?;
    Ok((Some(status.success()), Some(cpu)))
}

fn missing(component: &str) -> String {
    format!("cargo has no {component} here; `rustup component add {component}` adds it")
}

fn format() -> Result<Tally> {
    let name = "cargo xtask fmt";
    println!("== {name}");
    if find_program("rustfmt").is_none() {
        return Ok(skip(name, missing("rustfmt")));
    }
    Ok(verdict(name, fmt::run(true)? == 0, "cargo xtask fmt"))
}

fn deny() -> Result<Tally> {
    println!("== {}", deny::NAME);
    Ok(match deny::if_there()? {
        Some(good) => verdict(deny::NAME, good, "cargo xtask deny"),
        None => {
            let reason = "there is no cargo-deny, and building it takes minutes; `cargo xtask deny` does";
            skip(deny::NAME, reason.to_owned())
        }
    })
}

fn verdict(name: &str, good: bool, repeat: &str) -> Tally {
    let mut tally = Tally::default();
    if good {
        println!("{name}: ok");
        tally.passed += 1;
    } else {
        println!("{name}: FAILED; repeat it with: {repeat}");
        tally.fail(name);
    }
    tally
}

fn skip(name: &str, reason: String) -> Tally {
    println!("{name}: skipped: {reason}");
    Tally { skipped: vec![(name.to_owned(), reason)], ..Tally::default() }
}
