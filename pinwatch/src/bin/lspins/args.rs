//! The arguments of `lspins`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Parser, ValueEnum};
use pinwatch::listing::size::Size;
use pinwatch::listing::summary::By;

use crate::policy_arg::PolicyArg;

/// Options about pins. Leases, events and refused pins can be selected by file only.
const OF_PINS: [&str; 14] = [
    "terse", "explain", "summary", "by", "pids", "users", "commands", "types", "min_size", "unheld",
    "unleased", "coverage", "columns", "sort",
];

/// List long-term page pins: which memory is pinned, on which file, and which processes hold it.
///
/// One row for each pin and file, largest first. The pins come from the daemon pinwatch or, if none runs, from procfs and
/// netlink. Several values of one option are alternatives; a pin must match all options.
///
/// Exit status: 0 something was listed, 1 nothing, 2 an error, 3 with --strict if pins may be missing.
#[derive(Parser)]
#[command(name = "lspins", version, max_term_width = 110)]
pub struct Args {
    /// List pins on these files; a deleted file by the name it had.
    pub files: Vec<OsString>,
    /// List pins on files under a directory.
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<OsString>,
    /// List pins on files of a mounted file system, also after it was unmounted.
    #[arg(long, value_name = "MNT")]
    pub mount: Vec<OsString>,
    /// Only pins that these processes made or hold.
    #[arg(short = 'p', long = "pid", value_name = "PID,...", value_delimiter = ',')]
    pub pids: Vec<String>,
    /// Only pins that processes of these users made or hold; names or numbers.
    #[arg(short = 'u', long = "user", value_name = "USER,...", value_delimiter = ',')]
    pub users: Vec<String>,
    /// Only processes whose command name starts with NAME.
    #[arg(short = 'c', long = "command", value_name = "NAME")]
    pub commands: Vec<OsString>,
    /// Only pins of these types (rdma-mr, ...) or subsystems (rdma, io_uring, xdp, ...).
    #[arg(long = "type", value_name = "T,...", value_delimiter = ',')]
    pub types: Vec<String>,
    /// Only pins on deleted files.
    #[arg(long)]
    pub deleted: bool,
    /// Only pins of at least SIZE, as in 64K or 1.5G.
    #[arg(long, value_name = "SIZE")]
    pub min_size: Option<Size>,
    /// Only pins that no process holds.
    #[arg(long)]
    pub unheld: bool,
    /// Only pins that need a lease (see --require-lease) and whose file has none.
    #[arg(long)]
    pub unleased: bool,
    /// Only pins with this lease coverage: write, read, deleg, layout, partial, other, breaking, none, n/a, unknown.
    #[arg(long, value_name = "STATE,...", value_delimiter = ',')]
    pub coverage: Vec<String>,
    /// Which pins need a lease [default: the daemon's --require-lease, or persistent]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub require_lease: Option<PolicyArg>,

    /// Show these columns, as in PID,NAME, or add them to the default ones, as in +ID,BACKING.
    #[arg(short = 'o', long = "output", value_name = "COL,...")]
    pub columns: Option<String>,
    /// List all columns.
    #[arg(short = 'H', long = "list-columns")]
    pub list_columns: bool,
    /// Show sizes in bytes.
    #[arg(short, long)]
    pub bytes: bool,
    /// Do not print the header.
    #[arg(short, long)]
    pub no_header: bool,
    /// Print one JSON document.
    #[arg(short = 'J', long, group = "form")]
    pub json: bool,
    /// Print one line of JSON for each pin.
    #[arg(short = 'j', long, group = "form")]
    pub json_lines: bool,
    /// Print only process ids: of holders, and of creators that are alive.
    #[arg(short = 't', long = "terse", group = "form")]
    pub terse: bool,
    /// Explain one pin: what it is, who holds it, and what must be closed or killed to release it.
    #[arg(long, value_name = "ID", group = "form")]
    pub explain: Option<String>,
    /// List leases instead of pins, also those on files without pins: kind, state, holders, waiting processes, pins on the
    /// file. Can be selected by file.
    #[arg(long, conflicts_with_all = OF_PINS)]
    pub leases: bool,
    /// List events: leases taken, broken and dropped, changes of coverage, pins made and released. The daemon keeps the last
    /// 1,000 breaks and changes of coverage, and as many of the rest; pins only while somebody runs --follow. Can be
    /// selected by file.
    #[arg(long, conflicts_with_all = OF_PINS.into_iter().chain(["leases", "repeat", "no_daemon", "strict"]).collect::<Vec<_>>())]
    pub events: bool,
    /// List pins that the kernel refused: which process asked, for what, and why it was refused. The daemon keeps the last
    /// 1,000.
    #[arg(long, conflicts_with_all = ["events", "leases", "explain", "summary", "by", "terse", "repeat", "no_daemon", "strict"])]
    pub refused: bool,
    /// With --events: keep printing new events until interrupted.
    #[arg(long, requires = "events")]
    pub follow: bool,
    /// Print totals by subsystem, or as --by says, and the kernel's own count.
    #[arg(long, conflicts_with = "terse")]
    pub summary: bool,
    /// Print totals by subsystem, file or process.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "terse")]
    pub by: Option<ByArg>,
    /// Sort by a column, in reverse with a - in front [default: by size, largest first].
    #[arg(long, value_name = "COL", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// List again every SECS seconds until interrupted.
    #[arg(short, long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub repeat: Option<u64>,
    /// If nothing was found, say on stderr what was searched.
    #[arg(short, long)]
    pub verbose: bool,
    /// Exit with status 3 if pins may be missing.
    #[arg(long)]
    pub strict: bool,

    /// Socket of the daemon [default: $PINWATCH_SOCKET, or /run/pinwatch/pinwatch.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Do not ask the daemon: list what procfs and netlink show.
    #[arg(long, conflicts_with = "socket")]
    pub no_daemon: bool,
}

/// `--by`: `listing` knows nothing of argument parsing.
#[derive(Clone, Copy, Debug)]
pub struct ByArg(pub By);

const BY: [ByArg; 3] = [ByArg(By::Subsystem), ByArg(By::File), ByArg(By::Process)];

impl ValueEnum for ByArg {
    fn value_variants<'a>() -> &'a [Self] {
        &BY
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            By::Subsystem => "The part of the kernel",
            By::File => "The file, or what else the memory is",
            By::Process => {
                "Each process that holds pins, or if that is not known has made them; a pin that several hold counts for each"
            }
        };
        Some(PossibleValue::new(self.0.word()).help(help))
    }
}
