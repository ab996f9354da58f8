//! The ring buffer: what happens, for whoever follows it, and the daemon's wake-up. Losing an event never loses a pin.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns},
    maps::ring_buf::RingBufEntry,
    programs::ProbeContext,
};
use aya_log_ebpf::debug;
use core::{ffi::c_void, mem::MaybeUninit};
use pinwatch_common::{Event, FileKey, PinEvent, PinRecord, counter, event};

use crate::base::{
    kernel::{choice, copy},
    maps::{EVENTS, FILES, FOLLOWED, count},
};

/// The ring is drained by a timer; it is worth a wake-up only when much has happened. Of so many pins, one wakes the daemon
/// when it is made and when it is released. The ring has room for the events of ten times as many.
const WAKE_EVERY: u64 = 1024;

/// `BPF_RB_NO_WAKEUP`, `BPF_RB_FORCE_WAKEUP` (include/uapi/linux/bpf.h)
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// Tells of a pin, if somebody listens: the daemon's log, or a user who follows what happens.
#[inline(always)]
pub fn pin_event(ctx: *mut c_void, what: u32, object: u64, pin: &PinRecord) {
    let followed = FOLLOWED.get(0).is_some_and(|followed| *followed != 0);
    if choice!(history) == 0 && !followed {
        return;
    }
    send_pin(what, pin);
    if choice!(history) != 0 {
        log(ctx, what, object, pin.address, pin.length);
    }
}

#[inline(never)]
fn send_pin(what: u32, pin: &PinRecord) {
    let mut record = MaybeUninit::<PinEvent>::uninit();
    let at = record.as_mut_ptr();
    // SAFETY: all of the event is written; `comm` is two words.
    unsafe {
        (*at).event = Event {
            time: bpf_ktime_get_boot_ns(),
            sequence: pin.sequence,
            what,
            kind: pin.kind,
            pid: (bpf_get_current_pid_tgid() >> 32) as u32,
            reserved: 0,
        };
        copy(&raw mut (*at).file, &raw const pin.first.file);
        (*at).length = pin.length;
        (*at).start = pin.start;
        copy(&raw mut (*at).comm, &raw const pin.comm);
        (*at).creator = (pin.pid_tgid >> 32) as u32;
        (*at).uid = pin.uid;
        if let Some(mut room) = room::<PinEvent>() {
            copy(room.as_mut_ptr(), at);
            room.submit(if pin.sequence.is_multiple_of(WAKE_EVERY) { FORCE_WAKEUP } else { NO_WAKEUP });
        }
    }
}

/// Room for an event; a lost one is counted.
#[inline(always)]
fn room<T: 'static>() -> Option<RingBufEntry<T>> {
    let room = EVENTS.reserve::<T>(0);
    if room.is_none() {
        count(counter::EVENTS_LOST);
    }
    room
}

/// Puts an event on a file into the ring. The daemon takes it out at once if the file is, or was a minute ago, pinned;
/// otherwise at its next tick.
#[inline(always)]
pub fn send<T: 'static>(event: &T, file: &FileKey) {
    if let Some(mut room) = room::<T>() {
        // SAFETY: room for one event; word-wise, see `kernel::copy`.
        unsafe { copy(room.as_mut_ptr(), event) };
        room.submit(if FILES.get_ptr(file).is_some() { FORCE_WAKEUP } else { NO_WAKEUP });
    }
}

/// Puts an event into the ring that can wait for the daemon's next tick.
#[inline(always)]
pub fn send_later<T: 'static>(event: *const T) {
    if let Some(mut room) = room::<T>() {
        // SAFETY: as in `send`.
        unsafe { copy(room.as_mut_ptr(), event) };
        room.submit(NO_WAKEUP);
    }
}

// The log has a function of its own because of the stack: 6.1 adds up all frames of a chain of calls.

#[inline(never)]
fn log(ctx: *mut c_void, what: u32, object: u64, address: u64, length: u64) {
    debug!(
        &ProbeContext::new(ctx),
        "pin: event {} object {:x} address {:x} length {}", what, object, address, length
    );
}

/// Wakes the daemon, which has something to look at.
#[inline(always)]
pub fn wake(what: u32) {
    let Some(mut room) = room::<Event>() else { return };
    let event = Event { what, ..Event::default() };
    // SAFETY: as in `send`.
    unsafe { copy(room.as_mut_ptr(), &raw const event) };
    room.submit(FORCE_WAKEUP);
}

/// Modules come and go: probes on the functions of one that was removed are dead, so user space has to know.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/module_load")]
extern "C" fn module_load(_ctx: *mut c_void) -> i32 {
    wake(event::MODULES);
    0
}

/// See [`module_load`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/module_free")]
extern "C" fn module_free(_ctx: *mut c_void) -> i32 {
    wake(event::MODULES);
    0
}
