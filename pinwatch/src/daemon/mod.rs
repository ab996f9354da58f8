//! The daemon: hooks attached, maps read on demand, answers over a Unix socket.
//!
//! It keeps no copy of the pins: what the kernel's maps hold is the truth, and is read when somebody asks.

mod check;
mod count;
pub mod exporter;
mod follow;
mod heal;
mod history;
mod instance;
mod refused;
mod scrape;
mod socket;
mod unclaimed;
mod watch;
pub mod web;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tracing::{debug, info, warn};

use crate::kernel::plan::Choices;
use crate::model::LeasePolicy;
pub use check::check;
pub use instance::InstanceError;
pub use watch::{StartError, Watch, probe};
use web::Web;

/// How often the ring is drained and unused file names are removed, if nothing happens.
const TICK: Duration = Duration::from_millis(500);

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub socket: PathBuf,
    /// What is hooked, and how.
    pub choices: Choices,
    /// Room for so many pins.
    pub max_pins: u32,
    /// Whether the BPF programs log.
    pub bpf_log: bool,
    /// Which pins are to have a lease.
    pub policy: LeasePolicy,
    /// What metrics tell by name.
    pub limits: exporter::Limits,
    /// HTTP.
    pub web: web::Settings,
    /// Whether the kernel counts how often and how long BPF programs run.
    pub statistics: bool,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another one runs, or its files cannot be made.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The kernel's side.
    #[error(transparent)]
    Start(#[from] StartError),
    /// HTTP cannot be served; the sentence says why.
    #[error("{0}")]
    Web(String),
    /// Anything else of the operating system.
    #[error("{what}: {error}")]
    System {
        /// What could not be done.
        what: String,
        /// What the system says.
        error: std::io::Error,
    },
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Why it cannot start. Once it runs it goes on, and says in its answers what it lacks.
pub fn run(settings: &Settings) -> Result<(), DaemonError> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |error| DaemonError::System { what, error }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("cannot start the event loop"))?;
    let _instance = instance::claim(&settings.socket)?;
    // Before the programs are loaded, which takes a while: who comes early waits instead of being refused.
    let web = runtime.block_on(async { Web::bind(&settings.web) })?;
    let watch = Watch::start(settings)?;
    LocalSet::new().block_on(&runtime, serve(settings, watch, web))
}

async fn serve(settings: &Settings, mut watch: Watch, web: Web) -> Result<(), DaemonError> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |error| DaemonError::System { what, error }
    };
    let _statistics = if settings.statistics { count_runs() } else { None };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("cannot wait for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot wait for SIGINT"))?;
    if settings.bpf_log {
        start_bpf_log(&mut watch);
    }
    let mut events = watch.events_fd().and_then(wait_on).map_err(system("cannot watch the events"))?;
    // The first look has the kernel verify what it takes; only the second one tells what a look costs.
    for _ in 0..2 {
        if let Err(error) = watch.table() {
            warn!(%error, "pins cannot be looked at");
        }
    }
    let listener = socket::bind(&settings.socket)?;
    info!(socket = %settings.socket.display(), "watching");
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let watch = std::rc::Rc::new(std::cell::RefCell::new(watch));
    web.serve(&watch);
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(socket::MAX_CLIENTS));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            ready = events.readable_mut() => match ready {
                Ok(mut guard) => {
                    watch.borrow_mut().hurry();
                    guard.clear_ready();
                }
                Err(error) => warn!(%error, "the events cannot be read"),
            },
            _ = tick.tick() => watch.borrow_mut().tick(),
            client = listener.accept() => match client {
                Ok((stream, _)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        debug!("too many clients at once; one is turned away");
                        continue;
                    };
                    let watch = watch.clone();
                    tokio::task::spawn_local(async move {
                        socket::answer(stream, &watch).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "a client cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    info!("ending: hooks are taken off");
    // The socket goes first: nobody shall ask a daemon that no longer knows.
    if let Err(error) = std::fs::remove_file(&settings.socket) {
        debug!(%error, "the socket was gone already");
    }
    Ok(())
}

/// Has the kernel count for as long as what this gives lives.
fn count_runs() -> Option<OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .inspect_err(
            |error| warn!(%error, "the kernel does not count how often and how long BPF programs run"),
        )
        .ok()
}

/// Lets the event loop wait for a descriptor.
#[expect(
    deprecated,
    reason = "aya's ring buffers give their descriptor by AsRawFd only; they own it, and are owned here"
)]
fn wait_on<T: AsRawFd>(ring: T) -> std::io::Result<AsyncFd<T>> {
    AsyncFd::new(ring)
}

/// Passes on what the BPF programs log.
fn start_bpf_log(watch: &mut Watch) {
    let logger = match EbpfLogger::init_with_logger(watch.ebpf(), BpfLog) {
        Ok(logger) => logger,
        Err(error) => return warn!(%error, "the BPF programs' log cannot be read"),
    };
    match wait_on(logger) {
        Ok(mut logger) => {
            tokio::task::spawn_local(async move {
                while let Ok(mut guard) = logger.readable_mut().await {
                    guard.get_inner_mut().flush();
                    guard.clear_ready();
                }
            });
        }
        Err(error) => warn!(%error, "the BPF programs' log cannot be waited for"),
    }
}

/// Hands a record of the BPF side to `tracing`.
struct BpfLog;

impl log::Log for BpfLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        debug!(target: "bpf", "{}", record.args());
    }

    fn flush(&self) {}
}
