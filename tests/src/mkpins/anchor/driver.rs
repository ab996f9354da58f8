//! Pins of a driver that pinwatch does not know: the module pintest, see `crate::module`. It keeps them by itself: no
//! descriptor has anything to do with them.

use std::os::fd::AsRawFd;

use clap::ValueEnum;

use super::{Anchor, AnchorOptions, Buffer};
use crate::module::ioctl::{self, Pin};
use crate::report::Object;
use crate::sys::{PAGE, Refused, behind};

/// Through which of the kernel's functions it pins: the numbers are the module's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// pin_user_pages
    Pages = 0,
    /// pin_user_pages_fast
    Fast = 1,
    /// pin_user_pages_remote
    Remote = 2,
    /// pin_user_pages_unlocked
    Unlocked = 3,
    /// memfd_pin_folios
    Folios = 4,
}

/// Where it lets go of them: the numbers are the module's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Where {
    /// In the process that asks for it.
    Process = 0,
    /// In a kworker.
    Kworker = 1,
    /// In an RCU callback.
    Rcu = 2,
}

/// Its slots that are ours.
pub struct Driver {
    slots: Vec<u32>,
    how: How,
    release: Where,
    batch: u64,
    read_only: bool,
}

impl Driver {
    pub fn new(options: &AnchorOptions) -> Self {
        Self {
            slots: Vec::new(),
            how: options.by,
            release: options.release_in,
            batch: options.batch,
            read_only: options.read_only,
        }
    }

    fn make(&mut self, buffer: Buffer) -> Result<Object, Refused> {
        let (mut start, mut fd) = (buffer.address, -1);
        let file;
        if self.how == How::Folios {
            // What is pinned of a file is told by its place in the file.
            let found = behind(buffer.address).ok_or(Refused { call: "maps", errno: libc::EFAULT })?;
            file = found.open()?;
            (start, fd) = (found.offset, file.as_raw_fd());
        }
        let pages = (buffer.address + buffer.length).div_ceil(PAGE) - buffer.address / PAGE;
        self.slots.push(ioctl::pin(&Pin {
            how: self.how as u32,
            write: !self.read_only,
            start,
            pages,
            batch: self.batch,
            fd,
        })?);
        let unmapped = (self.how == How::Folios).then_some(true);
        Ok(Object { address: buffer.address, length: buffer.length, unmapped, ..Object::default() })
    }
}

impl Anchor for Driver {
    fn fd(&self) -> Option<i32> {
        None
    }

    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused> {
        buffers.iter().map(|buffer| self.make(*buffer)).collect()
    }

    fn release(&mut self) -> Result<(), Refused> {
        for slot in self.slots.drain(..) {
            ioctl::release(slot, self.release as u32)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        self.release()
    }
}
