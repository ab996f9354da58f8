//! The daemon's core: it owns the hooks, the reconciler, the history and the exporter, and passes each what it needs of the
//! others. None of these imports another one, or the core.
//!
//! It keeps no copy of the pins: what the kernel's maps hold is the truth, and is read when somebody asks.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use pinwatch_common::{FileKey, RefusedEvent, Totals};
use tracing::warn;

use super::events::{Events, FollowError};
use super::exporter::{self, Activity, Exporter, HttpCounts, Limits, MetricsError, References, Report};
use super::history::{History, Refusals};
use super::hooks::{Hooks, StartError};
use super::reconcile::{Pass, Reconciler};
use crate::kernel::bpf::BpfError;
use crate::kernel::plan::Choices;
use crate::kernel::sys;
use crate::model::{Event, Gap, LeasePolicy, Pin, Refusal, Subsystem, Table};
use crate::source::clocks::Clocks;
use crate::source::file_records::nameless;
use crate::source::trace::Snapshot;

/// As [`exporter::PASS_REST`], while leases on pinned files change all the time: 20 % of one CPU at most.
const SHORT_REST: u32 = 4;
/// So many ticks, a second, pass between two passes while a pinned file has a lease.
const LEASE_TICKS: u32 = 2;
/// So many ticks, a minute, pass between two passes that keep house.
const HOUSEKEEPING_TICKS: u32 = 120;
/// Of so many pins that lose their leases at once each is logged.
const WARNINGS: usize = 8;
/// The maps whose entries are those of pins.
const MAPS: [&str; 3] = ["pins", "extents", "files"];

/// What the core is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is hooked, and how.
    pub choices: Choices,
    /// Room for so many pins.
    pub max_pins: u32,
    /// Whether the BPF programs log.
    pub bpf_log: bool,
    /// Which pins need a lease.
    pub policy: LeasePolicy,
    /// What metrics name.
    pub limits: Limits,
}

/// Why the daemon is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Hooks could not be attached.
    #[error("{missing} hooks are missing, among them {hook}: {reason}")]
    HooksMissing {
        /// How many.
        missing: usize,
        /// One of them.
        hook: &'static str,
        /// Why.
        reason: String,
    },
    /// No pass was made yet.
    #[error("pins have not been read yet")]
    NoPass,
}

/// All that the daemon has.
pub struct Core {
    hooks: Hooks,
    reconciler: Reconciler,
    events: Events,
    history: History,
    refusals: Refusals,
    exporter: Exporter,
    policy: LeasePolicy,
    ticks: u32,
    /// When the latest pass ended, and how long it took.
    latest_pass: Option<(Instant, Duration)>,
}

impl Core {
    /// Loads and attaches.
    ///
    /// # Errors
    /// [`StartError`] if no pin would be seen.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        // Before the hooks are attached: it tries a lease, which is nobody's business.
        let reconciler = Reconciler::new();
        let mut hooks = Hooks::start(&options.choices, options.max_pins, options.bpf_log)?;
        let events = Events::new(hooks.programs_mut().take_events());
        Ok(Self {
            hooks,
            reconciler,
            events,
            history: History::default(),
            refusals: Refusals::default(),
            exporter: Exporter::new(options.limits),
            policy: options.policy,
            ticks: 0,
            latest_pass: None,
        })
    }

    /// The loaded object, for the log of the BPF programs.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        self.hooks.programs_mut().ebpf()
    }

    /// Becomes ready to read when [`Self::on_wakeup`] is due.
    ///
    /// # Errors
    /// If there is no ring buffer.
    pub fn wakeups(&self) -> io::Result<OwnedFd> {
        self.events.descriptor()
    }

    /// What is done when the ring buffer has something that cannot wait.
    pub fn on_wakeup(&mut self) {
        self.drain();
        self.refresh_coverage(false);
    }

    /// What is done twice a second.
    pub fn tick(&mut self) {
        self.drain();
        self.settle_unclaimed();
        // Devices may come without a module.
        self.hooks.follow_modules();
        self.ticks += 1;
        if self.ticks.is_multiple_of(HOUSEKEEPING_TICKS) {
            self.housekeep();
        }
        if self.exporter.is_due(Instant::now(), || self.has_changed()) {
            self.pass_for_metrics();
        }
        let has_leases = self.history.watches();
        self.refresh_coverage(has_leases && self.ticks.is_multiple_of(LEASE_TICKS));
    }

    /// Makes a pass.
    ///
    /// # Errors
    /// [`BpfError::Map`] if the maps cannot be read.
    pub fn pass(&mut self) -> Result<Pass, BpfError> {
        let began = Instant::now();
        // A module that was loaded a moment ago may not have been seen yet.
        self.drain();
        self.hooks.follow_modules();
        self.settle_unclaimed();
        let activity = self.activity();
        let (gaps, sees_leases) = (self.hooks.gaps(), self.hooks.sees_leases());
        let times = |lease| self.history.times(lease);
        let mut pass = self.reconciler.pass(self.hooks.programs_mut(), gaps, sees_leases, &times)?;
        pass.table.policy = Some(self.policy);
        pass.table.watching_since = self.hooks.watching_since();
        self.events.note_pass();
        let mut lost = self.history.observe(&pass.table, Clocks::now().realtime);
        lost.retain(|pin| pass.table.is_unleased(pin, self.policy));
        warn_of_lost_leases(&pass.table, &lost);
        self.latest_pass = Some((Instant::now(), began.elapsed()));
        let (attributed, unclaimed) = pass.snapshot.references();
        self.exporter.observe(&exporter::Pass {
            table: &pass.table,
            policy: self.policy,
            began,
            activity,
            entries: pass.snapshot.entries(),
            references: References { attributed, unclaimed, held: pass.held },
        });
        Ok(pass)
    }

    /// The table now, compared with what the kernel counts.
    ///
    /// # Errors
    /// As for [`Self::pass`].
    pub fn table_with_totals(&mut self) -> Result<Table, BpfError> {
        let table = self.pass_and_count()?;
        if !table.kernel.is_some_and(|count| count.is_short()) {
            return Ok(table);
        }
        // The pins have more pages than the kernel counts: the release of some was missed.
        self.reconciler.request_reaping();
        self.pass_and_count()
    }

    fn pass_and_count(&mut self) -> Result<Table, BpfError> {
        let before = self.activity();
        let mut pass = self.pass()?;
        let hooks = &self.hooks;
        let kernel = self.reconciler.count(&pass, || activity_of(hooks) == before);
        pass.table.kernel = kernel;
        let surplus = kernel.and_then(|count| count.surplus());
        pass.table.gaps.extend(surplus.map(|pages| Gap::Unattributed { pages }));
        Ok(pass.table)
    }

    /// Reads what has happened since the last time.
    fn drain(&mut self) {
        let clocks = Clocks::now();
        let drained = self.events.drain(self.hooks.programs(), &mut self.history, clocks);
        if drained.modules_changed {
            self.reconciler.modules_changed();
            self.hooks.follow_modules();
        }
        drained.refused.iter().for_each(|event| self.note_refused(event, clocks));
        // While the module that made it is there: its symbols go with it.
        if drained.made_unclaimed {
            self.settle_unclaimed();
        }
    }

    fn note_refused(&mut self, event: &RefusedEvent, clocks: Clocks) {
        let find =
            || Snapshot::file(self.hooks.programs(), &event.file).unwrap_or_else(|| nameless(&event.file));
        let file = (event.file != FileKey::default()).then(find);
        self.refusals.note(event, self.reconciler.refused_module(event), file, clocks);
    }

    fn settle_unclaimed(&mut self) {
        for pin in self.reconciler.settle_unclaimed(self.hooks.programs_mut()) {
            self.events.note_made(&pin, &mut self.history, Clocks::now());
        }
    }

    /// Once a minute: finds holders and remembers creators though nobody asks, drops pins whose release was missed, and names
    /// of files without pins.
    fn housekeep(&mut self) {
        self.reconciler.request_reaping();
        let pass = self.pass();
        let kept = pass.and_then(|pass| self.reconciler.housekeep(self.hooks.programs_mut(), &pass));
        if let Err(error) = kept {
            warn!(%error, "cannot read the pins");
        }
        self.trim_memory();
    }

    /// Gives back memory that the start or passes over many pins took.
    pub fn trim_memory(&mut self) {
        self.hooks.programs_mut().forget_btf();
        sys::trim_heap();
    }

    /// Makes a pass if verdicts on leases have changed, or `may_have`; then publishes what has happened.
    fn refresh_coverage(&mut self, may_have: bool) {
        let changed = self.events.has_lease_changed();
        let is_wanted =
            changed && self.has_rested(SHORT_REST) || may_have && self.has_rested(exporter::PASS_REST);
        if is_wanted && let Err(error) = self.pass() {
            warn!(%error, "cannot read the pins: verdicts on leases are out of date");
        }
        // What concerns a pinned file is published after a pass.
        if !self.events.has_lease_changed() {
            self.publish();
        }
    }

    /// Whether so many times as long as the latest pass took have gone by since it.
    fn has_rested(&self, times: u32) -> bool {
        self.latest_pass.is_none_or(|(ended, took)| ended.elapsed() >= took * times)
    }

    /// Publishes what has happened.
    fn publish(&mut self) {
        let (programs, history) = (self.hooks.programs(), &mut self.history);
        history.lost(programs.events_lost());
        let clocks = Clocks::now();
        for (tid, thread) in history.waiting() {
            if let Some(ended) = programs.wait_ended(thread, clocks.boottime.cast_unsigned()) {
                history.stopped(tid, clocks.of(ended));
            }
        }
        let find = self.reconciler.file_finder(programs);
        history.publish(Clocks::now().realtime, find);
    }

    /// Events after this number that a user may see.
    pub fn events_after(&self, number: u64, uid: u32) -> Vec<Event> {
        self.history.after(number, uid)
    }

    /// The number of the latest event.
    pub fn latest_event(&self) -> u64 {
        self.history.latest()
    }

    /// The refused pins that a user may see.
    pub fn refused(&mut self, uid: u32) -> Vec<Refusal> {
        self.drain();
        self.refusals.visible_to(uid)
    }

    /// A client begins to follow.
    ///
    /// # Errors
    /// [`FollowError`]
    pub fn add_follower(&mut self) -> Result<(), FollowError> {
        self.events.add_follower(self.hooks.programs_mut())
    }

    /// A client has ended to follow.
    ///
    /// # Errors
    /// [`BpfError`] if the programs go on reporting pins.
    pub fn remove_follower(&mut self) -> Result<(), BpfError> {
        self.events.remove_follower(self.hooks.programs_mut())
    }

    /// The HTTP server's own counters.
    pub fn http(&mut self) -> &mut HttpCounts {
        &mut self.exporter.http
    }

    /// Whether everything is hooked that should be, and there was a pass.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), NotReady> {
        let report = self.hooks.report();
        if let Some((hook, (_, reason))) = report.failed.iter().next() {
            let missing = report.failed.len();
            return Err(NotReady::HooksMissing { missing, hook, reason: reason.to_string() });
        }
        if self.exporter.has_passed() { Ok(()) } else { Err(NotReady::NoPass) }
    }

    /// All metrics in the text format.
    ///
    /// # Errors
    /// [`MetricsError`], which is a defect.
    pub fn scrape(&mut self) -> Result<Rc<str>, MetricsError> {
        let began = Instant::now();
        if let Some(text) = self.exporter.begin(began) {
            return Ok(text);
        }
        self.drain();
        if self.exporter.needs_pass(self.has_changed()) {
            self.pass_for_metrics();
        }
        let (report, changed) = self.report();
        let text = self.exporter.render(began, changed, &report)?;
        self.exporter.keep(began, &text);
        Ok(text)
    }

    /// What the exporter is handed, and whether anything has changed since the latest pass.
    fn report(&self) -> (Report<'_>, bool) {
        let programs = self.hooks.programs();
        let hooks = self.hooks.report();
        let totals = totals_of(&self.hooks).ok();
        let changed = self.events.has_lease_changed()
            || totals.as_ref().is_none_or(|totals| self.exporter.has_changed(Activity::of(totals)));
        let counts = programs.counts();
        let missed = programs.missed_by(&counts).ok();
        let capacity = |map: &'static str| Some((map, programs.capacity(&map.to_uppercase())?));
        let report = Report {
            features: hooks.features,
            hooks: hooks.hooks,
            totals,
            unseen: missed.as_ref().map(|missed| self.reconciler.unseen(missed)),
            missed,
            reaped: self.reconciler.reaped(),
            runs: counts.runs(),
            capacities: MAPS.into_iter().filter_map(capacity).collect(),
            received: self.events.received(),
            breaks: self.history.breaks(),
            refused: self.refusals.counts().collect(),
        };
        (report, changed)
    }

    fn pass_for_metrics(&mut self) {
        if let Err(error) = self.pass() {
            warn!(%error, "the metrics of pins are out of date: the pins cannot be read");
        }
    }

    /// Whether a pin was made or released, or a lease on one has changed, since the latest pass.
    fn has_changed(&self) -> bool {
        self.events.has_lease_changed() || self.exporter.has_changed(self.activity())
    }

    fn activity(&self) -> Activity {
        activity_of(&self.hooks)
    }
}

fn totals_of(hooks: &Hooks) -> Result<Vec<(Subsystem, Totals)>, BpfError> {
    Ok(Subsystem::ALL.into_iter().zip(hooks.programs().totals()?).collect())
}

/// Pins made and released so far.
fn activity_of(hooks: &Hooks) -> Activity {
    totals_of(hooks).map_or_else(|_| Activity::default(), |totals| Activity::of(&totals))
}

/// Logs pins that have lost their leases though they need one.
fn warn_of_lost_leases(table: &Table, pins: &[&Pin]) {
    for pin in pins.iter().take(WARNINGS) {
        let file = pin.parts.iter().find_map(|part| table.file(part.file?));
        let file = file.map(|file| file.path.text()).unwrap_or_default();
        warn!(
            pin = %pin.id, file = &*file,
            "a pin has lost its lease: its file can be truncated or removed without its holders being asked"
        );
    }
    if pins.len() > WARNINGS {
        warn!("{} more pins have lost their leases; `lspins --unleased` lists them", pins.len() - WARNINGS);
    }
}
