//! What `lspins` can be told.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use pinwatch::listing::size::Size;
use pinwatch::listing::summary::By;

use crate::policy_arg::PolicyArg;

/// What is said of pins, and not of leases or events: these can be selected by file only.
const OF_PINS: [&str; 14] = [
    "terse", "explain", "summary", "by", "pids", "users", "commands", "types", "min_size", "unheld",
    "unleased", "coverage", "columns", "sort",
];

/// Lists long-term page pins: which memory, on which file, and who keeps it.
///
/// One row for each pin and file, largest first. Asks the daemon pinwatch; without it, shows what procfs and netlink
/// know. Several values of one option are alternatives; all options together must fit.
///
/// Exit status: 0 something was listed, 1 nothing, 2 an error, 3 with --strict if the answer is not complete.
#[derive(Parser)]
#[command(name = "lspins", version, max_term_width = 110)]
pub struct Args {
    /// Files whose pins to list, deleted ones by the name they had.
    pub files: Vec<OsString>,
    /// Pins of files under a directory.
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<OsString>,
    /// Pins of files on a mount, also after it was unmounted.
    #[arg(long, value_name = "MNT")]
    pub mount: Vec<OsString>,
    /// Pins that these processes made or hold.
    #[arg(short = 'p', long = "pid", value_name = "PID,...", value_delimiter = ',')]
    pub pids: Vec<String>,
    /// Pins that processes of these users made or hold; names or numbers.
    #[arg(short = 'u', long = "user", value_name = "USER,...", value_delimiter = ',')]
    pub users: Vec<String>,
    /// Pins of processes whose command name begins so.
    #[arg(short = 'c', long = "command", value_name = "NAME")]
    pub commands: Vec<OsString>,
    /// Types (rdma-mr, ...) or subsystems (rdma, io_uring, xdp, ...).
    #[arg(long = "type", value_name = "T,...", value_delimiter = ',')]
    pub types: Vec<String>,
    /// Only files whose name is gone.
    #[arg(long)]
    pub deleted: bool,
    /// Only pins of at least this size, as in 64K, 1.5G.
    #[arg(long, value_name = "SIZE")]
    pub min_size: Option<Size>,
    /// Only pins that no process holds any more.
    #[arg(long)]
    pub unheld: bool,
    /// Only pins that --require-lease wants a lease for, and whose file has none.
    #[arg(long)]
    pub unleased: bool,
    /// Verdicts on leases: write, read, deleg, layout, partial, other, breaking, none, n/a, unknown.
    #[arg(long, value_name = "STATE,...", value_delimiter = ',')]
    pub coverage: Vec<String>,
    /// Which pins are to have a lease: those on files that survive a reboot, on all that can have one, on DAX files, none.
    /// [default: as pinwatch was told, or those that survive a reboot]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub require_lease: Option<PolicyArg>,

    /// Columns, as in PID,NAME, or those to add, as in +ID,BACKING.
    #[arg(short = 'o', long = "output", value_name = "COL,...")]
    pub columns: Option<String>,
    /// List all columns.
    #[arg(short = 'H', long = "list-columns")]
    pub list_columns: bool,
    /// Sizes in bytes.
    #[arg(short, long)]
    pub bytes: bool,
    /// No header.
    #[arg(short, long)]
    pub no_header: bool,
    /// One JSON document.
    #[arg(short = 'J', long, group = "form")]
    pub json: bool,
    /// A line of JSON for each pin.
    #[arg(short = 'j', long, group = "form")]
    pub json_lines: bool,
    /// Process ids only: holders, and creators that are alive.
    #[arg(short = 't', long = "terse", group = "form")]
    pub terse: bool,
    /// One pin on one screen: who keeps it, and what must be closed or killed to release it.
    #[arg(long, value_name = "ID", group = "form")]
    pub explain: Option<String>,
    /// The leases themselves, also those without a pin: kind, state, who holds them and who waits, pins behind them. Can be
    /// selected by file.
    #[arg(long, conflicts_with_all = OF_PINS)]
    pub leases: bool,
    /// What happened: leases taken, broken and dropped, verdicts that changed, pins made and released. Asks pinwatch, which
    /// keeps the last 1,000 breaks and verdicts, and as many others; pins are told of while somebody follows.
    /// Can be selected by file.
    #[arg(long, conflicts_with_all = OF_PINS.into_iter().chain(["leases", "repeat", "no_daemon", "strict"]).collect::<Vec<_>>())]
    pub events: bool,
    /// Pins that the kernel refused: who asked, for what, and why not. Asks pinwatch, which keeps the last 1,000.
    #[arg(long, conflicts_with_all = ["events", "leases", "explain", "summary", "by", "terse", "repeat", "no_daemon", "strict"])]
    pub refused: bool,
    /// With --events: go on until interrupted.
    #[arg(long, requires = "events")]
    pub follow: bool,
    /// Totals by subsystem, or by what --by says.
    #[arg(long, conflicts_with = "terse")]
    pub summary: bool,
    /// Totals by subsystem, file or process.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "terse")]
    pub by: Option<By>,
    /// The column to sort by, with - in front the other way round [default: the size, largest first].
    #[arg(long, value_name = "COL", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// List again every so many seconds until interrupted.
    #[arg(short, long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub repeat: Option<u64>,
    /// Say on stderr what was searched if nothing was found.
    #[arg(short, long)]
    pub verbose: bool,
    /// Exit with 3 if pins may be missing.
    #[arg(long)]
    pub strict: bool,

    /// Where pinwatch listens [default: $PINWATCH_SOCKET or /run/pinwatch/pinwatch.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Do not ask pinwatch.
    #[arg(long, conflicts_with = "socket")]
    pub no_daemon: bool,
}
