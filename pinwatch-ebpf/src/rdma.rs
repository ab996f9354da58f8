//! RDMA: user memory of memory regions and of queues.
//!
//! Every one of them is a `struct ib_umem`, made by `ib_umem_get` (6.x) or `__ib_umem_get_va` (7.x) and released by
//! `ib_umem_release`. What the memory is for is known a little later in the same thread, when the resource is tracked
//! (`rdma_restrack_add`): memory that no memory region, queue or such is tracked for stays a plain buffer.

use pinwatch_common::{DeviceName, RDMA_WRITABLE, kind};

use crate::{
    call::{Call, entry_hook, exit_hook},
    generic,
    io_uring::system_call,
    kernel::{error_of, is_err_or_null, read, read32, try_read},
    pages::{PAGES_SCATTER, Pages},
    refused,
    registry::{DEVICES, MODULE_OFFSETS, Made, PINS, made, released},
    thread::{self, purpose},
};

/// A queue has a buffer, a doorbell page and perhaps one more.
const MAX_BUFFERS: u32 = 4;

exit_hook!(1, get, rdma_get, rdma_get_twin, rdma_get_kprobe, rdma_get_kretprobe);
entry_hook!(2, release, rdma_release, rdma_release_twin, rdma_release_kprobe);
exit_hook!(3, track, rdma_track, rdma_track_twin, rdma_track_kprobe, rdma_track_kretprobe);

/// `struct ib_umem *ib_umem_get(struct ib_device *, unsigned long addr, size_t size, int access)`
#[inline(always)]
fn get(call: &Call) {
    generic::claim(call);
    let umem = call.ret;
    if is_err_or_null(umem) {
        if let Some(errno) = error_of(umem) {
            let write = call.arg(3) as u32 & RDMA_WRITABLE != 0;
            refused::memory(call, kind::RDMA_MR, errno, [call.arg(1), call.arg(2)], write);
        }
        return;
    }
    let Some(offsets) = MODULE_OFFSETS.get_ptr(0) else { return };
    let (device, address, length, access) = (call.arg(0), call.arg(1), call.arg(2), call.arg(3));
    // SAFETY: a live map value.
    let (at_index, at_name, at_sgl) =
        unsafe { ((*offsets).ib_device_index, (*offsets).ib_device_name, (*offsets).ib_umem_sgl) };
    let index = if at_name == 0 { u32::MAX } else { read32(device + at_index) };
    if at_name != 0 && DEVICES.get_ptr(&index).is_none() {
        if let Some(name) = try_read::<DeviceName>(device + at_name) {
            let _ = DEVICES.insert(&index, &name, 0);
        }
    }
    // What nothing has been tracked for yet hangs on the record of what comes after it.
    // SAFETY: a live map value.
    let before = thread::find(purpose::UNNAMED).map_or(0, |umem| unsafe { *umem });
    let owner = if before == umem { 0 } else { before };
    made(
        call,
        &Made {
            object: umem,
            kind: kind::RDMA_BUFFER,
            address,
            length,
            owner,
            anchor: 0,
            anchor_fd: system_call()[0] as i32,
            number: access as i32,
            device: index,
            references: 0,
            pages: Pages {
                form: PAGES_SCATTER,
                at: if at_sgl == 0 { 0 } else { read(umem + at_sgl) },
                shift: 0,
                first: 0,
            },
        },
    );
    // Without room it stays a plain buffer.
    let _ = thread::leave(purpose::UNNAMED, &[umem]);
}

/// `void ib_umem_release(struct ib_umem *)`
#[inline(always)]
fn release(call: &Call) {
    let umem = call.arg(0);
    if !is_err_or_null(umem) {
        released(call, umem);
    }
}

/// `void rdma_restrack_add(struct rdma_restrack_entry *)`
#[inline(always)]
fn track(call: &Call) {
    let resource = call.arg(0);
    let Some([mut umem]) = thread::take(purpose::UNNAMED) else { return };
    let Some(offsets) = MODULE_OFFSETS.get_ptr(0) else { return };
    // SAFETY: a live map value.
    let offsets = unsafe { &*offsets };
    if offsets.restrack_id == 0 {
        return;
    }
    let what = u64::from(read32(resource + offsets.restrack_type));
    if what == offsets.restrack_mr {
        if let Some(pin) = PINS.get_ptr_mut(&umem) {
            let region = resource - offsets.ib_mr_res;
            // SAFETY: a live map value that only this thread names.
            unsafe {
                (*pin).mrn = read32(resource + offsets.restrack_id);
                (*pin).lkey = read32(region + offsets.ib_mr_lkey);
                (*pin).rkey = read32(region + offsets.ib_mr_rkey);
                (*pin).kind = kind::RDMA_MR;
                (*pin).anchor = read(read(region + offsets.ib_mr_uobject) + offsets.ib_uobject_ufile);
            }
        }
    } else {
        let queue = if what == offsets.restrack_cq {
            kind::RDMA_CQ
        } else if what == offsets.restrack_qp {
            kind::RDMA_QP
        } else if what == offsets.restrack_srq {
            kind::RDMA_SRQ
        } else {
            return;
        };
        let mut i = 0;
        while i < MAX_BUFFERS && umem != 0 {
            let Some(pin) = PINS.get_ptr_mut(&umem) else { break };
            // SAFETY: as above.
            unsafe {
                if (*pin).kind != kind::RDMA_BUFFER {
                    break;
                }
                (*pin).kind = queue;
                umem = (*pin).owner;
            }
            i += 1;
        }
    }
}
