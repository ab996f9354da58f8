//! Dumps over netlink: one question, all messages of the answer. The framing of messages and attributes is
//! netlink-packet-core's, whose checked buffers believe no length that they are told; the socket is rustix', as all are here
//! (netlink-sys would be one more layer over the same calls). What the kernel's numbers mean stays with the callers: `rdma`, `xdp`.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, DoneBuffer, Emitable, ErrorBuffer, NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NlasIterator,
};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

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
    let request = request(kind, body)?;
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

/// The message that asks for a dump. Port 0 is the kernel's.
fn request(kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = NetlinkHeader::default();
    let length = header.buffer_len() + body.len();
    header.length = u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = 1;
    let mut request = vec![0; header.buffer_len()];
    header.emit(&mut request);
    request.extend_from_slice(body);
    Ok(request)
}

/// Takes the messages of one datagram; true at the end of the dump.
fn take(mut bytes: &[u8], kind: u16, dump: &mut Dump) -> io::Result<bool> {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(bytes) else {
            dump.interrupted = true;
            return Ok(false);
        };
        dump.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        let body = message.payload();
        // Both ends of a dump carry an errno, negated; 0 is success.
        let end = match message.message_type() {
            NLMSG_DONE => Some(DoneBuffer::new_checked(body).map(|done| done.code())),
            NLMSG_ERROR => {
                Some(ErrorBuffer::new_checked(body).map(|error| error.code().map_or(0, |code| code.get())))
            }
            got => {
                if got == kind {
                    dump.messages.push(body.to_vec());
                }
                None
            }
        };
        match end {
            None => {}
            Some(Ok(code)) if code < 0 => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
            Some(Ok(_)) => return Ok(true),
            // Cut off before it says how the dump ended.
            Some(Err(_)) => {
                dump.interrupted = true;
                return Ok(true);
            }
        }
        let next = (message.length() as usize).next_multiple_of(usize::from(NLMSG_ALIGNTO));
        bytes = bytes.get(next..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes in a message or in a nested attribute: number, without its flags, and content. Ends at the first that is
/// cut off.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (number, length) = (attribute.kind(), usize::from(attribute.length()));
        Some((number, attribute.into_inner().get(NLA_HEADER_SIZE..length)?))
    })
}

/// The content of the first attribute with this number.
pub fn attribute(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(n, _)| *n == number).map(|(_, content)| content)
}

/// An attribute, ready to be sent.
pub fn make_attribute(number: u16, content: [u8; 4]) -> Vec<u8> {
    let attribute = DefaultNla::new(number, content.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
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
        let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
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
        bytes.extend(message(NLMSG_DONE, &0i32.to_ne_bytes()));
        let mut dump = Dump::default();
        assert!(take(&bytes, 7, &mut dump).unwrap());
        assert_eq!(dump.messages, [b"abc".to_vec(), vec![]]);
        for end in 0..bytes.len() {
            let _ = take(&bytes[..end], 7, &mut Dump::default());
        }
    }

    #[test]
    fn a_request_is_as_the_kernel_wants_it() {
        let mut expected = 20u32.to_ne_bytes().to_vec();
        expected.extend_from_slice(&[9u16.to_ne_bytes(), 0x301u16.to_ne_bytes()].concat());
        expected.extend_from_slice(&[1u32.to_ne_bytes(), 0u32.to_ne_bytes(), *b"body"].concat());
        assert_eq!(request(9, b"body").unwrap(), expected);
        let mut expected = [8u16.to_ne_bytes(), 3u16.to_ne_bytes()].concat();
        expected.extend_from_slice(&7u32.to_ne_bytes());
        assert_eq!(make_attribute(3, 7u32.to_ne_bytes()), expected);
    }

    #[test]
    fn an_end_that_is_cut_off_is_no_success() {
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            let mut dump = Dump::default();
            assert!(take(&message(kind, &[]), 7, &mut dump).unwrap() && dump.interrupted);
            let mut dump = Dump::default();
            assert!(take(&message(kind, &[0; 4]), 7, &mut dump).unwrap() && !dump.interrupted);
        }
        let mut dump = Dump::default();
        assert!(!take(&[16, 0, 0], 7, &mut dump).unwrap() && dump.interrupted);
    }

    #[test]
    fn any_bytes_are_no_panic() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..64)
                .map(|at| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Lengths are small, so that many are nearly right.
                    if at % 4 == 0 { (state >> 58) as u8 } else { (state >> 56) as u8 & 3 }
                })
                .collect();
            for end in [64, 61, 33] {
                let _ = take(&bytes[..end], 7, &mut Dump::default());
                let taken: usize = attributes(&bytes[..end]).map(|(_, content)| 4 + content.len()).sum();
                assert!(taken <= end);
            }
        }
    }

    #[test]
    fn the_kernels_error_is_ours() {
        let bytes = message(NLMSG_ERROR, &(-2i32).to_ne_bytes());
        assert_eq!(take(&bytes, 7, &mut Dump::default()).unwrap_err().raw_os_error(), Some(2));
        let bytes = message(NLMSG_ERROR, &i32::MIN.to_ne_bytes());
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
        // CTRL_CMD_GETFAMILY of generic netlink's own family (GENL_ID_CTRL): it lists itself at least.
        let dump = dump(rustix::net::netlink::GENERIC, 16, &[3, 2, 0, 0]).unwrap();
        assert!(!dump.interrupted);
        let named = |message: &&Vec<u8>| attribute(&message[4..], 2) == Some(&b"nlctrl\0"[..]);
        assert_eq!(dump.messages.iter().filter(named).count(), 1, "{:?}", dump.messages);
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        // No family of generic netlink has this number.
        let error = dump(rustix::net::netlink::GENERIC, 0x7fff, &[3, 2, 0, 0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
