//! Pins whose release nobody saw: the kernel skips a program that is already running on the CPU. They are looked for when it
//! says that it did, when pins have more pages than it counts, and every minute.

use std::time::{Duration, Instant};

use tracing::warn;

use super::Watch;
use crate::kernel::bpf::BpfError;
use crate::source::trace::Snapshot;

/// For so long after a program was skipped, the release that it was to see may be under way.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// When to look for them, and how many were found.
#[derive(Default)]
pub struct Healing {
    found: u64,
    /// So many of them while the kernel had skipped programs: those are what it skipped.
    explained: u64,
    /// How many calls the kernel had skipped when that was last looked at.
    skipped: u64,
    /// Until when each look is also for these pins; the first one after that is, too.
    until: Option<Instant>,
    /// Whether the next one is in any case.
    asked: bool,
}

impl Healing {
    /// Has the next look be for these pins, too.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    /// How many were found so far.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    /// How many of the calls that the kernel has skipped are not made up for.
    pub(super) fn unseen(&self, skipped: u64) -> u64 {
        skipped.saturating_sub(self.explained)
    }

    /// Notes what was found, `explained` telling whether the kernel has skipped something lately.
    fn note(&mut self, found: u64, explained: bool) {
        self.found += found;
        if explained {
            self.explained = self.skipped.min(self.explained + found);
        }
    }

    /// Whether to look for them now, `skipped` being how many calls the kernel has skipped by now; and whether some of them lately.
    fn is_due(&mut self, skipped: u64, now: Instant) -> Option<bool> {
        if std::mem::replace(&mut self.skipped, skipped) != skipped {
            self.until = Some(now + UNDER_WAY);
        }
        let lately = self.until.is_some();
        let due = if lately || self.asked { Some(lately) } else { None };
        self.asked = false;
        self.until = self.until.filter(|until| now < *until);
        due
    }
}

impl Watch {
    /// What the maps have now, without the pins of which it is known that they are released.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot, BpfError> {
        let skipped = self.programs.losses()?.calls;
        let Some(lately) = self.healing.is_due(skipped, Instant::now()) else {
            return Snapshot::read(&self.programs);
        };
        // Without it the table is what the hooks have seen, which is mostly right.
        let swept = self.programs.sweep().map_or_else(
            |error| {
                warn!(%error, "pins whose release was not seen cannot be looked for");
                0
            },
            u64::from,
        );
        let mut snapshot = Snapshot::read(&self.programs)?;
        let healed = snapshot.heal(&mut self.programs)? as u64;
        self.healing.note(swept + healed, lately);
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_under_way_are_looked_for_until_they_must_be_over_and_once_more() {
        let mut healing = Healing::default();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(healing.is_due(0, start), None);
        assert_eq!(healing.is_due(3, start), Some(true));
        assert_eq!(healing.is_due(3, start + 9 * second), Some(true));
        // Another one is skipped.
        assert_eq!(healing.is_due(4, start + 9 * second), Some(true));
        assert_eq!(healing.is_due(4, start + 18 * second), Some(true));
        assert_eq!(healing.is_due(4, start + 60 * second), Some(true));
        assert_eq!(healing.is_due(4, start + 61 * second), None);
        healing.ask();
        assert_eq!(healing.is_due(4, start + 62 * second), Some(false));
        assert_eq!(healing.is_due(4, start + 63 * second), None);
    }

    #[test]
    fn what_is_found_without_a_call_that_was_skipped_makes_up_for_none() {
        let mut healing = Healing::default();
        let now = Instant::now();
        healing.ask();
        assert_eq!(healing.is_due(0, now), Some(false));
        healing.note(10, false);
        assert_eq!(healing.is_due(5, now), Some(true));
        assert_eq!((healing.found(), healing.unseen(5)), (10, 5));
        healing.note(3, true);
        assert_eq!((healing.found(), healing.unseen(5)), (13, 2));
        healing.note(9, true);
        assert_eq!((healing.found(), healing.unseen(5), healing.unseen(7)), (22, 0, 2));
    }
}
