//! What a thread carries from one program to a later one: a call's arguments from its entry to its return, the mark by which
//! the second instance of a program sees that the first has run, memory that a name will be found for.
//!
//! A hash map would do, at three times the price: an entry here lives for microseconds. So there is an array, in which a
//! thread's place follows from its id, and the hash map is for a place that another thread has.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, HashMap},
};
use core::mem::MaybeUninit;
use pinwatch_common::subsystems::Purpose;

use crate::kernel::{compare_exchange, copy};

/// Words that are carried at most.
const WORDS: usize = 4;

#[repr(C)]
struct Place {
    /// 0 if free.
    key: u64,
    words: [u64; WORDS],
}

/// Threads with ids that differ in these bits have places of their own.
const THREADS: u64 = 256;

#[map]
static PLACES: Array<Place> = Array::with_max_entries(THREADS as u32 * Purpose::COUNT, 0);
#[map]
static DISPLACED: HashMap<u64, [u64; WORDS]> = HashMap::with_max_entries(16384, 1);

/// What [`leave`] has met.
#[derive(PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    New,
    /// What was left before and never taken.
    Again,
    /// No room.
    Full,
}

/// The purpose goes where no thread group id reaches: pids have at most 22 bits (`PID_MAX_LIMIT`).
#[inline(always)]
fn key(thread: u64, purpose: Purpose) -> u64 {
    thread | u64::from(purpose.number()) << 56
}

#[inline(always)]
fn place(thread: u64, purpose: Purpose) -> Option<*mut Place> {
    PLACES.get_ptr_mut((thread & (THREADS - 1)) as u32 | purpose.number() << THREADS.trailing_zeros())
}

/// Leaves words for a later program of this thread.
#[inline(always)]
pub fn leave<const N: usize>(purpose: Purpose, words: &[u64; N]) -> Left {
    let thread = bpf_get_current_pid_tgid();
    let key = key(thread, purpose);
    let Some(place) = place(thread, purpose) else { return Left::Full };
    // SAFETY: a live map value. Whoever has written the key owns the words.
    unsafe {
        let before = compare_exchange(&raw mut (*place).key, 0, key);
        if before == 0 || before == key {
            copy((&raw mut (*place).words).cast(), words);
            return if before == 0 { Left::New } else { Left::Again };
        }
    }
    displaced(key, words)
}

/// [`leave`] where the place is another thread's.
#[inline(always)]
fn displaced<const N: usize>(key: u64, words: &[u64; N]) -> Left {
    const NOEXIST: u64 = 1;
    let mut all = [0; WORDS];
    all[..N].copy_from_slice(words);
    if DISPLACED.insert(&key, &all, NOEXIST).is_ok() {
        Left::New
    } else if DISPLACED.insert(&key, &all, 0).is_ok() {
        Left::Again
    } else {
        Left::Full
    }
}

/// The words that were left; they stay.
#[inline(always)]
pub fn find(purpose: Purpose) -> Option<*mut u64> {
    let thread = bpf_get_current_pid_tgid();
    let key = key(thread, purpose);
    let place = place(thread, purpose)?;
    // SAFETY: a live map value.
    unsafe {
        if (*place).key == key {
            return Some((&raw mut (*place).words).cast());
        }
    }
    DISPLACED.get_ptr_mut(&key).map(<*mut _>::cast)
}

/// Takes the words that were left.
#[inline(always)]
pub fn take<const N: usize>(purpose: Purpose) -> Option<[u64; N]> {
    let thread = bpf_get_current_pid_tgid();
    let key = key(thread, purpose);
    let place = place(thread, purpose)?;
    let mut words = MaybeUninit::<[u64; N]>::uninit();
    // SAFETY: live map values, which are this thread's as long as they have its key; all words are written.
    unsafe {
        if (*place).key == key {
            copy(words.as_mut_ptr(), (&raw const (*place).words).cast());
            (&raw mut (*place).key).write_volatile(0);
        } else {
            copy(words.as_mut_ptr(), DISPLACED.get_ptr(&key)?.cast());
            let _ = DISPLACED.remove(&key);
        }
        Some(words.assume_init())
    }
}

/// Clears what a thread has left, if it begins with this word: nothing will come of it any more, and the place is another
/// thread's for the asking.
#[inline(always)]
pub fn clear(thread: u64, purpose: Purpose, first: u64) {
    let key = key(thread, purpose);
    let Some(place) = place(thread, purpose) else { return };
    // SAFETY: live map values.
    unsafe {
        if (*place).key == key {
            if (*place).words[0] == first {
                compare_exchange(&raw mut (*place).key, key, 0);
            }
        } else if DISPLACED.get_ptr(&key).is_some_and(|words| (*words)[0] == first) {
            let _ = DISPLACED.remove(&key);
        }
    }
}
