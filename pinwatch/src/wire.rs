//! What daemon and `lspins` say to each other over a Unix stream socket.
//!
//! One request, one reply, then the connection ends; only a client that follows events gets replies until one side leaves.
//! Each message is a header of ten bytes (magic, version, length of the body; little endian) and a postcard body. Both sides treat the other as hostile: lengths are
//! bounded before anything is read, and a table is only handed on once all its references are in range.
//! No policy lives here: who may ask for what is the daemon's business, what to do without a daemon the caller's.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use crate::model::{Event, Refusal, Table};

/// The first bytes of every message.
pub const MAGIC: [u8; 4] = *b"PINW";
/// The version of the messages; it changes with every change of [`Request`], [`Reply`] or the model's types.
pub const VERSION: u16 = 11;
/// So many gaps a table has at most: one for each hook that is missing, and few others.
const MOST_GAPS: usize = 1000;
/// Bytes of a header.
pub const HEADER: usize = 10;
/// The longest request body, in bytes.
pub const REQUEST_LIMIT: u32 = 64 << 10;
/// The longest reply body, in bytes.
pub const REPLY_LIMIT: u32 = 1 << 30;
/// Where the daemon listens unless told otherwise.
pub const SOCKET: &str = "/run/pinwatch/pinwatch.sock";
/// The environment variable that overrides [`SOCKET`].
pub const SOCKET_VARIABLE: &str = "PINWATCH_SOCKET";

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The pins that the asking user may see.
    List {},
    /// Events.
    Events {
        /// Whether to keep sending events.
        follow: bool,
    },
    /// The metrics of the whole machine; only for root.
    Metrics {},
    /// The latest pins that the kernel refused, as far as the asking user may see them.
    Refused {},
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The pins.
    Table(Table),
    /// Why there is no answer: one sentence for the user.
    Error(String),
    /// Events, oldest first.
    Events(Vec<Event>),
    /// Metrics in Prometheus' text format.
    Metrics(String),
    /// Pins that were refused.
    Refused(Vec<Refusal>),
}

/// A reply that borrows; its variants are those of [`Reply`], in the same order, so that a table need not be cloned.
#[derive(Serialize)]
enum ReplyRef<'a> {
    Table(&'a Table),
    Error(&'a str),
    Events(&'a [Event]),
    Metrics(&'a str),
    Refused(&'a [Refusal]),
}

/// Why a message could not be had from the other side.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// There is no socket at the path.
    #[error("there is no socket")]
    Absent,
    /// There is a socket, but nobody listens: the daemon ended without removing it.
    #[error("nobody listens there")]
    Refused,
    /// This user may not connect.
    #[error("permission denied")]
    Denied,
    /// The other side is no pinwatch.
    #[error("what listens there is not pinwatch ({0})")]
    NotPinwatch(&'static str),
    /// The other side stopped in the middle of a message. Bytes of the body.
    #[error("the message was cut off after {got} of {expected} bytes")]
    Truncated {
        /// Bytes that came.
        got: usize,
        /// Bytes that were announced.
        expected: usize,
    },
    /// A message over the bound. Bytes of the body.
    #[error("a message of {length} bytes was announced, more than the {limit} that are allowed")]
    Oversized {
        /// Bytes announced.
        length: u64,
        /// Bytes allowed.
        limit: u32,
    },
    /// The other side speaks another version.
    #[error("{}", version_sentence(*ours, *theirs))]
    Version {
        /// The version of this program.
        ours: u16,
        /// The version of the other side.
        theirs: u16,
    },
    /// The other side took too long.
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// A body that is no message, or one that refers to what it does not have.
    #[error("the message is damaged: {0}")]
    Damaged(#[from] Damage),
    /// Any other failure of the socket.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What is wrong with the body of a message.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is not encoded as this version does.
    #[error(transparent)]
    Encoding(#[from] postcard::Error),
    /// It is longer than what it says.
    #[error("there are bytes after its end")]
    Trailing,
    /// It refers to what it does not have, or breaks another promise of the model.
    #[error("{0}")]
    Inconsistent(&'static str),
}

impl WireError {
    /// Whether it only means that no daemon runs here.
    pub fn no_daemon(&self) -> bool {
        matches!(self, Self::Absent | Self::Refused)
    }
}

fn version_sentence(ours: u16, theirs: u16) -> String {
    let older = if ours < theirs { "this program" } else { "the other side" };
    format!("it speaks version {theirs} and this program version {ours}; upgrade {older}")
}

/// The socket to ask: the option if given, else [`SOCKET_VARIABLE`], else [`SOCKET`]. The flag says whether the
/// user chose it.
pub fn socket_path(option: Option<PathBuf>) -> (PathBuf, bool) {
    let chosen =
        option.or_else(|| std::env::var_os(SOCKET_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from));
    let by_user = chosen.is_some();
    (chosen.unwrap_or_else(|| PathBuf::from(SOCKET)), by_user)
}

/// A request, ready to be sent.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, WireError> {
    encode(request, REQUEST_LIMIT, 0)
}

/// A table as a reply, ready to be sent, without cloning it.
pub fn encode_table(table: &Table) -> Result<Vec<u8>, WireError> {
    /// Bytes of a pin, about.
    const PIN: usize = 64;
    encode(&ReplyRef::Table(table), REPLY_LIMIT, table.pins.len() * PIN)
}

/// Events as a reply, ready to be sent.
pub fn encode_events(events: &[Event]) -> Result<Vec<u8>, WireError> {
    encode(&ReplyRef::Events(events), REPLY_LIMIT, 0)
}

/// Metrics as a reply, ready to be sent.
pub fn encode_metrics(text: &str) -> Result<Vec<u8>, WireError> {
    encode(&ReplyRef::Metrics(text), REPLY_LIMIT, text.len())
}

/// Refused pins as a reply, ready to be sent.
pub fn encode_refused(refusals: &[Refusal]) -> Result<Vec<u8>, WireError> {
    encode(&ReplyRef::Refused(refusals), REPLY_LIMIT, 0)
}

/// An error as a reply, ready to be sent. The sentence is cut to what a reader wants to see.
pub fn encode_error(sentence: &str) -> Result<Vec<u8>, WireError> {
    let end = sentence.char_indices().nth(2000).map_or(sentence.len(), |(at, _)| at);
    encode(&ReplyRef::Error(&sentence[..end]), REPLY_LIMIT, 0)
}

fn encode<T: Serialize>(value: &T, limit: u32, expected: usize) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::with_capacity(256 + expected);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let mut bytes = postcard::to_extend(value, bytes).map_err(Damage::Encoding)?;
    let length = bytes.len() - HEADER;
    match u32::try_from(length) {
        Ok(l) if l <= limit => bytes[6..HEADER].copy_from_slice(&l.to_le_bytes()),
        _ => return Err(WireError::Oversized { length: length as u64, limit }),
    }
    Ok(bytes)
}

/// Checks a header; gives the length of the body that follows, in bytes. `limit` is [`REQUEST_LIMIT`] in the
/// daemon and [`REPLY_LIMIT`] in `lspins`.
pub fn decode_header(header: &[u8; HEADER], limit: u32) -> Result<usize, WireError> {
    let [m0, m1, m2, m3, v0, v1, l0, l1, l2, l3] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(WireError::NotPinwatch("unknown protocol"));
    }
    let theirs = u16::from_le_bytes([v0, v1]);
    if theirs != VERSION {
        return Err(WireError::Version { ours: VERSION, theirs });
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > limit {
        return Err(WireError::Oversized { length: u64::from(length), limit });
    }
    Ok(length as usize)
}

/// The request in a body.
pub fn decode_request(body: &[u8]) -> Result<Request, WireError> {
    decode(body)
}

/// The reply in a body; the references in its table are all in range.
pub fn decode_reply(body: &[u8]) -> Result<Reply, WireError> {
    let reply = decode(body)?;
    if let Reply::Table(table) = &reply {
        check(table).map_err(Damage::Inconsistent)?;
    }
    Ok(reply)
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(Damage::Trailing.into()),
        Err(error) => Err(Damage::Encoding(error).into()),
    }
}

/// Whether all references of a table are in range and what the model promises holds.
fn check(table: &Table) -> Result<(), &'static str> {
    if table.gaps.len() > MOST_GAPS {
        return Err("it has more gaps than there can be");
    }
    for pin in &table.pins {
        if pin.parts.is_empty() {
            return Err("a pin has no parts");
        }
        if pin.parts.iter().filter_map(|p| p.file).any(|f| table.file(f).is_none()) {
            return Err("a pin refers to a file that is not there");
        }
        if pin.creator.is_some_and(|p| table.process(p).is_none()) {
            return Err("a pin refers to a process that is not there");
        }
        if pin.holding.is_some() && table.holding(pin).is_none() {
            return Err("a pin refers to holders that are not there");
        }
    }
    for lease in table.leases.iter().flatten() {
        let known = lease.files().all(|file| table.file(file).is_some())
            && table.holdings.get(lease.holding.0 as usize).is_some();
        if !known || lease.taker.is_some_and(|p| table.process(p).is_none()) {
            return Err("a lease refers to what is not there");
        }
    }
    for holding in &table.holdings {
        if holding.holders.iter().chain(&holding.receivers).any(|h| table.process(h.process).is_none()) {
            return Err("a holder refers to a process that is not there");
        }
    }
    Ok(())
}

/// Reads one message from a stream; gives its body. `limit` as in [`decode_header`].
pub fn read_message(stream: &mut impl Read, limit: u32) -> Result<Vec<u8>, WireError> {
    let mut header = Vec::with_capacity(HEADER);
    stream.take(HEADER as u64).read_to_end(&mut header)?;
    let Ok(header) = <[u8; HEADER]>::try_from(header.as_slice()) else {
        return Err(WireError::NotPinwatch("it closed the connection at once"));
    };
    let expected = decode_header(&header, limit)?;
    // No allocation in advance: the announced length is only a claim.
    let mut body = Vec::new();
    stream.take(expected as u64).read_to_end(&mut body)?;
    if body.len() < expected {
        return Err(WireError::Truncated { got: body.len(), expected });
    }
    Ok(body)
}

/// Asks the daemon at `path`; the whole exchange may take `timeout`.
pub fn ask(path: &Path, request: &Request, timeout: Duration) -> Result<Reply, WireError> {
    let message = encode_request(request)?;
    let deadline = Instant::now() + timeout;
    let as_wire = |e: io::Error| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WireError::TimedOut(timeout),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            WireError::NotPinwatch("it closed the connection at once")
        }
        _ => WireError::Io(e),
    };
    let mut stream = Timed { stream: connect(path, timeout)?, deadline };
    stream.write_all(&message).map_err(as_wire)?;
    let body = read_message(&mut stream, REPLY_LIMIT).map_err(|e| match e {
        WireError::Io(e) => as_wire(e),
        e => e,
    })?;
    decode_reply(&body)
}

/// A daemon that goes on answering.
pub struct Following {
    stream: UnixStream,
}

impl Following {
    /// The next reply, however long it takes; `None` if the daemon has ended.
    pub fn reply(&mut self) -> Result<Option<Reply>, WireError> {
        match read_message(&mut self.stream, REPLY_LIMIT) {
            Ok(body) => decode_reply(&body).map(Some),
            Err(WireError::NotPinwatch(_)) => Ok(None),
            Err(WireError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Asks the daemon at `path` for what happens; the first answer may take `timeout`.
pub fn follow(path: &Path, request: &Request, timeout: Duration) -> Result<(Reply, Following), WireError> {
    let message = encode_request(request)?;
    let mut stream = connect(path, timeout)?;
    stream.write_all(&message)?;
    stream.set_read_timeout(Some(timeout))?;
    let body = read_message(&mut stream, REPLY_LIMIT).map_err(|error| match error {
        WireError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => WireError::TimedOut(timeout),
        error => error,
    })?;
    stream.set_read_timeout(None)?;
    Ok((decode_reply(&body)?, Following { stream }))
}

fn connect(path: &Path, timeout: Duration) -> Result<UnixStream, WireError> {
    let connect = || -> rustix::io::Result<UnixStream> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Also bounds connect(2), which waits for ever when the backlog of a stuck daemon is full.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(UnixStream::from(socket))
    };
    connect().map_err(|e| match e {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => WireError::Absent,
        rustix::io::Errno::CONNREFUSED => WireError::Refused,
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => WireError::Denied,
        rustix::io::Errno::AGAIN => WireError::TimedOut(timeout),
        rustix::io::Errno::PROTOTYPE => WireError::NotPinwatch("it is a socket of another type"),
        e => WireError::Io(e.into()),
    })
}

/// A stream whose reads and writes together end at a deadline, however slowly the other side trickles.
struct Timed {
    stream: UnixStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buf)
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
