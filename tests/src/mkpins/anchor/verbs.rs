//! The few functions of libibverbs that an MR needs, taken at run time: mkpins must start on machines without it.
//! Only the structs that cross the library's stable ABI are written down.

use std::ffi::{CStr, c_char, c_int, c_void};

use anyhow::{Context, Result};
use libloading::Library;

/// A handle of the library, never looked into.
pub type Handle = *mut c_void;

/// `struct ibv_mr`.
#[repr(C)]
pub struct Mr {
    pub context: Handle,
    pub pd: Handle,
    pub addr: *mut c_void,
    pub length: usize,
    pub handle: u32,
    pub lkey: u32,
    pub rkey: u32,
}

/// `struct ibv_qp_init_attr`.
#[repr(C)]
pub struct QpInitAttr {
    pub qp_context: *mut c_void,
    pub send_cq: Handle,
    pub recv_cq: Handle,
    pub srq: Handle,
    pub max_send_wr: u32,
    pub max_recv_wr: u32,
    pub max_send_sge: u32,
    pub max_recv_sge: u32,
    pub max_inline_data: u32,
    pub qp_type: c_int,
    pub sq_sig_all: c_int,
}

/// `IBV_QPT_RC`.
pub const QPT_RC: c_int = 2;
/// `IBV_ACCESS_LOCAL_WRITE`.
pub const LOCAL_WRITE: c_int = 1;
/// `IBV_ACCESS_ON_DEMAND`.
pub const ON_DEMAND: c_int = 1 << 6;

/// The functions. Names are the library's own without `ibv_`.
pub struct Verbs {
    pub get_device_list: unsafe extern "C" fn(*mut c_int) -> *mut Handle,
    pub free_device_list: unsafe extern "C" fn(*mut Handle),
    pub get_device_name: unsafe extern "C" fn(Handle) -> *const c_char,
    pub open_device: unsafe extern "C" fn(Handle) -> Handle,
    pub alloc_pd: unsafe extern "C" fn(Handle) -> Handle,
    pub reg_mr: unsafe extern "C" fn(Handle, *mut c_void, usize, c_int) -> *mut Mr,
    pub reg_mr_iova: unsafe extern "C" fn(Handle, *mut c_void, usize, u64, c_int) -> *mut Mr,
    pub dereg_mr: unsafe extern "C" fn(*mut Mr) -> c_int,
    pub create_cq: unsafe extern "C" fn(Handle, c_int, *mut c_void, Handle, c_int) -> Handle,
    pub create_qp: unsafe extern "C" fn(Handle, *mut QpInitAttr) -> Handle,
    /// Keeps the code mapped for as long as the functions are used.
    _library: Library,
}

impl Verbs {
    /// Loads the library.
    pub fn load() -> Result<Self> {
        // SAFETY: the library's start-up code only fills its own tables.
        let library = unsafe { Library::new("libibverbs.so.1") }
            .context("cannot load libibverbs.so.1; install libibverbs1 and ibverbs-providers")?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field that this goes to has the function's type in rdma-core's ABI IBVERBS_1.1.
                *unsafe { library.get($name) }.context("libibverbs.so.1 lacks a function")?
            };
        }
        Ok(Self {
            get_device_list: function!("ibv_get_device_list"),
            free_device_list: function!("ibv_free_device_list"),
            get_device_name: function!("ibv_get_device_name"),
            open_device: function!("ibv_open_device"),
            alloc_pd: function!("ibv_alloc_pd"),
            reg_mr: function!("ibv_reg_mr"),
            reg_mr_iova: function!("ibv_reg_mr_iova"),
            dereg_mr: function!("ibv_dereg_mr"),
            create_cq: function!("ibv_create_cq"),
            create_qp: function!("ibv_create_qp"),
            _library: library,
        })
    }

    /// Opens the device of that name.
    pub fn open(&self, wanted: &str) -> Result<Handle> {
        let mut count = 0;
        // SAFETY: the library fills the count and answers a list of as many devices, or null.
        let list = unsafe { (self.get_device_list)(&mut count) };
        if list.is_null() {
            anyhow::bail!("libibverbs finds no RDMA devices");
        }
        let mut seen = Vec::new();
        let mut context = std::ptr::null_mut();
        for index in 0..count as usize {
            // SAFETY: the list has `count` devices, all of them valid until the list is freed.
            let device = unsafe { *list.add(index) };
            // SAFETY: a device's name is a C string that lives as long as the device.
            let name =
                unsafe { CStr::from_ptr((self.get_device_name)(device)) }.to_string_lossy().into_owned();
            if name == wanted {
                // SAFETY: the device is valid; an opened context outlives the list.
                context = unsafe { (self.open_device)(device) };
                if context.is_null() {
                    let error = std::io::Error::last_os_error();
                    return Err(error).with_context(|| format!("cannot open the RDMA device {wanted}"));
                }
            }
            seen.push(name);
        }
        // SAFETY: the list is the library's own, and is not used after this.
        unsafe { (self.free_device_list)(list) };
        if context.is_null() {
            anyhow::bail!("there is no RDMA device {wanted}; there are: {}", seen.join(" "));
        }
        Ok(context)
    }
}
