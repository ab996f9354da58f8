//! What a thread carries from one program to a later one: a call's arguments from its entry to its return, the mark by which
//! the backup of a program sees that the primary has run, memory that a name will be found for.
//!
//! A hash map would do, at three times the price: an entry here lives for microseconds. So there is an array, in which a
//! thread's place follows from its id, and the hash map is for a place that another thread has.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, HashMap},
};
use core::mem::MaybeUninit;
use pinwatch_common::subsystems::Slot;

use super::kernel::{compare_exchange, copy};

/// Words that are carried at most.
const WORDS: usize = 4;

#[repr(C)]
struct Entry {
    /// 0 if free.
    key: u64,
    words: [u64; WORDS],
}

/// Threads with ids that differ in these bits have places of their own.
const THREADS: u64 = 256;

#[map]
static THREAD_SLOTS: Array<Entry> = Array::with_max_entries(THREADS as u32 * Slot::COUNT, 0);
#[map]
static DISPLACED: HashMap<u64, [u64; WORDS]> = HashMap::with_max_entries(16384, 1);

/// What [`put`] has met.
#[derive(PartialEq, Eq)]
pub enum Put {
    /// Nothing.
    New,
    /// What was left before and never taken.
    Again,
    /// No room.
    Full,
}

/// The slot goes where no thread group id reaches: pids have at most 22 bits (`PID_MAX_LIMIT`).
#[inline(always)]
fn key(thread: u64, slot: Slot) -> u64 {
    thread | u64::from(slot.number()) << 56
}

#[inline(always)]
fn entry(thread: u64, slot: Slot) -> Option<*mut Entry> {
    THREAD_SLOTS.get_ptr_mut((thread & (THREADS - 1)) as u32 | slot.number() << THREADS.trailing_zeros())
}

/// Leaves words for a later program of this thread.
#[inline(always)]
pub fn put<const N: usize>(slot: Slot, words: &[u64; N]) -> Put {
    let thread = bpf_get_current_pid_tgid();
    let key = key(thread, slot);
    let Some(entry) = entry(thread, slot) else { return Put::Full };
    // SAFETY: a live map value. Whoever has written the key owns the words.
    unsafe {
        let before = compare_exchange(&raw mut (*entry).key, 0, key);
        if before == 0 || before == key {
            copy((&raw mut (*entry).words).cast(), words);
            return if before == 0 { Put::New } else { Put::Again };
        }
    }
    displaced(key, words)
}

/// [`put`] where the place is another thread's.
#[inline(always)]
fn displaced<const N: usize>(key: u64, words: &[u64; N]) -> Put {
    const NOEXIST: u64 = 1;
    let mut all = [0; WORDS];
    all[..N].copy_from_slice(words);
    if DISPLACED.insert(&key, &all, NOEXIST).is_ok() {
        Put::New
    } else if DISPLACED.insert(&key, &all, 0).is_ok() {
        Put::Again
    } else {
        Put::Full
    }
}

/// The words that were left; they stay.
#[inline(always)]
pub fn peek(slot: Slot) -> Option<*mut u64> {
    let thread = bpf_get_current_pid_tgid();
    let key = key(thread, slot);
    let entry = entry(thread, slot)?;
    // SAFETY: a live map value.
    unsafe {
        if (*entry).key == key {
            return Some((&raw mut (*entry).words).cast());
        }
    }
    DISPLACED.get_ptr_mut(&key).map(<*mut _>::cast)
}

/// Takes the words that were left.
#[inline(always)]
pub fn take<const N: usize>(slot: Slot) -> Option<[u64; N]> {
    let thread = bpf_get_current_pid_tgid();
    let key = key(thread, slot);
    let entry = entry(thread, slot)?;
    let mut words = MaybeUninit::<[u64; N]>::uninit();
    // SAFETY: live map values, which are this thread's as long as they have its key; all words are written.
    unsafe {
        if (*entry).key == key {
            copy(words.as_mut_ptr(), (&raw const (*entry).words).cast());
            (&raw mut (*entry).key).write_volatile(0);
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
pub fn clear(thread: u64, slot: Slot, first: u64) {
    let key = key(thread, slot);
    let Some(entry) = entry(thread, slot) else { return };
    // SAFETY: live map values.
    unsafe {
        if (*entry).key == key {
            if (*entry).words[0] == first {
                compare_exchange(&raw mut (*entry).key, key, 0);
            }
        } else if DISPLACED.get_ptr(&key).is_some_and(|words| (*words)[0] == first) {
            let _ = DISPLACED.remove(&key);
        }
    }
}
