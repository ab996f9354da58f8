//! The maps, and what is written into them when a pin is made and when it is released.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_ktime_get_boot_ns, bpf_loop},
    },
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf, ring_buf::RingBufEntry},
    programs::ProbeContext,
};
use aya_log_ebpf::debug;
use core::{ffi::c_void, mem::MaybeUninit};
use pinwatch_common::{
    DeviceName, Event, ExtentKey, ExtentRecord, FileKey, FileRecord, LONG_PATH, LongPath, ModuleLayout,
    PinEvent, PinRecord, SHORT_PATH, SIZES, SMALLEST_SIZE, Totals, WitnessRecord, counter, doubt, event,
    subsystems::{BeginHook, Kind, SCRATCH_SLOTS, Subsystem},
};

use crate::{
    backing::{self, Search},
    call::HookCtx,
    kernel::{choice, copy, copy_leader, current, fetch_add, has, load, load32, offset, zero},
    pages::Pages,
    path::Walk,
    refused::Mappings,
    witness::Witnesses,
};

/// Not preallocated: an idle machine pays nothing, a busy one what it uses (`BPF_F_NO_PREALLOC`).
const NO_PREALLOC: u32 = 1;

/// Live pins, by the address of the kernel object that holds the pages.
#[map]
pub static PINS: HashMap<u64, PinRecord> = HashMap::with_max_entries(1 << 18, NO_PREALLOC);
/// Second and later extents.
#[map]
pub static EXTENTS: HashMap<ExtentKey, ExtentRecord> = HashMap::with_max_entries(1 << 18, NO_PREALLOC);
/// Names of pinned files; user space removes those that no pin refers to any more.
#[map]
pub static FILES: HashMap<FileKey, FileRecord> = HashMap::with_max_entries(1 << 17, NO_PREALLOC);
/// Names too long for `FILES`.
#[map]
pub static LONG_PATHS: HashMap<FileKey, LongPath> = HashMap::with_max_entries(1 << 14, NO_PREALLOC);
/// RDMA devices' names by index.
#[map]
pub static DEVICES: HashMap<u32, DeviceName> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Offsets in modules; all zero until user space has seen the modules.
#[map]
pub static MODULE_LAYOUT: Array<ModuleLayout> = Array::with_max_entries(1, 0);
/// `counter`s.
#[map]
static COUNTERS: Array<u64> = Array::with_max_entries(counter::COUNT, 0);
/// What was made and released, by subsystem.
#[map]
static TOTALS: Array<Totals> = Array::with_max_entries(Subsystem::ALL.len() as u32, 0);
/// 1: somebody follows pins that are made and released.
#[map]
static FOLLOWED: Array<u64> = Array::with_max_entries(1, 0);
/// History, and the daemon's wake-up.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Room for a record and a path while they are put together (a stack has 512 bytes, callbacks included): one slot for each program that makes pins: they can preempt each
/// other, but no program can preempt itself.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCH_SLOTS, 0);

/// See [`SCRATCH`]. The path is read into `file.path`, and runs on into `overflow`.
#[repr(C)]
pub struct Scratch {
    pub pin: PinRecord,
    /// The latest file whose name was looked up.
    pub file: FileRecord,
    overflow: [u8; LONG_PATH - SHORT_PATH + 256],
    pub walk: Walk,
    pub witness: WitnessRecord,
    pub witnesses: Witnesses,
    pub mappings: Mappings,
    /// Which file `file` is.
    pub latest: FileKey,
    pub search: Search,
}

/// The ring is drained by a timer; it is worth a wake-up only when much has happened. Of so many pins, one wakes the daemon
/// when it is made and when it is released. The ring has room for the events of ten times as many.
const WAKE_EVERY: u64 = 1024;

/// `BPF_RB_NO_WAKEUP`, `BPF_RB_FORCE_WAKEUP` (include/uapi/linux/bpf.h)
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// Adds one to a counter.
#[inline(always)]
pub fn count(which: u32) {
    add(which, 1);
}

/// Adds to a counter and gives the new value.
#[inline(always)]
pub fn add(which: u32, n: u64) -> u64 {
    match COUNTERS.get_ptr_mut(which) {
        // SAFETY: a live, aligned map value.
        Some(value) => unsafe { fetch_add(value, n) + n },
        None => 0,
    }
}

/// What a subsystem's hook knows of a new object.
pub struct Made {
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
pub fn made<H: BeginHook>(call: &HookCtx<H>, new: &Made) {
    let Some(scratch) = call.scratch() else { return };
    // SAFETY: this program's own slot on this CPU.
    unsafe {
        fill(scratch, new);
        backing::find(scratch, &new.pages);
        keep(call.ctx, new.object, &(*scratch).pin);
    }
}

/// Puts together all of a pin's record but what is behind it.
///
/// # Safety
/// `scratch` must be the program's own slot on this CPU.
#[inline(always)]
pub unsafe fn fill(scratch: *mut Scratch, new: &Made) {
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
pub fn keep(ctx: *mut c_void, object: u64, pin: &PinRecord) -> bool {
    match insert(ctx, object, pin) {
        Inserted::New => {
            total(pin);
            // One that somebody may claim is told of once nobody has.
            if pin.kind != Kind::Unclaimed as u32 {
                tell(ctx, event::MADE, object, pin);
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

/// The totals of a pin's subsystem; `None`, and counted, if its kind is not known.
#[inline(always)]
fn totals_of(pin: &PinRecord) -> Option<*mut Totals> {
    match Kind::try_from(pin.kind) {
        Ok(kind) => TOTALS.get_ptr_mut(kind.subsystem() as u32),
        Err(_) => {
            count(counter::UNKNOWN_KIND);
            None
        }
    }
}

/// Adds a new pin to its subsystem's totals.
#[inline(always)]
fn total(pin: &PinRecord) {
    let Some(totals) = totals_of(pin) else { return };
    // SAFETY: a live, aligned map value; `size_class` is within the array.
    unsafe {
        fetch_add(&raw mut (*totals).made, 1);
        fetch_add(&raw mut (*totals).bytes, pin.length);
        fetch_add((&raw mut (*totals).sizes).cast::<u64>().add(size_class(pin.length)), 1);
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
fn insert(ctx: *mut c_void, object: u64, pin: &PinRecord) -> Inserted {
    const NOEXIST: u64 = 1;
    if PINS.insert(&object, pin, NOEXIST).is_ok() {
        return Inserted::New;
    }
    let Some(old) = PINS.get_ptr(&object) else { return Inserted::Full };
    // SAFETY: a live map value.
    let same = unsafe {
        (*old).pid_tgid == pin.pid_tgid && (*old).address == pin.address && (*old).length == pin.length
    };
    if same {
        return Inserted::Known;
    }
    // The object's address was used again, so its last life ended unseen.
    count(counter::REPLACED);
    released_record(ctx, object, old);
    if PINS.insert(&object, pin, 0).is_ok() { Inserted::New } else { Inserted::Full }
}

/// The real user id of a task, in the initial user namespace.
#[inline(always)]
pub fn uid_of(task: u64) -> u32 {
    if !has!(owners) {
        return bpf_get_current_uid_gid() as u32;
    }
    // SAFETY: `task` has its BTF type, and so have its credentials.
    unsafe { load32(load(task, offset!(task_cred)), offset!(cred_uid)) }
}

/// Forgets a pin, if it is known.
#[inline(always)]
pub fn released(ctx: *mut c_void, object: u64) {
    let Some(pin) = PINS.get_ptr(&object) else { return };
    released_record(ctx, object, pin);
}

#[inline(always)]
fn released_record(ctx: *mut c_void, object: u64, pin: *const PinRecord) {
    // SAFETY: a live map value; it stays valid until the program ends, even when removed.
    let pin = unsafe { &*pin };
    if let Some(totals) = totals_of(pin) {
        // SAFETY: a live, aligned map value.
        unsafe { fetch_add(&raw mut (*totals).released, 1) };
    }
    tell(ctx, event::RELEASED, object, pin);
    remove_extents(pin.sequence, pin.extents);
    let _ = PINS.remove(&object);
}

/// Takes back a pin that a subsystem has claimed: it was never one by itself.
#[inline(always)]
pub fn take_back(object: u64) {
    let Some(pin) = PINS.get_ptr(&object) else { return };
    // SAFETY: as in `released_record`.
    let pin = unsafe { &*pin };
    if let Some(totals) = totals_of(pin) {
        // SAFETY: a live, aligned map value; `size_class` is within the array.
        unsafe {
            fetch_add(&raw mut (*totals).made, u64::MAX);
            fetch_add(&raw mut (*totals).bytes, pin.length.wrapping_neg());
            fetch_add((&raw mut (*totals).sizes).cast::<u64>().add(size_class(pin.length)), u64::MAX);
        }
    }
    remove_extents(pin.sequence, pin.extents);
    let _ = PINS.remove(&object);
}

/// Removes the second and later extents of a pin.
#[inline(always)]
pub fn remove_extents(sequence: u64, extents: u32) {
    if extents > 1 {
        let mut sequence = sequence;
        // SAFETY: the callback takes a pointer to the sequence number, which outlives the loop.
        unsafe { bpf_loop(extents - 1, remove_extent as *mut c_void, (&raw mut sequence).cast(), 0) };
    }
}

extern "C" fn remove_extent(i: u32, sequence: *mut c_void) -> i64 {
    // SAFETY: see `remove_extents`.
    let sequence = unsafe { *sequence.cast::<u64>() };
    let _ = EXTENTS.remove(&ExtentKey { sequence, index: u64::from(i) + 1 });
    0
}

/// Stores the second or a later extent; false if there is no room.
#[inline(always)]
pub fn store_extent(sequence: u64, index: u64, extent: &ExtentRecord) -> bool {
    let stored = EXTENTS.insert(&ExtentKey { sequence, index }, extent, 0).is_ok();
    if !stored {
        count(counter::EXTENTS_FULL);
    }
    stored
}

/// Tells of a pin, if somebody listens: the daemon's log, or a user who follows what happens.
#[inline(always)]
fn tell(ctx: *mut c_void, what: u32, object: u64, pin: &PinRecord) {
    // SAFETY: a live map value.
    let followed = FOLLOWED.get_ptr(0).is_some_and(|followed| unsafe { *followed } != 0);
    if choice!(history) == 0 && !followed {
        return;
    }
    tell_pin(what, pin);
    if choice!(history) != 0 {
        log(ctx, what, object, pin.address, pin.length);
    }
}

#[inline(never)]
fn tell_pin(what: u32, pin: &PinRecord) {
    let mut told = MaybeUninit::<PinEvent>::uninit();
    let at = told.as_mut_ptr();
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

/// Marks a pin's extents as not exact.
#[inline(always)]
pub fn mark(pin: *mut PinRecord, bits: u32) {
    // SAFETY: the caller's own record.
    unsafe { (*pin).doubt |= bits };
    if bits & doubt::NO_PATH != 0 {
        count(counter::FILES_FULL);
    }
}
