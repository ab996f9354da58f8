//! Dumps over netlink, with no more of the protocol than they need (include/uapi/linux/netlink.h).

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR` of a message: the kernel's list changed while it was dumped.
const INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of a message's header.
const HEADER: usize = 16;
/// The most that one dump may bring, in bytes; 100,000 objects need a tenth.
const LIMIT: usize = 256 << 20;
/// How long the kernel may take for one part.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a dump brought.
#[derive(Debug, Default)]
pub struct Dump {
    /// The messages, without their headers.
    pub messages: Vec<Vec<u8>>,
    /// Whether objects may be missing: the list changed meanwhile, or a bound was hit.
    pub interrupted: bool,
}

/// Asks for a dump. `kind` is the message type, `body` what follows the header. An error is the kernel's answer, or
/// that this kernel has no such netlink family.
pub fn dump(family: Protocol, kind: u16, body: &[u8]) -> io::Result<Dump> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(family),
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let length =
        u32::try_from(HEADER + body.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&DUMP.to_ne_bytes());
    // Sequence number 1; port 0, the kernel's.
    request.extend_from_slice(&1u32.to_ne_bytes());
    request.extend_from_slice(&0u32.to_ne_bytes());
    request.extend_from_slice(body);
    // Address 0 is the kernel. Connected, so that no other process can answer in its place.
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    rustix::net::send(&socket, &request, SendFlags::empty())?;

    let mut dump = Dump::default();
    let mut total = 0;
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        let got = match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((got, _)) => got,
            Err(Errno::INTR) => continue,
            Err(Errno::NOBUFS) => {
                dump.interrupted = true;
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        total += got;
        if got == 0 || total > LIMIT {
            dump.interrupted = true;
            return Ok(dump);
        }
        if take(&buffer[..got], kind, &mut dump)? {
            return Ok(dump);
        }
    }
}

/// Takes the messages of one datagram; true at the end of the dump.
fn take(mut bytes: &[u8], kind: u16, dump: &mut Dump) -> io::Result<bool> {
    while let Some(length) = u32_at(bytes, 0).map(|l| l as usize) {
        if length < HEADER || length > bytes.len() {
            dump.interrupted = true;
            return Ok(false);
        }
        let (message, body) = (&bytes[..HEADER], &bytes[HEADER..length]);
        let got = u16::from_ne_bytes([message[4], message[5]]);
        let flags = u16::from_ne_bytes([message[6], message[7]]);
        dump.interrupted |= flags & INTERRUPTED != 0;
        // Both carry an errno, negated; 0 is success.
        let code = || u32_at(body, 0).map_or(0, |c| (c as i32).saturating_neg());
        match got {
            ERROR | DONE if code() > 0 => return Err(io::Error::from_raw_os_error(code())),
            ERROR | DONE => return Ok(true),
            got if got == kind => dump.messages.push(body.to_vec()),
            _ => {}
        }
        let next = length.div_ceil(4) * 4;
        bytes = bytes.get(next..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes in a message or in a nested attribute: number and content. Ends at the first that is cut off.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        // The two upper bits are flags: nested, network byte order.
        let number = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.div_ceil(4) * 4..).unwrap_or_default();
        Some((number, content))
    })
}

/// The content of the first attribute with this number.
pub fn attribute(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(n, _)| *n == number).map(|(_, content)| content)
}

/// An attribute, ready to be sent.
pub fn make_attribute(number: u16, content: [u8; 4]) -> Vec<u8> {
    let mut bytes = 8u16.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&number.to_ne_bytes());
    bytes.extend_from_slice(&content);
    bytes
}

/// A number in the kernel's byte order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A number in the kernel's byte order.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().div_ceil(4) * 4, 0);
        bytes
    }

    #[test]
    fn messages_until_done() {
        let mut bytes = message(7, b"abc");
        bytes.extend(message(9, b"other"));
        bytes.extend(message(7, b""));
        bytes.extend(message(DONE, &0i32.to_ne_bytes()));
        let mut dump = Dump::default();
        assert!(take(&bytes, 7, &mut dump).unwrap());
        assert_eq!(dump.messages, [b"abc".to_vec(), vec![]]);
        for end in 0..bytes.len() {
            let _ = take(&bytes[..end], 7, &mut Dump::default());
        }
    }

    #[test]
    fn the_kernels_error_is_ours() {
        let bytes = message(ERROR, &(-2i32).to_ne_bytes());
        assert_eq!(take(&bytes, 7, &mut Dump::default()).unwrap_err().raw_os_error(), Some(2));
        let bytes = message(ERROR, &i32::MIN.to_ne_bytes());
        assert!(take(&bytes, 7, &mut Dump::default()).is_err());
    }

    #[test]
    fn lengths_that_lie() {
        for length in [0u32, 1, 15, 17, u32::MAX] {
            let mut bytes = message(7, b"");
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let mut dump = Dump::default();
            assert!(!take(&bytes, 7, &mut dump).unwrap());
            assert!(dump.interrupted && dump.messages.is_empty());
        }
        assert_eq!(attributes(&[0, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn attributes_are_padded() {
        let bytes = [5, 0, 1, 0x80, 42, 0, 0, 0, 4, 0, 2, 0];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &[42u8][..]), (2, &[][..])]);
        let made = make_attribute(1, 5u32.to_ne_bytes());
        assert_eq!(attribute(&made, 1).and_then(|c| u32_at(c, 0)), Some(5));
    }

    #[test]
    fn a_real_dump() {
        // Diagnostics of Unix sockets, all states; kernels without them answer with an error, never with silence.
        let mut request = [0u8; 24];
        request[0] = 1;
        request[4..8].fill(0xff);
        let _listening = std::os::unix::net::UnixDatagram::unbound().unwrap();
        match dump(rustix::net::netlink::SOCK_DIAG, 20, &request) {
            Ok(dump) => assert!(!dump.messages.is_empty()),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENOENT)),
        }
    }
}
