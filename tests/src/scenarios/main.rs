//! End-to-end scenarios, run as root inside a VM: real pins of `mkpins` against what `lspins` says.
//!
//! One daemon serves all scenarios; after each the table has to be empty. A scenario that cannot run on a kernel says so
//! by name and reason. Nothing here waits without a bound.

mod actors;
mod cases;
mod compare;
mod factory;
mod gaps;
mod guest;
mod kernel_log;
mod schema;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand};

use guest::Guest;
use kernel_log::KernelLog;

/// What a scenario comes to, if it does not fail.
pub enum Outcome {
    /// All that it asks is true; a note may tell figures.
    Passed(Option<String>),
    /// It cannot run here, and why.
    Skipped(String),
}

/// What a scenario depends on, and so where it runs. With --full, or asked for by name, it runs everywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On the kernel, and on the attach mode.
    Everywhere,
    /// On both; but its module has to be built in the guest, and that once for each kernel is enough.
    WithModule,
    /// On the kernel only: not with kprobes.
    EachKernel,
    /// On neither: on the newest kernels, and not with kprobes.
    Once,
}

impl Where {
    /// Where it runs unless --full is given, for `scenarios list`.
    fn default_run(self) -> &'static str {
        match self {
            Self::Everywhere => "each kernel, both modes",
            Self::WithModule | Self::EachKernel => "each kernel, auto",
            Self::Once => "newest kernel, auto",
        }
    }

    /// Why it does not run in this guest, if it does not.
    fn elsewhere(self, guest: &Guest) -> Option<&'static str> {
        let kprobe = guest.attach == "kprobe";
        match self {
            Self::Everywhere => None,
            Self::WithModule => {
                kprobe.then_some("its module takes most of a minute to build: under kprobes only with --full")
            }
            Self::EachKernel => {
                kprobe.then_some("independent of the attach mode: under kprobes only with --full")
            }
            Self::Once => (kprobe || !guest.at_least(7, 0)).then_some(
                "independent of the kernel and of the attach mode: under kprobes and before 7.0 only with --full",
            ),
        }
    }
}

/// One scenario.
pub struct Scenario {
    /// Its name, as `--only` takes it.
    pub name: &'static str,
    /// Where it runs.
    pub place: Where,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// What it does.
    pub run: fn(&mut Guest) -> Result<Outcome>,
}

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print all scenarios: name, where each runs unless --full is given, what it shows
    List,
    /// Run them
    Run {
        /// How the daemon hooks: auto or kprobe
        #[arg(long, default_value = "auto")]
        attach: String,
        /// Only these
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Seed of what is random
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// More and longer
        #[arg(long)]
        full: bool,
        /// Run the list so many times over, to find what fails now and then
        #[arg(long, default_value_t = 1)]
        repeat: usize,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::List => {
            for scenario in cases::ALL {
                println!("{:<24} {:<24} {}", scenario.name, scenario.place.default_run(), scenario.shows);
            }
            ExitCode::SUCCESS
        }
        Command::Run { attach, only, seed, full, repeat } => {
            if let Some(unknown) = only.iter().find(|name| !cases::ALL.iter().any(|s| s.name == **name)) {
                eprintln!("scenarios: there is no scenario {unknown:?}; `scenarios list` names them");
                return ExitCode::from(2);
            }
            let wanted =
                |scenario: &&Scenario| only.is_empty() || only.iter().any(|name| name == scenario.name);
            let scenarios: Vec<&Scenario> =
                cases::ALL.iter().filter(wanted).collect::<Vec<_>>().repeat(repeat);
            match run_all(&attach, seed, full, full || !only.is_empty(), &scenarios) {
                Ok(code) => code,
                Err(error) => {
                    println!("scenario set-up ... FAILED\n    {error:#}");
                    println!("scenarios: 0 passed, 1 failed, 0 skipped");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// So often a scenario is begun anew if the emulator let a CPU stand still meanwhile.
const ONCE_MORE: u32 = 2;

fn run_all(
    attach: &str,
    seed: u64,
    full: bool,
    everywhere: bool,
    scenarios: &[&Scenario],
) -> Result<ExitCode> {
    let mut guest = Guest::set_up(attach, seed, full)?;
    let (mut passed, mut failed, mut skipped) = (0u32, 0u32, 0u32);
    for scenario in scenarios {
        let elsewhere = if everywhere { None } else { scenario.place.elsewhere(&guest) };
        if let Some(reason) = elsewhere {
            skipped += 1;
            println!("scenario {} ... skipped: {reason}", scenario.name);
            continue;
        }
        let started = Instant::now();
        let mut kernel = KernelLog::from_now()?;
        let mut result = guest.perform(scenario);
        for _ in 0..ONCE_MORE {
            if result.is_ok() || !kernel.stalled()? {
                break;
            }
            // That says nothing of what was to be shown. If it stands still for good, this ends as a failure.
            println!("scenario {} ... once more: a CPU of the guest stood still", scenario.name);
            guest.revive()?;
            result = guest.perform(scenario);
        }
        let seconds = started.elapsed().as_secs_f32();
        match result {
            Ok(Outcome::Passed(note)) => {
                passed += 1;
                let note = note.map(|note| format!(" [{note}]")).unwrap_or_default();
                println!("scenario {} ... ok ({seconds:.1} s){note}", scenario.name);
            }
            Ok(Outcome::Skipped(reason)) => {
                skipped += 1;
                println!("scenario {} ... skipped: {reason}", scenario.name);
            }
            Err(error) => {
                failed += 1;
                println!("scenario {} ... FAILED ({seconds:.1} s)", scenario.name);
                let table = guest.table().unwrap_or_default();
                let said = format!(
                    "{error:#}\ngaps: {}\nthe kernel's count: {}\nthe kernel said: {}\nthe daemon's log ends with:\n{}",
                    table["gaps"],
                    table["kernel"],
                    kernel.complaints()?,
                    guest.log_tail()
                );
                for line in said.lines() {
                    println!("    {line}");
                }
                // One dead daemon is one failure: the scenarios after it get a new one.
                if let Some(end) = guest.revive()? {
                    end.lines().for_each(|line| println!("    {line}"));
                }
            }
        }
    }
    println!("scenarios: {passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
