//! RDMA memory regions through libibverbs, on one device context.

use std::ffi::c_void;
use std::os::fd::RawFd;

use anyhow::{Context, Result};

use super::verbs::{Handle, LOCAL_WRITE, Mr, ON_DEMAND, QPT_RC, QpInitAttr, Verbs};
use super::{Anchor, AnchorOptions, Buffer};
use crate::report::Object;
use crate::sys::{Refused, close_raw, descriptor_path};

/// The regions on one uverbs file.
pub struct Regions {
    verbs: Verbs,
    pd: Handle,
    regions: Vec<*mut Mr>,
    fd: Option<RawFd>,
    /// What the library opened beside it: the descriptor of asynchronous events.
    beside: Vec<RawFd>,
    access: i32,
    iova: Option<u64>,
}

// SAFETY: libibverbs may be called from any thread, and only one thread has the struct at a time.
unsafe impl Send for Regions {}

impl Regions {
    /// Opens the device and makes a protection domain, and a queue pair where asked for.
    pub fn open(options: &AnchorOptions) -> Result<Self> {
        let verbs = Verbs::load()?;
        let before = descriptors();
        let context = verbs.open(&options.device)?;
        let opened = descriptors().into_iter().filter(|fd| !before.contains(fd));
        let (uverbs, beside): (Vec<_>, Vec<_>) = opened.partition(|fd| is_uverbs(*fd));
        let fd =
            *uverbs.first().context("the opened RDMA device shows no /dev/infiniband/uverbs descriptor")?;
        // SAFETY: the context was just opened.
        let pd = unsafe { (verbs.alloc_pd)(context) };
        if pd.is_null() {
            return Err(Refused::last("ibv_alloc_pd").into());
        }
        if options.with_qp {
            make_queue_pair(&verbs, context, pd)?;
        }
        let access =
            if options.read_only { 0 } else { LOCAL_WRITE } | if options.odp { ON_DEMAND } else { 0 };
        Ok(Self { verbs, pd, regions: Vec::new(), fd: Some(fd), beside, access, iova: options.iova })
    }

    fn make(&mut self, buffer: Buffer) -> Result<Object, Refused> {
        if self.fd.is_none() {
            return Err(Refused { call: "ibv_reg_mr", errno: libc::EBADF });
        }
        let (address, length) = (buffer.address as *mut c_void, buffer.length as usize);
        let (call, region) = match self.iova {
            // SAFETY: the domain is open. The memory is only pinned: no work request ever names the region.
            None => ("ibv_reg_mr", unsafe { (self.verbs.reg_mr)(self.pd, address, length, self.access) }),
            // SAFETY: as above.
            Some(iova) => ("ibv_reg_mr_iova", unsafe {
                (self.verbs.reg_mr_iova)(self.pd, address, length, iova, self.access)
            }),
        };
        if region.is_null() {
            return Err(Refused::last(call));
        }
        self.regions.push(region);
        // SAFETY: the library answered a region, valid until it is deregistered.
        let Mr { lkey, rkey, handle, .. } = unsafe { region.read() };
        Ok(Object {
            address: buffer.address,
            length: buffer.length,
            lkey: Some(lkey),
            rkey: Some(rkey),
            handle: Some(handle),
            ..Object::default()
        })
    }
}

impl Anchor for Regions {
    fn fd(&self) -> Option<i32> {
        self.fd
    }

    fn register(&mut self, buffers: &[Buffer]) -> Result<Vec<Object>, Refused> {
        let made: Result<Vec<_>, _> = buffers.iter().map(|buffer| self.make(*buffer)).collect();
        if made.is_err() {
            let _ = self.release();
        }
        made
    }

    fn release(&mut self) -> Result<(), Refused> {
        while let Some(region) = self.regions.pop() {
            // SAFETY: the region is registered, and is not used after this.
            let errno = unsafe { (self.verbs.dereg_mr)(region) };
            if errno != 0 {
                return Err(Refused { call: "ibv_dereg_mr", errno });
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        // By its number and not by the library, which would first undo what is to be left to the kernel.
        self.regions.clear();
        self.beside.drain(..).try_for_each(close_raw)?;
        close_raw(self.fd.take().ok_or(Refused { call: "close", errno: libc::EBADF })?)
    }
}

impl Drop for Regions {
    fn drop(&mut self) {
        if self.fd.is_some() {
            let _ = self.close();
        }
    }
}

/// A queue pair and its completion queue live until the descriptor is closed; nothing is ever posted to them.
fn make_queue_pair(verbs: &Verbs, context: Handle, pd: Handle) -> Result<()> {
    // SAFETY: the context is open; no channel and no context pointer are given.
    let cq = unsafe { (verbs.create_cq)(context, 64, std::ptr::null_mut(), std::ptr::null_mut(), 0) };
    if cq.is_null() {
        return Err(Refused::last("ibv_create_cq").into());
    }
    let mut attributes = QpInitAttr {
        qp_context: std::ptr::null_mut(),
        send_cq: cq,
        recv_cq: cq,
        srq: std::ptr::null_mut(),
        max_send_wr: 32,
        max_recv_wr: 32,
        max_send_sge: 1,
        max_recv_sge: 1,
        max_inline_data: 0,
        qp_type: QPT_RC,
        sq_sig_all: 0,
    };
    // SAFETY: the domain and the queue are open, and the attributes live across the call.
    if unsafe { (verbs.create_qp)(pd, &mut attributes) }.is_null() {
        return Err(Refused::last("ibv_create_qp").into());
    }
    Ok(())
}

fn is_uverbs(fd: RawFd) -> bool {
    descriptor_path(fd).is_some_and(|path| path.starts_with("/dev/infiniband/uverbs"))
}

/// What is open now. The descriptor that reads the directory itself is among them, and gone by the time of use.
fn descriptors() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<RawFd>().ok();
    let numbers: Vec<RawFd> = entries.flatten().filter_map(number).collect();
    numbers.into_iter().filter(|fd| descriptor_path(*fd).is_some()).collect()
}
