//! `cargo xtask bench`: measurements in a guest whose clock counts instructions, beside the budgets. What is measured is
//! in the scripts, what is allowed in `table`.

mod table;

use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::cache::progress;
use crate::kernels;
use crate::setup;
use crate::vm::{Guest, Outcome};

/// Before the next two.
const MEASURE: &str = include_str!("measure.sh");
const HOOKS: &str = include_str!("hooks.sh");
const LEASES: &str = include_str!("leases.sh");
const LIST: &str = include_str!("list.sh");
const HOLDERS: &str = include_str!("holders.sh");
const SCRAPE: &str = include_str!("scrape.sh");
/// Before these three.
const DAEMON: &str = include_str!("daemon.sh");
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Instructions that the hooks add to making pins, and to reading with O_DIRECT
    Hooks(Where),
    /// Instructions that are added to what is done to files, without and with a lease
    Leases(Where),
    /// Time of `lspins -j` against `lsof` over as many descriptors
    List {
        #[command(flatten)]
        on: Where,
        /// Pins, and descriptors
        #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
        count: u32,
    },
    /// CPU time of a scrape, with few and with many pins, against one of node_exporter
    Scrape {
        #[command(flatten)]
        on: Where,
        /// Pins
        #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=500_000))]
        count: u32,
        /// Files under them
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
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

/// Measures, prints the table and returns the exit status: 0 only if all was measured and is within its budget.
///
/// # Errors
/// When setting up fails or the guest does not reach the end of the script.
pub fn run(bench: &Bench) -> Result<u8> {
    let (text, good) = match bench {
        Bench::Hooks(on) => {
            let packages = vec!["bpftrace".to_owned()];
            table::added(&measure_with(packages, on, &format!("{MEASURE}{HOOKS}"), &[])?, table::HOOKS)
        }
        Bench::Leases(on) => table::added(&measure(on, &format!("{MEASURE}{LEASES}"), &[])?, table::LEASES),
        Bench::List { on, count } => {
            table::list(&measure(on, &format!("{DAEMON}{LIST}"), &[&count.to_string()])?, *count)
        }
        Bench::Scrape { on, count, files } => table::scrape(&measure(
            on,
            &format!("{DAEMON}{SCRAPE}"),
            &[&count.to_string(), &files.to_string()],
        )?),
        Bench::Holders(on) => table::holders(&measure(on, &format!("{DAEMON}{HOLDERS}"), &[])?),
    };
    // Who does not read the table any more still gets the status.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(u8::from(!good))
}

/// Runs `script` in the guest and returns what it printed.
fn measure(on: &Where, script: &str, arguments: &[&str]) -> Result<String> {
    measure_with(Vec::new(), on, script, arguments)
}

/// The same in a guest with more Debian packages.
fn measure_with(packages: Vec<String>, on: &Where, script: &str, arguments: &[&str]) -> Result<String> {
    let kernel = on.kernel.as_deref().unwrap_or_else(|| kernels::newest().key);
    kernels::find(kernel)?;
    setup::everything()?;
    progress(&format!("measuring on Linux {kernel}; the guest counts instructions and is slow"));
    let guest = Guest {
        packages,
        icount: true,
        memory: 2048,
        build: !on.no_build,
        timeout: LIMIT,
        ..Guest::new(kernel)
    };
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
