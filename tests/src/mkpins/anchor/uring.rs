//! io_uring fixed buffers by the raw system calls: whole tables, sparse tables, clones in a second ring.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::Result;

use super::{Anchor, AnchorOptions, Buffer};
use crate::report::Object;
use crate::sys::{Refused, check, check_fd};

const REGISTER_BUFFERS: u32 = 0;
const UNREGISTER_BUFFERS: u32 = 1;
const REGISTER_BUFFERS2: u32 = 15;
const REGISTER_BUFFERS_UPDATE: u32 = 16;
const REGISTER_FILES2: u32 = 13;
const REGISTER_FILES_UPDATE2: u32 = 14;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
/// Linux 6.12 and later.
const REGISTER_CLONE_BUFFERS: u32 = 30;
const RSRC_REGISTER_SPARSE: u32 = 1;
/// Bytes of `struct io_uring_params`, all zero going in.
const PARAMS: usize = 120;

/// `struct io_uring_rsrc_register`.
#[repr(C)]
struct RsrcRegister {
    nr: u32,
    flags: u32,
    resv2: u64,
    data: u64,
    tags: u64,
}

/// `struct io_uring_rsrc_update2`.
#[repr(C)]
struct RsrcUpdate2 {
    offset: u32,
    resv: u32,
    data: u64,
    tags: u64,
    nr: u32,
    resv2: u32,
}

/// `struct io_uring_rsrc_update`, as the ring descriptors' operations take it.
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// `struct io_uring_clone_buffers`.
#[repr(C)]
#[derive(Default)]
struct CloneBuffers {
    src_fd: u32,
    flags: u32,
    src_off: u32,
    dst_off: u32,
    nr: u32,
    pad: [u32; 3],
}

/// One ring, and the one that its buffers are cloned into.
pub struct Ring {
    ring: Option<OwnedFd>,
    second: Option<OwnedFd>,
    sparse: bool,
    slots: u32,
    first_slot: u32,
    clone: bool,
}

impl Ring {
    /// Sets a ring up. No request is made through it; its queue is mapped only to keep it.
    pub fn open(options: &AnchorOptions) -> Result<Self> {
        let ring = setup()?;
        if options.map_ring {
            map_queue(&ring)?;
        }
        Ok(Self {
            ring: Some(ring),
            second: None,
            sparse: options.sparse,
            slots: options.slots,
            first_slot: options.slot,
            clone: options.clone,
        })
    }

    fn ring(&self) -> Result<RawFd, Refused> {
        self.fd().ok_or(Refused { call: "io_uring_register", errno: libc::EBADF })
    }

    fn register_sparse(&mut self, buffers: &[Buffer]) -> Result<(), Refused> {
        make_buffer_table(self.ring()?, self.slots.max(self.first_slot + buffers.len() as u32))?;
        for (buffer, slot) in buffers.iter().zip(self.first_slot..) {
            if let Err(refused) = self.update(slot, Some(*buffer)) {
                let _ = self.release();
                return Err(refused);
            }
        }
        Ok(())
    }

    fn clone_buffers(&mut self) -> Result<(), Refused> {
        let second = setup()?;
        let request = CloneBuffers { src_fd: self.ring()? as u32, ..CloneBuffers::default() };
        let call = "io_uring_register(IORING_REGISTER_CLONE_BUFFERS)";
        control(call, second.as_raw_fd(), REGISTER_CLONE_BUFFERS, (&raw const request).cast(), 1)?;
        self.second = Some(second);
        Ok(())
    }
}

impl Anchor for Ring {
    fn fd(&self) -> Option<i32> {
        self.ring.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn second_fd(&self) -> Option<i32> {
        self.second.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused> {
        if self.sparse {
            self.register_sparse(buffers)?;
        } else {
            let table: Vec<libc::iovec> = buffers.iter().map(|buffer| iovec(Some(*buffer))).collect();
            let call = "io_uring_register(IORING_REGISTER_BUFFERS)";
            control(call, self.ring()?, REGISTER_BUFFERS, table.as_ptr().cast(), table.len() as u32)?;
        }
        if self.clone
            && let Err(refused) = self.clone_buffers()
        {
            let _ = self.release();
            return Err(refused);
        }
        let first = if self.sparse { self.first_slot } else { 0 };
        let object = |(buffer, slot): (&Buffer, u32)| Object {
            address: buffer.address,
            length: buffer.length,
            slot: Some(slot),
            ..Object::default()
        };
        Ok(buffers.iter().zip(first..).map(object).collect())
    }

    fn release(&mut self) -> Result<(), Refused> {
        for ring in self.second.iter().chain(&self.ring) {
            let call = "io_uring_register(IORING_UNREGISTER_BUFFERS)";
            control(call, ring.as_raw_fd(), UNREGISTER_BUFFERS, std::ptr::null(), 0)?;
        }
        self.second = None;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        self.ring.take().map(drop).ok_or(Refused { call: "close", errno: libc::EBADF })
    }

    fn close_second(&mut self) -> Result<(), Refused> {
        self.second.take().map(drop).ok_or(Refused { call: "close", errno: libc::EBADF })
    }

    fn update(&mut self, slot: u32, buffer: Option<Buffer>) -> Result<(), Refused> {
        update(self.ring()?, slot, buffer)
    }
}

/// Puts a buffer into a slot of a ring's table, or empties it.
pub fn update(ring: RawFd, slot: u32, buffer: Option<Buffer>) -> Result<(), Refused> {
    let entry = iovec(buffer);
    let request =
        RsrcUpdate2 { offset: slot, resv: 0, data: (&raw const entry) as u64, tags: 0, nr: 1, resv2: 0 };
    let call = "io_uring_register(IORING_REGISTER_BUFFERS_UPDATE)";
    let size = size_of::<RsrcUpdate2>() as u32;
    control(call, ring, REGISTER_BUFFERS_UPDATE, (&raw const request).cast(), size)?;
    Ok(())
}

/// Registers a file with a ring at a place of its table, which keeps it then; -1 empties the place.
pub fn update_file(ring: RawFd, slot: u32, fd: RawFd) -> Result<(), Refused> {
    let request =
        RsrcUpdate2 { offset: slot, resv: 0, data: (&raw const fd) as u64, tags: 0, nr: 1, resv2: 0 };
    let call = "io_uring_register(IORING_REGISTER_FILES_UPDATE2)";
    let size = size_of::<RsrcUpdate2>() as u32;
    control(call, ring, REGISTER_FILES_UPDATE2, (&raw const request).cast(), size)?;
    Ok(())
}

/// Registers an empty table.
fn make_table(ring: RawFd, call: &'static str, operation: u32, slots: u32) -> Result<(), Refused> {
    let table = RsrcRegister { nr: slots, flags: RSRC_REGISTER_SPARSE, resv2: 0, data: 0, tags: 0 };
    control(call, ring, operation, (&raw const table).cast(), size_of::<RsrcRegister>() as u32)?;
    Ok(())
}

fn make_buffer_table(ring: RawFd, slots: u32) -> Result<(), Refused> {
    make_table(ring, "io_uring_register(IORING_REGISTER_BUFFERS2)", REGISTER_BUFFERS2, slots)
}

/// A ring with empty tables of eight buffers and eight files.
pub fn open_sparse() -> Result<OwnedFd, Refused> {
    let ring = setup()?;
    make_buffer_table(ring.as_raw_fd(), 8)?;
    make_table(ring.as_raw_fd(), "io_uring_register(IORING_REGISTER_FILES2)", REGISTER_FILES2, 8)?;
    Ok(ring)
}

/// Registers a ring with the calling thread, which keeps it then; gives its place.
pub fn enroll(ring: RawFd) -> Result<u32, Refused> {
    let mut request = RingFdUpdate { offset: u32::MAX, resv: 0, data: ring as u64 };
    let call = "io_uring_register(IORING_REGISTER_RING_FDS)";
    control(call, ring, REGISTER_RING_FDS, (&raw mut request).cast_const().cast(), 1)?;
    Ok(request.offset)
}

/// Undoes it. Any ring will do to ask through: one is made for it.
pub fn discharge(index: u32) -> Result<(), Refused> {
    let ring = setup()?;
    let request = RingFdUpdate { offset: index, resv: 0, data: 0 };
    let call = "io_uring_register(IORING_UNREGISTER_RING_FDS)";
    control(call, ring.as_raw_fd(), UNREGISTER_RING_FDS, (&raw const request).cast(), 1)?;
    Ok(())
}

fn iovec(buffer: Option<Buffer>) -> libc::iovec {
    let buffer = buffer.unwrap_or(Buffer { address: 0, length: 0 });
    libc::iovec { iov_base: buffer.address as *mut libc::c_void, iov_len: buffer.length as usize }
}

/// A ring of four entries.
pub fn setup() -> Result<OwnedFd, Refused> {
    setup_with(0, 0, 0)
}

/// The same with flags, and with the user addresses of its queues and of their entries.
pub fn setup_with(flags: u32, queues: u64, entries: u64) -> Result<OwnedFd, Refused> {
    let mut params = [0_u64; PARAMS / 8];
    // `flags`, `sq_off.user_addr`, `cq_off.user_addr` of `struct io_uring_params`.
    (params[1], params[9], params[14]) = (u64::from(flags), entries, queues);
    // SAFETY: the parameters are a block of the size and alignment that the kernel reads and writes.
    check_fd("io_uring_setup", unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) })
}

/// Maps the first page of the submission queue (`IORING_OFF_SQ_RING`), for as long as the process lives.
fn map_queue(ring: &OwnedFd) -> Result<(), Refused> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses a free range; nothing reads or writes it.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, ring.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED { Err(Refused::last("mmap(IORING_OFF_SQ_RING)")) } else { Ok(()) }
}

/// `io_uring_register`.
pub fn control(
    call: &'static str,
    ring: RawFd,
    operation: u32,
    argument: *const libc::c_void,
    count: u32,
) -> Result<i64, Refused> {
    // SAFETY: each caller gives the struct or the array that the operation reads, alive across the call. The memory
    // behind the buffers is only pinned: no request is ever submitted that reads or writes it.
    let answer = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, operation, argument, count) };
    check(call, answer)
}
