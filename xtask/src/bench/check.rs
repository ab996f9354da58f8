//! `cargo xtask bench check`: measures again what the file of figures has, so that nothing becomes dearer unseen.

use anyhow::{Result, bail};
use clap::Args;

use super::figures::{self, Figures};
use super::{FILES, Kind, PINS, show};
use crate::cache::progress;
use crate::kernels;

const ALL: [Kind; 5] = [
    Kind::Hooks,
    Kind::Leases,
    Kind::List { count: PINS },
    Kind::Scrape { count: PINS, files: FILES },
    Kind::Holders,
];
/// What `--quick` measures, on the newest kernel.
const QUICK: [&str; 3] = ["hooks", "list", "scrape"];

/// What to check.
#[derive(Debug, Args)]
pub struct Options {
    /// Only hooks, list and scrape, on the newest kernel
    #[arg(long, conflicts_with_all = ["only", "kernel"])]
    quick: bool,
    /// Only these: hooks, leases, list, scrape, holders
    #[arg(long, value_name = "BENCH,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Only on these kernels [default: those that the file has figures of, and the newest]
    #[arg(long, value_name = "K,...", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Write what is measured to the file of figures; what is over its budget fails all the same
    #[arg(long)]
    update: bool,
    /// Take the release binaries that are there, without a build
    #[arg(long)]
    no_build: bool,
}

/// Checks, prints the table and returns the exit status.
///
/// # Errors
/// When the file of figures cannot be used, or a guest does not reach the end of its script.
pub fn run(options: &Options) -> Result<u8> {
    let figures = Figures::read()?;
    let plan = plan(options, &figures)?;
    let (text, good) = perform(figures, &plan, !options.no_build, options.update)?;
    show(&(figures::head() + &text));
    Ok(u8::from(!good))
}

/// The quick part: its table, and whether all is good.
///
/// # Errors
/// As [`run`].
pub fn quick() -> Result<(String, bool)> {
    let newest = kernels::newest().key;
    let plan: Vec<(Kind, String)> = quick_kinds().map(|kind| (kind, newest.to_owned())).collect();
    let (text, good) = perform(Figures::read()?, &plan, true, false)?;
    Ok((figures::head() + &text, good))
}

fn quick_kinds() -> impl Iterator<Item = Kind> {
    ALL.into_iter().filter(|kind| QUICK.contains(&kind.name()))
}

/// What is measured on which kernels.
fn plan(options: &Options, figures: &Figures) -> Result<Vec<(Kind, String)>> {
    if let Some(unknown) = options.only.iter().find(|name| !ALL.iter().any(|kind| kind.name() == **name)) {
        bail!("there is no bench {unknown:?}");
    }
    let newest = kernels::newest().key;
    if options.quick {
        return Ok(quick_kinds().map(|kind| (kind, newest.to_owned())).collect());
    }
    for key in &options.kernel {
        kernels::find(key)?;
    }
    let mut plan = Vec::new();
    for kind in ALL
        .into_iter()
        .filter(|kind| options.only.is_empty() || options.only.iter().any(|name| name == kind.name()))
    {
        let mut kernels: Vec<String> = figures.kernels(kind.name()).into_iter().map(str::to_owned).collect();
        if !kernels.iter().any(|kernel| kernel == newest) {
            kernels.push(newest.to_owned());
        }
        if !options.kernel.is_empty() {
            kernels = options.kernel.clone();
        }
        plan.extend(kernels.into_iter().map(|kernel| (kind, kernel)));
    }
    Ok(plan)
}

fn perform(
    mut figures: Figures,
    plan: &[(Kind, String)],
    build: bool,
    update: bool,
) -> Result<(String, bool)> {
    let (mut text, mut all_good) = (String::new(), true);
    for (kind, kernel) in plan {
        progress(&format!("bench {} on Linux {kernel}", kind.name()));
        let measured = kind.measure(kernel, build, false)?;
        if update {
            // After each: a guest that fails later loses nothing.
            figures.update(kind.name(), kernel, &measured);
            figures.write()?;
        }
        let (lines, good) = figures.compare(kind.name(), kernel, &measured, true);
        text += &lines;
        all_good &= good;
    }
    Ok((text, all_good))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { quick: false, only: Vec::new(), kernel: Vec::new(), update: false, no_build: false }
    }

    fn names(options: &Options) -> Vec<(&'static str, String)> {
        let figures = Figures::read().unwrap();
        plan(options, &figures).unwrap().into_iter().map(|(kind, kernel)| (kind.name(), kernel)).collect()
    }

    #[test]
    fn the_quick_part_is_on_the_newest_kernel() {
        let newest = kernels::newest().key.to_owned();
        let expected = QUICK.map(|name| (name, newest.clone()));
        assert_eq!(names(&Options { quick: true, ..options() }), expected);
    }

    #[test]
    fn each_bench_is_checked_on_the_newest_kernel_at_least() {
        let all = names(&options());
        for kind in ALL {
            assert!(all.contains(&(kind.name(), kernels::newest().key.to_owned())), "{all:?}");
        }
        let only = Options { only: vec!["leases".to_owned()], kernel: vec!["6.1".to_owned()], ..options() };
        assert_eq!(names(&only), [("leases", "6.1".to_owned())]);
        let unknown = Options { only: vec!["lease".to_owned()], ..options() };
        assert!(plan(&unknown, &Figures::read().unwrap()).is_err());
    }
}
