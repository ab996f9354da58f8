//! udmabuf: DMA buffers made of the memfds behind a range of memory. Each is a descriptor of its own.

use std::os::fd::{AsRawFd, OwnedFd};

use super::{Anchor, Buffer};
use crate::report::Object;
use crate::sys::{Refused, behind, check_fd, open};

/// `UDMABUF_CREATE_LIST` (include/uapi/linux/udmabuf.h)
const CREATE_LIST: libc::c_ulong = 0x4008_7543;
const FLAGS_CLOEXEC: u32 = 1;

/// The buffers that were made.
#[derive(Default)]
pub struct Buffers {
    made: Vec<OwnedFd>,
}

impl Buffers {
    fn make(&mut self, buffer: Buffer) -> Result<Object, Refused> {
        let (mut files, mut items) = (Vec::new(), Vec::new());
        let end = buffer.address + buffer.length;
        let mut at = buffer.address;
        while at < end {
            let found = behind(at).ok_or(Refused { call: "maps", errno: libc::EFAULT })?;
            let file = found.open()?;
            // It has to be sealed against shrinking; what cannot be sealed is for the kernel to refuse.
            // SAFETY: takes numbers only.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
            let size = found.end.min(end) - at;
            // `struct udmabuf_create_item`: the descriptor in 32 bits, 32 of padding, offset, size.
            items.extend([file.as_raw_fd() as u64, found.offset, size]);
            files.push(file);
            at += size;
        }
        let device = open("/dev/udmabuf", "open /dev/udmabuf")?;
        // `struct udmabuf_create_list`: flags, the number of items, the items.
        let mut list: Vec<u64> = vec![u64::from(FLAGS_CLOEXEC) | (files.len() as u64) << 32];
        list.append(&mut items);
        // SAFETY: the list lives across the call and has as many items as it says.
        let fd = check_fd("ioctl(UDMABUF_CREATE_LIST)", unsafe {
            libc::ioctl(device.as_raw_fd(), CREATE_LIST, list.as_ptr())
        })?;
        let object = Object {
            address: buffer.address,
            length: buffer.length,
            unmapped: Some(true),
            fd: Some(fd.as_raw_fd()),
            ..Object::default()
        };
        self.made.push(fd);
        Ok(object)
    }
}

impl Anchor for Buffers {
    fn fd(&self) -> Option<i32> {
        self.made.first().map(AsRawFd::as_raw_fd)
    }

    fn fds(&self) -> Vec<i32> {
        self.made.iter().map(AsRawFd::as_raw_fd).collect()
    }

    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused> {
        let made: Result<Vec<_>, _> = buffers.iter().map(|buffer| self.make(*buffer)).collect();
        if made.is_err() {
            self.made.clear();
        }
        made
    }

    fn release(&mut self) -> Result<(), Refused> {
        self.close()
    }

    fn close(&mut self) -> Result<(), Refused> {
        self.made.clear();
        Ok(())
    }
}
