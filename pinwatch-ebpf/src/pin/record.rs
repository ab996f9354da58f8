//! Records of pins: put together, kept, and removed.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns};
use core::ffi::c_void;
use pinwatch_common::{
    PinRecord, SIZES, SMALLEST_SIZE, Totals, counter, event,
    subsystems::{BeginHook, Kind},
};

use super::ring;
use crate::{
    base::{
        hook::HookCtx,
        kernel::{copy_leader, current, fetch_add, has, uid_of, zero},
        maps::{MapRef, PINS, TOTALS, add, count, element, look_up},
        scratch::{Pages, Scratch},
    },
    file::{extents::remove_extents, vma_extents},
};

/// What a subsystem's hook knows of a new object.
pub struct NewPin {
    pub object: u64,
    pub kind: Kind,
    pub address: u64,
    pub length: u64,
    pub owner: u64,
    pub anchor: u64,
    pub anchor_fd: i32,
    pub number: i32,
    pub device: u32,
    /// See [`PinRecord::references`].
    pub references: u64,
    pub pages: Pages,
}

/// Records a pin of memory of this process.
#[inline(always)]
pub fn record_pin<H: BeginHook>(call: &HookCtx<H>, new: &NewPin) {
    let Some(scratch) = call.scratch() else { return };
    // SAFETY: this program's own slot on this CPU.
    unsafe {
        init_record(scratch, new);
        vma_extents::find(scratch, &new.pages);
        insert(call.ctx, new.object, &(*scratch).pin);
    }
}

/// Puts together all of a pin's record but what is behind it.
///
/// # Safety
/// `scratch` must be the program's own slot on this CPU.
#[inline(always)]
pub unsafe fn init_record(scratch: *mut Scratch, new: &NewPin) {
    let task = current() as u64;
    // SAFETY: by the caller; `task` and its leader have BTF types.
    unsafe {
        let pin = &raw mut (*scratch).pin;
        zero(pin);
        if has!(owners) {
            copy_leader(task, &raw mut (*pin).start, &raw mut (*pin).comm);
        }
        (*pin).sequence = add(counter::SEQUENCE, 1);
        (*pin).created = bpf_ktime_get_boot_ns();
        (*pin).address = new.address;
        (*pin).length = new.length;
        (*pin).owner = new.owner;
        (*pin).anchor = new.anchor;
        (*pin).pid_tgid = bpf_get_current_pid_tgid();
        (*pin).uid = uid_of(task);
        (*pin).kind = new.kind as u32;
        (*pin).anchor_fd = new.anchor_fd;
        (*pin).number = new.number;
        (*pin).device = new.device;
        (*pin).references = new.references;
    }
}

/// Puts a pin's record into the map, and tells of it; whether it is a new one.
#[inline(always)]
pub fn insert(ctx: *mut c_void, object: u64, pin: &PinRecord) -> bool {
    match try_insert(ctx, object, pin) {
        Inserted::New => {
            total(pin);
            // One that somebody may claim is told of once nobody has.
            if pin.kind != Kind::Unclaimed as u32 {
                ring::pin_event(ctx, event::MADE, object, pin);
            }
            return true;
        }
        Inserted::Known => remove_extents(pin.sequence, pin.extents),
        Inserted::Full => {
            count(counter::PINS_FULL);
            remove_extents(pin.sequence, pin.extents);
        }
    }
    false
}

/// The totals of a pin's subsystem; `None` if its kind is not known, which user space finds in the record and tells.
#[inline(always)]
fn totals_of(pin: &PinRecord) -> Option<MapRef<'static, Totals>> {
    element(&TOTALS, Kind::try_from(pin.kind).ok()?.subsystem() as u32)
}

/// Adds a new pin to its subsystem's totals.
#[inline(always)]
fn total(pin: &PinRecord) {
    let Some(totals) = totals_of(pin) else { return };
    // SAFETY: a live, aligned map value; `size_class` is within the array.
    unsafe {
        let totals = totals.as_ptr();
        fetch_add(&raw mut (*totals).made, 1);
        fetch_add(&raw mut (*totals).bytes, pin.length);
        fetch_add((&raw mut (*totals).sizes).cast::<u64>().add(size_class(pin.length)), 1);
    }
}

/// Moves a pin that has grown by `more` bytes, which are in its record already, to its new size in the totals. The new class is
/// counted before the old one is left: nobody reads a number below zero.
#[inline(always)]
pub fn grown(pin: &PinRecord, more: u64) {
    let Some(totals) = totals_of(pin) else { return };
    let (was, is) = (size_class(pin.length.wrapping_sub(more)), size_class(pin.length));
    // SAFETY: a live, aligned map value; `size_class` is within the array.
    unsafe {
        let totals = totals.as_ptr();
        let sizes = (&raw mut (*totals).sizes).cast::<u64>();
        fetch_add(&raw mut (*totals).bytes, more);
        if was != is {
            fetch_add(sizes.add(is), 1);
            fetch_add(sizes.add(was), u64::MAX);
        }
    }
}

/// The place in [`Totals::sizes`] of a length.
#[inline(always)]
fn size_class(length: u64) -> usize {
    let mut size = 0;
    let mut rest = length.saturating_sub(1) >> SMALLEST_SIZE;
    while rest != 0 && size < SIZES - 1 {
        rest >>= 2;
        size += 1;
    }
    size
}

/// What became of a new pin.
enum Inserted {
    New,
    /// It is there already: probes and trampolines both see a call while one takes over from the other.
    Known,
    Full,
}

/// Puts a new pin into the map.
#[inline(always)]
fn try_insert(ctx: *mut c_void, object: u64, pin: &PinRecord) -> Inserted {
    const NOEXIST: u64 = 1;
    if PINS.insert(&object, pin, NOEXIST).is_ok() {
        return Inserted::New;
    }
    let Some(old) = look_up(&PINS, &object) else { return Inserted::Full };
    if old.pid_tgid == pin.pid_tgid && old.address == pin.address && old.length == pin.length {
        return Inserted::Known;
    }
    // The object's address was used again, so its last life ended unseen.
    count(counter::REPLACED);
    released_record(ctx, object, &old);
    if PINS.insert(&object, pin, 0).is_ok() { Inserted::New } else { Inserted::Full }
}

/// Forgets a pin, if it is known.
#[inline(always)]
pub fn released(ctx: *mut c_void, object: u64) {
    if let Some(pin) = look_up(&PINS, &object) {
        released_record(ctx, object, &pin);
    }
}

#[inline(always)]
fn released_record(ctx: *mut c_void, object: u64, pin: &PinRecord) {
    if let Some(totals) = totals_of(pin) {
        // SAFETY: a live, aligned map value.
        unsafe { fetch_add(&raw mut (*totals.as_ptr()).released, 1) };
    }
    ring::pin_event(ctx, event::RELEASED, object, pin);
    remove_extents(pin.sequence, pin.extents);
    let _ = PINS.remove(&object);
}

/// Takes back a pin that a subsystem has claimed: it was never one by itself.
#[inline(always)]
pub fn retract(object: u64) {
    let Some(pin) = look_up(&PINS, &object) else { return };
    if let Some(totals) = totals_of(&pin) {
        // SAFETY: a live, aligned map value; `size_class` is within the array.
        unsafe {
            let totals = totals.as_ptr();
            fetch_add(&raw mut (*totals).made, u64::MAX);
            fetch_add(&raw mut (*totals).bytes, pin.length.wrapping_neg());
            fetch_add((&raw mut (*totals).sizes).cast::<u64>().add(size_class(pin.length)), u64::MAX);
        }
    }
    remove_extents(pin.sequence, pin.extents);
    let _ = PINS.remove(&object);
}
