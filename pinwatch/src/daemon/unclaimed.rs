//! Pins that no subsystem claims: named while the module that made them is there, told of once nobody can claim them any
//! more, and forgotten when none of their pages is pinned any more.

use pinwatch_common::{PinRecord, WitnessRecord, subsystems::Kind};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use tracing::warn;

use super::Watch;
use crate::kernel::bpf::BpfError;
use crate::source::clocks::Clocks;
use crate::source::stacks::Callers;

/// So many are looked at each time: with more of them each is looked at less often.
const AT_ONCE: usize = 1000;
/// One whose system call takes longer than this, in nanoseconds, is shown although a subsystem may still claim it.
const UNDER_WAY: u64 = 1_000_000_000;
/// One whose system call is over is not added to any more after so long, in nanoseconds: a thread of the kernel has no system
/// calls, and pins piece after piece all the same.
const SETTLED: u64 = 5_000_000_000;

/// What is kept of them.
#[derive(Default)]
pub struct Unclaimed {
    /// The code that made them.
    pub(super) callers: Callers,
    /// How many there were when that was last looked at, and how many of them are there.
    noted: u64,
    there: usize,
    /// Which are looked at next.
    next: usize,
    /// Those that are listed.
    told: HashSet<u64>,
    /// Those that cannot be added to any more.
    settled: HashSet<u64>,
}

impl Watch {
    /// Looks at all that are new, and whether those that are known are still there.
    pub(super) fn look_at_unclaimed(&mut self) {
        let noted = self.programs.unclaimed();
        if noted == self.unclaimed.noted && self.unclaimed.there == 0 {
            return;
        }
        self.unclaimed.noted = noted;
        if let Err(error) = self.settle_unclaimed() {
            warn!(%error, "pins that no subsystem claims cannot be looked at");
        }
    }

    fn settle_unclaimed(&mut self) -> Result<(), BpfError> {
        let mut witnesses = self.programs.witnesses()?;
        witnesses.sort_unstable_by_key(|(sequence, _)| *sequence);
        self.unclaimed.callers.learn(&witnesses);
        let keys: Vec<u64> = witnesses.iter().map(|(sequence, _)| *sequence).collect();
        let pins: HashMap<u64, PinRecord> = self.programs.some("PINS", &keys)?.into_iter().collect();
        let now = u64::try_from(Clocks::now().boottime).unwrap_or(0);
        let mut under_way = HashSet::default();
        for (sequence, witness) in &witnesses {
            let Some(pin) = pins.get(sequence) else { continue };
            let age = now.saturating_sub(pin.created);
            let is_told = self.unclaimed.told.contains(sequence);
            if is_told && (self.unclaimed.settled.contains(sequence) || age < SETTLED) {
                continue;
            }
            let in_call = self.programs.is_in_call(witness.registers)?;
            if in_call && age < UNDER_WAY {
                under_way.insert(*sequence);
                continue;
            }
            if !is_told && self.programs.take_back_claimed(*sequence)? {
                continue;
            }
            if self.unclaimed.told.insert(*sequence) && pin.kind == Kind::Unclaimed as u32 {
                self.note_made(pin);
            }
            if !in_call && age >= SETTLED {
                self.programs.settle(pin.pid_tgid, *sequence)?;
                self.unclaimed.settled.insert(*sequence);
            }
        }
        self.forget_released(&witnesses)?;
        let is_there = |sequence: &u64| keys.binary_search(sequence).is_ok();
        self.unclaimed.told.retain(is_there);
        self.unclaimed.settled.retain(is_there);
        self.unclaimed.there = witnesses.len();
        self.unclaimed.callers.under_way = under_way;
        Ok(())
    }

    /// Forgets those of which no page is pinned that was looked at when they were made.
    fn forget_released(&mut self, witnesses: &[(u64, WitnessRecord)]) -> Result<(), BpfError> {
        let begin = if self.unclaimed.next < witnesses.len() { self.unclaimed.next } else { 0 };
        for (sequence, witness) in witnesses.iter().cycle().skip(begin).take(witnesses.len().min(AT_ONCE)) {
            let mut pinned = false;
            for page in &witness.pages {
                pinned = pinned || self.programs.is_pinned(page)?;
            }
            if !pinned {
                self.programs.forget(*sequence, *sequence)?;
            }
        }
        self.unclaimed.next = begin + AT_ONCE;
        Ok(())
    }
}
