//! VFIO: DMA mappings of a type1 container with the group of one device in it, as `vfio-up` prepares it. A group can be in
//! one container only.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{Anchor, AnchorOptions, Buffer};
use crate::report::Object;
use crate::sys::{PAGE, Refused, check, check_fd, open, round_up};

/// `_IO(VFIO_TYPE, VFIO_BASE + n)` (include/uapi/linux/vfio.h)
const fn number(n: u32) -> libc::Ioctl {
    libc::_IO(b';' as u32, 100 + n)
}
const SET_IOMMU: libc::Ioctl = number(2);
const GROUP_SET_CONTAINER: libc::Ioctl = number(4);
const GROUP_GET_DEVICE_FD: libc::Ioctl = number(6);
const MAP_DMA: libc::Ioctl = number(13);
const UNMAP_DMA: libc::Ioctl = number(14);
const TYPE1_V2: libc::c_ulong = 3;
const READ: u32 = 1;
const WRITE: u32 = 2;
/// Where the device's addresses begin: behind all that the platform keeps for itself.
const FIRST: u64 = 1 << 32;

/// `struct vfio_iommu_type1_dma_map`; `struct vfio_iommu_type1_dma_unmap` has no `vaddr`.
#[repr(C)]
struct Map {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

#[repr(C)]
struct Unmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

/// The container, the group in it, and one of its devices if that is wanted.
pub struct Container {
    container: Option<OwnedFd>,
    group: Option<OwnedFd>,
    device: Option<OwnedFd>,
    with_device: bool,
    read_only: bool,
    next: u64,
    maps: Vec<(u64, u64)>,
}

/// The group that there is, by its number.
fn group() -> Result<String, Refused> {
    let missing = Refused { call: "vfio-up has not run: no group in /dev/vfio", errno: libc::ENOENT };
    let entries = fs::read_dir("/dev/vfio").map_err(|_| missing)?;
    let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|name| name.parse::<u32>().is_ok()).ok_or(missing)
}

/// The address of a group's device, as PCI names it.
fn device(group: &str) -> Result<std::ffi::CString, Refused> {
    let missing = Refused { call: "the group has no device", errno: libc::ENODEV };
    let devices = fs::read_dir(format!("/sys/kernel/iommu_groups/{group}/devices")).map_err(|_| missing)?;
    let name = devices.flatten().next().ok_or(missing)?.file_name();
    std::ffi::CString::new(name.into_encoded_bytes()).map_err(|_| missing)
}

impl Container {
    pub fn open(options: &AnchorOptions) -> Result<Self, Refused> {
        let name = group()?;
        let container = OwnedFd::from(open("/dev/vfio/vfio", "open /dev/vfio/vfio")?);
        let group = OwnedFd::from(open(format!("/dev/vfio/{name}"), "open the group")?);
        let fd = container.as_raw_fd();
        // SAFETY: takes a pointer to a number that lives across the call, and numbers.
        unsafe {
            check(
                "ioctl(VFIO_GROUP_SET_CONTAINER)",
                libc::ioctl(group.as_raw_fd(), GROUP_SET_CONTAINER, &raw const fd),
            )?;
            check("ioctl(VFIO_SET_IOMMU)", libc::ioctl(fd, SET_IOMMU, TYPE1_V2))?;
        }
        let mut this = Self {
            container: Some(container),
            group: Some(group),
            device: None,
            with_device: options.with_device,
            read_only: options.read_only,
            next: FIRST,
            maps: Vec::new(),
        };
        if this.with_device {
            let device = device(&name)?;
            let group = this.group.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            // SAFETY: the name is a C string that lives across the call.
            this.device = Some(check_fd("ioctl(VFIO_GROUP_GET_DEVICE_FD)", unsafe {
                libc::ioctl(group, GROUP_GET_DEVICE_FD, device.as_ptr())
            })?);
        }
        Ok(this)
    }

    fn make(&mut self, buffer: Buffer) -> Result<Object, Refused> {
        let (iova, size) = (self.next, buffer.length);
        let flags = READ | if self.read_only { 0 } else { WRITE };
        let argsz = size_of::<Map>() as u32;
        let map = Map { argsz, flags, vaddr: buffer.address, iova, size };
        let fd = self.container.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: the struct lives across the call and says how long it is.
        check("ioctl(VFIO_IOMMU_MAP_DMA)", unsafe { libc::ioctl(fd, MAP_DMA, &raw const map) })?;
        self.next += round_up(size, PAGE);
        self.maps.push((iova, size));
        Ok(Object { address: buffer.address, length: size, iova: Some(iova), ..Object::default() })
    }
}

impl Anchor for Container {
    fn fd(&self) -> Option<i32> {
        self.container.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn second_fd(&self) -> Option<i32> {
        self.group.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn fds(&self) -> Vec<i32> {
        [&self.container, &self.group, &self.device].into_iter().flatten().map(AsRawFd::as_raw_fd).collect()
    }

    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused> {
        let made: Result<Vec<_>, _> = buffers.iter().map(|buffer| self.make(*buffer)).collect();
        if made.is_err() {
            self.release()?;
        }
        made
    }

    fn release(&mut self) -> Result<(), Refused> {
        let fd = self.container.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        for (iova, size) in self.maps.drain(..) {
            let unmap = Unmap { argsz: size_of::<Unmap>() as u32, flags: 0, iova, size };
            // SAFETY: as in `make`.
            check("ioctl(VFIO_IOMMU_UNMAP_DMA)", unsafe { libc::ioctl(fd, UNMAP_DMA, &raw const unmap) })?;
        }
        Ok(())
    }

    /// Closes the container only: the group's descriptor, and the device's, keep it.
    fn close(&mut self) -> Result<(), Refused> {
        self.container = None;
        Ok(())
    }

    fn close_second(&mut self) -> Result<(), Refused> {
        (self.group, self.device) = (None, None);
        Ok(())
    }
}
