//! `cargo xtask test --list`: the scenarios with what each shows and where each runs. The table itself is in `tests/`; it is
//! asked for there, without a guest.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::kernels::{self, KERNELS};
use crate::process::{command, output};

/// The list; with `only`, of these scenarios.
///
/// # Errors
/// When `scenarios` cannot be built or run, or there is no scenario of a name in `only`.
pub fn text(only: &[String]) -> Result<String> {
    let binaries = build::of_package("pinwatch-tests", Profile::Tests)?;
    let scenarios = binaries
        .iter()
        .find(|path| path.file_name().is_some_and(|name| name == "scenarios"))
        .context("the package pinwatch-tests has no program scenarios")?;
    let table = output(command(scenarios).arg("list"), "list the scenarios")?;
    let mut text = head();
    text += &choose(&table, only)?;
    Ok(text)
}

/// What the column on the default run means in cells.
fn head() -> String {
    let all: Vec<&str> = KERNELS.iter().map(|kernel| kernel.key).collect();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "default run: kernels {} and {}, modes auto and kprobe, but for the scenarios that depend on neither.",
        kernels::oldest().key,
        kernels::newest().key
    );
    let _ = writeln!(text, "--full, or --only: all on {}, modes auto and kprobe.\n", all.join(", "));
    let _ = writeln!(text, "{:<24} {:<24} SHOWS", "SCENARIO", "DEFAULT RUN");
    text
}

/// The lines of `table` whose first word is in `only`; all if that is empty.
fn choose(table: &str, only: &[String]) -> Result<String> {
    let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    if let Some(unknown) = only.iter().find(|wanted| !table.lines().any(|line| name(line) == **wanted)) {
        anyhow::bail!("there is no scenario {unknown:?}; `cargo xtask test --list` names them all");
    }
    let wanted = |line: &&str| only.is_empty() || only.contains(&name(line));
    Ok(table.lines().filter(wanted).fold(String::new(), |text, line| text + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_listed() {
        let table = "clone   each kernel  two rings\nclone-2 newest  nothing\n";
        assert_eq!(choose(table, &[]).unwrap(), table);
        assert_eq!(choose(table, &["clone".to_owned()]).unwrap(), "clone   each kernel  two rings\n");
        assert!(choose(table, &["clon".to_owned()]).is_err());
    }
}
