//! Why `lspins` ends with status 2: what could not be done, why, and what to do. All of these sentences are here.

use std::io;
use std::path::{Path, PathBuf};

use pinwatch::listing::argument::ArgumentError;
use pinwatch::listing::escape;
use pinwatch::wire::{Reply, WireError};

use super::operand::{OperandError, shown};

/// What to do where the daemon does not answer as it should.
const CHECK: &str = "check `systemctl status pinwatch`";
/// What there is without it.
const FALLBACK: &str = "use --no-daemon to see what procfs and netlink know";
/// What is listed without the daemon, and what is not.
const GOING_ON: &str = "showing what procfs and netlink know, where unmapped memory has no file name and other subsystems \
                        than io_uring, RDMA and AF_XDP are missing";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An option's value cannot be understood.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A file, user or process cannot be looked up.
    #[error(transparent)]
    Operand(#[from] OperandError),
    /// The daemon does not answer, and it was asked for by name or is broken.
    #[error("{}", unreachable(.socket, .error))]
    Daemon {
        /// Where it was looked for.
        socket: PathBuf,
        /// Why not.
        error: WireError,
    },
    /// The daemon does not answer, and nobody else knows.
    #[error("{}", cannot_ask(.socket, .what, .error))]
    OnlyDaemon {
        /// Where it was looked for.
        socket: PathBuf,
        /// What was to be listed.
        what: &'static str,
        /// Why not.
        error: WireError,
    },
    /// The daemon answers that it cannot.
    #[error("pinwatch reports: {}", escape::sentence(.0))]
    Reported(String),
    /// The daemon answers something else.
    #[error("unexpected reply from pinwatch; restart the daemon")]
    Unexpected,
    /// The daemon ended while events were followed.
    #[error("pinwatch has stopped: no more events; start it and follow again")]
    Ended,
    /// There is no usable /proc.
    #[error("cannot read /proc: {0}; mount procfs there, or start pinwatch")]
    Procfs(io::Error),
    /// /proc/locks does not show leases here.
    #[error(
        "leases cannot be listed here: in a PID namespace /proc/locks hides them; run pinwatch in the host's namespace"
    )]
    LeasesHidden,
    /// Standard output takes no more.
    #[error("cannot write the listing: {0}")]
    Output(io::Error),
}

impl Failure {
    /// A reply that is not what was asked for.
    pub fn of_reply(reply: Reply) -> Self {
        match reply {
            Reply::Error(sentence) => Self::Reported(sentence),
            Reply::Table(_) | Reply::Events(_) | Reply::Metrics(_) | Reply::Refused(_) => Self::Unexpected,
        }
    }
}

fn unreachable(socket: &Path, error: &WireError) -> String {
    let socket = shown(socket.as_os_str());
    match error {
        error if error.no_daemon() => {
            format!("cannot reach pinwatch at {socket}: {error}; start it with `pinwatch run`, or {FALLBACK}")
        }
        WireError::Denied => {
            format!("cannot reach pinwatch at {socket}: permission denied; run as root, or {FALLBACK}")
        }
        WireError::Version { .. } => format!("cannot understand pinwatch at {socket}: {error}"),
        _ => format!("cannot get the pins from {socket}: {error}; {CHECK}, or {FALLBACK}"),
    }
}

fn cannot_ask(socket: &Path, what: &str, error: &WireError) -> String {
    let shown = shown(socket.as_os_str());
    let hint = if error.no_daemon() {
        format!("start it with `pinwatch run` as root: only the daemon knows {what}")
    } else {
        CHECK.to_owned()
    };
    format!("cannot ask pinwatch at {shown}: {error}; {hint}")
}

/// What to say when going on without the daemon.
///
/// # Errors
/// [`Failure::Daemon`] if that would hide that something is broken, or if the user `chose` this daemon.
pub fn going_on_without(error: WireError, socket: &Path, chosen: bool) -> Result<String, Failure> {
    let path = shown(socket.as_os_str());
    let hint = "`pinwatch run` as root shows every pin with its file";
    match error {
        WireError::Absent if !chosen => {
            Ok(format!("pinwatch is not running (no {path}): {GOING_ON}; {hint}"))
        }
        WireError::Refused if !chosen => {
            Ok(format!("pinwatch has stopped (nobody listens at {path}): {GOING_ON}; {hint}"))
        }
        WireError::Denied if !chosen => Ok(format!(
            "cannot reach pinwatch at {path}: permission denied: {GOING_ON}; run as root, or ask for access to it"
        )),
        error => Err(Failure::Daemon { socket: socket.to_owned(), error }),
    }
}
