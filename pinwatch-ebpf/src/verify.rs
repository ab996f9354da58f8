//! Pins whose release nobody saw: the kernel skips a program that is already running on the CPU, and says only how often.
//! User space then has all pins looked through for those that are surely released.

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use core::ffi::c_void;
use pinwatch_common::{
    PinRecord,
    subsystems::{Carried, Kind, Purpose},
};

use crate::{
    kernel::{has, offset, opaque_zero, read, try_read},
    registry::{PINS, released},
    thread,
    witness::{self, WITNESSES},
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
    // The others have witnesses of their own.
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
    if pin.page != 0 && witness::pins(pin.page) == Some(0) {
        return true;
    }
    let users = if pin.kind == Kind::Xdp as u32 && has!(xdp_users) {
        // The umem's memory may be another's by now: then it has other pages.
        if read(pin.owner + offset!(xdp_pages)) == object {
            try_read::<u32>(pin.owner + offset!(xdp_users))
        } else {
            Some(0)
        }
    } else if pin.kind == Kind::IoUring as u32 && has!(io_buf_refs) {
        try_read::<u32>(object + offset!(io_buf_refs))
    } else {
        None
    };
    users == Some(0)
}

/// Forgets a pin, which was found to be released: arguments are its key and its sequence number. Meanwhile the key may be
/// another pin's. 1: it was that pin.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/forget")]
extern "C" fn forget(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least two words here.
    let (object, sequence) = unsafe { (*arguments, *arguments.add(1)) };
    // SAFETY: a live map value.
    let Some(pin) = PINS.get_ptr(&object).map(|pin| unsafe { &*pin }) else { return 0 };
    let same = pin.sequence == sequence;
    if same {
        forget_pin(arguments, object, pin);
    }
    i32::from(same)
}

#[inline(always)]
fn forget_pin(context: *const u64, object: u64, pin: &PinRecord) {
    let sequence = pin.sequence;
    thread::clear(pin.pid_tgid, Purpose::carried(Carried::UnclaimedPin), sequence);
    let ctx = context.cast_mut().cast();
    released(ctx, object);
    let _ = WITNESSES.remove(&sequence);
}
