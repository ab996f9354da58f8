//! Pins whose release nobody saw: the kernel skips a program that is already running on the CPU, and says only how often.
//! User space then has all pins looked through for those that are surely released.

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use core::ffi::c_void;
use pinwatch_common::{
    PinRecord,
    subsystems::{Carried, Kind, Slot},
};

use super::record::released;
use crate::{
    base::{
        kernel::opaque_zero,
        maps::{LIVENESS, PINS, look_up},
        thread_slot,
    },
    file::page::page_pins,
    subsystem,
};

/// What goes from pin to pin.
#[repr(C)]
struct Sweep {
    context: *const u64,
    gone: u64,
}

/// Forgets all pins of subsystems that are surely released. Runs by itself, without arguments; gives how many they were.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sweep")]
extern "C" fn sweep(context: *const u64) -> i32 {
    let mut sweep = Sweep { context, gone: opaque_zero() };
    // SAFETY: the callback gets pointers that the kernel made, and one that outlives the call.
    unsafe {
        let pins = (&raw const PINS).cast_mut().cast();
        bpf_for_each_map_elem(pins, next_pin as *mut c_void, (&raw mut sweep).cast(), 0);
    }
    sweep.gone as i32
}

/// One pin: key and record are in the map, and cannot be another pin's in between.
extern "C" fn next_pin(_map: *mut c_void, key: *const u64, pin: *const PinRecord, sweep: *mut Sweep) -> i64 {
    // SAFETY: see `sweep`.
    let (object, pin, sweep) = unsafe { (*key, &*pin, &mut *sweep) };
    // The others have samples of their own, by which user space goes.
    if pin.kind != Kind::Unclaimed as u32 && is_gone(object, pin) {
        forget_pin(sweep.context, object, pin);
        sweep.gone += 1;
    }
    0
}

/// Whether a pin is surely released: its first page is pinned by nobody, or its object says so. What has no page that is known,
/// or has one that another pin has too, may seem to be there.
#[inline(always)]
fn is_gone(object: u64, pin: &PinRecord) -> bool {
    if pin.page != 0 && page_pins(pin.page) == Some(0) {
        return true;
    }
    // Of a kind that is not known nothing is sure; user space finds it in the record.
    Kind::try_from(pin.kind).is_ok_and(|kind| subsystem::is_gone(kind, object, pin))
}

/// Forgets a pin, which was found to be released: arguments are its key and its sequence number. Meanwhile the key may be
/// another pin's. 1: it was that pin.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/forget")]
extern "C" fn forget(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least two words here.
    let (object, sequence) = unsafe { (*arguments, *arguments.add(1)) };
    let Some(pin) = look_up(&PINS, &object) else { return 0 };
    let same = pin.sequence == sequence;
    if same {
        forget_pin(arguments, object, &pin);
    }
    i32::from(same)
}

#[inline(always)]
fn forget_pin(context: *const u64, object: u64, pin: &PinRecord) {
    let sequence = pin.sequence;
    thread_slot::clear(pin.pid_tgid, Slot::carried(Carried::UnclaimedPin), sequence);
    let ctx = context.cast_mut().cast();
    released(ctx, object);
    let _ = LIVENESS.remove(&sequence);
}
