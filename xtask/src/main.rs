//! `cargo xtask`: set-up, tests, the demo, benchmarks, virtual machines. Arguments and wiring only.

mod apt;
mod bench;
mod btf;
mod build;
mod cache;
mod dashboards;
mod demo;
mod deny;
mod fmt;
mod kernels;
mod process;
mod setup;
mod test;
mod vm;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use vm::{Guest, Outcome};

/// Exit status when the guest was killed at its time limit, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// Exit status when the guest could not be run to its end.
const FAILED: u8 = 125;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Demo, tests, set-up and virtual machines of pinwatch.")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show in a guest what lspins knows of a pinned file, and what other tools do not
    Demo(demo::Options),
    /// Unit tests and lints here, scenarios on real kernels in guests
    Test(test::Options),
    /// Measurements in guests, beside the budgets
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Get what a build and a virtual machine need: eBPF toolchain, QEMU, Debian packages
    Setup,
    /// Make Grafana's dashboards from dashboards/panels.toml
    Dashboards {
        /// Only say whether they are up to date
        #[arg(long)]
        check: bool,
    },
    /// Format all Rust files, those too that cargo fmt does not see
    Fmt {
        /// Only say whether they are formatted
        #[arg(long)]
        check: bool,
    },
    /// Check licences, bans, sources and advisories of what pinwatch depends on (deny.toml)
    Deny,
    /// Make the fixtures of BTF anew that pinwatch's plan is tested by, from kernels in guests
    CutBtf {
        /// Kernels, e.g. 6.1; all when none is named
        kernels: Vec<String>,
    },
    /// Virtual machines with real kernels
    #[command(subcommand)]
    Vm(Vm),
}

#[derive(Subcommand)]
enum Vm {
    /// Show the kernels there are
    List,
    /// Move kernels.lock to the newest kernels that the mirror has
    Update {
        /// Kernels to update, e.g. 6.1; all when none is named
        kernels: Vec<String>,
    },
    /// Run a command in a guest; its exit status is this one's (124: time limit, 125: the guest failed)
    Run {
        #[command(flatten)]
        machine: Machine,
        /// Kill the guest after this many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
        timeout: u64,
        /// The command with its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Open a root shell in a guest
    Shell {
        #[command(flatten)]
        machine: Machine,
    },
}

#[derive(Args)]
struct Machine {
    /// Kernel to boot, see `vm list`
    #[arg(long, short, value_name = "K")]
    kernel: String,
    /// Folder that the guest sees, writable, as /share
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// More Debian packages in the guest
    #[arg(long, value_name = "P,...", value_delimiter = ',')]
    with_packages: Vec<String>,
    /// NVDIMMs of 512 MiB; `pmem-up` in the guest makes pmem and dax devices of them
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=8))]
    nvdimm: u8,
    /// An IOMMU with a device behind it; `vfio-up` in the guest gives it to VFIO
    #[arg(long)]
    iommu: bool,
    /// One more device, as QEMU's -device takes it, e.g. `e1000e`; behind the IOMMU with --iommu. Repeatable
    #[arg(long, value_name = "ARGS")]
    device: Vec<String>,
    /// The kernel's headers and its compiler; `module-build` in the guest builds modules with them
    #[arg(long)]
    headers: bool,
    /// Let guest time count instructions: repeatable, slow, one CPU
    #[arg(long)]
    icount: bool,
    /// Memory of the guest [default: 1024, 2560 with NVDIMMs]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(512..=1 << 20))]
    memory: Option<u32>,
    /// CPUs of the guest
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// More kernel arguments
    #[arg(
        long,
        value_name = "ARGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    append: String,
    /// Take the release binaries that are there, without a build
    #[arg(long)]
    no_build: bool,
}

impl Machine {
    fn guest(self, timeout: Duration) -> Guest {
        Guest {
            share: self.share,
            packages: self.with_packages,
            nvdimm: self.nvdimm,
            iommu: self.iommu,
            devices: self.device,
            headers: self.headers,
            icount: self.icount,
            memory: self.memory.unwrap_or(0),
            cpus: self.cpus,
            append: self.append,
            timeout,
            build: !self.no_build,
            ..Guest::new(&self.kernel)
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match perform(cli.task) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn perform(task: Task) -> Result<u8> {
    match task {
        Task::Demo(options) => Ok(report(&demo::show(&options)?, demo::limit())),
        Task::Test(options) => test::run(&options),
        Task::Bench(what) => bench::run(&what),
        Task::Dashboards { check } => dashboards::make(check),
        Task::Fmt { check } => fmt::run(check),
        Task::CutBtf { kernels } => btf::cut(&kernels),
        Task::Deny => deny::run(),
        Task::Setup => setup::everything().map(|()| 0),
        Task::Vm(Vm::List) => {
            print!("{}", vm::list()?);
            Ok(0)
        }
        Task::Vm(Vm::Update { kernels }) => {
            kernels::resolve::update(&cache::Cache::open()?, &kernels).map(|()| 0)
        }
        Task::Vm(Vm::Run { machine, timeout, command }) => {
            let mut show = |bytes: &[u8]| {
                let mut out = std::io::stdout().lock();
                // A reader that has gone away is no reason to end the guest: its status still counts.
                let _ = out.write_all(bytes).and_then(|()| out.flush());
            };
            let outcome = machine.guest(Duration::from_secs(timeout)).run(&command, &mut show)?;
            Ok(report(&outcome, timeout))
        }
        Task::Vm(Vm::Shell { machine }) => Ok(report(&machine.guest(Duration::MAX).shell()?, 0)),
    }
}

/// Says on standard error what went wrong with the guest, and returns the exit status.
fn report(outcome: &Outcome, timeout: u64) -> u8 {
    match outcome {
        Outcome::Exited(status) => u8::try_from(*status).unwrap_or(FAILED),
        Outcome::TimedOut(console) => {
            eprintln!(
                "xtask: killed the guest after {timeout} seconds; the last lines of its console:\n{console}"
            );
            TIMED_OUT
        }
        Outcome::Panicked(console) => {
            eprintln!("xtask: the guest's kernel panicked:\n{console}");
            FAILED
        }
    }
}
