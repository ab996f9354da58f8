//! `cargo xtask bench`: measurements in a guest whose clock counts instructions, beside the file of figures. What is measured
//! is in the scripts, how it is read in `measured`, what it may be in `figures` and the file.

mod check;
mod figures;
mod measured;

use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::cache::progress;
use crate::kernels;
use crate::setup;
use crate::vm::{Guest, Outcome};
use figures::Figures;
use measured::Measured;

pub use check::quick;

/// Before `hooks` and `leases`.
const MEASURE: &str = include_str!("measure.sh");
const HOOKS: &str = include_str!("hooks.sh");
const LEASES: &str = include_str!("leases.sh");
const LIST: &str = include_str!("list.sh");
const HOLDERS: &str = include_str!("holders.sh");
const SCRAPE: &str = include_str!("scrape.sh");
/// Before the other three.
const DAEMON: &str = include_str!("daemon.sh");
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// The pins of `list` and `scrape` that the figures are of, and the files under those of `scrape`.
const PINS: u32 = 100_000;
const FILES: u32 = 10_000;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Measure again what the file of figures has, and fail where it is worse or over its budget
    Check(check::Options),
    /// Instructions that the hooks add to making pins, and to reading with O_DIRECT
    Hooks(Where),
    /// Instructions that are added to what is done to files, without and with a lease
    Leases(Where),
    /// Time of `lspins -j` against `lsof` over as many descriptors
    List {
        #[command(flatten)]
        on: Where,
        /// Pins, and descriptors
        #[arg(long, value_name = "N", default_value_t = PINS, value_parser = clap::value_parser!(u32).range(1..=500_000))]
        count: u32,
    },
    /// CPU time of a scrape, with few and with many pins, against one of node_exporter; the daemon's memory
    Scrape {
        #[command(flatten)]
        on: Where,
        /// Pins
        #[arg(long, value_name = "N", default_value_t = PINS, value_parser = clap::value_parser!(u32).range(1_000..=500_000))]
        count: u32,
        /// Files under them
        #[arg(long, value_name = "N", default_value_t = FILES, value_parser = clap::value_parser!(u32).range(1..=50_000))]
        files: u32,
    },
    /// Time of `lspins -j` over 1,000 pins with few and with many processes and descriptors that keep nothing
    Holders(Where),
}

/// Which guest to measure in.
#[derive(Debug, Args)]
pub struct Where {
    /// Kernel to boot, see `vm list` [default: the newest]
    #[arg(long, short, value_name = "K")]
    kernel: Option<String>,
    /// Take the release binaries that are there, without a build
    #[arg(long)]
    no_build: bool,
}

impl Where {
    fn kernel(&self) -> &str {
        self.kernel.as_deref().unwrap_or_else(|| kernels::newest().key)
    }
}

/// One of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hooks,
    Leases,
    List { count: u32 },
    Scrape { count: u32, files: u32 },
    Holders,
}

impl Kind {
    /// What the command and the file of figures call it.
    fn name(self) -> &'static str {
        match self {
            Self::Hooks => "hooks",
            Self::Leases => "leases",
            Self::List { .. } => "list",
            Self::Scrape { .. } => "scrape",
            Self::Holders => "holders",
        }
    }

    /// Whether the figures in the file are of the same load.
    fn is_of_the_file(self) -> bool {
        match self {
            Self::List { count } => count == PINS,
            Self::Scrape { count, files } => (count, files) == (PINS, FILES),
            Self::Hooks | Self::Leases | Self::Holders => true,
        }
    }

    /// Measures on `kernel`; with what else there is for comparison, such as bpftrace, if `others`.
    fn measure(self, kernel: &str, build: bool, others: bool) -> Result<Vec<Measured>> {
        let guest = Guest {
            packages: if others && self == Self::Hooks { vec!["bpftrace".to_owned()] } else { Vec::new() },
            build,
            ..Guest::new(kernel)
        };
        Ok(match self {
            Self::Hooks => {
                let modes = if others { "bpftrace" } else { "" };
                measured::added(&perform(guest, &format!("{MEASURE}{HOOKS}"), &[modes])?)
            }
            Self::Leases => measured::added(&perform(guest, &format!("{MEASURE}{LEASES}"), &[])?),
            Self::List { count } => {
                let output = perform(guest, &format!("{DAEMON}{LIST}"), &[&count.to_string()])?;
                measured::list(&output, count)
            }
            Self::Scrape { count, files } => {
                let arguments = [count.to_string(), files.to_string()];
                let output = perform(guest, &format!("{DAEMON}{SCRAPE}"), &[&arguments[0], &arguments[1]])?;
                measured::scrape(&output)
            }
            Self::Holders => measured::holders(&perform(guest, &format!("{DAEMON}{HOLDERS}"), &[])?),
        })
    }
}

/// Measures, prints the table and returns the exit status: 0 only if all was measured and nothing is over its budget that is
/// not accepted.
///
/// # Errors
/// When setting up fails or the guest does not reach the end of the script.
pub fn run(bench: &Bench) -> Result<u8> {
    let (kind, on) = match bench {
        Bench::Check(options) => return check::run(options),
        Bench::Hooks(on) => (Kind::Hooks, on),
        Bench::Leases(on) => (Kind::Leases, on),
        Bench::List { on, count } => (Kind::List { count: *count }, on),
        Bench::Scrape { on, count, files } => (Kind::Scrape { count: *count, files: *files }, on),
        Bench::Holders(on) => (Kind::Holders, on),
    };
    let mut figures = Figures::read()?;
    if !kind.is_of_the_file() {
        figures.forget_values();
    }
    let measured = kind.measure(on.kernel(), !on.no_build, true)?;
    let (text, good) = figures.compare(kind.name(), on.kernel(), &measured, false);
    show(&(figures::head() + &text));
    Ok(u8::from(!good))
}

/// Who does not read the table any more still gets the status.
fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Runs `script` in the guest, with a clock that counts instructions, and returns what it printed.
fn perform(guest: Guest, script: &str, arguments: &[&str]) -> Result<String> {
    kernels::find(&guest.kernel)?;
    setup::everything()?;
    progress(&format!("measuring on Linux {}; the guest counts instructions and is slow", guest.kernel));
    let guest = Guest { icount: true, memory: 2048, timeout: LIMIT, ..guest };
    let command: Vec<OsString> =
        ["bash", "-c", script, "bench"].iter().chain(arguments).map(OsString::from).collect();
    let mut output = Vec::new();
    let outcome = guest.run(&command, &mut |bytes| {
        // Progress, for a person; the table comes at the end on standard output.
        let _ = std::io::stderr().write_all(bytes);
        output.extend_from_slice(bytes);
    })?;
    let output = String::from_utf8_lossy(&output).into_owned();
    match outcome {
        Outcome::Exited(0) => Ok(output),
        Outcome::Exited(status) => bail!("the measuring script ended with status {status}, see above"),
        Outcome::TimedOut(console) => {
            bail!("the guest was killed after {} s; its console:\n{console}", LIMIT.as_secs())
        }
        Outcome::Panicked(console) => bail!("the guest's kernel panicked:\n{console}"),
    }
}
