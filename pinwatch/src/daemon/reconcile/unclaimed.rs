//! Pins that no subsystem claims: named while the module that made them is there, listed once nobody can claim them any more,
//! and dropped when none of their pages is pinned any more.

use pinwatch_common::{PinRecord, SampledPages, subsystems::Kind};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use tracing::warn;

use crate::kernel::bpf::{BpfError, Programs};
use crate::source::clocks::Clocks;
use crate::source::stacks::Callers;

/// So many are checked at one time: with more of them each is checked less often.
const AT_ONCE: usize = 1000;
/// One whose system call takes longer than this, in nanoseconds, is listed although a subsystem may still claim it.
const UNDER_WAY: u64 = 1_000_000_000;
/// One whose system call is over is not added to any more after so long, in nanoseconds: a thread of the kernel has no system
/// calls, and pins piece after piece all the same.
const SETTLED: u64 = 5_000_000_000;

/// What is remembered of them.
#[derive(Default)]
pub struct Unclaimed {
    /// The code that made them.
    callers: Callers,
    /// How many were ever made, at the last look, and how many of them are there.
    noted: u64,
    there: usize,
    /// Which are checked next.
    next: usize,
    /// Those that are listed.
    listed: HashSet<u64>,
    /// Those that cannot be added to any more.
    settled: HashSet<u64>,
}

impl Unclaimed {
    /// The code that made them.
    pub fn callers(&self) -> &Callers {
        &self.callers
    }

    /// Modules have come or gone.
    pub fn modules_changed(&mut self) {
        self.callers.modules_changed();
    }

    /// Looks at all that are new, and whether those that are known are still there. Gives those that are listed from now on.
    pub fn settle(&mut self, programs: &mut Programs) -> Vec<PinRecord> {
        let mut listed = Vec::new();
        let noted = programs.unclaimed();
        if noted == self.noted && self.there == 0 {
            return listed;
        }
        self.noted = noted;
        if let Err(error) = self.look(programs, &mut listed) {
            warn!(%error, "cannot read the pins that no subsystem claims");
        }
        listed
    }

    fn look(&mut self, programs: &mut Programs, listed: &mut Vec<PinRecord>) -> Result<(), BpfError> {
        let mut samples = programs.sampled_pages()?;
        samples.sort_unstable_by_key(|(sequence, _)| *sequence);
        self.callers.learn(&samples);
        let keys: Vec<u64> = samples.iter().map(|(sequence, _)| *sequence).collect();
        let pins: HashMap<u64, PinRecord> = programs.some("PINS", &keys)?.into_iter().collect();
        let now = u64::try_from(Clocks::now().boottime).unwrap_or(0);
        let mut under_way = HashSet::default();
        for (sequence, sample) in &samples {
            let Some(pin) = pins.get(sequence) else { continue };
            let age = now.saturating_sub(pin.created);
            let is_listed = self.listed.contains(sequence);
            if is_listed && (self.settled.contains(sequence) || age < SETTLED) {
                continue;
            }
            let in_call = programs.is_in_call(sample.registers)?;
            if in_call && age < UNDER_WAY {
                under_way.insert(*sequence);
                continue;
            }
            if !is_listed && programs.take_back_claimed(*sequence)? {
                continue;
            }
            if self.listed.insert(*sequence) && pin.kind == Kind::Unclaimed as u32 {
                listed.push(*pin);
            }
            if !in_call && age >= SETTLED {
                programs.settle(pin.pid_tgid, *sequence)?;
                self.settled.insert(*sequence);
            }
        }
        self.forget_released(programs, &samples)?;
        let is_there = |sequence: &u64| keys.binary_search(sequence).is_ok();
        self.listed.retain(is_there);
        self.settled.retain(is_there);
        self.there = samples.len();
        self.callers.under_way = under_way;
        Ok(())
    }

    /// Drops those of which no sampled page is pinned any more.
    fn forget_released(
        &mut self,
        programs: &mut Programs,
        samples: &[(u64, SampledPages)],
    ) -> Result<(), BpfError> {
        let begin = if self.next < samples.len() { self.next } else { 0 };
        for (sequence, sample) in samples.iter().cycle().skip(begin).take(samples.len().min(AT_ONCE)) {
            let mut pinned = false;
            for page in &sample.pages {
                pinned = pinned || programs.is_pinned(page)?;
            }
            if !pinned {
                programs.forget(*sequence, *sequence)?;
            }
        }
        self.next = begin + AT_ONCE;
        Ok(())
    }
}
