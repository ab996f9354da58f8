//! Another reference to pages, by which the kernel cannot move them: what a pipe was given by vmsplice.

use std::io::PipeReader;
use std::os::fd::AsRawFd;

use crate::sys::{Refused, check};

/// The pages of a range are in a pipe until it is dropped.
pub struct Hold {
    _pipe: PipeReader,
}

impl Hold {
    /// Takes `length` bytes, at most what a pipe takes: 64 KiB.
    pub fn of(address: u64, length: u64) -> Result<Self, Refused> {
        let (reader, writer) = std::io::pipe().map_err(|error| Refused::of("pipe", &error))?;
        let range = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: length as usize };
        // SAFETY: the kernel reads the one struct, and checks the range that it names.
        let taken =
            unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const range, 1, libc::SPLICE_F_NONBLOCK) };
        let taken = check("vmsplice", taken as i64)?;
        if taken as u64 != length {
            return Err(Refused { call: "vmsplice", errno: libc::EAGAIN });
        }
        Ok(Self { _pipe: reader })
    }
}
