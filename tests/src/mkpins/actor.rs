//! `mkpins actor`: a process without a will of its own. It has no state but what a process has: descriptors, mappings,
//! threads and memory, which its orders name by number. Orders come over a Unix socket; a child that it forks, and what it becomes
//! by exec, connect anew.

mod uverbs;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::anchor::{Buffer, Kind, uring, xdp};
use crate::backing::Backing;
use crate::layout::{Segment, Source, Writes};
use crate::report::failure;
use crate::sys::{PAGE, Refused, check, close_raw};
use crate::{backing, passing};

/// What the actor obeys.
pub const ORDERS: &str = "\
ORDERS, one a line, each answered by one JSON line; KIND is rdma-mr, io_uring or xdp, KEEP is keep or cloexec:
  open KIND KEEP                        {fd, pd}
  register FD KIND PAGE PAGES WITH      pin pages of the memory; WITH is a pd, a slot, or 0: {address, length, object}
  release FD KIND WITH                  undo a pin: an MR's object, a slot
  open-file PATH rw|ro KEEP             {fd}
  pin FD KIND WITH FILE PAGES rw|ro     map the beginning of an open file, pin it, unmap it
  lease | deleg FD read|write|none      take or drop a lease, a delegation
  break PATH                            open it for writing without waiting for leases: {waits}
  truncate PATH LENGTH | unlink PATH    wait for leases, or for delegations
  lease-loop FD TIMES                   take and drop a write lease again and again
  dup FD KEEP | close FD                {fd}
  map FD KIND|file | unmap ADDRESS LENGTH   map what the anchor shares with its user, or a file: {address, length}
  enroll FD | discharge INDEX           register a ring with this thread: {index}
  file RING SLOT FD | unfile RING SLOT  register a file with a ring
  box                                   a socket pair: {a, b}
  put A FD | take B KEEP                send into it, receive from it: {fd}
  send SOCKET FD | recv SOCKET KEEP     the same with another process
  renew                                 unmap the memory and map another: {address, ino}
  fork | exec | exit                    {pid}; by exec only what is to be kept remains
  in-thread ORDER                       do it in a thread that ends then
  thread shared|private                 a thread that stays, its descriptors a copy or not; end-thread ends it
  leave                                 end the first thread only: no more orders";

/// Where orders come from
#[derive(Debug, Args)]
pub struct ActorOptions {
    /// The Unix socket to connect to
    pub socket: PathBuf,
}

/// Pages of the memory to pin.
const PAGES: u64 = 32;

/// What an order leads to beside its answer.
enum Next {
    Answer(Value),
    /// This is the child: it has a connection of its own to make.
    Child,
    Exit,
}

/// What orders change beside descriptors and mappings.
struct State {
    memory: Memory,
    /// The thread that stays, and what ends it.
    thread: Option<(std::thread::JoinHandle<()>, std::sync::mpsc::Sender<()>)>,
}

/// `mkpins actor`.
pub fn run(options: &ActorOptions) -> Result<i32> {
    // SAFETY: no handler; children that end leave nothing to wait for.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut state = State { memory: Memory::map()?, thread: None };
    while let Next::Child = obey(options, &mut state)? {}
    Ok(0)
}

/// Connects and obeys until there are no more orders.
fn obey(options: &ActorOptions, state: &mut State) -> Result<Next> {
    let socket = &options.socket;
    let stream =
        UnixStream::connect(socket).with_context(|| format!("nobody listens on {}", socket.display()))?;
    let say = |value: &Value| writeln!(&stream, "{value}").context("nobody takes the answers");
    say(&json!({"pid": std::process::id(), "address": state.memory.address, "ino": state.memory.ino}))?;
    for line in BufReader::new(&stream).lines() {
        let line = line.context("cannot read an order")?;
        match act(&line, options, state) {
            Ok(Next::Answer(answer)) => say(&answer)?,
            Ok(next) => return Ok(next),
            Err(error) => say(&json!({"error": failure(&error)}))?,
        }
    }
    Ok(Next::Exit)
}

fn act(line: &str, options: &ActorOptions, state: &mut State) -> Result<Next> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let answer = match words.as_slice() {
        ["open", kind, keep] => open(self::kind(kind)?, keep)?,
        ["register", fd, kind, page, pages, with] => {
            let (first, count) = (number(page)?, number(pages)?);
            ensure!(first + count <= PAGES && count > 0, "the memory has {PAGES} pages");
            let buffer = Buffer { address: state.memory.address + first * PAGE, length: count * PAGE };
            register(descriptor(fd)?, self::kind(kind)?, buffer, number(with)?, true)?
        }
        ["pin", fd, kind, with, file, pages, mode] => {
            let (writable, length) = (*mode == "rw", number(pages)? * PAGE);
            let access = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
            let address = mmap(descriptor(file)?, length, 0, access)?;
            let buffer = Buffer { address, length };
            let made = register(descriptor(fd)?, self::kind(kind)?, buffer, number(with)?, writable);
            unmap(address, length)?;
            made?
        }
        ["open-file", path, mode, keep] => {
            let file = OpenOptions::new().read(true).write(*mode == "rw").open(path)?;
            let fd = file.into_raw_fd();
            keep_or_not(fd, keep)?;
            json!({"fd": fd})
        }
        [what @ ("lease" | "deleg"), fd, kind] => {
            let kind = crate::commands::lease_kind(kind).map_err(anyhow::Error::msg)?;
            crate::session::set_lease(descriptor(fd)?, kind, *what == "deleg")?;
            json!({})
        }
        ["break", path] => {
            let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
            let waits = opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EWOULDBLOCK));
            json!({"waits": waits})
        }
        ["truncate", path, length] => {
            let name = std::ffi::CString::new(*path).context("a path has no NUL")?;
            let length = number(length)? as libc::off_t;
            // SAFETY: the path ends with NUL and lives across the call.
            check("truncate", unsafe { libc::truncate(name.as_ptr(), length) })?;
            json!({})
        }
        ["unlink", path] => {
            std::fs::remove_file(path)?;
            json!({})
        }
        ["lease-loop", fd, times] => {
            let fd = descriptor(fd)?;
            for _ in 0..number(times)? {
                crate::session::set_lease(fd, libc::F_WRLCK, false)?;
                crate::session::set_lease(fd, libc::F_UNLCK, false)?;
            }
            json!({})
        }
        ["release", fd, "rdma-mr", object] => {
            uverbs::deregister(descriptor(fd)?, number(object)? as u32)?;
            json!({})
        }
        ["release", fd, "io_uring", slot] => {
            uring::update(descriptor(fd)?, number(slot)? as u32, None)?;
            json!({})
        }
        ["dup", fd, keep] => json!({"fd": dup(descriptor(fd)?, keep)?}),
        ["close", fd] => {
            close_raw(descriptor(fd)?)?;
            json!({})
        }
        ["map", fd, "file"] => {
            let address = mmap(descriptor(fd)?, PAGE, 0, libc::PROT_READ)?;
            json!({"address": address, "length": PAGE})
        }
        ["map", fd, kind] => map(descriptor(fd)?, self::kind(kind)?)?,
        ["unmap", address, length] => {
            unmap(number(address)?, number(length)?)?;
            json!({})
        }
        ["enroll", fd] => json!({"index": uring::enroll(descriptor(fd)?)?}),
        ["discharge", index] => {
            uring::discharge(number(index)? as u32)?;
            json!({})
        }
        ["file", ring, slot, fd] => {
            uring::update_file(descriptor(ring)?, number(slot)? as u32, descriptor(fd)?)?;
            json!({})
        }
        ["unfile", ring, slot] => {
            uring::update_file(descriptor(ring)?, number(slot)? as u32, -1)?;
            json!({})
        }
        ["box"] => {
            let (a, b) = UnixStream::pair().context("cannot make a socket pair")?;
            json!({"a": a.into_raw_fd(), "b": b.into_raw_fd()})
        }
        ["put", a, fd] => {
            passing::put(descriptor(a)?, descriptor(fd)?)?;
            json!({})
        }
        ["take", b, keep] => received(passing::take(descriptor(b)?)?.into_raw_fd(), keep)?,
        ["send", socket, fd] => {
            passing::send(socket, descriptor(fd)?)?;
            json!({})
        }
        ["recv", socket, keep] => received(passing::receive(socket)?.into_raw_fd(), keep)?,
        ["renew"] => {
            unmap(state.memory.address, PAGES * PAGE)?;
            state.memory = Memory::map()?;
            json!({"address": state.memory.address, "ino": state.memory.ino})
        }
        // SAFETY: this process has one thread, so the child finds every lock free.
        ["fork"] => match check("fork", unsafe { libc::fork() })? {
            0 => return Ok(Next::Child),
            pid => json!({"pid": pid}),
        },
        ["exec"] => {
            let this = std::env::current_exe().context("cannot find this program")?;
            let error = std::process::Command::new(this).arg("actor").arg(&options.socket).exec();
            return Err(anyhow::Error::new(error).context("cannot become mkpins"));
        }
        ["in-thread", rest @ ..] => {
            let rest = rest.join(" ");
            let thread = std::thread::scope(|scope| scope.spawn(|| act(&rest, options, state)).join());
            return thread.unwrap_or_else(|_| bail!("the thread panicked"));
        }
        ["thread", files] => thread(state, files)?,
        ["end-thread"] => {
            let (thread, end) = state.thread.take().context("there is no thread")?;
            drop(end);
            thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
            json!({})
        }
        // SAFETY: ends this thread alone; nothing that it has is used by others.
        ["leave"] => unsafe {
            libc::syscall(libc::SYS_exit, 0);
            bail!("the thread did not end")
        },
        ["exit"] => return Ok(Next::Exit),
        _ => bail!("`{line}` is no order"),
    };
    Ok(Next::Answer(answer))
}

/// The memory that is pinned: a memfd of its own, whose descriptor is closed.
struct Memory {
    address: u64,
    ino: u64,
}

impl Memory {
    fn map() -> Result<Self> {
        let source = Source::Memfd { huge: false };
        let segment = Segment { source, offset: 0, length: PAGES * PAGE, writes: Writes::None };
        let mut known: Vec<Backing> = Vec::new();
        let at = backing::open(&mut known, &segment, false)?.context("a memfd is a file")?;
        let file = known[at].file.as_ref().context("a memfd just made is open")?;
        let address = mmap(file.as_raw_fd(), PAGES * PAGE, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(Self { address, ino: known[at].identity.ino })
    }
}

fn thread(state: &mut State, files: &str) -> Result<Value> {
    let private = match files {
        "private" => true,
        "shared" => false,
        other => bail!("`{other}` is neither shared nor private"),
    };
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let (say, said) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: takes a number only; the copies are closed when the thread ends.
        let answer = if private { unsafe { libc::unshare(libc::CLONE_FILES) } } else { 0 };
        let _ = say.send(check("unshare(CLONE_FILES)", answer).map(|_| crate::sys::thread_id()));
        let _ = ended.recv();
    });
    let tid = said.recv().context("the thread ended")??;
    state.thread = Some((thread, end));
    Ok(json!({"tid": tid}))
}

fn not_step_by_step() -> anyhow::Error {
    anyhow::anyhow!("such a pin is not made step by step")
}

fn open(kind: Kind, keep: &str) -> Result<Value> {
    let (fd, pd) = match kind {
        Kind::RdmaMr => {
            let (fd, pd) = uverbs::open()?;
            (fd, Some(pd))
        }
        Kind::IoUring => (uring::open_sparse()?, None),
        Kind::Xdp => (xdp::open_socket()?, None),
        _ => return Err(not_step_by_step()),
    };
    let fd = fd.into_raw_fd();
    keep_or_not(fd, keep)?;
    Ok(json!({"fd": fd, "pd": pd}))
}

fn register(fd: RawFd, kind: Kind, buffer: Buffer, with: u64, writable: bool) -> Result<Value> {
    let object = match kind {
        Kind::RdmaMr => Some(uverbs::register(fd, with as u32, buffer, writable)?),
        Kind::IoUring => {
            uring::update(fd, with as u32, Some(buffer))?;
            None
        }
        Kind::Xdp => {
            xdp::register(fd, buffer)?;
            None
        }
        _ => return Err(not_step_by_step()),
    };
    Ok(json!({"address": buffer.address, "length": buffer.length, "object": object}))
}

fn map(fd: RawFd, kind: Kind) -> Result<Value> {
    let (length, offset) = match kind {
        Kind::RdmaMr => uverbs::make_queue(fd)?,
        Kind::IoUring => (PAGE, 0),
        Kind::Xdp => (PAGE, xdp::FILL_RING_OFFSET),
        _ => return Err(not_step_by_step()),
    };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    Ok(json!({"address": mmap(fd, length, offset, access)?, "length": length}))
}

fn mmap(fd: RawFd, length: u64, offset: u64, access: i32) -> Result<u64, Refused> {
    let offset = offset as libc::off_t;
    // SAFETY: the kernel chooses a free range; nothing here reads or writes it.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), length as usize, access, libc::MAP_SHARED, fd, offset) };
    if at == libc::MAP_FAILED { Err(Refused::last("mmap")) } else { Ok(at as u64) }
}

fn unmap(address: u64, length: u64) -> Result<(), Refused> {
    // SAFETY: the orders name ranges that this process mapped for them and holds no reference into.
    check("munmap", unsafe { libc::munmap(address as *mut libc::c_void, length as usize) })?;
    Ok(())
}

fn dup(fd: RawFd, keep: &str) -> Result<RawFd> {
    // SAFETY: takes a number only.
    let copy = check("dup", unsafe { libc::dup(fd) })?;
    keep_or_not(copy, keep)?;
    Ok(copy)
}

fn received(fd: RawFd, keep: &str) -> Result<Value> {
    keep_or_not(fd, keep)?;
    Ok(json!({"fd": fd}))
}

fn keep_or_not(fd: RawFd, keep: &str) -> Result<()> {
    let flags = match keep {
        "keep" => 0,
        "cloexec" => libc::FD_CLOEXEC,
        other => bail!("`{other}` is neither keep nor cloexec"),
    };
    // SAFETY: takes numbers only.
    check("fcntl(F_SETFD)", unsafe { libc::fcntl(fd, libc::F_SETFD, flags) })?;
    Ok(())
}

fn kind(word: &str) -> Result<Kind> {
    let kinds = [Kind::RdmaMr, Kind::IoUring, Kind::Xdp];
    kinds.into_iter().find(|kind| kind.name() == word).with_context(|| format!("`{word}` is no kind"))
}

fn number(word: &str) -> Result<u64> {
    word.parse().with_context(|| format!("`{word}` is no number"))
}

/// A descriptor that is open: what is done with it goes to the kernel by number.
fn descriptor(word: &str) -> Result<RawFd> {
    let fd = RawFd::try_from(number(word)?).with_context(|| format!("`{word}` is no descriptor"))?;
    // SAFETY: takes numbers only.
    check("fcntl(F_GETFD)", unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    Ok(fd)
}
