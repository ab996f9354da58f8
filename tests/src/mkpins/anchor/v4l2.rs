//! V4L2: user memory queued as buffers of a video device (`V4L2_MEMORY_USERPTR`), such as those of the module vivid.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::{Anchor, AnchorOptions, Buffer};
use crate::report::Object;
use crate::sys::{Refused, check, open};

/// `VIDIOC_S_FMT`, `VIDIOC_REQBUFS`, `VIDIOC_QBUF` (include/uapi/linux/videodev2.h)
const SET_FORMAT: libc::c_ulong = 0xc0d0_5605;
const REQUEST_BUFFERS: libc::c_ulong = 0xc014_5608;
const QUEUE: libc::c_ulong = 0xc058_560f;
const CAPTURE: u32 = 1;
const OUTPUT: u32 = 2;
const USERPTR: u32 = 2;
/// 115,200 bytes a picture.
const WIDTH: u32 = 320;
const HEIGHT: u32 = 180;
const YUYV: u32 = u32::from_le_bytes(*b"YUYV");

/// `struct v4l2_format`, with the beginning of its `struct v4l2_pix_format`.
#[repr(C)]
struct Format {
    kind: u32,
    padding: u32,
    width: u32,
    height: u32,
    pixel_format: u32,
    field: u32,
    bytes_per_line: u32,
    size: u32,
    rest: [u32; 44],
}

/// `struct v4l2_requestbuffers`.
#[repr(C)]
struct Request {
    count: u32,
    kind: u32,
    memory: u32,
    capabilities: u32,
    flags: u32,
}

/// `struct v4l2_buffer`.
#[repr(C)]
struct Queued {
    index: u32,
    kind: u32,
    bytes_used: u32,
    flags: u32,
    field: u32,
    padding: u32,
    timestamp: [u64; 2],
    timecode: [u32; 4],
    sequence: u32,
    memory: u32,
    address: u64,
    length: u32,
    reserved: u32,
    request: i32,
    end: u32,
}

/// The device, with its buffers.
pub struct Device {
    device: Option<File>,
    kind: u32,
}

impl Device {
    /// A device that captures writes to memory, one that puts out (`--read-only`) reads it.
    pub fn open(options: &AnchorOptions) -> Result<Self, Refused> {
        let device = open(&options.video, "open the video device")?;
        let kind = if options.read_only { OUTPUT } else { CAPTURE };
        let mut format = Format {
            kind,
            padding: 0,
            width: WIDTH,
            height: HEIGHT,
            pixel_format: YUYV,
            field: 1,
            bytes_per_line: 0,
            size: 0,
            rest: [0; 44],
        };
        // SAFETY: the struct has the size that the number names, and lives across the call.
        check("ioctl(VIDIOC_S_FMT)", unsafe {
            libc::ioctl(device.as_raw_fd(), SET_FORMAT, &raw mut format)
        })?;
        Ok(Self { device: Some(device), kind })
    }

    fn request(&self, count: u32) -> Result<(), Refused> {
        let fd = self.device.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let mut request = Request { count, kind: self.kind, memory: USERPTR, capabilities: 0, flags: 0 };
        // SAFETY: as in `open`.
        check("ioctl(VIDIOC_REQBUFS)", unsafe { libc::ioctl(fd, REQUEST_BUFFERS, &raw mut request) })?;
        Ok(())
    }

    fn queue(&self, index: usize, buffer: Buffer) -> Result<Object, Refused> {
        let fd = self.device.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let mut queued = Queued {
            index: index as u32,
            kind: self.kind,
            bytes_used: buffer.length as u32,
            flags: 0,
            field: 1,
            padding: 0,
            timestamp: [0; 2],
            timecode: [0; 4],
            sequence: 0,
            memory: USERPTR,
            address: buffer.address,
            length: buffer.length as u32,
            reserved: 0,
            request: 0,
            end: 0,
        };
        // SAFETY: as in `open`.
        check("ioctl(VIDIOC_QBUF)", unsafe { libc::ioctl(fd, QUEUE, &raw mut queued) })?;
        Ok(Object { address: buffer.address, length: buffer.length, ..Object::default() })
    }
}

impl Anchor for Device {
    fn fd(&self) -> Option<i32> {
        self.device.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused> {
        self.request(buffers.len() as u32)?;
        let made: Result<Vec<_>, _> =
            buffers.iter().enumerate().map(|(index, buffer)| self.queue(index, *buffer)).collect();
        if made.is_err() {
            self.request(0)?;
        }
        made
    }

    fn release(&mut self) -> Result<(), Refused> {
        self.request(0)
    }

    fn close(&mut self) -> Result<(), Refused> {
        self.device = None;
        Ok(())
    }
}
