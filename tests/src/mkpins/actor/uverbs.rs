//! RDMA by the uverbs ioctl itself, on any descriptor: a process that was given one has no handle of libibverbs, and
//! write(2) is only for who opened it. Layouts: include/uapi/rdma/rdma_user_ioctl_cmds.h and ib_user_verbs.h.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

use crate::anchor::Buffer;
use crate::sys::{Refused, check};

/// `RDMA_VERBS_IOCTL`
const VERBS_IOCTL: libc::c_ulong = 0xc018_1b01;
/// `RDMA_DRIVER_RXE`
const DRIVER_RXE: u32 = 14;
/// `UVERBS_OBJECT_DEVICE` and two of its methods.
const OBJECT_DEVICE: u16 = 0;
const INVOKE_WRITE: u16 = 0;
const GET_CONTEXT: u16 = 3;
/// Attributes of `INVOKE_WRITE`.
const CORE_IN: u16 = 0;
const CORE_OUT: u16 = 1;
const WRITE_CMD: u16 = 2;
/// `UVERBS_ATTR_UHW_OUT`: what the driver answers.
const DRIVER_OUT: u16 = 0x1001;
const MANDATORY: u16 = 1;
/// Commands of the write(2) interface.
const ALLOC_PD: u64 = 3;
const REG_MR: u64 = 9;
const DEREG_MR: u64 = 13;
const CREATE_CQ: u64 = 18;
/// `IB_ACCESS_LOCAL_WRITE`
const LOCAL_WRITE: u32 = 1;

/// `struct ib_uverbs_attr`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attribute {
    id: u16,
    length: u16,
    flags: u16,
    reserved: u16,
    data: u64,
}

/// `struct ib_uverbs_ioctl_hdr` with its attributes.
#[repr(C)]
struct Request {
    length: u16,
    object: u16,
    method: u16,
    attributes: u16,
    reserved1: u64,
    driver: u32,
    reserved2: u32,
    list: [Attribute; 4],
}

fn call(fd: RawFd, what: &'static str, method: u16, attributes: &[Attribute]) -> Result<(), Refused> {
    let mut list = [Attribute::default(); 4];
    list[..attributes.len()].copy_from_slice(attributes);
    let mut request = Request {
        length: (24 + size_of_val(attributes)) as u16,
        object: OBJECT_DEVICE,
        method,
        attributes: attributes.len() as u16,
        reserved1: 0,
        driver: DRIVER_RXE,
        reserved2: 0,
        list,
    };
    // SAFETY: the request and what its attributes point to live across the call, with the lengths given.
    check(what, unsafe { libc::ioctl(fd, VERBS_IOCTL, &mut request) })?;
    Ok(())
}

/// An attribute with what goes in: up to eight bytes in place.
fn input<T: Copy>(id: u16, value: &T) -> Attribute {
    let length = size_of::<T>();
    let mut data = std::ptr::from_ref(value) as u64;
    if length <= 8 {
        data = 0;
        // SAFETY: eight bytes have room for the value.
        unsafe { (&raw mut data).cast::<T>().write_unaligned(*value) };
    }
    Attribute { id, length: length as u16, flags: MANDATORY, reserved: 0, data }
}

fn output<T>(id: u16, value: &mut T) -> Attribute {
    let data = std::ptr::from_mut(value) as u64;
    Attribute { id, length: size_of::<T>() as u16, flags: MANDATORY, reserved: 0, data }
}

/// Opens rxe0 and gives a protection domain.
pub fn open() -> Result<(OwnedFd, u32)> {
    let node = (0..16)
        .map(|number| format!("uverbs{number}"))
        .find(|node| {
            std::fs::read_to_string(format!("/sys/class/infiniband_verbs/{node}/ibdev"))
                .is_ok_and(|name| name.trim() == "rxe0")
        })
        .context("there is no RDMA device rxe0")?;
    let file = OpenOptions::new().read(true).write(true).open(format!("/dev/infiniband/{node}"))?;
    let fd = OwnedFd::from(file);
    let (mut vectors, mut support) = (0_u32, 0_u64);
    let attributes = [output(0, &mut vectors), output(1, &mut support)];
    call(fd.as_raw_fd(), "UVERBS_METHOD_GET_CONTEXT", GET_CONTEXT, &attributes)?;
    let mut pd = 0_u32;
    let attributes = [input(CORE_IN, &0_u64), output(CORE_OUT, &mut pd), input(WRITE_CMD, &ALLOC_PD)];
    call(fd.as_raw_fd(), "IB_USER_VERBS_CMD_ALLOC_PD", INVOKE_WRITE, &attributes)?;
    Ok((fd, pd))
}

/// `struct ib_uverbs_reg_mr`
#[repr(C)]
#[derive(Clone, Copy)]
struct RegMr {
    response: u64,
    start: u64,
    length: u64,
    hca_va: u64,
    pd: u32,
    access: u32,
}

/// Makes an MR, for the device to write or only to read; gives its handle.
pub fn register(fd: RawFd, pd: u32, buffer: Buffer, writable: bool) -> Result<u32, Refused> {
    let Buffer { address, length } = buffer;
    let access = if writable { LOCAL_WRITE } else { 0 };
    let request = RegMr { response: 0, start: address, length, hca_va: address, pd, access };
    let mut answer = [0_u32; 3];
    let attributes = [input(CORE_IN, &request), output(CORE_OUT, &mut answer), input(WRITE_CMD, &REG_MR)];
    call(fd, "IB_USER_VERBS_CMD_REG_MR", INVOKE_WRITE, &attributes)?;
    Ok(answer[0])
}

/// Undoes it.
pub fn deregister(fd: RawFd, handle: u32) -> Result<(), Refused> {
    call(
        fd,
        "IB_USER_VERBS_CMD_DEREG_MR",
        INVOKE_WRITE,
        &[input(CORE_IN, &handle), input(WRITE_CMD, &DEREG_MR)],
    )
}

/// `struct ib_uverbs_create_cq`
#[repr(C)]
#[derive(Clone, Copy)]
struct CreateCq {
    response: u64,
    user_handle: u64,
    entries: u32,
    vector: u32,
    channel: i32,
    reserved: u32,
}

/// Makes a completion queue; gives length and offset of the mapping that it has with its user (`struct mminfo` of
/// include/uapi/rdma/rdma_user_rxe.h).
pub fn make_queue(fd: RawFd) -> Result<(u64, u64), Refused> {
    let request = CreateCq { response: 0, user_handle: 0, entries: 16, vector: 0, channel: -1, reserved: 0 };
    let (mut answer, mut mapping) = ([0_u32; 2], [0_u64; 2]);
    let attributes = [
        input(CORE_IN, &request),
        output(CORE_OUT, &mut answer),
        input(WRITE_CMD, &CREATE_CQ),
        output(DRIVER_OUT, &mut mapping),
    ];
    call(fd, "IB_USER_VERBS_CMD_CREATE_CQ", INVOKE_WRITE, &attributes)?;
    Ok((mapping[1] & 0xffff_ffff, mapping[0]))
}
