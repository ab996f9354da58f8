//! The Unix socket: who asks, what they may see, and bounds for those who are slow.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

use super::{DaemonError, Watch};
use crate::model::{FileIndex, HoldingIndex, Lease, ProcessIndex, Table};
use crate::wire::{self, Request, WireError};

/// So many clients are served at once; more are turned away at once, which is better than never.
pub const MAX_CLIENTS: usize = 64;
/// A client that does not say what it wants, or does not take its answer, for so long, is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// So often a follower is told what is new.
const NEWS: Duration = Duration::from_millis(200);

/// Listens at a path. What a daemon left behind there is removed: the instance lock says that none runs.
pub fn bind(path: &Path) -> Result<UnixListener, DaemonError> {
    let failed = |what: &str| {
        let what = format!("cannot {what} {}", path.display());
        move |error| DaemonError::System { what, error }
    };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            fs::remove_file(path).map_err(failed("remove the old socket"))?
        }
        Ok(_) => {
            let error =
                std::io::Error::other("something that is no socket is there; remove it, or use --socket");
            return Err(failed("listen at")(error));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listen at"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed("open up"))?;
    Ok(listener)
}

/// Answers one client.
pub async fn answer(mut stream: UnixStream, watch: &RefCell<Watch>) {
    let exchange = async {
        let uid = stream.peer_cred()?.uid();
        let reply = match read_request(&mut stream).await {
            Ok(Request::List {}) => list(watch, uid),
            Ok(Request::Events { follow: false }) => {
                wire::encode_events(&watch.borrow().events_after(0, uid))
            }
            Ok(Request::Events { follow: true }) => return Ok(Some(uid)),
            Ok(Request::Refused {}) => {
                let mut watch = watch.borrow_mut();
                watch.drain();
                wire::encode_refused(&watch.refusals.visible_to(uid))
            }
            Ok(Request::Metrics {}) => metrics(watch, uid),
            Err(WireError::Io(error)) => return Err(error),
            Err(error) => wire::encode_error(&format!("the daemon did not understand: {error}")),
        };
        match reply {
            Ok(bytes) => stream.write_all(&bytes).await?,
            Err(error) => warn!(%error, "an answer cannot be sent"),
        }
        stream.shutdown().await.map(|()| None)
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(uid))) => {
            if let Err(error) = follow(stream, watch, uid).await {
                debug!(%error, "a follower went away");
            }
        }
        Ok(Err(error)) => debug!(%error, "a client went away"),
        Err(_) => debug!("a client was too slow"),
    }
}

/// Tells of events until the client goes away, or does not take them.
async fn follow(mut stream: UnixStream, watch: &RefCell<Watch>, uid: u32) -> io::Result<()> {
    let _follower = match Follower::enter(watch) {
        Ok(follower) => follower,
        Err(sentence) => {
            let refusal = wire::encode_error(&sentence).unwrap_or_default();
            return send(&mut stream, &refusal).await;
        }
    };
    let mut told = 0;
    let mut first = true;
    loop {
        let (latest, events) = {
            let watch = watch.borrow();
            (watch.latest_event(), watch.events_after(told, uid))
        };
        if first || !events.is_empty() {
            let reply = wire::encode_events(&events).map_err(io::Error::other)?;
            send(&mut stream, &reply).await?;
        }
        (told, first) = (latest, false);
        // A client has nothing more to say: what can be read is its end, or not meant for us.
        let mut byte = [0u8];
        if tokio::time::timeout(NEWS, stream.read(&mut byte)).await.is_ok() {
            return Ok(());
        }
    }
}

async fn send(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    match tokio::time::timeout(PATIENCE, stream.write_all(bytes)).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Somebody who follows, for as long as this lives.
struct Follower<'a>(&'a RefCell<Watch>);

impl<'a> Follower<'a> {
    fn enter(watch: &'a RefCell<Watch>) -> Result<Self, String> {
        watch.borrow_mut().follower(true)?;
        Ok(Self(watch))
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        if let Err(sentence) = self.0.borrow_mut().follower(false) {
            warn!(sentence, "pins are told of though nobody follows");
        }
    }
}

async fn read_request(stream: &mut UnixStream) -> Result<Request, WireError> {
    let mut header = [0u8; wire::HEADER];
    stream.read_exact(&mut header).await?;
    let length = wire::decode_header(&header, wire::REQUEST_LIMIT)?;
    let mut body = vec![0u8; length];
    stream.read_exact(&mut body).await?;
    wire::decode_request(&body)
}

fn list(watch: &RefCell<Watch>, uid: u32) -> Result<Vec<u8>, WireError> {
    match watch.borrow_mut().counted() {
        Ok(table) => wire::encode_table(&visible_to(table, uid)),
        Err(error) => wire::encode_error(&error.to_string()),
    }
}

fn metrics(watch: &RefCell<Watch>, uid: u32) -> Result<Vec<u8>, WireError> {
    if uid != 0 {
        return wire::encode_error("the metrics of the whole machine are for root");
    }
    match watch.borrow_mut().scrape() {
        Ok(text) => wire::encode_metrics(&text),
        Err(error) => wire::encode_error(&error.to_string()),
    }
}

fn mark(used: &mut [bool], at: u32) {
    if let Some(used) = used.get_mut(at as usize) {
        *used = true;
    }
}

/// What a user may see: root all; others the pins that a process of theirs made or holds, and how much the rest is.
fn visible_to(mut table: Table, uid: u32) -> Table {
    if uid == 0 {
        return table;
    }
    let theirs = |at| table.processes.get::<usize>(at).is_some_and(|process| process.uid == Some(uid));
    let (mut hidden, mut seen) = ((0u64, 0u64), Vec::new());
    for pin in std::mem::take(&mut table.pins) {
        let holders = table.holders(&pin).iter().map(|holder| holder.process);
        if pin.creator.into_iter().chain(holders).any(|process| theirs(process.0 as usize)) {
            seen.push(pin);
        } else {
            hidden = (hidden.0 + 1, hidden.1.saturating_add(pin.bytes));
        }
    }
    table.pins = seen;
    table.hidden = hidden;
    // Names of files and processes that no visible pin refers to are nobody's business.
    let mut files = vec![false; table.files.len()];
    let mut processes = vec![false; table.processes.len()];
    let mut holdings = vec![false; table.holdings.len()];
    // A lease on a file of theirs is their business, and so is one that a process of theirs has.
    let mine = |table: &Table, lease: &Lease| {
        let holding = table.holdings.get(lease.holding.0 as usize);
        let holders = holding.into_iter().flat_map(|holding| &holding.holders).map(|holder| holder.process);
        let is_theirs = |at: ProcessIndex| table.process(at).is_some_and(|process| process.uid == Some(uid));
        lease.taker.into_iter().chain(holders).any(is_theirs) || table.pins.iter().any(|pin| lease.is_on(pin))
    };
    if let Some(mut leases) = table.leases.take() {
        leases.retain(|lease| mine(&table, lease));
        table.leases = Some(leases);
    }
    let of_leases: Vec<(Vec<FileIndex>, Option<ProcessIndex>, HoldingIndex)> =
        (table.leases.iter().flatten())
            .map(|lease| (lease.files().collect(), lease.taker, lease.holding))
            .collect();
    for (of, taker, holding) in of_leases {
        of.iter().for_each(|file| mark(&mut files, file.0));
        mark(&mut holdings, holding.0);
        let holders = table.holdings.get(holding.0 as usize).into_iter().flat_map(|holding| &holding.holders);
        taker
            .into_iter()
            .chain(holders.map(|holder| holder.process))
            .for_each(|at| mark(&mut processes, at.0));
    }
    for pin in &table.pins {
        for file in pin.parts.iter().filter_map(|part| part.file) {
            mark(&mut files, file.0);
        }
        let holding = table.holding(pin);
        let holders =
            holding.into_iter().flat_map(|holding| holding.holders.iter().chain(&holding.receivers));
        for process in pin.creator.into_iter().chain(holders.map(|holder| holder.process)) {
            mark(&mut processes, process.0);
        }
        if let Some(at) = pin.holding {
            mark(&mut holdings, at.0);
        }
    }
    for (holding, used) in table.holdings.iter_mut().zip(holdings) {
        if !used {
            *holding = crate::model::Holding::default();
        }
    }
    for (file, used) in table.files.iter_mut().zip(files) {
        if !used {
            file.path = crate::model::Name::default();
            file.fstype.clear();
            file.id = crate::model::FileId { dev: Default::default(), ino: 0, generation: None };
        }
    }
    for (process, used) in table.processes.iter_mut().zip(processes) {
        if !used {
            *process = crate::model::Process::default();
        }
    }
    table
}
