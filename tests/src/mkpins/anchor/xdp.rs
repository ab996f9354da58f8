//! AF_XDP umems. A socket has one umem, so each pin is a socket of its own; a shared umem is one pin on two sockets.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{Anchor, AnchorOptions, Buffer};
use crate::report::Object;
use crate::sys::{PAGE, Refused, check, check_fd};

const AF_XDP: libc::c_int = 44;
const SOL_XDP: libc::c_int = 283;
const XDP_RX_RING: libc::c_int = 2;
const XDP_UMEM_REG: libc::c_int = 4;
const XDP_UMEM_FILL_RING: libc::c_int = 5;
const XDP_UMEM_COMPLETION_RING: libc::c_int = 6;
const XDP_SHARED_UMEM: u16 = 1;
/// Copy mode works on every network device.
const XDP_COPY: u16 = 2;
const RING_ENTRIES: u32 = 64;
/// `XDP_UMEM_PGOFF_FILL_RING`: where a socket's fill ring is mapped.
pub const FILL_RING_OFFSET: u64 = 0x1_0000_0000;

/// `struct xdp_umem_reg`; older kernels have padding in place of the last member.
#[repr(C)]
struct UmemReg {
    addr: u64,
    len: u64,
    chunk_size: u32,
    headroom: u32,
    flags: u32,
    tx_metadata_len: u32,
}

/// `struct sockaddr_xdp`.
#[repr(C)]
struct SockAddr {
    family: u16,
    flags: u16,
    ifindex: u32,
    queue: u32,
    shared_umem_fd: u32,
}

/// The sockets of the umems.
pub struct Umems {
    sockets: Vec<OwnedFd>,
    sharer: Option<OwnedFd>,
    shared: bool,
    netdev: Option<String>,
}

impl Umems {
    /// Nothing is opened before `register`: a socket's umem can be set only once.
    pub fn new(options: &AnchorOptions) -> Self {
        let netdev = options.netdev.clone().or_else(|| options.shared.then(|| "lo".to_owned()));
        Self { sockets: Vec::new(), sharer: None, shared: options.shared, netdev }
    }

    fn make(&mut self, buffer: Buffer) -> Result<Object, Refused> {
        let socket = open_socket()?;
        register(socket.as_raw_fd(), buffer)?;
        if let Some(netdev) = &self.netdev {
            bind(&socket, netdev, XDP_COPY, 0)?;
            if self.shared && self.sharer.is_none() {
                let sharer = bare_socket()?;
                bind(&sharer, netdev, XDP_SHARED_UMEM, socket.as_raw_fd() as u32)?;
                self.sharer = Some(sharer);
            }
        }
        let object = Object {
            address: buffer.address,
            length: buffer.length,
            fd: Some(socket.as_raw_fd()),
            socket_ino: inode(&socket),
            ..Object::default()
        };
        self.sockets.push(socket);
        Ok(object)
    }
}

impl Anchor for Umems {
    fn fd(&self) -> Option<i32> {
        self.sockets.first().map(AsRawFd::as_raw_fd)
    }

    fn second_fd(&self) -> Option<i32> {
        self.sharer.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn fds(&self) -> Vec<i32> {
        self.sockets.iter().chain(&self.sharer).map(AsRawFd::as_raw_fd).collect()
    }

    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused> {
        let made: Result<Vec<_>, _> = buffers.iter().map(|buffer| self.make(*buffer)).collect();
        if made.is_err() {
            self.sockets.clear();
            self.sharer = None;
        }
        made
    }

    fn release(&mut self) -> Result<(), Refused> {
        self.sharer = None;
        self.sockets.clear();
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        self.sockets.clear();
        Ok(())
    }

    fn close_second(&mut self) -> Result<(), Refused> {
        self.sharer.take().map(drop).ok_or(Refused { call: "close", errno: libc::EBADF })
    }
}

/// A socket with its rings, and no umem yet.
pub fn open_socket() -> Result<OwnedFd, Refused> {
    let socket = bare_socket()?;
    let fd = socket.as_raw_fd();
    set(fd, "setsockopt(XDP_UMEM_FILL_RING)", XDP_UMEM_FILL_RING, &RING_ENTRIES)?;
    set(fd, "setsockopt(XDP_UMEM_COMPLETION_RING)", XDP_UMEM_COMPLETION_RING, &RING_ENTRIES)?;
    Ok(socket)
}

fn bare_socket() -> Result<OwnedFd, Refused> {
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers only.
    check_fd("socket(AF_XDP)", unsafe { libc::socket(AF_XDP, flags, 0) })
}

/// Gives a socket its umem.
pub fn register(socket: RawFd, buffer: Buffer) -> Result<(), Refused> {
    let chunk_size = if buffer.length.is_multiple_of(PAGE) { 4096 } else { 2048 };
    let (addr, len) = (buffer.address, buffer.length);
    let umem = UmemReg { addr, len, chunk_size, headroom: 0, flags: 0, tx_metadata_len: 0 };
    set(socket, "setsockopt(XDP_UMEM_REG)", XDP_UMEM_REG, &umem)
}

fn set<T>(socket: RawFd, call: &'static str, option: libc::c_int, value: &T) -> Result<(), Refused> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is a plain struct or number that lives across the call, and its size is given.
    let answer = unsafe { libc::setsockopt(socket, SOL_XDP, option, std::ptr::from_ref(value).cast(), size) };
    check(call, answer)?;
    Ok(())
}

fn bind(socket: &OwnedFd, netdev: &str, flags: u16, shared_umem_fd: u32) -> Result<(), Refused> {
    // A socket needs at least one ring of packets before it may bind.
    set(socket.as_raw_fd(), "setsockopt(XDP_RX_RING)", XDP_RX_RING, &RING_ENTRIES)?;
    let name =
        std::ffi::CString::new(netdev).map_err(|_| Refused { call: "--netdev", errno: libc::EINVAL })?;
    // SAFETY: the name is a C string that lives across the call.
    let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if ifindex == 0 {
        return Err(Refused::last("if_nametoindex"));
    }
    let address = SockAddr { family: AF_XDP as u16, flags, ifindex, queue: 0, shared_umem_fd };
    let size = size_of::<SockAddr>() as libc::socklen_t;
    // SAFETY: the address is a plain struct that lives across the call, and its size is given.
    check("bind(AF_XDP)", unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })?;
    Ok(())
}

fn inode(socket: &OwnedFd) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    Some(file.ino())
}
