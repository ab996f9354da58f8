//! When to look for pins whose release no hook saw: the kernel skips a program that is already running on the CPU. They are
//! looked for when it says that it did, when pins have more pages than it counts, and every minute.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::kernel::bpf::{BpfError, Programs};
use crate::source::trace::Snapshot;
use crate::subsystem;

/// For so long after a program was skipped, the release that it was to see may be under way.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// When to look for them, and how many were reaped.
#[derive(Default)]
pub struct Reaper {
    reaped: u64,
    /// So many of them while the kernel had skipped programs: those are what it skipped.
    explained: u64,
    /// How many calls the kernel had skipped at the latest pass.
    skipped: u64,
    /// Until when each pass also looks for these pins; the first one after that does, too.
    until: Option<Instant>,
    /// Whether the next one does in any case.
    requested: bool,
}

impl Reaper {
    /// Has the next pass look for these pins, too.
    pub fn request(&mut self) {
        self.requested = true;
    }

    /// How many were reaped so far.
    pub fn reaped(&self) -> u64 {
        self.reaped
    }

    /// How many of the calls that the kernel has skipped are not made up for.
    pub fn unseen(&self, skipped: u64) -> u64 {
        skipped.saturating_sub(self.explained)
    }

    /// What the maps have now, without the pins of which it is known that they are released.
    ///
    /// # Errors
    /// [`BpfError`]
    pub fn snapshot(&mut self, programs: &mut Programs) -> Result<Snapshot, BpfError> {
        let skipped = programs.missed()?.skipped;
        let Some(lately) = self.is_due(skipped, Instant::now()) else {
            return Snapshot::read(programs);
        };
        // Without the sweep the table is what the hooks have seen, which is mostly right.
        let swept = programs.sweep().map_or_else(
            |error| {
                warn!(%error, "cannot look for pins whose release was missed");
                0
            },
            u64::from,
        );
        let mut snapshot = Snapshot::read(programs)?;
        let gone = reap_known(&mut snapshot, programs)?;
        self.note(swept + gone, lately);
        Ok(snapshot)
    }

    /// Notes what was reaped, `explained` telling whether the kernel has skipped something lately.
    fn note(&mut self, reaped: u64, explained: bool) {
        self.reaped += reaped;
        if explained {
            self.explained = self.skipped.min(self.explained + reaped);
        }
    }

    /// Whether to look for them now, `skipped` being how many calls the kernel has skipped by now; and whether it skipped some
    /// of them lately.
    fn is_due(&mut self, skipped: u64, now: Instant) -> Option<bool> {
        if std::mem::replace(&mut self.skipped, skipped) != skipped {
            self.until = Some(now + UNDER_WAY);
        }
        let lately = self.until.is_some();
        let due = if lately || self.requested { Some(lately) } else { None };
        self.requested = false;
        self.until = self.until.filter(|until| now < *until);
        due
    }
}

/// Takes pins out of the snapshot and the kernel's map of which the rooms of their subsystems know that they are gone. Gives
/// how many.
fn reap_known(snapshot: &mut Snapshot, programs: &mut Programs) -> Result<u64, BpfError> {
    let mut reaped = 0;
    for room in subsystem::ALL {
        if !snapshot.has_pins_of(room.id()) {
            continue;
        }
        let Some(is_gone) = room.gone() else { continue };
        for (object, sequence) in snapshot.take_gone(room.id(), &*is_gone) {
            programs.forget(object, sequence)?;
            reaped += 1;
        }
    }
    Ok(reaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_under_way_are_looked_for_until_they_must_be_over_and_once_more() {
        let mut reaper = Reaper::default();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(reaper.is_due(0, start), None);
        assert_eq!(reaper.is_due(3, start), Some(true));
        assert_eq!(reaper.is_due(3, start + 9 * second), Some(true));
        // Another one is skipped.
        assert_eq!(reaper.is_due(4, start + 9 * second), Some(true));
        assert_eq!(reaper.is_due(4, start + 18 * second), Some(true));
        assert_eq!(reaper.is_due(4, start + 60 * second), Some(true));
        assert_eq!(reaper.is_due(4, start + 61 * second), None);
        reaper.request();
        assert_eq!(reaper.is_due(4, start + 62 * second), Some(false));
        assert_eq!(reaper.is_due(4, start + 63 * second), None);
    }

    #[test]
    fn what_is_reaped_without_a_call_that_was_skipped_makes_up_for_none() {
        let mut reaper = Reaper::default();
        let now = Instant::now();
        reaper.request();
        assert_eq!(reaper.is_due(0, now), Some(false));
        reaper.note(10, false);
        assert_eq!(reaper.is_due(5, now), Some(true));
        assert_eq!((reaper.reaped(), reaper.unseen(5)), (10, 5));
        reaper.note(3, true);
        assert_eq!((reaper.reaped(), reaper.unseen(5)), (13, 2));
        reaper.note(9, true);
        assert_eq!((reaper.reaped(), reaper.unseen(5), reaper.unseen(7)), (22, 0, 2));
    }
}
