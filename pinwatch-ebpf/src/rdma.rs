//! RDMA: user memory of memory regions and of queues.
//!
//! Every one of them is a `struct ib_umem`, made by `ib_umem_get` (6.x) or `__ib_umem_get_va` (7.x) and released by
//! `ib_umem_release`. What the memory is for is known a little later in the same thread, when the resource is tracked
//! (`rdma_restrack_add`): memory that no memory region, queue or such is tracked for stays a plain buffer.

use pinwatch_common::{
    DeviceName, RDMA_WRITABLE,
    subsystems::{Carried, Kind, Purpose, hook},
};

use crate::{
    call::{HookCtx, entry_hook, exit_hook},
    generic,
    io_uring::system_call,
    kernel::{error_of, is_err_or_null, read, read32, try_read},
    pages::{PAGES_SCATTER, Pages},
    refused,
    registry::{DEVICES, MODULE_LAYOUT, Made, PINS, made, released},
    thread,
};

/// A queue has a buffer, a doorbell page and perhaps one more.
const MAX_BUFFERS: u32 = 4;

exit_hook!(rdma_get, get);
entry_hook!(rdma_release, release);
exit_hook!(rdma_track, track);

/// `struct ib_umem *ib_umem_get(struct ib_device *, unsigned long addr, size_t size, int access)`
#[inline(always)]
fn get(call: &HookCtx<hook::rdma_get>) {
    generic::claim(call);
    let umem = call.ret;
    if is_err_or_null(umem) {
        if let Some(errno) = error_of(umem) {
            let write = call.arg(3) as u32 & RDMA_WRITABLE != 0;
            refused::memory(call, Kind::RdmaMr, errno, [call.arg(1), call.arg(2)], write);
        }
        return;
    }
    let Some(layout) = MODULE_LAYOUT.get_ptr(0) else { return };
    let (device, address, length, access) = (call.arg(0), call.arg(1), call.arg(2), call.arg(3));
    // SAFETY: a live map value.
    let layout = unsafe { &*layout };
    let has_device = layout.has.rdma_device != 0;
    let index = if has_device { read32(device + layout.ib_device_index) } else { u32::MAX };
    if has_device && DEVICES.get_ptr(&index).is_none() {
        if let Some(name) = try_read::<DeviceName>(device + layout.ib_device_name) {
            let _ = DEVICES.insert(&index, &name, 0);
        }
    }
    // What nothing has been tracked for yet hangs on the record of what comes after it.
    // SAFETY: a live map value.
    let before = thread::find(Purpose::carried(Carried::UnnamedUmem)).map_or(0, |umem| unsafe { *umem });
    let owner = if before == umem { 0 } else { before };
    made(
        call,
        &Made {
            object: umem,
            kind: Kind::RdmaBuffer,
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
                at: if layout.has.rdma_pages == 0 { 0 } else { read(umem + layout.ib_umem_sgl) },
                shift: 0,
                first: 0,
            },
        },
    );
    // Without room it stays a plain buffer.
    let _ = thread::leave(Purpose::carried(Carried::UnnamedUmem), &[umem]);
}

/// `void ib_umem_release(struct ib_umem *)`
#[inline(always)]
fn release(call: &HookCtx<hook::rdma_release>) {
    let umem = call.arg(0);
    if !is_err_or_null(umem) {
        released(call.ctx, umem);
    }
}

/// `void rdma_restrack_add(struct rdma_restrack_entry *)`
#[inline(always)]
fn track(call: &HookCtx<hook::rdma_track>) {
    let resource = call.arg(0);
    let Some([mut umem]) = thread::take(Purpose::carried(Carried::UnnamedUmem)) else { return };
    let Some(layout) = MODULE_LAYOUT.get_ptr(0) else { return };
    // SAFETY: a live map value.
    let layout = unsafe { &*layout };
    if layout.has.rdma_names == 0 {
        return;
    }
    let what = u64::from(read32(resource + layout.restrack_type));
    if what == layout.restrack_mr {
        if let Some(pin) = PINS.get_ptr_mut(&umem) {
            let region = resource - layout.ib_mr_res;
            // SAFETY: a live map value that only this thread names.
            unsafe {
                (*pin).mrn = read32(resource + layout.restrack_id);
                (*pin).lkey = read32(region + layout.ib_mr_lkey);
                (*pin).rkey = read32(region + layout.ib_mr_rkey);
                (*pin).kind = Kind::RdmaMr as u32;
                (*pin).anchor = read(read(region + layout.ib_mr_uobject) + layout.ib_uobject_ufile);
            }
        }
    } else {
        let queue = if what == layout.restrack_cq {
            Kind::RdmaCq
        } else if what == layout.restrack_qp {
            Kind::RdmaQp
        } else if what == layout.restrack_srq {
            Kind::RdmaSrq
        } else {
            return;
        };
        let mut i = 0;
        while i < MAX_BUFFERS && umem != 0 {
            let Some(pin) = PINS.get_ptr_mut(&umem) else { break };
            // SAFETY: as above.
            unsafe {
                if (*pin).kind != Kind::RdmaBuffer as u32 {
                    break;
                }
                (*pin).kind = queue as u32;
                umem = (*pin).owner;
            }
            i += 1;
        }
    }
}
