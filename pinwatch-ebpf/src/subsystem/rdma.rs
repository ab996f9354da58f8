//! RDMA: user memory of memory regions and of queues.
//!
//! Every one of them is a `struct ib_umem`, made by `ib_umem_get` (6.x) or `__ib_umem_get_va` (7.x) and released by
//! `ib_umem_release`. What the memory is for is known a little later in the same thread, when the resource is tracked
//! (`rdma_restrack_add`): memory that no memory region, queue or such is tracked for stays a plain buffer.

use pinwatch_common::{
    DeviceName, PinRecord, RDMA_WRITABLE,
    subsystems::{Carried, Kind, Slot, hook},
};

use crate::{
    base::{
        hook::{HookCtx, entry_hook, exit_hook},
        kernel::{error_of, is_err_or_null, read, read32, syscall_arguments, try_read},
        maps::{DEVICES, PINS, look_up, module_layout},
        scratch::Pages,
        thread_slot,
    },
    file::page::PAGES_SCATTER,
    pin::{
        record::{NewPin, record_pin, released},
        refused,
    },
    subsystem::unclaimed,
};

/// A queue has a buffer, a doorbell page and perhaps one more.
const MAX_BUFFERS: u32 = 4;

exit_hook!(rdma_get, get);
entry_hook!(rdma_release, release);
exit_hook!(rdma_track, track);

/// `struct ib_umem *ib_umem_get(struct ib_device *, unsigned long addr, size_t size, int access)`
#[inline(always)]
fn get(call: &HookCtx<hook::rdma_get>) {
    unclaimed::claim(call);
    let umem = call.ret;
    if is_err_or_null(umem) {
        if let Some(errno) = error_of(umem) {
            let write = call.arg(3) as u32 & RDMA_WRITABLE != 0;
            refused::memory(call, Kind::RdmaMr, errno, [call.arg(1), call.arg(2)], write);
        }
        return;
    }
    let Some(layout) = module_layout() else { return };
    let (device, address, length, access) = (call.arg(0), call.arg(1), call.arg(2), call.arg(3));
    let has_device = layout.has.rdma_device != 0;
    let index = if has_device { read32(device + layout.ib_device_index) } else { u32::MAX };
    if has_device && DEVICES.get_ptr(&index).is_none() {
        if let Some(name) = try_read::<DeviceName>(device + layout.ib_device_name) {
            let _ = DEVICES.insert(&index, &name, 0);
        }
    }
    // What nothing has been tracked for yet hangs on the record of what comes after it.
    // SAFETY: a live map value.
    let before = thread_slot::peek(Slot::carried(Carried::UnnamedUmem)).map_or(0, |umem| unsafe { *umem });
    let owner = if before == umem { 0 } else { before };
    record_pin(
        call,
        &NewPin {
            object: umem,
            kind: Kind::RdmaBuffer,
            address,
            length,
            owner,
            anchor: 0,
            anchor_fd: syscall_arguments()[0] as i32,
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
    let _ = thread_slot::put(Slot::carried(Carried::UnnamedUmem), &[umem]);
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
    let Some([mut umem]) = thread_slot::take(Slot::carried(Carried::UnnamedUmem)) else { return };
    let Some(layout) = module_layout() else { return };
    if layout.has.rdma_names == 0 {
        return;
    }
    let what = u64::from(read32(resource + layout.restrack_type));
    if what == layout.restrack_mr {
        // Only this thread names it.
        if let Some(mut pin) = look_up(&PINS, &umem) {
            let region = resource - layout.ib_mr_res;
            pin.mrn = read32(resource + layout.restrack_id);
            pin.lkey = read32(region + layout.ib_mr_lkey);
            pin.rkey = read32(region + layout.ib_mr_rkey);
            pin.kind = Kind::RdmaMr as u32;
            pin.anchor = read(read(region + layout.ib_mr_uobject) + layout.ib_uobject_ufile);
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
            let Some(mut pin) = look_up(&PINS, &umem) else { break };
            if pin.kind != Kind::RdmaBuffer as u32 {
                break;
            }
            pin.kind = queue as u32;
            umem = pin.owner;
            i += 1;
        }
    }
}

/// A uverbs file has the anchor itself in its `private_data`.
#[inline(always)]
pub fn anchor_of(_private: u64, _mode: u16) -> u64 {
    0
}

/// An `ib_umem` says nothing of its end.
#[inline(always)]
pub fn is_gone(_object: u64, _pin: &PinRecord) -> bool {
    false
}
