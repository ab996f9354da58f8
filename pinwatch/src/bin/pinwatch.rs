//! `pinwatch`: arguments and wiring.

#[path = "shared/policy_arg.rs"]
mod policy_arg;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use pinwatch::daemon::exporter::Limits;
use pinwatch::daemon::{self, Settings, web};
use pinwatch::kernel::plan::{AttachMode, Choices};
use pinwatch::listing::escape;
use pinwatch::model::{LeasePolicy, Subsystem};
use pinwatch::source::{self, clocks::Clocks};
use pinwatch::wire::{self, Reply, Request};
use tracing_subscriber::EnvFilter;

use policy_arg::PolicyArg;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches long-term page pins: who has pinned which memory, on which file.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch pins and answer lspins, until SIGTERM
    Run {
        #[command(flatten)]
        options: Options,
    },
    /// Print metrics once, in Prometheus' text format, as for node_exporter's textfile collector
    ///
    /// Asks the daemon, or goes by procfs and netlink if none runs.
    Metrics {
        /// Where pinwatch listens
        #[arg(long, value_name = "PATH", env = wire::SOCKET_VARIABLE, default_value = wire::SOCKET)]
        socket: PathBuf,
        /// Which pins are to have a lease [default: as the daemon was told, or those that survive a reboot]
        #[arg(long, value_enum, value_name = "WHICH")]
        require_lease: Option<PolicyArg>,
    },
    /// Tell what this kernel offers, and what is hooked how
    ///
    /// Exit status: 0 everything is on, 1 something is missing, 2 no pin can be watched here.
    Check {
        /// One JSON document
        #[arg(short = 'J', long)]
        json: bool,
        #[command(flatten)]
        hooks: HookOptions,
    },
}

#[derive(clap::Args)]
struct Options {
    /// Where to listen
    #[arg(long, value_name = "PATH", env = wire::SOCKET_VARIABLE, default_value = wire::SOCKET)]
    socket: PathBuf,
    #[command(flatten)]
    hooks: HookOptions,
    /// Room for so many pins; the kernel uses memory only for those there are
    #[arg(long, value_name = "N", default_value_t = 1 << 18, value_parser = clap::value_parser!(u32).range(1..=1 << 22))]
    max_pins: u32,
    /// Which pins are to have a lease: a warning is logged when one loses it, and lspins goes by it
    #[arg(long, value_enum, value_name = "WHICH", default_value = "persistent")]
    require_lease: PolicyArg,
    /// What to log: error, warn, info, debug (which has every pin, and the BPF programs' own log)
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: tracing::Level,
    #[command(flatten)]
    web: WebOptions,
    #[command(flatten)]
    metrics: MetricsOptions,
}

#[derive(clap::Args)]
struct HookOptions {
    /// How to hook kernel functions
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    attach: Attach,
    /// Pins of drivers that pinwatch does not know [default: on, unless every direct read and write would pay for it]
    #[arg(long, value_enum, value_name = "WHETHER")]
    generic: Option<Switch>,
    /// Leave a subsystem to --generic: its pins are shown as unclaimed then
    #[arg(long, value_parser = hooked_subsystem(), value_name = "SUBSYSTEM", value_delimiter = ',')]
    without: Vec<Subsystem>,
}

impl HookOptions {
    fn choices(&self) -> Choices {
        Choices {
            attach: self.attach.into(),
            generic: self.generic.map(|generic| matches!(generic, Switch::On)),
            without: self.without.clone(),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Subsystems that have hooks of their own.
fn hooked_subsystem() -> impl TypedValueParser<Value = Subsystem> {
    let hooked = Subsystem::ALL.into_iter().filter(|subsystem| *subsystem != Subsystem::Unclaimed);
    PossibleValuesParser::new(hooked.map(Subsystem::word)).try_map(|word| {
        let found = Subsystem::ALL.into_iter().find(|subsystem| subsystem.word() == word);
        found.ok_or("no such subsystem")
    })
}

#[derive(clap::Args)]
#[command(next_help_heading = "HTTP")]
struct WebOptions {
    /// Where to serve metrics, can be repeated: HOST:PORT, or :PORT for all addresses; "" for nowhere
    ///
    /// [default: 127.0.0.1:9746, or the sockets that systemd hands over]
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    listen_address: Vec<String>,
    /// Where the metrics are
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics", value_parser = web::check_path)]
    telemetry_path: String,
    /// TLS, certificates and passwords, in the format of the Prometheus exporter-toolkit; followed when it changes
    #[arg(long = "web.config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
}

/// So many groups of a kind are told apart at most.
const MOST_GROUPS: usize = 1000;

#[derive(clap::Args)]
#[command(next_help_heading = "More metrics; anybody who may scrape sees the names in them")]
struct MetricsOptions {
    /// How often and how long each BPF program ran: the kernel counts it for all of the machine's, which slows them down a bit
    #[arg(long = "metrics.bpf")]
    bpf_statistics: bool,
    /// Pinned bytes of the N users with most, and of all others as one
    #[arg(long = "metrics.users", value_name = "N", default_value_t = 0, value_parser = groups)]
    users: usize,
    /// Pinned bytes of the N slices and pods with most, and of all others as one
    #[arg(long = "metrics.cgroups", value_name = "N", default_value_t = 0, value_parser = groups)]
    cgroups: usize,
    /// Pinned bytes of the N files with most, and of all others as one
    #[arg(long = "metrics.files", value_name = "N", default_value_t = 0, value_parser = groups)]
    files: usize,
}

fn groups(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "a number is wanted".to_owned())?;
    if number <= MOST_GROUPS { Ok(number) } else { Err(format!("{MOST_GROUPS} at most")) }
}

#[derive(Clone, Copy, ValueEnum)]
enum Attach {
    /// fentry and fexit where the kernel has them, kprobes elsewhere
    Auto,
    /// kprobes for everything
    Kprobe,
}

impl From<Attach> for AttachMode {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Kprobe => Self::Kprobe,
        }
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { options } => run(&options),
        Command::Check { json, hooks } => check(json, &hooks.choices()),
        Command::Metrics { socket, require_lease } => {
            match metrics(&socket, require_lease.map(|arg| arg.0)) {
                Ok(text) => print(&text, 0),
                Err(sentence) => {
                    eprintln!("pinwatch: {sentence}");
                    ExitCode::from(2)
                }
            }
        }
    }
}

/// The metrics of now.
fn metrics(socket: &Path, require_lease: Option<LeasePolicy>) -> Result<String, String> {
    // What the daemon serves to Prometheus is of all users. Others get the totals of what they may see.
    let whole = require_lease.is_none() && rustix::process::geteuid().is_root();
    let request = if whole { Request::Metrics {} } else { Request::List {} };
    let table = match wire::ask(socket, &request, PATIENCE) {
        Ok(Reply::Metrics(text)) => return Ok(text),
        Ok(Reply::Table(table)) => table,
        Ok(Reply::Error(sentence)) => {
            return Err(format!("the daemon says: {}", escape::sentence(&sentence)));
        }
        Ok(Reply::Events(_) | Reply::Refused(_)) => {
            return Err("the daemon answered another question; restart it".to_owned());
        }
        Err(error) if error.no_daemon() => source::proc::table()
            .map_err(|error| format!("cannot read /proc: {error}; mount procfs there"))?,
        Err(error) => return Err(format!("cannot ask the daemon at {}: {error}", socket.display())),
    };
    let policy = require_lease.or(table.policy).unwrap_or_default();
    daemon::exporter::text(&table, policy, Clocks::now().realtime).map_err(|error| error.to_string())
}

/// Prints what was asked for.
fn print(text: &str, status: u8) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads the pipe may go away when they have seen enough.
        Ok(()) => ExitCode::from(status),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(status),
        Err(error) => {
            eprintln!("pinwatch: cannot write what was asked for: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> ExitCode {
    let filter = EnvFilter::new(format!("off,pinwatch={level},bpf={level}", level = options.log));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let settings = Settings {
        socket: options.socket.clone(),
        core: daemon::core::Options {
            choices: options.hooks.choices(),
            max_pins: options.max_pins,
            bpf_log: options.log >= tracing::Level::DEBUG,
            policy: options.require_lease.0,
            limits: Limits {
                users: options.metrics.users,
                cgroups: options.metrics.cgroups,
                files: options.metrics.files,
            },
        },
        statistics: options.metrics.bpf_statistics,
        web: web::Settings {
            addresses: (!options.web.listen_address.is_empty()).then(|| options.web.listen_address.clone()),
            path: options.web.telemetry_path.clone(),
            config: options.web.config_file.clone(),
        },
    };
    match daemon::run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pinwatch: {error}");
            ExitCode::from(2)
        }
    }
}

fn check(json: bool, choices: &Choices) -> ExitCode {
    let report = daemon::check(choices);
    let width =
        rustix::termios::tcgetwinsize(std::io::stdout()).map_or(100, |size| usize::from(size.ws_col).max(40));
    let text = match json {
        true => report.json(),
        false => Ok(report.text(width)),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => {
            eprintln!("pinwatch: cannot write the report: {error}");
            return ExitCode::from(2);
        }
    };
    print(&text, report.exit_code())
}
