//! VFIO: the DMA mappings of a type1 container.
//!
//! `VFIO_IOMMU_MAP_DMA` is inlined as a whole; what it calls is `vfio_pin_pages_remote`, again and again, each time for as
//! many pages as lie next to each other in memory. The first of these calls for a `struct vfio_dma` is told how many pages
//! there are in all. If a later one fails, what there is goes again by `vfio_unmap_unpin`, as it does in the end.

use crate::{
    base::{
        hook::{HookCtx, entry_hook, exit_hook},
        kernel::{choice, current_mm, private_data_of, read, read32, syscall_arguments},
        maps::{PINS, is_anchor, look_up, module_layout},
        scratch::Pages,
    },
    file::{
        extents::{add_doubt, remove_extents},
        page::PAGES_ARRAY,
        vma_extents,
    },
    pin::{
        record::{NewPin, init_record, insert, released},
        refused,
    },
    subsystem::unclaimed,
};
use pinwatch_common::{
    IOMMU_WRITE, ModuleLayout, PinRecord, doubt, extent_flag,
    subsystems::{Kind, hook},
};

/// `S_IFMT`, `S_IFSOCK` (include/uapi/linux/stat.h)
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

exit_hook!(vfio_pin, pin);
entry_hook!(vfio_unpin, unpin);

/// `long vfio_pin_pages_remote(struct vfio_dma *, unsigned long vaddr, unsigned long npage, unsigned long *pfn_base, unsigned
/// long limit, struct vfio_batch *)`
#[inline(always)]
fn pin(call: &HookCtx<hook::vfio_pin>) {
    unclaimed::claim(call);
    let Some(layout) = module_layout() else { return };
    if layout.has.vfio == 0 {
        return;
    }
    let (dma, address, pages) = (call.arg(0), call.arg(1), call.arg(2));
    let protection = read32(dma + layout.vfio_dma_prot);
    let length = pages << choice!(page_shift);
    let result = call.ret as i64;
    let fd = syscall_arguments()[0] as i32;
    if result <= 0 {
        if result < 0 {
            let (errno, write) = ((result as i32).wrapping_neg(), protection & IOMMU_WRITE != 0);
            // Of a later piece the whole is told.
            let (address, length) =
                look_up(&PINS, &dma).map_or((address, length), |pin| (pin.address, pin.length));
            refused::memory(call, Kind::Vfio, errno, [address, length], write);
        }
        return;
    }
    if PINS.get_ptr(&dma).is_some() || read(dma + layout.vfio_dma_vaddr) != address {
        // A further piece.
        return;
    }
    let Some(scratch) = call.scratch() else { return };
    let new = NewPin {
        object: dma,
        kind: Kind::Vfio,
        address,
        length,
        owner: read(dma + layout.vfio_dma_iova),
        anchor: private_data_of(fd),
        anchor_fd: fd,
        number: protection as i32,
        device: 0,
        references: 0,
        // Where the pages are only the IOMMU knows.
        pages: Pages { form: PAGES_ARRAY, at: 0, shift: 0, first: 0 },
    };
    // SAFETY: this program's own slot on this CPU.
    unsafe {
        init_record(scratch, &new);
        let pin = &raw mut (*scratch).pin;
        // A group that joins a container later has what is mapped there pinned by whoever adds it.
        if layout.has.vfio_dma_memory != 0 && read(dma + layout.vfio_dma_memory) != current_mm() {
            add_doubt(pin, doubt::FOREIGN);
        } else {
            vma_extents::find(scratch, &new.pages);
        }
        // What one device has of another's memory is mapped, and not pinned.
        if (*pin).first.flags & extent_flag::DEVICE != 0 {
            remove_extents((*pin).sequence, (*pin).extents);
            return;
        }
        insert(call.ctx, dma, &*pin);
    }
}

/// `long vfio_unmap_unpin(struct vfio_iommu *, struct vfio_dma *, bool do_accounting)`
#[inline(always)]
fn unpin(call: &HookCtx<hook::vfio_unpin>) {
    released(call.ctx, call.arg(1));
}

/// The VFIO container that a group's or a device's file keeps; 0 if it is neither. What kind of file it is nobody says, so
/// that this is read of any file's object.
#[inline(always)]
pub fn anchor_of(private: u64, mode: u16) -> u64 {
    if mode & S_IFMT == S_IFSOCK {
        return 0;
    }
    let Some(layout) = module_layout() else { return 0 };
    if private == 0 || layout.vfio_watched == 0 || layout.has.vfio_group_next == 0 {
        return 0;
    }
    let container = container_of_group(private, layout);
    if container != 0 {
        return container;
    }
    let device =
        if layout.has.vfio_file_device == 0 { private } else { read(private + layout.vfio_file_device) };
    container_of_group(read(device + layout.vfio_device_group), layout)
}

/// The container of a group; 0 if this is none. The address of a container that is asked for may be anywhere, in our own
/// maps too; but what is a group is in a list of the container's groups by its own address.
#[inline(always)]
fn container_of_group(group: u64, layout: &ModuleLayout) -> u64 {
    let container = read(group + layout.vfio_group_container);
    if !is_anchor(container) {
        return 0;
    }
    let entry = group + layout.vfio_group_next;
    // `prev` of the entry that comes next
    if read(read(entry) + 8) == entry { container } else { 0 }
}

/// A `vfio_dma` says nothing of its end.
#[inline(always)]
pub fn is_gone(_object: u64, _pin: &PinRecord) -> bool {
    false
}
