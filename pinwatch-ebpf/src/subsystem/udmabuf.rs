//! udmabuf: DMA buffers made of memfds.
//!
//! `udmabuf_create` gives the caller a descriptor before it returns, so that another thread may have closed it by then. The
//! buffer is therefore noted when it is exported, within the call, and a release that nobody knows a pin for is kept in
//! mind until the call has returned.

use aya_ebpf::{helpers::generated::bpf_loop, macros::map, maps::LruHashMap};
use core::ffi::c_void;
use pinwatch_common::{
    ExtentRecord, PinRecord, doubt,
    subsystems::{Carried, Kind, Slot, hook},
};

use crate::{
    base::{
        hook::{HookCtx, entry_hook, exit_hook},
        kernel::{
            choice, copy, error_of, file_of, has, is_err_or_null, offset, opaque_zero, read, read32,
            try_read, zero,
        },
        scratch::{Pages, Scratch},
        thread_slot,
    },
    file::{
        extents::{self, add_doubt, store_extent},
        page::{PAGES_ARRAY, page_mapping},
    },
    pin::{
        record::{NewPin, init_record, insert, released},
        refused::{self, Refused},
    },
    subsystem::unclaimed,
};

exit_hook!(udmabuf_export, export);
exit_hook!(udmabuf_create, create);
entry_hook!(udmabuf_release, release);

/// Buffers that were released, for calls that make them and have not returned.
#[map]
static EARLY: LruHashMap<u64, u32> = LruHashMap::with_max_entries(256, 0);

/// The memfds of a buffer that are looked at: `list_limit` of the module, unless it was changed.
const MAX_ITEMS: u32 = 1024;
/// The folios of a buffer that are counted.
const MAX_FOLIOS: u32 = 1 << 20;
/// What a udmabuf is exported as (`exp_name`, which is the module's name).
const NAME: u64 = u64::from_le_bytes(*b"udmabuf\0");

/// `struct udmabuf_create_item` (include/uapi/linux/udmabuf.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct Item {
    memfd: u32,
    padding: u32,
    offset: u64,
    size: u64,
}

/// State of the walk over the memfds.
#[repr(C)]
struct Items {
    scratch: *mut Scratch,
    list: u64,
    count: u64,
    next: u64,
    /// Address of the array of pages or folios; 0: none is looked at.
    pages: u64,
    /// Bytes of the memfds so far.
    bytes: u64,
}

/// `struct dma_buf *dma_buf_export(const struct dma_buf_export_info *)`, whose first member is the name.
#[inline(always)]
fn export(call: &HookCtx<hook::udmabuf_export>) {
    let buffer = call.ret;
    if is_err_or_null(buffer) || read(read(call.arg(0))) != NAME {
        return;
    }
    let _ = EARLY.remove(&buffer);
    let _ = thread_slot::put(Slot::carried(Carried::ExportedDmaBuf), &[buffer]);
}

/// `long udmabuf_create(struct miscdevice *, struct udmabuf_create_list *, struct udmabuf_create_item *)`: the descriptor.
#[inline(always)]
fn create(call: &HookCtx<hook::udmabuf_create>) {
    unclaimed::claim(call);
    let buffer = thread_slot::take::<1>(Slot::carried(Carried::ExportedDmaBuf)).map_or(0, |[buffer]| buffer);
    // `struct udmabuf_create_list` begins with flags and the number of memfds.
    let (count, list) = (u64::from(read32(call.arg(1) + 4)), call.arg(2));
    let result = call.ret as i64;
    let Some(scratch) = call.scratch() else { return };
    let mut items = Items { scratch, list, count, next: opaque_zero(), pages: 0, bytes: opaque_zero() };
    if result < 0 {
        // SAFETY: the callback takes what it gets, which outlives the loop.
        unsafe { bpf_loop(MAX_ITEMS, next_size as *mut c_void, (&raw mut items).cast(), 0) };
        let file = try_read::<Item>(list).map_or(0, |item| file_of(item.memfd as i32));
        let length = items.bytes;
        let errno = error_of(call.ret).unwrap_or(0);
        let what =
            Refused { kind: Kind::Udmabuf, errno, address: 0, length, caller: 0, write: true, mapped: false };
        refused::report_file(call, &what, file);
        return;
    }
    if buffer == 0 {
        return;
    }
    let udmabuf = read(buffer + offset!(dma_buf_private));
    items.pages = read(udmabuf + offset!(udmabuf_pages));
    let pinned =
        if !has!(udmabuf_pinned) { folios(udmabuf) } else { read(udmabuf + offset!(udmabuf_pinned)) };
    let new = NewPin {
        object: buffer,
        kind: Kind::Udmabuf,
        address: 0,
        length: 0,
        owner: 0,
        anchor: buffer,
        anchor_fd: result as i32,
        number: read(read(read(buffer + offset!(dma_buf_file)) + offset!(file_inode)) + offset!(inode_ino))
            as i32,
        device: 0,
        references: pinned,
        pages: Pages { form: PAGES_ARRAY, at: 0, shift: 0, first: 0 },
    };
    // SAFETY: this program's own slot on this CPU; the callback takes what it gets, which outlives the loop.
    unsafe {
        init_record(scratch, &new);
        bpf_loop(MAX_ITEMS, next_item as *mut c_void, (&raw mut items).cast(), 0);
        let pin = &raw mut (*scratch).pin;
        (*pin).length = items.bytes;
        if has!(udmabuf_pinned) || has!(udmabuf_folios) {
            (*pin).page = read(items.pages);
        }
        if items.next < count {
            add_doubt(pin, doubt::TOO_MANY);
        }
        insert(call.ctx, buffer, &*pin);
    }
    if EARLY.get_ptr(&buffer).is_some() {
        released(call.ctx, buffer);
    }
}

/// How many folios are on a buffer's list of those that are pinned; 0: not known.
#[inline(always)]
fn folios(udmabuf: u64) -> u64 {
    let list = udmabuf + offset!(udmabuf_folios);
    let mut walk = Folios { list, at: list | opaque_zero(), count: opaque_zero() };
    // SAFETY: the callback takes what it gets, which outlives the loop.
    unsafe { bpf_loop(MAX_FOLIOS, next_folio as *mut c_void, (&raw mut walk).cast(), 0) };
    if has!(udmabuf_folios) && walk.at == list { walk.count } else { 0 }
}

/// State of the walk over that list.
#[repr(C)]
struct Folios {
    list: u64,
    at: u64,
    count: u64,
}

extern "C" fn next_folio(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `folios`.
    let walk = unsafe { &mut *context.cast::<Folios>() };
    walk.at = read(walk.at);
    if walk.at == walk.list || walk.at == 0 {
        return 1;
    }
    walk.count += 1;
    0
}

/// One memfd's size.
extern "C" fn next_size(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `create`.
    let items = unsafe { &mut *context.cast::<Items>() };
    if items.next >= items.count {
        return 1;
    }
    let Some(item) = try_read::<Item>(items.list + items.next * size_of::<Item>() as u64) else { return 1 };
    items.bytes += item.size;
    items.next += 1;
    0
}

/// One memfd's extent.
extern "C" fn next_item(_i: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `create`; all kernel reads are probe reads.
    unsafe {
        let items = &mut *context.cast::<Items>();
        if items.next >= items.count {
            return 1;
        }
        let Some(item) = try_read::<Item>(items.list + items.next * size_of::<Item>() as u64) else {
            return 1;
        };
        let scratch = items.scratch;
        let pin = &raw mut (*scratch).pin;
        let extent = &raw mut (*scratch).search.extent;
        zero::<ExtentRecord>(extent);
        let file = file_of(item.memfd as i32);
        // Another thread may have put another file in its place: its pages tell.
        let page = read(items.pages + (items.bytes >> choice!(page_shift)) * 8);
        if file == 0 || page == 0 || page_mapping(page) != read(file + offset!(file_mapping)) {
            add_doubt(pin, doubt::PAGE_MISMATCH);
        }
        if file != 0 {
            extents::describe_file(scratch, extent, file, item.offset);
        }
        (*extent).length = item.size;
        if items.next == 0 {
            copy(&raw mut (*pin).first, extent);
        } else if !store_extent((*pin).sequence, items.next, &*extent) {
            add_doubt(pin, doubt::MAP_FULL);
            return 1;
        }
        items.next += 1;
        items.bytes += item.size;
        (*pin).extents = items.next as u32;
    }
    0
}

/// `void release_udmabuf(struct dma_buf *)`
#[inline(always)]
fn release(call: &HookCtx<hook::udmabuf_release>) {
    let buffer = call.arg(0);
    let _ = EARLY.insert(&buffer, &1, 0);
    released(call.ctx, buffer);
}

/// A DMA buffer is what its file has in `private_data`.
#[inline(always)]
pub fn anchor_of(_private: u64, _mode: u16) -> u64 {
    0
}

/// A `dma_buf` says nothing of its end.
#[inline(always)]
pub fn is_gone(_object: u64, _pin: &PinRecord) -> bool {
    false
}
