//! VFIO: the DMA mappings of a type1 container.
//!
//! `VFIO_IOMMU_MAP_DMA` is inlined as a whole; what it calls is `vfio_pin_pages_remote`, again and again, each time for as
//! many pages as lie next to each other in memory. The first of these calls for a `struct vfio_dma` is told how many pages
//! there are in all. If a later one fails, what there is goes again by `vfio_unmap_unpin`, as it does in the end.

use crate::{
    backing,
    call::{HookCtx, entry_hook, exit_hook},
    generic,
    io_uring::system_call,
    kernel::{choice, private_of, read, read32},
    pages::{PAGES_ARRAY, Pages},
    refused,
    registry::{MODULE_LAYOUT, Made, PINS, fill, keep, mark, released, remove_extents},
};
use pinwatch_common::{
    IOMMU_WRITE, doubt, extent_flag,
    subsystems::{Kind, hook},
};

exit_hook!(vfio_pin, pin);
entry_hook!(vfio_unpin, unpin);

/// `long vfio_pin_pages_remote(struct vfio_dma *, unsigned long vaddr, unsigned long npage, unsigned long *pfn_base, unsigned
/// long limit, struct vfio_batch *)`
#[inline(always)]
fn pin(call: &HookCtx<hook::vfio_pin>) {
    generic::claim(call);
    let Some(layout) = MODULE_LAYOUT.get_ptr(0) else { return };
    // SAFETY: a live map value.
    let layout = unsafe { &*layout };
    if layout.has.vfio == 0 {
        return;
    }
    let (dma, address, pages) = (call.arg(0), call.arg(1), call.arg(2));
    let protection = read32(dma + layout.vfio_dma_prot);
    let length = pages << choice!(page_shift);
    let result = call.ret as i64;
    let fd = system_call()[0] as i32;
    if result <= 0 {
        if result < 0 {
            let (errno, write) = ((result as i32).wrapping_neg(), protection & IOMMU_WRITE != 0);
            // Of a later piece the whole is told.
            // SAFETY: a live map value.
            let (address, length) = PINS
                .get_ptr(&dma)
                .map_or((address, length), |pin| unsafe { ((*pin).address, (*pin).length) });
            refused::memory(call, Kind::Vfio, errno, [address, length], write);
        }
        return;
    }
    if PINS.get_ptr(&dma).is_some() || read(dma + layout.vfio_dma_vaddr) != address {
        // A further piece.
        return;
    }
    let Some(scratch) = call.scratch() else { return };
    let new = Made {
        object: dma,
        kind: Kind::Vfio,
        address,
        length,
        owner: read(dma + layout.vfio_dma_iova),
        anchor: private_of(fd),
        anchor_fd: fd,
        number: protection as i32,
        device: 0,
        references: 0,
        // Where the pages are only the IOMMU knows.
        pages: Pages { form: PAGES_ARRAY, at: 0, shift: 0, first: 0 },
    };
    // SAFETY: this program's own slot on this CPU.
    unsafe {
        fill(scratch, &new);
        let pin = &raw mut (*scratch).pin;
        // A group that joins a container later has what is mapped there pinned by whoever adds it.
        if layout.has.vfio_dma_memory != 0 && read(dma + layout.vfio_dma_memory) != generic::own_memory() {
            mark(pin, doubt::FOREIGN);
        } else {
            backing::find(scratch, &new.pages);
        }
        // What one device has of another's memory is mapped, and not pinned.
        if (*pin).first.flags & extent_flag::DEVICE != 0 {
            remove_extents((*pin).sequence, (*pin).extents);
            return;
        }
        keep(call.ctx, dma, &*pin);
    }
}

/// `long vfio_unmap_unpin(struct vfio_iommu *, struct vfio_dma *, bool do_accounting)`
#[inline(always)]
fn unpin(call: &HookCtx<hook::vfio_unpin>) {
    released(call.ctx, call.arg(1));
}
