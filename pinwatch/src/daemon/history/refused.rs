//! The latest pins that the kernel refused.

use std::collections::VecDeque;

use pinwatch_common::RefusedEvent;
use tracing::warn;

use super::leases::comm;
use crate::model::{File, Reason, Refusal, Subsystem, Who};
use crate::source::clocks::Clocks;
use crate::subsystem;

/// So many are kept.
const KEPT: usize = 1000;
/// A subsystem's refusal within so many nanoseconds of an unclaimed one of the same thread is the same refusal, seen above and
/// below.
const SAME: i64 = 1_000_000_000;

/// What is kept.
#[derive(Default)]
pub struct Refusals {
    latest: VecDeque<Refusal>,
    /// By subsystem, in the order of [`Subsystem::ALL`], and reason, in that of [`Reason::WORDS`].
    counts: [[u64; Reason::WORDS.len()]; Subsystem::ALL.len()],
}

impl Refusals {
    /// Takes note of a refusal. `module`: the one that called, `file`: the one that may be the reason, as far as they are known.
    pub fn note(&mut self, event: &RefusedEvent, module: Option<String>, file: Option<File>, clocks: Clocks) {
        let (subsystem, reason) = match subsystem::refusal(event) {
            Ok(refusal) => refusal,
            Err(unknown) => return warn!(%unknown, "a refused pin is not listed"),
        };
        self.add(Refusal {
            time: clocks.of(event.event.time),
            who: Who { pid: event.event.pid, comm: comm(&event.comm), uid: Some(event.uid) },
            tid: event.tid,
            subsystem,
            module,
            address: event.address,
            bytes: event.length,
            errno: event.errno,
            reason,
            file,
        });
    }

    fn add(&mut self, refusal: Refusal) {
        let again = |before: &Refusal| {
            before.subsystem == Subsystem::Unclaimed
                && refusal.subsystem != Subsystem::Unclaimed
                && before.tid == refusal.tid
                && refusal.time - before.time < SAME
                && before.address.wrapping_sub(refusal.address) < refusal.bytes.max(1)
        };
        if self.latest.back().is_some_and(again)
            && let Some(before) = self.latest.pop_back()
        {
            self.count(&before, |count| count.saturating_sub(1));
        }
        self.count(&refusal, |count| count + 1);
        if self.latest.len() == KEPT {
            self.latest.pop_front();
        }
        self.latest.push_back(refusal);
    }

    fn count(&mut self, refusal: &Refusal, change: impl Fn(u64) -> u64) {
        let subsystem = Subsystem::ALL.iter().position(|known| *known == refusal.subsystem);
        let reason = Reason::WORDS.iter().position(|word| *word == refusal.reason.word());
        if let (Some(subsystem), Some(reason)) = (subsystem, reason) {
            self.counts[subsystem][reason] = change(self.counts[subsystem][reason]);
        }
    }

    /// How many there were, by subsystem and reason.
    pub fn counts(&self) -> impl Iterator<Item = (Subsystem, &'static str, u64)> {
        let reasons = |(subsystem, counts): (Subsystem, [u64; Reason::WORDS.len()])| {
            Reason::WORDS.into_iter().zip(counts).map(move |(word, count)| (subsystem, word, count))
        };
        Subsystem::ALL.into_iter().zip(self.counts).flat_map(reasons)
    }

    /// Those that a user may see: root all, others their own.
    pub fn visible_to(&self, uid: u32) -> Vec<Refusal> {
        self.latest.iter().filter(|refusal| refusal.is_visible_to(uid)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(subsystem: Subsystem, time: i64) -> Refusal {
        Refusal {
            time,
            who: Who { pid: 5, uid: Some(7), ..Who::default() },
            tid: 5,
            subsystem,
            module: None,
            address: 0x1000,
            bytes: 8192,
            errno: libc::EFAULT,
            reason: Reason::ReadOnly,
            file: None,
        }
    }

    #[test]
    fn a_subsystems_refusal_takes_the_place_of_the_one_below_it() {
        let mut refusals = Refusals::default();
        refusals.add(refusal(Subsystem::Unclaimed, 0));
        refusals.add(refusal(Subsystem::Xdp, 10));
        refusals.add(refusal(Subsystem::Unclaimed, 20));
        refusals.add(refusal(Subsystem::Xdp, 20 + SAME));
        let kept: Vec<Subsystem> = refusals.visible_to(7).iter().map(|refusal| refusal.subsystem).collect();
        assert_eq!(kept, [Subsystem::Xdp, Subsystem::Unclaimed, Subsystem::Xdp]);
        assert_eq!(refusals.visible_to(8), []);
        let counted: Vec<_> = refusals.counts().filter(|(.., count)| *count > 0).collect();
        assert_eq!(counted, [(Subsystem::Xdp, "read-only", 2), (Subsystem::Unclaimed, "read-only", 1)]);
    }

    #[test]
    fn the_oldest_go() {
        let mut refusals = Refusals::default();
        (0..KEPT as i64 + 5).for_each(|time| refusals.add(refusal(Subsystem::Rdma, time)));
        let kept = refusals.visible_to(0);
        assert_eq!((kept.len(), kept[0].time), (KEPT, 5));
    }
}
