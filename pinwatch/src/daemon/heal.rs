//! Pins whose release nobody saw: the kernel skips a program that is already running on the CPU. They are looked for when it
//! says that it did, when pins have more pages than it counts, and every minute.

use std::time::{Duration, Instant};

use super::Watch;
use crate::kernel::bpf::BpfError;
use crate::source::trace::Snapshot;

/// For so long after a program was skipped, the release that it was to see may be under way.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// When to look for them, and how many were found.
#[derive(Default)]
pub struct Healing {
    found: u64,
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

    /// Whether to look for them now, `skipped` being how many calls the kernel has skipped by now.
    fn is_due(&mut self, skipped: u64, now: Instant) -> bool {
        if std::mem::replace(&mut self.skipped, skipped) != skipped {
            self.until = Some(now + UNDER_WAY);
        }
        let due = self.until.is_some() || self.asked;
        self.asked = false;
        self.until = self.until.filter(|until| now < *until);
        due
    }
}

impl Watch {
    /// What the maps have now, without the pins of which it is known that they are released.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot, BpfError> {
        let skipped = self.programs.losses()?.calls;
        if !self.healing.is_due(skipped, Instant::now()) {
            return Snapshot::read(&self.programs);
        }
        self.healing.found += u64::from(self.programs.sweep()?);
        let mut snapshot = Snapshot::read(&self.programs)?;
        self.healing.found += snapshot.heal(&mut self.programs)? as u64;
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
        assert!(!healing.is_due(0, start));
        assert!(healing.is_due(3, start));
        assert!(healing.is_due(3, start + 9 * second));
        // Another one is skipped.
        assert!(healing.is_due(4, start + 9 * second));
        assert!(healing.is_due(4, start + 18 * second));
        assert!(healing.is_due(4, start + 60 * second));
        assert!(!healing.is_due(4, start + 61 * second));
        healing.ask();
        assert!(healing.is_due(4, start + 62 * second));
        assert!(!healing.is_due(4, start + 63 * second));
    }
}
