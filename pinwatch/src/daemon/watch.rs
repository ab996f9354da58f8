//! The kernel's side of the daemon: programs loaded and attached, attached anew when modules come and go, and the table
//! with all that is to be said about its completeness.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use aya::Ebpf;
use pinwatch_common::subsystems::Role;
use rustix::fs::MemfdFlags;
use tracing::{debug, info, warn};

use super::Settings;
use super::count::Refresh;
use super::exporter::{Exporter, Pass, References};
use super::follow::Follow;
use super::heal::Healing;
use super::refused::Refusals;
use super::unclaimed::Unclaimed;
use crate::kernel::bpf::{BpfError, LoadOptions, Losses, Programs};
use crate::kernel::facts::{Depth, Facts};
use crate::kernel::feature::{Feature, FeatureName, State};
use crate::kernel::plan::{Choices, Hook, Method, Plan, Verdict};
use crate::kernel::raw;
use crate::kernel::sys;
use crate::model::{FullMap, Gap, Subsystem, Table};
use crate::source::clocks::Clocks;
use crate::source::files::FileStates;
use crate::source::host::vmstat;
use crate::source::leases::LeaseRules;
use crate::source::process_contexts::ProcessContexts;
use crate::source::trace::{Context, Snapshot};

/// Why watching cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This kernel, or what it allows us, is not enough to see a single pin.
    #[error(
        "no pin can be watched here: {0}. `pinwatch check` tells more; `lspins` works without the daemon"
    )]
    Unusable(String),
    /// The programs do not load.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// Hooks on functions of modules, which may be loaded at any time.
const MODULE_HOOKS: [&str; 7] =
    ["rdma_get", "rdma_release", "rdma_track", "vfio_pin", "vfio_unpin", "v4l2_create", "v4l2_destroy"];
/// So often the facts are looked at anew if modules come and go meanwhile.
const MODULE_TRIES: u32 = 4;
/// So many ticks, a minute, pass between two looks that nobody asked for.
const TIDY_TICKS: u32 = 120;
/// File names are kept so long after their last pin, in nanoseconds: a pin being made right now may count on one.
const FILE_AGE: u64 = 60_000_000_000;

/// Programs in the kernel, and what is known of their completeness.
pub struct Watch {
    pub(super) programs: Programs,
    plan: Plan,
    choices: Choices,
    pub(super) states: FileStates,
    contexts: ProcessContexts,
    /// Since when each subsystem is watched, nanoseconds since the epoch.
    since: BTreeMap<FeatureName, i64>,
    /// Hooks that could not be attached, and why.
    failed: BTreeMap<&'static str, (FeatureName, String)>,
    modules: Vec<(String, String)>,
    /// Whether there are RDMA devices.
    devices: bool,
    pub(super) ticks: u32,
    /// Pins whose release nobody saw.
    pub(super) healing: Healing,
    /// Whether this kernel grants leases on hugetlbfs.
    hugetlb_leases: bool,
    /// Pins that no process held when that was last looked at without being asked.
    unheld: u64,
    /// Pins that were refused.
    pub(super) refusals: Refusals,
    /// Pins that no subsystem claims.
    pub(super) unclaimed: Unclaimed,
    /// Brings the kernel's count up to date.
    pub(super) refresh: Refresh,
    /// What happens.
    pub(super) follow: Follow,
    /// What scrapes get.
    pub(super) exporter: Exporter,
}

/// The facts, with the one that only trying tells.
pub fn probe(depth: Depth) -> Facts {
    let mut facts = Facts::read(Path::new("/"), depth);
    facts.bpf_tracing = Some(match raw::probe_tracing() {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    });
    facts
}

/// Tries it: kernels from 7.0 on refuse leases on hugetlbfs with EINVAL. Others may refuse this one all the same, for how the
/// file came to be (EAGAIN). Without huge pages at all it does not matter.
fn hugetlb_leases() -> bool {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB;
    let Ok(file) = rustix::fs::memfd_create("pinwatch", flags) else { return false };
    sys::take_write_lease(&file).map_or_else(|error| error.raw_os_error() != Some(libc::EINVAL), |()| true)
}

impl Watch {
    /// Loads and attaches everything that the plan has.
    ///
    /// # Errors
    /// [`StartError`] if no pin would be seen.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        // Before the facts: what comes after them is a change then.
        let modules = hookable_modules();
        let facts = probe(Depth::Quick);
        let plan = Plan::decide(&facts, settings.choices.clone());
        if plan.verdict() == Verdict::Unusable {
            let reason = plan.features.iter().find(|feature| feature.name.is_subsystem());
            return Err(StartError::Unusable(reason.map(|feature| feature.text.clone()).unwrap_or_default()));
        }
        let options = LoadOptions {
            max_pins: settings.max_pins,
            log: settings.bpf_log,
            kernel_calls: plan.kernel_calls,
        };
        let programs = Programs::load(&plan.offsets, options)?;
        let mut watch = Self {
            programs,
            plan,
            choices: settings.choices.clone(),
            states: FileStates::default(),
            contexts: ProcessContexts::default(),
            since: BTreeMap::new(),
            failed: BTreeMap::new(),
            modules,
            devices: rdma_devices(),
            ticks: 0,
            healing: Healing::default(),
            hugetlb_leases: hugetlb_leases(),
            unheld: 0,
            refusals: Refusals::default(),
            unclaimed: Unclaimed::default(),
            refresh: Refresh::default(),
            follow: Follow::default(),
            exporter: Exporter::new(settings.limits),
        };
        watch.follow = Follow::new(watch.programs.take_events(), settings.policy);
        watch.attach_breaks();
        watch.programs.prepare_probes(&MODULE_HOOKS);
        watch.attach_hooks(|hook| hook.module.is_none(), Programs::attach);
        watch.attach_to_modules(&[]);
        // From here on everything is seen that is seen at all.
        let now = Clocks::now().realtime;
        watch.since.values_mut().for_each(|since| *since = now);
        Ok(watch)
    }

    /// The loaded object.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        self.programs.ebpf()
    }

    /// The programs, for `pinwatch check`.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// What can be told of pins here.
    pub fn features(&self) -> &[Feature] {
        &self.plan.features
    }

    /// The hooks that the plan has, and how each is attached.
    pub fn hooks(&self) -> Vec<(&'static str, Option<Method>)> {
        let attached = |name| self.programs.attached().get(name).map(|attached| attached.method);
        self.plan.hooks.iter().map(|hook| (hook.name(), attached(hook.name()))).collect()
    }

    /// Pins that were found released though nobody had seen it.
    pub fn healed(&self) -> u64 {
        self.healing.found()
    }

    /// Hooks that could not be attached, and why.
    pub fn failed_hooks(&self) -> BTreeMap<&'static str, String> {
        self.failed.iter().map(|(name, (_, reason))| (*name, reason.clone())).collect()
    }

    /// Becomes ready to read when the ring buffer has something to tell at once.
    ///
    /// # Errors
    /// If there is none.
    pub fn events_fd(&self) -> io::Result<OwnedFd> {
        let ring = self.follow.ring.as_ref().ok_or(io::ErrorKind::NotFound)?;
        ring.as_fd().try_clone_to_owned()
    }

    /// Has breaks of leases seen, if the plan has it.
    fn attach_breaks(&mut self) {
        let planned = self.plan.feature(FeatureName::LeaseEvents);
        if planned.is_some_and(|feature| matches!(feature.state, State::On | State::Degraded))
            && let Err(error) = self.programs.watch_breaks()
        {
            warn!(%error, "who breaks a lease is not seen");
            self.failed.insert("break_lease", (FeatureName::LeaseEvents, error.to_string()));
        }
    }

    /// Attaches those hooks of the plan that are asked for. Ends before beginnings: no pin is recorded whose end could be
    /// missed.
    fn attach_hooks(
        &mut self,
        wanted: impl Fn(&Hook) -> bool,
        how: impl Fn(&mut Programs, &Hook) -> Result<(), BpfError>,
    ) {
        if let Some(offsets) = &self.plan.module_offsets
            && let Err(error) = self.programs.set_module_offsets(offsets)
        {
            warn!(%error, "pins of modules are not traced");
        }
        let mut hooks: Vec<Hook> = self.plan.hooks.iter().filter(|hook| wanted(hook)).cloned().collect();
        hooks.sort_by_key(begins);
        for hook in &hooks {
            match how(&mut self.programs, hook) {
                Ok(()) => {
                    self.failed.remove(hook.name());
                    self.log_attached(hook.name());
                    if begins(hook) {
                        self.since.entry(hook.feature).or_insert_with(|| Clocks::now().realtime);
                    }
                }
                Err(error) => {
                    warn!(hook = hook.name(), %error, "a hook is missing");
                    self.failed.insert(hook.name(), (hook.feature, error.to_string()));
                }
            }
        }
    }

    fn log_attached(&self, name: &'static str) {
        let Some(attached) = self.programs.attached().get(name) else { return };
        let function = attached.symbol;
        match &attached.instead {
            Some(reason) => info!(hook = name, function, reason, "attached by kprobe instead"),
            None => debug!(hook = name, function, method = ?attached.method, "attached"),
        }
    }

    /// Follows modules that were loaded, removed, or loaded anew (probes on a module that went are dead without an
    /// error), and RDMA devices that came or went.
    pub(super) fn follow_modules(&mut self) {
        let (modules, devices) = (hookable_modules(), rdma_devices());
        if modules == self.modules && devices == self.devices {
            return;
        }
        self.devices = devices;
        let mut stale = Vec::new();
        if modules != self.modules {
            let before = std::mem::take(&mut self.modules);
            let plan = self.plan_of_stable_modules();
            if let Err(error) = self.programs.forget_claims() {
                warn!(%error, "pins of subsystems may be taken for unclaimed ones, or the other way round");
            }
            info!(modules = ?self.modules.iter().map(|(name, _)| name).collect::<Vec<_>>(), "modules that are hooked have changed");
            // What is in `.rodata` stays what it was: it does not depend on modules.
            let offsets = self.plan.offsets;
            let old = std::mem::replace(&mut self.plan, Plan { offsets, ..plan });
            // A hook stays if it is on the same function of a module that is still the one it was.
            let address = |modules: &[(String, String)], hook: &Hook| {
                let name = hook.module.as_deref()?;
                modules.iter().find(|(module, _)| module == name).map(|(_, address)| address.clone())
            };
            for was in old.hooks.iter().filter(|hook| hook.module.is_some()) {
                let now = self.plan.hooks.iter().find(|hook| hook.name() == was.name());
                if now.is_some_and(|now| now == was && address(&before, was) == address(&self.modules, now)) {
                    continue;
                }
                self.failed.remove(was.name());
                if begins(was) {
                    self.since.remove(&was.feature);
                }
                match now {
                    // The new one is attached before the old one goes: nothing is missed in between.
                    Some(_) => stale.push(was.name()),
                    None => self.programs.detach(was.name()),
                }
            }
        }
        self.attach_to_modules(&stale);
    }

    /// The plan, made while no module came or went: what the facts say is then true of `self.modules`.
    fn plan_of_stable_modules(&mut self) -> Plan {
        let mut tries = 0;
        loop {
            self.modules = hookable_modules();
            let plan = Plan::decide(&probe(Depth::Quick), self.choices.clone());
            tries += 1;
            // If it never is quiet, the next event or tick looks again.
            if self.modules == hookable_modules() || tries == MODULE_TRIES {
                return plan;
            }
        }
    }

    /// Attaches what is not attached yet, or in vain, to functions of modules: at once by probes, which are verified
    /// already, then by trampolines. These hold a reference of the module, so that it cannot be removed: they are only
    /// there while there are devices, which cannot be without the module either.
    fn attach_to_modules(&mut self, stale: &[&'static str]) {
        let attached = |programs: &Programs, hook: &Hook| {
            programs.attached().get(hook.name()).map(|attached| attached.method)
        };
        let missing: Vec<&'static str> = (self.plan.hooks.iter())
            .filter(|hook| attached(&self.programs, hook).is_none() || stale.contains(&hook.name()))
            .map(|hook| hook.name())
            .collect();
        self.attach_hooks(
            |hook| hook.module.is_some() && missing.contains(&hook.name()),
            Programs::attach_at_once,
        );
        let wanted = |hook: &Hook| if self.devices { hook.method } else { Method::Kprobe };
        let other: Vec<&'static str> = (self.plan.hooks.iter())
            .filter(|hook| {
                hook.module.is_some() && attached(&self.programs, hook).is_some_and(|is| is != wanted(hook))
            })
            .map(|hook| hook.name())
            .collect();
        let how = if self.devices { Programs::attach } else { Programs::attach_at_once };
        self.attach_hooks(|hook| other.contains(&hook.name()), how);
    }

    /// What is done now and then: devices may come without a module; holders are looked for and creators remembered though
    /// nobody asks; names of files without pins are forgotten.
    pub(super) fn tidy(&mut self) {
        self.follow_modules();
        self.ticks += 1;
        if !self.ticks.is_multiple_of(TIDY_TICKS) {
            return;
        }
        self.healing.ask();
        let before = u64::try_from(Clocks::now().boottime).unwrap_or(0).saturating_sub(FILE_AGE);
        let tidied = self.look().and_then(|(snapshot, table)| {
            self.tell_unheld(&table);
            let unused = snapshot.unused_files(&self.programs, before)?;
            self.programs.remove_files(&unused)
        });
        if let Err(error) = tidied {
            warn!(%error, "pins cannot be looked through");
        }
    }

    /// Logs how many pins no process holds, when that has changed: those of a moment are only on their way out.
    fn tell_unheld(&mut self, table: &Table) {
        let (pins, bytes) = (table.pins.iter().filter(|pin| table.is_unheld(pin)))
            .fold((0_u64, 0_u64), |(pins, bytes), pin| (pins + 1, bytes.saturating_add(pin.bytes)));
        if std::mem::replace(&mut self.unheld, pins) != pins {
            info!(pins, bytes, "pins that no process holds; `lspins --unheld` lists them");
        }
    }

    /// The table now.
    ///
    /// # Errors
    /// [`BpfError::Map`] if the maps cannot be read.
    pub fn table(&mut self) -> Result<Table, BpfError> {
        self.look().map(|(_, table)| table)
    }

    pub(super) fn look(&mut self) -> Result<(Snapshot, Table), BpfError> {
        let began = Instant::now();
        // A module that was loaded a moment ago may not have been seen yet.
        self.drain();
        self.follow_modules();
        self.look_at_unclaimed();
        let activity = self.activity();
        let snapshot = self.snapshot()?;
        let (attributed, unclaimed) = snapshot.references();
        let held = vmstat::pins().map(vmstat::Pins::held);
        let watched =
            self.plan.feature(FeatureName::Leases).is_some_and(|feature| feature.state == State::On);
        let times = |lease| self.follow.history.times(lease);
        let rules = LeaseRules { watched, hugetlb: self.hugetlb_leases, times: &times };
        let mut cx =
            Context { programs: &mut self.programs, states: &mut self.states, contexts: &mut self.contexts };
        let mut table = snapshot.table(Clocks::now(), &rules, &self.unclaimed.callers, &mut cx);
        table.policy = Some(self.follow.policy());
        table.watching_since = self.since.values().min().copied();
        let losses = self.programs.losses()?;
        let mut gaps = self.gaps(&losses);
        gaps.append(&mut table.gaps);
        table.gaps = gaps;
        self.follow.looked(began, &table, Clocks::now().realtime);
        self.exporter.observe(&Pass {
            table: &table,
            policy: self.follow.policy(),
            began,
            activity,
            entries: snapshot.entries(),
            references: References { attributed, unclaimed, held },
        });
        Ok((snapshot, table))
    }

    /// All that may make the table wrong, as far as hooks and maps are concerned.
    fn gaps(&self, losses: &Losses) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let first = self.since.values().min().copied();
        gaps.extend(first.map(|since| Gap::Before { since }));
        for (feature, since) in self.since.iter().filter(|(_, since)| Some(**since) != first) {
            gaps.extend(
                subsystem(*feature).map(|subsystem| Gap::SubsystemBefore { subsystem, since: *since }),
            );
        }
        for feature in &self.plan.features {
            let Some(subsystem) = subsystem(feature.name) else { continue };
            let why = || feature.text.clone();
            match feature.state {
                State::Off => gaps.push(Gap::NotTraced { subsystem, why: why() }),
                State::Degraded => gaps.push(Gap::PartlyTraced { subsystem, why: why() }),
                State::On | State::Waiting | State::Absent | State::Disabled => {}
            }
        }
        for (feature, reason) in self.failed.values().filter(|(feature, _)| !feature.is_history()) {
            gaps.push(Gap::HookMissing { feature: feature.to_string(), why: reason.clone() });
        }
        gaps.extend(lost(losses, self.healing.unseen(losses.calls)));
        gaps
    }
}

/// The subsystem whose pins a feature sees; `None` for one that only tells more of pins.
fn subsystem(feature: FeatureName) -> Option<Subsystem> {
    Subsystem::ALL.into_iter().find(|subsystem| subsystem.word() == feature.as_str())
}

/// What the programs lost. `unseen`: of the calls that the kernel skipped, those whose effect was not found since.
fn lost(losses: &Losses, unseen: u64) -> impl Iterator<Item = Gap> {
    let [pins, extents, files, calls, shares, leases, waiters] = losses.full;
    let maps = [
        (FullMap::Pins, pins),
        (FullMap::Extents, extents),
        (FullMap::Files, files),
        (FullMap::Leases, leases),
        (FullMap::Waiters, waiters),
        (FullMap::Shares, shares),
        (FullMap::Calls, calls),
    ];
    let skipped = (unseen > 0).then_some(Gap::SkippedHooks { calls: unseen });
    let returns = (losses.returns > 0).then_some(Gap::MissedReturns { calls: losses.returns });
    let full = maps.into_iter().filter(|(_, times)| *times > 0);
    let full = full.map(|(map, times)| Gap::MapFull { map, times });
    skipped.into_iter().chain(returns).chain(full)
}

/// Whether a hook sees pins being made.
fn begins(hook: &Hook) -> bool {
    hook.id.role() == Role::Begin
}

/// Whether there is any RDMA device.
fn rdma_devices() -> bool {
    std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some())
}

/// The loaded modules that have something to hook, with their addresses: a module that was loaded anew has another one.
fn hookable_modules() -> Vec<(String, String)> {
    let text = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    let mut modules: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| {
            // Name, size, users, who they are, state, address.
            let mut fields = line.split_ascii_whitespace();
            let (name, state) = (fields.next()?, fields.nth(3)?);
            // One that is being loaded has nothing to hook yet: it is a change when it is up.
            let wanted = crate::kernel::table::MODULES.contains(&name) && state == "Live";
            wanted.then(|| (name.to_owned(), fields.next().unwrap_or_default().to_owned()))
        })
        .collect();
    modules.sort();
    modules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GapCode;

    #[test]
    fn each_loss_is_a_gap_of_its_own() {
        assert_eq!(lost(&Losses::default(), 0).count(), 0);
        let losses = Losses { calls: 9, returns: 2, full: [1, 2, 3, 4, 5, 6, 7], ..Losses::default() };
        let codes: Vec<(GapCode, Option<u64>)> =
            lost(&losses, 8).map(|gap| (gap.code(), gap.count())).collect();
        for expected in [
            (GapCode::SkippedHooks, 8),
            (GapCode::MissedReturns, 2),
            (GapCode::PinsFull, 1),
            (GapCode::ExtentsFull, 2),
            (GapCode::FilesFull, 3),
            (GapCode::CallsFull, 4),
            (GapCode::SharesFull, 5),
            (GapCode::LeasesFull, 6),
            (GapCode::WaitersFull, 7),
        ] {
            assert!(codes.contains(&(expected.0, Some(expected.1))), "{expected:?} in {codes:?}");
        }
        assert_eq!(codes.len(), 9);
    }

    #[test]
    fn features_that_see_pins_are_subsystems() {
        for feature in FeatureName::ALL {
            assert_eq!(subsystem(feature).is_some(), feature.is_subsystem(), "{feature}");
        }
    }
}
