//! What the programs count.

use super::no_padding;

/// Indices of the map of counters.
pub mod counter {
    /// Next sequence number of a pin.
    pub const SEQUENCE: u32 = 0;
    /// Pins that found no room in the map of pins.
    pub const PINS_FULL: u32 = 1;
    /// Extents that found no room.
    pub const EXTENTS_FULL: u32 = 2;
    /// Files that found no room.
    pub const FILES_FULL: u32 = 3;
    /// Calls that found no room in the map of calls under way.
    pub const CALLS_FULL: u32 = 4;
    /// Returns that were never seen (kretprobe instances ran out).
    pub const RETURNS_MISSED: u32 = 5;
    /// Records that a new object replaced: its predecessor's end was missed.
    pub const REPLACED: u32 = 6;
    /// Ring buffer events that found no room. No pin is lost by that.
    pub const EVENTS_LOST: u32 = 7;
    /// VMA look-ups that had to be repeated.
    pub const VMA_RETRIES: u32 = 8;
    /// Calls whose first instance could leave no mark for the second: so many of `RECOVERED` may be none.
    pub const UNMARKED: u32 = 9;
    /// Rings that a buffer was cloned into and that found no room.
    pub const SHARES_FULL: u32 = 10;
    /// Times that buffers were cloned.
    pub const CLONES: u32 = 11;
    /// Leases that found no room.
    pub const LEASES_FULL: u32 = 12;
    /// Threads that wait for a lease and that found no room.
    pub const WAITERS_FULL: u32 = 13;
    /// Pins that nobody claimed at once; most are claimed by a subsystem a moment later.
    pub const UNCLAIMED: u32 = 14;
    /// Plus a hook's number: calls that the first instance of its program missed, and the second one saw and had work with.
    pub const RECOVERED: u32 = 15;
    /// How many counters there are.
    pub const COUNT: u32 = RECOVERED + crate::subsystems::HookId::COUNT;
}

/// The first size class of [`Totals::sizes`], a power of two; each further one is four times as large.
pub const SMALLEST_SIZE: u32 = 12;
/// How many size classes there are; the last one has no upper bound.
pub const SIZES: usize = 16;

/// What a subsystem has registered since it is watched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Pins made.
    pub made: u64,
    /// Pins whose release was seen.
    pub released: u64,
    /// Bytes of the pins made.
    pub bytes: u64,
    /// Pins made by size: the first has those of at most 4 KiB, the next of at most 16 KiB.
    pub sizes: [u64; SIZES],
}

const _: () = no_padding::<Totals>((3 + SIZES) * 8);
