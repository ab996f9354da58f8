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
use pinwatch::subsystem;
use pinwatch::wire::{self, Reply, Request, WireError};
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
    /// Watch pins and answer lspins until SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        options: Options,
    },
    /// Print the metrics once in Prometheus' text format, as for node_exporter's textfile collector
    ///
    /// They come from the daemon or, if none runs, from procfs and netlink.
    Metrics {
        /// Socket of the daemon
        #[arg(long, value_name = "PATH", env = wire::SOCKET_VARIABLE, default_value = wire::SOCKET)]
        socket: PathBuf,
        /// Which pins need a lease [default: the daemon's --require-lease, or persistent]
        #[arg(long, value_enum, value_name = "WHICH")]
        require_lease: Option<PolicyArg>,
    },
    /// Show what can be traced on this kernel, and how each function is hooked
    ///
    /// Exit status: 0 everything can be traced, 1 something is missing, 2 no pin can be traced.
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
    /// Unix socket to serve lspins on
    #[arg(long, value_name = "PATH", env = wire::SOCKET_VARIABLE, default_value = wire::SOCKET)]
    socket: PathBuf,
    #[command(flatten)]
    hooks: HookOptions,
    /// Capacity of the map of pins; kernel memory is used only for pins that exist
    #[arg(long, value_name = "N", default_value_t = 1 << 18, value_parser = clap::value_parser!(u32).range(1..=1 << 22))]
    max_pins: u32,
    /// Which pins need a lease; the daemon logs a warning when one loses it, and lspins marks those without one
    #[arg(long, value_enum, value_name = "WHICH", default_value = "persistent")]
    require_lease: PolicyArg,
    /// Log level: error, warn, info, or debug, which logs every pin and the BPF programs' own messages
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
    /// Whether to watch pins of drivers that pinwatch does not know
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Unclaimed::Auto)]
    unclaimed: Unclaimed,
    /// Do not hook these subsystems; with --unclaimed on their pins appear as "unclaimed"
    #[arg(long, value_parser = hooked_subsystem(), value_name = "SUBSYSTEM,...", value_delimiter = ',')]
    without: Vec<Subsystem>,
}

impl HookOptions {
    fn choices(&self) -> Choices {
        Choices {
            attach: self.attach.into(),
            unclaimed: match self.unclaimed {
                Unclaimed::On => Some(true),
                Unclaimed::Off => Some(false),
                Unclaimed::Auto => None,
            },
            without: self.without.clone(),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Unclaimed {
    /// Always, even where it slows direct I/O
    On,
    /// Never
    Off,
    /// Unless it would slow direct I/O: on Linux 6.3 and later it adds some 9 % to a read of 4 KiB
    Auto,
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
    /// Address to serve metrics at; can be repeated: HOST:PORT, or :PORT for all addresses; "" for none
    ///
    /// [default: 127.0.0.1:9746, or the sockets passed by systemd]
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    listen_address: Vec<String>,
    /// Path of the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics", value_parser = web::check_path)]
    telemetry_path: String,
    /// File with TLS, certificates and passwords, in the format of the Prometheus exporter-toolkit; read again when it changes
    #[arg(long = "web.config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
}

/// The most groups of one kind that get a series of their own.
const MOST_GROUPS: i64 = 1000;

#[derive(clap::Args)]
#[command(
    next_help_heading = "More metrics (their labels have names that everybody who may scrape can read)"
)]
struct MetricsOptions {
    /// Runs and run time of each BPF program; turns on the kernel's BPF statistics, which slightly slows every BPF program on the host
    #[arg(long = "metrics.bpf")]
    bpf_statistics: bool,
    /// Pinned bytes of the N users with the most, and of all others together
    #[arg(long = "metrics.users", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=MOST_GROUPS))]
    users: u16,
    /// Pinned bytes of the N slices and pods with the most, and of all others together
    #[arg(long = "metrics.cgroups", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=MOST_GROUPS))]
    cgroups: u16,
    /// Pinned bytes of the N files with the most, and of all others together
    #[arg(long = "metrics.files", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=MOST_GROUPS))]
    files: u16,
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

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
enum MetricsFailure {
    /// The daemon answers that it cannot.
    #[error("the daemon reports: {}", escape::sentence(.0))]
    Reported(String),
    /// The daemon answers something else.
    #[error("unexpected reply from the daemon; restart it")]
    Unexpected,
    /// The daemon does not answer as it should.
    #[error("cannot get the metrics from the daemon at {}: {error}; check `systemctl status pinwatch`", .socket.display())]
    Daemon { socket: PathBuf, error: WireError },
    /// There is no usable /proc.
    #[error("cannot read /proc: {0}; mount procfs there")]
    Procfs(std::io::Error),
    /// The text cannot be made.
    #[error(transparent)]
    Text(#[from] daemon::exporter::MetricsError),
}

/// The text of the metrics as they are now.
fn metrics(socket: &Path, require_lease: Option<LeasePolicy>) -> Result<String, MetricsFailure> {
    // Prometheus gets the pins of all users; a user other than root gets the totals of the pins they may see.
    let whole = require_lease.is_none() && rustix::process::geteuid().is_root();
    let request = if whole { Request::Metrics {} } else { Request::List {} };
    let table = match wire::ask(socket, &request, PATIENCE) {
        Ok(Reply::Metrics(text)) => return Ok(text),
        Ok(Reply::Table(table)) => table,
        Ok(Reply::Error(sentence)) => return Err(MetricsFailure::Reported(sentence)),
        Ok(Reply::Events(_) | Reply::Refused(_)) => return Err(MetricsFailure::Unexpected),
        Err(error) if error.no_daemon() => {
            source::proc::table(subsystem::procfs()).map_err(MetricsFailure::Procfs)?
        }
        Err(error) => return Err(MetricsFailure::Daemon { socket: socket.to_owned(), error }),
    };
    let policy = require_lease.or(table.policy).unwrap_or_default();
    Ok(daemon::exporter::text(&table, policy, Clocks::now().realtime)?)
}

/// Prints what was asked for.
fn print(text: &str, status: u8) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads the pipe may go away when they have seen enough.
        Ok(()) => ExitCode::from(status),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(status),
        Err(error) => {
            eprintln!("pinwatch: cannot write to stdout: {error}");
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
                users: options.metrics.users.into(),
                cgroups: options.metrics.cgroups.into(),
                files: options.metrics.files.into(),
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
