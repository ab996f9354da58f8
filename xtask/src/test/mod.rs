//! `cargo xtask test`: the checks of this machine, then the scenarios on real kernels, and one summary.

mod host;
mod manifest;
mod scenarios;
mod tally;

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::build::{self, Profile};
use crate::cache::{Cache, progress};
use crate::kernels::{self, KERNELS, Kernel};
use crate::setup;
use tally::Tally;

/// What to test.
#[derive(Debug, Args)]
pub struct Options {
    /// Every kernel, longer random walks
    #[arg(long)]
    full: bool,
    /// Only these kernels [default: the oldest and the newest]
    #[arg(long, value_name = "K,...", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Only this way of hooking [default: both]
    #[arg(long, value_enum)]
    attach: Option<Attach>,
    /// Only these scenarios
    #[arg(long, value_name = "SCENARIO,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Seed of what is random [default: 1, with --full from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// So many virtual machines at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    guests: u8,
    /// Without the virtual machines
    #[arg(long)]
    no_vm: bool,
    /// Without cargo fmt, cargo clippy and cargo test
    #[arg(long)]
    no_unit: bool,
}

/// How the daemon hooks kernel functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// fentry and fexit where the kernel has them
    Auto,
    /// Kprobes for everything
    Kprobe,
}

impl Attach {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kprobe => "kprobe",
        }
    }
}

/// Tests, prints the summary and returns the exit status: 0 only if nothing failed.
///
/// # Errors
/// When setting up fails or cargo cannot be started. What fails in a guest is in the summary.
pub fn run(options: &Options) -> Result<u8> {
    let kernels = wanted_kernels(options)?;
    let seed = options.seed.unwrap_or_else(|| if options.full { clock() } else { 1 });
    setup::everything()?;
    let wanted = |attach: &Attach| options.attach.is_none_or(|only| only == *attach);
    let mut runs = Vec::new();
    for kernel in kernels {
        for attach in [Attach::Auto, Attach::Kprobe].into_iter().filter(wanted) {
            let (kernel, attach, only) = (kernel.key, attach.name(), &options.only[..]);
            runs.push(scenarios::Run { kernel, attach, only, seed, full: options.full });
        }
    }
    let mut parts: Vec<(String, Tally)> = Vec::new();
    let here = thread::scope(|scope| {
        if !options.no_vm {
            scope.spawn(|| fetch(&runs));
        }
        match options.no_unit {
            true => Ok(host::skipped("--no-unit")),
            false => host::check().and_then(|cargo| Ok(cargo.and(manifest::check()?))),
        }
    })?;
    parts.push(("this machine".to_owned(), here));
    if !options.no_vm {
        progress("building the binaries for the guests");
        setup::for_build(&Cache::open()?)?;
        build::binaries(Profile::Tests)?;
        println!("== scenarios, seed {seed}");
    }
    parts.extend(if options.no_vm {
        runs.iter().map(|run| (run.name(), not_run())).collect()
    } else {
        perform(&runs, options.guests.into())
    });
    // What is not read any more is no failure.
    let _ = std::io::stdout().write_all(tally::summary(&parts).as_bytes());
    Ok(u8::from(tally::sums(&parts).1 != 0))
}

/// Gets what the guests take while this machine's own checks run: most of that is waiting, for the network or for one CPU.
/// What cannot be had is told where it is needed.
fn fetch(runs: &[scenarios::Run<'_>]) {
    for run in runs.iter().rev() {
        let _ = run.guest().fetch();
    }
}

/// Performs runs, so many at a time, and gives their tallies in their order. Those of the newest kernel, which take
/// longest, begin first.
fn perform(runs: &[scenarios::Run<'_>], at_once: usize) -> Vec<(String, Tally)> {
    let waiting = Mutex::new((0..runs.len()).collect::<Vec<_>>());
    let done: Mutex<Vec<(usize, Tally)>> = Mutex::default();
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    thread::scope(|scope| {
        for _ in 0..at_once.min(runs.len()) {
            scope.spawn(|| {
                while let Some(at) = next() {
                    let tally = runs[at].perform();
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, tally));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(at, tally)| (runs[at].name(), tally)).collect()
}

fn not_run() -> Tally {
    Tally { skipped: vec![("all scenarios".to_owned(), "--no-vm".to_owned())], ..Tally::default() }
}

fn wanted_kernels(options: &Options) -> Result<Vec<&'static Kernel>> {
    if !options.kernel.is_empty() {
        return options.kernel.iter().map(|key| kernels::find(key)).collect();
    }
    Ok(if options.full { KERNELS.iter().collect() } else { vec![kernels::oldest(), kernels::newest()] })
}

fn clock() -> u64 {
    // A clock before 1970 is as good a seed as any.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs())
}
