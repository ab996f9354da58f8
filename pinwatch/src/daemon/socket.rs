//! The Unix socket: one request a client, each answered with what its user may see, within bounds for those who are slow.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

use super::core::Core;
use super::error::DaemonError;
use super::events::FollowError;
use crate::wire::{self, Request, WireError};

/// So many clients are served at once; more are turned away at once, which is better than to let them wait for ever.
pub const MAX_CLIENTS: usize = 64;
/// A client that takes longer than this to send its request, or to read its reply, is disconnected.
const PATIENCE: Duration = Duration::from_secs(30);

/// So often a follower is sent what is new.
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
pub async fn answer(mut stream: UnixStream, core: &RefCell<Core>) {
    let exchange = async {
        let uid = stream.peer_cred()?.uid();
        let reply = match read_request(&mut stream).await {
            Ok(Request::List {}) => list(core, uid),
            Ok(Request::Events { follow: false }) => wire::encode_events(&core.borrow().events_after(0, uid)),
            Ok(Request::Events { follow: true }) => return Ok(Some(uid)),
            Ok(Request::Refused {}) => wire::encode_refused(&core.borrow_mut().refused(uid)),
            Ok(Request::Metrics {}) => metrics(core, uid),
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
            if let Err(error) = follow(stream, core, uid).await {
                debug!(%error, "a follower went away");
            }
        }
        Ok(Err(error)) => debug!(%error, "a client went away"),
        Err(_) => debug!("a client was too slow"),
    }
}

/// Sends events until the client goes away, or does not take them.
async fn follow(mut stream: UnixStream, core: &RefCell<Core>, uid: u32) -> io::Result<()> {
    let _follower = match Follower::enter(core) {
        Ok(follower) => follower,
        Err(error) => {
            let refusal = wire::encode_error(&error.to_string()).unwrap_or_default();
            return send(&mut stream, &refusal).await;
        }
    };
    let mut sent = 0;
    let mut first = true;
    loop {
        let (latest, events) = {
            let core = core.borrow();
            (core.latest_event(), core.events_after(sent, uid))
        };
        if first || !events.is_empty() {
            let reply = wire::encode_events(&events).map_err(io::Error::other)?;
            send(&mut stream, &reply).await?;
        }
        (sent, first) = (latest, false);
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
struct Follower<'a>(&'a RefCell<Core>);

impl<'a> Follower<'a> {
    fn enter(core: &'a RefCell<Core>) -> Result<Self, FollowError> {
        core.borrow_mut().add_follower()?;
        Ok(Self(core))
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.borrow_mut().remove_follower() {
            warn!(%error, "cannot stop the BPF programs from reporting each pin; that costs some time");
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

fn list(core: &RefCell<Core>, uid: u32) -> Result<Vec<u8>, WireError> {
    match core.borrow_mut().table_with_totals() {
        Ok(table) => wire::encode_table(&table.redact_for(uid)),
        Err(error) => wire::encode_error(&error.to_string()),
    }
}

fn metrics(core: &RefCell<Core>, uid: u32) -> Result<Vec<u8>, WireError> {
    if uid != 0 {
        return wire::encode_error("the metrics of the whole machine are for root");
    }
    match core.borrow_mut().scrape() {
        Ok(text) => wire::encode_metrics(&text),
        Err(error) => wire::encode_error(&error.to_string()),
    }
}
