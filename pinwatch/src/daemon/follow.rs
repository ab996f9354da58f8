//! Following what happens: the ring is drained, verdicts are looked at anew where a lease has changed, and all of it is put
//! into the history.

use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use pinwatch_common::{Event as RingEvent, FileKey, PinEvent, PinRecord, event};
use tracing::{debug, warn};

use super::Watch;
use super::history::{Breaks, History};
use crate::model::{Event, LeasePolicy, Table};
use crate::source::clocks::Clocks;
use crate::source::leases::OVERLAYFS;
use crate::source::trace::{RingRecord, Snapshot};

/// A look that nobody asked for comes no sooner than so many times as long as the latest one took: it is to cost 5 % of one
/// CPU at most, and 20 % while leases on pinned files change all the time.
const REST: u32 = 20;
const SHORT_REST: u32 = 4;
/// So many ticks, a second, pass between two looks while a pinned file has a lease.
const WATCH_TICKS: u32 = 2;
/// So many files are looked for among a process's descriptors at one time.
const SEARCHES: u32 = 32;
/// So many may follow at once: others have to have room to ask.
const MAX_FOLLOWERS: u32 = 16;
/// Of so many pins that lose their leases at once each is logged.
const WARNINGS: usize = 8;

/// What it takes to follow.
#[derive(Default)]
pub struct Follow {
    pub(super) ring: Option<RingBuf<MapData>>,
    pub(super) history: History,
    /// A lease on a pinned file has changed.
    due: bool,
    /// When the latest look ended, and how long it took.
    looked: Option<(Instant, Duration)>,
    followers: u32,
    policy: LeasePolicy,
    received: u64,
}

impl Follow {
    /// Nothing has happened yet.
    pub fn new(ring: Option<RingBuf<MapData>>, policy: LeasePolicy) -> Self {
        Self { ring, policy, ..Self::default() }
    }

    /// Which pins are to have a lease.
    pub fn policy(&self) -> LeasePolicy {
        self.policy
    }

    /// Whether a lease on a pinned file has changed since the latest look.
    pub fn is_due(&self) -> bool {
        self.due
    }

    /// Events that came from the kernel's programs.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How waits for leases have ended.
    pub fn breaks(&self) -> &Breaks {
        self.history.breaks()
    }

    /// Takes note of a look: what it cost, and what it says.
    pub fn looked(&mut self, began: Instant, table: &Table, now: i64) {
        self.due = false;
        let mut unleased = self.history.observe(table, now);
        unleased.retain(|pin| table.is_unleased(pin, self.policy));
        for pin in unleased.iter().take(WARNINGS) {
            let file = pin.parts.iter().find_map(|part| table.file(part.file?));
            let file = file.map(|file| file.path.text()).unwrap_or_default();
            warn!(pin = %pin.id, file = &*file, "a pin has lost its lease: nobody is asked before its file is taken away");
        }
        if unleased.len() > WARNINGS {
            warn!(
                "{} more pins have lost their leases; `lspins --unleased` lists them",
                unleased.len() - WARNINGS
            );
        }
        self.looked = Some((Instant::now(), began.elapsed()));
    }

    /// Whether so many times as long as the latest look took have passed since it.
    fn has_rested(&self, times: u32) -> bool {
        self.looked.is_none_or(|(ended, took)| ended.elapsed() >= took * times)
    }
}

impl Watch {
    /// Looks at what has happened since the last time.
    pub(super) fn drain(&mut self) {
        let (mut modules_changed, mut unclaimed, mut refused) = (false, false, Vec::new());
        let Some(ring) = &mut self.follow.ring else { return };
        let (clocks, history) = (Clocks::now(), &mut self.follow.history);
        while let Some(item) = ring.next() {
            self.follow.received += 1;
            match RingRecord::parse(&item) {
                Some(RingRecord::Modules) => modules_changed = true,
                Some(RingRecord::Unclaimed) => unclaimed = true,
                Some(RingRecord::Refused(event)) => refused.push(event),
                Some(RingRecord::Pin(pin)) => {
                    let (sequence, what) = (pin.event.sequence, pin.event.what);
                    debug!(sequence, pid = pin.event.pid, what, "pin");
                    if self.follow.followers > 0 {
                        history.pin(&pin, clocks);
                    }
                }
                Some(RingRecord::Lease(lease)) => {
                    let file = lease.file;
                    // Of a lease through overlayfs only a look tells what is below.
                    let is_pinned = history.is_pinned(&file) || lease.magic == OVERLAYFS;
                    self.follow.due |= is_pinned || Snapshot::file(&self.programs, &file).is_some();
                    history.lease(&lease, clocks);
                }
                None => {}
            }
        }
        if modules_changed {
            self.unclaimed.callers.modules_changed();
            self.follow_modules();
        }
        refused.iter().for_each(|event| self.refused(event, clocks));
        // While the module that made it is there: its symbols go with it.
        if unclaimed {
            self.look_at_unclaimed();
        }
    }

    /// Takes note of a pin that the kernel's programs do not tell of: that nobody claims it is known only afterwards.
    pub(super) fn note_made(&mut self, pin: &PinRecord) {
        if self.follow.followers == 0 {
            return;
        }
        let creator = (pin.pid_tgid >> 32) as u32;
        let (time, sequence, what) = (pin.created, pin.sequence, event::MADE);
        let event = RingEvent { time, sequence, what, kind: pin.kind, pid: creator, reserved: 0 };
        let (file, length, start, comm, uid) = (pin.first.file, pin.length, pin.start, pin.comm, pin.uid);
        let told = PinEvent { event, file, length, start, comm, creator, uid };
        self.follow.history.pin(&told, Clocks::now());
    }

    /// What is done when the ring has something that cannot wait.
    pub fn hurry(&mut self) {
        self.drain();
        self.catch_up(false);
    }

    /// What is done twice a second.
    pub fn tick(&mut self) {
        self.drain();
        self.look_at_unclaimed();
        self.tidy();
        self.refresh();
        let watches = self.follow.history.watches();
        self.catch_up(watches && self.ticks.is_multiple_of(WATCH_TICKS));
    }

    /// Looks at verdicts anew if they have changed, or `may_have`; then tells of what has happened.
    fn catch_up(&mut self, may_have: bool) {
        let follow = &self.follow;
        let wanted = follow.due && follow.has_rested(SHORT_REST) || may_have && follow.has_rested(REST);
        if wanted && let Err(error) = self.look() {
            warn!(%error, "leases cannot be looked at");
        }
        // What concerns a pinned file is told of when that was looked at.
        if !self.follow.due {
            self.tell();
        }
    }

    /// Puts what was noted into the history.
    fn tell(&mut self) {
        self.follow.history.lost(self.programs.events_lost());
        let clocks = Clocks::now();
        for (tid, thread) in self.follow.history.waiting() {
            if let Some(ended) = self.programs.wait_ended(thread, clocks.boottime.cast_unsigned()) {
                self.follow.history.stopped(tid, clocks.of(ended));
            }
        }
        let (programs, lookup, mut searches) = (&self.programs, &mut self.states.lookup, SEARCHES);
        let name = |key: &FileKey, pid: u32| {
            Snapshot::file(programs, key).or_else(|| {
                searches = searches.checked_sub(1)?;
                lookup.opened(pid, key)
            })
        };
        self.follow.history.tell(Clocks::now().realtime, name);
    }

    /// Events after this number that a user may see.
    pub fn events_after(&self, number: u64, uid: u32) -> Vec<Event> {
        self.follow.history.after(number, uid)
    }

    /// The number of the latest event.
    pub fn latest_event(&self) -> u64 {
        self.follow.history.latest()
    }

    /// Somebody begins or ends to follow: pins are told of while anybody does.
    ///
    /// # Errors
    /// Why not, as a sentence for them.
    pub fn follower(&mut self, comes: bool) -> Result<(), String> {
        let before = self.follow.followers;
        if comes && before == MAX_FOLLOWERS {
            return Err(format!("{MAX_FOLLOWERS} others follow already; end one of them"));
        }
        self.follow.followers = if comes { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (self.follow.followers == 0) {
            self.programs.follow_pins(comes).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
