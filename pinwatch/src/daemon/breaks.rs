//! How waits for leases have ended, counted since the start.

use crate::model::Outcome;

/// Bounds of the classes of waits, nanoseconds: up to the kernel's usual deadline, 45 s, and beyond.
const WAITS: [u64; 10] = [
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    5_000_000_000,
    15_000_000_000,
    45_000_000_000,
    90_000_000_000,
    300_000_000_000,
    900_000_000_000,
];

/// How waits for leases have ended.
#[derive(Default)]
pub struct Breaks {
    /// By [`Outcome::ALL`].
    pub outcomes: [u64; 4],
    by_length: [u64; WAITS.len() + 1],
    nanoseconds: u64,
}

impl Breaks {
    /// Counts one that took so many nanoseconds.
    pub fn add(&mut self, outcome: Outcome, waited: u64) {
        for (count, known) in self.outcomes.iter_mut().zip(Outcome::ALL) {
            *count += u64::from(known == outcome);
        }
        let class = WAITS.iter().position(|bound| waited <= *bound).unwrap_or(WAITS.len());
        self.by_length[class] += 1;
        self.nanoseconds = self.nanoseconds.saturating_add(waited);
    }

    /// Classes of how long they took: the upper bound in nanoseconds, and how many took at most so long but longer than the bound
    /// before.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64)> {
        WAITS.into_iter().zip(self.by_length)
    }

    /// How many took longer than all bounds.
    pub fn longer(&self) -> u64 {
        self.by_length[WAITS.len()]
    }

    /// How long all of them took together.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds
    }
}
