//! The loop: wakes the core when the ring buffer or the clock says so, and serves clients of the socket and of HTTP until the
//! daemon is told to end. All of it runs in one thread.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tracing::{debug, info, warn};

use super::core::Core;
use super::error::DaemonError;
use super::settings::Settings;
use super::web::Web;
use super::{instance, socket};

/// How often the ring buffer is drained even if it does not wake the core, and modules and pins are looked after.
const TICK: Duration = Duration::from_millis(500);

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
    let core = Core::start(&settings.core)?;
    LocalSet::new().block_on(&runtime, serve(settings, core, web))
}

async fn serve(settings: &Settings, mut core: Core, web: Web) -> Result<(), DaemonError> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |error| DaemonError::System { what, error }
    };
    let _statistics = if settings.statistics { count_runs() } else { None };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("cannot wait for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot wait for SIGINT"))?;
    if settings.core.bpf_log {
        start_bpf_log(&mut core);
    }
    let mut events = core.wakeups().and_then(wait_on).map_err(system("cannot wait for the ring buffer"))?;
    // The first pass has the kernel verify programs; only the second one shows what a pass costs.
    for _ in 0..2 {
        if let Err(error) = core.pass() {
            warn!(%error, "cannot read the pins");
        }
    }
    core.trim_memory();
    let listener = socket::bind(&settings.socket)?;
    // The daemon as a whole is ready: not named by the file that happens to say so.
    info!(target: "pinwatch::daemon", socket = %settings.socket.display(), "watching");
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let core = Rc::new(RefCell::new(core));
    web.serve(&core);
    let places = Arc::new(Semaphore::new(socket::MAX_CLIENTS));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            ready = events.readable_mut() => match ready {
                Ok(mut guard) => {
                    core.borrow_mut().on_wakeup();
                    guard.clear_ready();
                }
                Err(error) => warn!(%error, "cannot read the ring buffer"),
            },
            _ = tick.tick() => core.borrow_mut().tick(),
            client = listener.accept() => match client {
                Ok((stream, _)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        debug!("a client is turned away: too many are connected");
                        continue;
                    };
                    let core = core.clone();
                    tokio::task::spawn_local(async move {
                        socket::answer(stream, &core).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    info!("ending: the hooks are detached");
    // The socket goes first: no client is to reach a daemon without hooks.
    if let Err(error) = std::fs::remove_file(&settings.socket) {
        debug!(%error, "the socket was gone already");
    }
    Ok(())
}

/// Has the kernel count for as long as what this gives lives.
fn count_runs() -> Option<OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .inspect_err(
            |error| warn!(%error, "cannot have the kernel count how often and how long BPF programs run"),
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
fn start_bpf_log(core: &mut Core) {
    let logger = match EbpfLogger::init_with_logger(core.ebpf(), BpfLog) {
        Ok(logger) => logger,
        Err(error) => return warn!(%error, "cannot read the log of the BPF programs"),
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
        Err(error) => warn!(%error, "cannot wait for the log of the BPF programs"),
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
