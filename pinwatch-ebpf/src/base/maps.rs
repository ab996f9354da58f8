//! The maps that several parts of this crate use, with the counters.
//!
//! What may not be here: what is written into them and why; maps that one file alone uses are in that file.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use core::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};
use pinwatch_common::{
    DeviceName, ExtentKey, ExtentRecord, FileKey, FileRecord, LongPath, ModuleLayout, PinRecord,
    SampledPages, Totals, counter, subsystems::Subsystem,
};

use super::kernel::fetch_add;

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
static MODULE_LAYOUT: Array<ModuleLayout> = Array::with_max_entries(1, 0);
/// `counter`s.
#[map]
static COUNTERS: Array<u64> = Array::with_max_entries(counter::COUNT, 0);
/// What was made and released, by subsystem.
#[map]
pub static TOTALS: Array<Totals> = Array::with_max_entries(Subsystem::ALL.len() as u32, 0);
/// 1: somebody follows pins that are made and released.
#[map]
pub static FOLLOWED: Array<u64> = Array::with_max_entries(1, 0);
/// History, and the daemon's wake-up.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// By which pages a pin is known to be there whose end nobody sees: by [`PinRecord::sequence`].
#[map]
pub static LIVENESS: HashMap<u64, SampledPages> = HashMap::with_max_entries(1 << 16, NO_PREALLOC);
/// The anchors that user space asks for.
#[map]
static ANCHORS: HashMap<u64, u32> = HashMap::with_max_entries(1 << 16, NO_PREALLOC);

/// A value in a map. It stays memory of the map until the program ends, even if it is removed meanwhile; and any bytes are a
/// value of it, since records are made of integers only. Other CPUs may write to it at any time.
pub struct MapRef<'a, T> {
    value: *mut T,
    map: PhantomData<&'a T>,
}

impl<T> MapRef<'_, T> {
    /// The value that a look-up gave.
    ///
    /// # Safety
    /// `value` must be what a look-up in a map of this type gave to this program.
    #[inline(always)]
    unsafe fn new(value: *mut T) -> Self {
        Self { value, map: PhantomData }
    }

    /// Its address, for what has to be atomic or word by word.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut T {
        self.value
    }
}

impl<T> Deref for MapRef<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: by `new`.
        unsafe { &*self.value }
    }
}

impl<T> DerefMut for MapRef<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by `new`.
        unsafe { &mut *self.value }
    }
}

/// Looks up a value of a hash map.
#[inline(always)]
pub fn look_up<'a, K, V>(map: &'a HashMap<K, V>, key: &K) -> Option<MapRef<'a, V>> {
    // SAFETY: just looked up.
    map.get_ptr_mut(key).map(|value| unsafe { MapRef::new(value) })
}

/// Looks up a value of an array.
#[inline(always)]
pub fn element<V>(array: &Array<V>, at: u32) -> Option<MapRef<'_, V>> {
    // SAFETY: just looked up.
    array.get_ptr_mut(at).map(|value| unsafe { MapRef::new(value) })
}

/// What is known of modules' structures.
#[inline(always)]
pub fn module_layout() -> Option<&'static ModuleLayout> {
    MODULE_LAYOUT.get(0)
}

/// Whether user space asks for an anchor.
#[inline(always)]
pub fn is_anchor(object: u64) -> bool {
    object != 0 && ANCHORS.get_ptr(&object).is_some()
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(which: u32) {
    add(which, 1);
}

/// Adds to a counter and gives the new value.
#[inline(always)]
pub fn add(which: u32, n: u64) -> u64 {
    match element(&COUNTERS, which) {
        // SAFETY: a live, aligned map value.
        Some(value) => unsafe { fetch_add(value.as_ptr(), n) + n },
        None => 0,
    }
}
