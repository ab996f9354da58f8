//! `cargo xtask test`: the checks of this machine, then the scenarios on real kernels, and one summary. Arguments and order
//! only; what a check is stands in `host`, what a cell is in `cell`.

mod cell;
mod host;
#[cfg(test)]
mod links;
mod list;
mod manifest;
mod results;
mod summary;
mod tally;

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};

use crate::bench;
use crate::build::Binaries;
use crate::build::{self, Profile};
use crate::cache::{Cache, progress};
use crate::kernels::{self, KERNELS, Kernel};
use crate::setup;
use cell::Cell;
use host::{Pace, When};
use results::Results;
use summary::{Part, Took};
use tally::Tally;

/// What to test.
#[derive(Debug, Args)]
pub struct Options {
    /// Every kernel, every scenario everywhere, longer random runs; results are stored by commit if the tree is clean
    #[arg(long)]
    full: bool,
    /// With --full: only what has not passed yet for this very commit; results of earlier runs count
    #[arg(long, requires = "full", conflicts_with = "only")]
    resume: bool,
    /// Print the scenarios with what each shows and where each runs, and do nothing else
    #[arg(long)]
    list: bool,
    /// Only these kernels [default: the oldest and the newest]
    #[arg(long, value_name = "K,...", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Only this attach mode [default: both]
    #[arg(long, value_enum)]
    attach: Option<Attach>,
    /// Only these scenarios
    #[arg(long, value_name = "SCENARIO,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Seed of what is random [default: 1; with --full from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many virtual machines run at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    guests: u8,
    /// Only the checks of this machine, no virtual machines
    #[arg(long)]
    no_vm: bool,
    /// Only the virtual machines, without the checks of this machine
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
    if options.list {
        setup::for_build(&Cache::open()?)?;
        // A reader that has seen enough is no failure.
        let _ = std::io::stdout().write_all(list::text(&options.only)?.as_bytes());
        return Ok(0);
    }
    let started = Instant::now();
    let kernels = wanted_kernels(options)?;
    let seed = options.seed.unwrap_or_else(|| if options.full { clock() } else { 1 });
    setup::everything()?;
    let mut keeper = Keeper::of(options, seed)?;
    let wanted = |attach: &Attach| options.attach.is_none_or(|only| only == *attach);
    let mut cells = Vec::new();
    for kernel in kernels {
        for attach in [Attach::Auto, Attach::Kprobe].into_iter().filter(wanted) {
            let (kernel, attach, only) = (kernel.key, attach.name(), &options.only[..]);
            cells.push(Cell { kernel, attach, only, seed, full: options.full });
        }
    }
    let mut parts = Vec::new();
    if options.no_unit {
        parts.extend(host::skipped("--no-unit"));
    }
    let checks = |keeper: &Keeper, when: When, pace: Pace| -> Result<Vec<Part>> {
        let wanted = host::ALL.iter().filter(|check| check.when == when && !options.no_unit);
        wanted.map(|check| keeper.part(check.name, || check.perform(pace))).collect()
    };
    parts.extend(checks(&keeper, When::Before, Pace::Alone)?);
    if options.no_vm {
        parts.extend(checks(&keeper, When::Beside, Pace::Alone)?);
        parts.extend(checks(&keeper, When::After, Pace::Alone)?);
        parts.extend(cells.iter().map(|cell| Part::new(&cell.name(), not_run())));
    } else {
        let mut done: Vec<Part> = cells.iter().filter_map(|cell| keeper.taken_over(&cell.name())).collect();
        cells.retain(|cell| done.iter().all(|part| part.name != cell.name()));
        let mut binaries = None;
        if !cells.is_empty() {
            let (built, took) = build_for_guests(&cells)?;
            keeper.built();
            parts.push(Part { took: Some(took), ..Part::new("build for guests", Tally::default()) });
            binaries = Some(built);
            println!("== scenarios, seed {seed}");
        }
        parts.extend(thread::scope(|scope| {
            let beside = scope.spawn(|| {
                let parts = checks(&keeper, When::Beside, Pace::BesideGuests);
                let needs_tests = host::ALL.iter().any(|check| {
                    check.when == When::After && !options.no_unit && !keeper.has_passed(check.name)
                });
                if needs_tests {
                    host::build_tests();
                }
                parts
            });
            if let Some(binaries) = &binaries {
                done.extend(perform(&cells, options.guests.into(), binaries, &keeper));
            }
            beside.join().unwrap_or_else(|_| Err(anyhow!("a check beside the guests panicked")))
        })?);
        parts.extend(checks(&keeper, When::After, Pace::Alone)?);
        parts.extend(done);
        if options.full && options.only.is_empty() {
            parts.push(keeper.part("bench check --quick", quick_bench)?);
        }
    }
    // What is not read any more is no failure.
    let _ = std::io::stdout().write_all(summary::summary(&parts, started.elapsed()).as_bytes());
    Ok(u8::from(summary::sums(&parts).1 != 0))
}

/// Takes over what an earlier run has shown of this commit, and stores what this one shows.
struct Keeper {
    results: Option<Results>,
    resume: bool,
    seed: u64,
}

impl Keeper {
    /// Only `--full` without `--only` is stored: all of a cell, or nothing.
    fn of(options: &Options, seed: u64) -> Result<Self> {
        let whole = options.full && options.only.is_empty();
        let commit = if whole { results::clean_commit() } else { None };
        if whole && commit.is_none() {
            progress(
                "the tree differs from its commit (or there is no git): no result is stored or taken over",
            );
        }
        let cache = Cache::open()?;
        let results = commit.map(|commit| Results::of(&cache, &commit));
        Ok(Self { results, resume: options.resume, seed })
    }

    /// Whether an earlier run's result is taken over.
    fn has_passed(&self, name: &str) -> bool {
        self.passed(name).is_some()
    }

    fn passed(&self, name: &str) -> Option<Part> {
        self.results.as_ref().filter(|_| self.resume)?.passed(name)
    }

    /// The result of an earlier run, if it passed and is wanted; says so.
    fn taken_over(&self, name: &str) -> Option<Part> {
        let part = self.passed(name)?;
        println!("{name}: taken over: {}", part.taken_over.as_deref().unwrap_or_default());
        Some(part)
    }

    /// A part: taken over, or performed and stored.
    fn part(&self, name: &str, perform: impl FnOnce() -> Result<Part>) -> Result<Part> {
        if let Some(part) = self.taken_over(name) {
            return Ok(part);
        }
        let part = perform()?;
        if self.results.as_ref().is_some_and(Results::still_hold) {
            self.store(&part);
        }
        Ok(part)
    }

    /// To be called when what runs in guests has been built: only if nothing was changed before that it is the commit's. What is
    /// changed later changes no cell.
    fn built(&mut self) {
        if self.results.as_ref().is_some_and(|results| !results.still_hold()) {
            progress("the tree has changed since this began: no result is stored any more");
            self.results = None;
        }
    }

    /// A result that cannot be stored costs a run of it later, no more.
    fn store(&self, part: &Part) {
        let Some(results) = &self.results else { return };
        if let Err(error) = results.store(part, self.seed) {
            progress(&format!("{}: not stored: {error:#}", part.name));
        }
    }
}

/// Builds what runs in the guests, and puts it where no later build replaces it: each cell of a run has the same. What else the
/// guests take is fetched meanwhile.
fn build_for_guests(cells: &[Cell<'_>]) -> Result<(Binaries, Took)> {
    progress("building the binaries for the guests");
    let started = Instant::now();
    setup::for_build(&Cache::open()?)?;
    let built = thread::scope(|scope| {
        scope.spawn(|| fetch(cells));
        build::binaries(Profile::Tests)
    })?;
    let binaries = Binaries::keep(&built)?;
    Ok((binaries, Took { wall: started.elapsed(), cpu: None }))
}

/// The quick part of `bench check`; it counts as one. A guest that fails is a failure of it, not the end of all.
fn quick_bench() -> Result<Part> {
    let started = Instant::now();
    let name = "bench check --quick";
    println!("== {name}");
    let mut tally = Tally::default();
    match bench::quick() {
        Ok((table, good)) => {
            print!("{table}");
            if good {
                tally.passed += 1;
            } else {
                tally.fail(name);
            }
        }
        Err(error) => {
            println!("{name}: FAILED: {error:#}");
            tally.fail(name);
        }
    }
    let took = Took { wall: started.elapsed(), cpu: None };
    Ok(Part { took: Some(took), ..Part::new(name, tally) })
}

/// Gets what the guests take: most of that is waiting, for the network or for one CPU.
/// What cannot be had is reported where it is needed.
fn fetch(cells: &[Cell<'_>]) {
    for cell in cells.iter().rev() {
        let _ = cell.guest(&[]).fetch();
    }
}

/// Performs cells, so many at a time, and gives their parts in their order. Those that take longest begin first, so that no CPU
/// is left alone at the end.
fn perform(cells: &[Cell<'_>], at_once: usize, binaries: &Binaries, keeper: &Keeper) -> Vec<Part> {
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|at| cells[*at].length(*at));
    let waiting = Mutex::new(order);
    let done: Mutex<Vec<(usize, Part)>> = Mutex::default();
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    thread::scope(|scope| {
        for _ in 0..at_once.min(cells.len()) {
            scope.spawn(|| {
                while let Some(at) = next() {
                    let part = cells[at].perform(&binaries.paths);
                    keeper.store(&part);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, part));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, part)| part).collect()
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
