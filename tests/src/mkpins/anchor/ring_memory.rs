//! Memory of its user that an io_uring ring keeps, other than buffers: a ring of provided buffers, the ring's own queues, a
//! region.

use std::os::fd::{AsRawFd, OwnedFd};

use clap::ValueEnum;

use super::uring::{control, setup, setup_with};
use super::{Anchor, AnchorOptions, Buffer};
use crate::report::Object;
use crate::sys::{PAGE, Refused};

const REGISTER_PBUF_RING: u32 = 22;
const UNREGISTER_PBUF_RING: u32 = 23;
/// Linux 6.13 and later.
const REGISTER_MEM_REGION: u32 = 34;
const REGION_TYPE_USER: u32 = 1;
/// Linux 6.5 and later.
const SETUP_NO_MMAP: u32 = 1 << 14;
/// `sizeof(struct io_uring_buf)`
const ENTRY: u64 = 16;

/// What the memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Use {
    /// A ring of provided buffers for each pin
    Provided,
    /// The queues of a ring, one page, and their entries, the next page
    Queues,
    /// A region
    Region,
}

/// `struct io_uring_buf_reg`.
#[repr(C)]
#[derive(Default)]
struct Provided {
    address: u64,
    entries: u32,
    group: u16,
    flags: u16,
    reserved: [u64; 3],
}

/// `struct io_uring_region_desc`.
#[repr(C)]
#[derive(Default)]
struct Region {
    address: u64,
    size: u64,
    flags: u32,
    id: u32,
    mmap_offset: u64,
    reserved: [u64; 4],
}

/// The ring with what it keeps.
pub struct Memory {
    ring: Option<OwnedFd>,
    of: Use,
    groups: u16,
}

impl Memory {
    pub fn new(options: &AnchorOptions) -> Self {
        Self { ring: None, of: options.memory, groups: 0 }
    }

    fn provide(&mut self, ring: i32, buffer: Buffer) -> Result<Object, Refused> {
        let entries = (buffer.length / ENTRY) as u32;
        let request =
            Provided { address: buffer.address, entries, group: self.groups, ..Provided::default() };
        let call = "io_uring_register(IORING_REGISTER_PBUF_RING)";
        control(call, ring, REGISTER_PBUF_RING, (&raw const request).cast(), 1)?;
        self.groups += 1;
        Ok(Object { address: buffer.address, length: buffer.length, ..Object::default() })
    }
}

impl Anchor for Memory {
    fn fd(&self) -> Option<i32> {
        self.ring.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused> {
        let first = buffers[0];
        if self.of == Use::Queues {
            let entries = first.address + PAGE;
            self.ring = Some(setup_with(SETUP_NO_MMAP, first.address, entries)?);
            let page = |address| Object { address, length: PAGE, ..Object::default() };
            return Ok(vec![page(first.address), page(entries)]);
        }
        let ring = setup()?;
        let fd = ring.as_raw_fd();
        self.ring = Some(ring);
        if self.of == Use::Region {
            let region = Region {
                address: first.address,
                size: first.length,
                flags: REGION_TYPE_USER,
                ..Region::default()
            };
            // `struct io_uring_mem_region_reg`: the address of the description, flags, two words.
            let request = [(&raw const region) as u64, 0, 0, 0];
            let call = "io_uring_register(IORING_REGISTER_MEM_REGION)";
            control(call, fd, REGISTER_MEM_REGION, request.as_ptr().cast(), 1)?;
            return Ok(vec![Object { address: first.address, length: first.length, ..Object::default() }]);
        }
        buffers.iter().map(|buffer| self.provide(fd, *buffer)).collect()
    }

    fn release(&mut self) -> Result<(), Refused> {
        let ring = self.fd().unwrap_or(-1);
        if self.of != Use::Provided {
            return self.close();
        }
        for group in (0..std::mem::take(&mut self.groups)).rev() {
            let request = Provided { group, ..Provided::default() };
            let call = "io_uring_register(IORING_UNREGISTER_PBUF_RING)";
            control(call, ring, UNREGISTER_PBUF_RING, (&raw const request).cast(), 1)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        self.ring = None;
        Ok(())
    }
}
