//! Descriptors that go from process to process: SCM_RIGHTS over a Unix socket, and into one that nobody reads.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sys::{Refused, check};

/// How long a send waits for its receiver to listen, and a receive for its sender.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of control data for one descriptor, as u64s for the alignment.
type Control = [u64; 4];

/// Connects to the socket and passes the descriptor on.
pub fn send(socket: &str, fd: RawFd) -> Result<()> {
    let start = Instant::now();
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("nobody listens on {socket}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    put(stream.as_raw_fd(), fd)?;
    Ok(())
}

/// Listens on the socket until one descriptor has come.
pub fn receive(socket: &str) -> Result<OwnedFd> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {socket}"))?;
    wait(listener.as_raw_fd(), socket)?;
    let (stream, _) = listener.accept().with_context(|| format!("cannot accept on {socket}"))?;
    let _ = std::fs::remove_file(socket);
    take(stream.as_raw_fd())
}

/// Puts the descriptor into a socket pair; it stays in flight for as long as both ends are kept.
pub fn inflight(fd: RawFd) -> Result<(UnixStream, UnixStream)> {
    let pair = UnixStream::pair().context("cannot make a socket pair")?;
    put(pair.0.as_raw_fd(), fd)?;
    Ok(pair)
}

fn wait(socket: RawFd, what: &str) -> Result<()> {
    let mut ready = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd that lives across the call.
    if check("poll", unsafe { libc::poll(&mut ready, 1, PATIENCE.as_millis() as i32) })? == 0 {
        bail!("{what}: nothing came in {} seconds", PATIENCE.as_secs());
    }
    Ok(())
}

fn message(byte: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: an all-zero msghdr is valid and empty.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = byte;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: arithmetic on a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;
    message
}

/// Sends a descriptor into a socket.
pub fn put(socket: RawFd, fd: RawFd) -> Result<(), Refused> {
    let mut text = *b"f";
    let mut byte = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control::default();
    let message = message(&mut byte, &mut control);
    // SAFETY: the control data has room for one header with one descriptor, so the first header is not null.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
    }
    // SAFETY: the message and all that it points to live across the call.
    check("sendmsg(SCM_RIGHTS)", unsafe { libc::sendmsg(socket, &message, 0) } as i64)?;
    Ok(())
}

/// Receives one.
pub fn take(socket: RawFd) -> Result<OwnedFd> {
    let mut text = [0_u8; 1];
    let mut byte = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control::default();
    let mut message = message(&mut byte, &mut control);
    wait(socket, "recvmsg")?;
    // SAFETY: the message and all that it points to live across the call.
    let answer = unsafe { libc::recvmsg(socket, &mut message, libc::MSG_CMSG_CLOEXEC) };
    check("recvmsg", answer as i64)?;
    // SAFETY: the kernel wrote the control data and its length; the first header is null if there is none.
    let header = unsafe { libc::CMSG_FIRSTHDR(&message) };
    if header.is_null() {
        bail!("the sender closed the socket without passing a descriptor");
    }
    // SAFETY: not null, and one descriptor is all that a sender passes; it is new and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()) })
}
