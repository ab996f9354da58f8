//! The hooks: BPF programs loaded, attached as the plan has it, and attached anew when modules come and go.
//!
//! What to attach and detach is decided in `changes`, what is missing of the table because of that in `completeness`; both are
//! pure. Nothing here knows the table: that is made by the reconciler, which is lent the programs.

mod changes;
mod completeness;
mod modules;

use std::collections::BTreeMap;
use std::path::Path;

use tracing::{debug, info, warn};

use crate::kernel::bpf::{BpfError, LoadOptions, Programs};
use crate::kernel::bpf_syscall;
use crate::kernel::facts::{Depth, Facts};
use crate::kernel::feature::Feature;
use crate::kernel::feature_name::{Detail, FeatureName, State};
use crate::kernel::plan::{Choices, Hook, Method, Plan, Verdict};
use crate::model::Gap;
use crate::source::clocks::Clocks;
use crate::subsystem;
use modules::Module;

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This kernel, or what it allows us, is not enough to see a single pin.
    #[error(
        "no pin can be watched here: {0}. Run `pinwatch check` for the details; `lspins` works without the daemon"
    )]
    Unusable(String),
    /// The programs do not load.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// So often a plan is made again if modules come and go meanwhile.
const MODULE_TRIES: u32 = 4;

/// The programs, and how far they are attached.
pub struct Hooks {
    programs: Programs,
    plan: Plan,
    choices: Choices,
    /// Since when each subsystem is watched, nanoseconds since the epoch.
    since: BTreeMap<FeatureName, i64>,
    /// Hooks that could not be attached, and why.
    failed: BTreeMap<&'static str, (FeatureName, String)>,
    modules: Vec<Module>,
    /// Whether there are RDMA devices.
    has_devices: bool,
}

/// How it stands with the hooks.
pub struct HookReport<'a> {
    /// What can be seen of pins here.
    pub features: &'a [Feature],
    /// The hooks of the plan, and how each is attached.
    pub hooks: Vec<(&'static str, Option<Method>)>,
    /// Hooks that could not be attached, the feature that lacks them, and why.
    pub failed: &'a BTreeMap<&'static str, (FeatureName, String)>,
}

/// The facts, with the one that only an attempt shows: whether tracing programs may be loaded.
pub fn probe(depth: Depth) -> Facts {
    let mut facts = Facts::read(Path::new("/"), depth, &subsystem::wanted());
    facts.bpf_tracing = Some(match bpf_syscall::probe_tracing() {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    });
    facts
}

impl Hooks {
    /// Loads the programs, with room for so many pins, and attaches everything that the plan has.
    ///
    /// # Errors
    /// [`StartError`] if no pin would be seen.
    pub fn start(choices: &Choices, max_pins: u32, log: bool) -> Result<Self, StartError> {
        // Before the facts: what comes after them is a change then.
        let modules = modules::loaded(&wanted_modules());
        let facts = probe(Depth::Quick);
        let plan = subsystem::plan(&facts, choices.clone());
        if plan.verdict() == Verdict::Unusable {
            let reason = plan.features.iter().find(|feature| feature.name.is_subsystem());
            return Err(StartError::Unusable(reason.map(|feature| feature.text.clone()).unwrap_or_default()));
        }
        let options = LoadOptions { max_pins, log, kfuncs: plan.kfuncs };
        let mut hooks = Self {
            programs: Programs::load(&plan.layout, options)?,
            plan,
            choices: choices.clone(),
            since: BTreeMap::new(),
            failed: BTreeMap::new(),
            modules,
            has_devices: modules::has_rdma_devices(),
        };
        hooks.attach_lease_breaks();
        hooks.programs.prepare_probes(&subsystem::module_hooks());
        let of_kernel = changes::in_order(hooks.plan.hooks.iter().filter(|hook| hook.module.is_none()));
        hooks.attach(&of_kernel, Programs::attach);
        hooks.attach_to_modules(&[]);
        // From here on everything is seen that is seen at all.
        let now = Clocks::now().realtime;
        hooks.since.values_mut().for_each(|since| *since = now);
        Ok(hooks)
    }

    /// The loaded programs and their maps, to read.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The loaded programs and their maps, to change entries and to run what reads the kernel.
    pub fn programs_mut(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// How it stands with the hooks.
    pub fn report(&self) -> HookReport<'_> {
        let attached = |hook: &Hook| (hook.name(), self.method_of(hook));
        HookReport {
            features: &self.plan.features,
            hooks: self.plan.hooks.iter().map(attached).collect(),
            failed: &self.failed,
        }
    }

    /// What is missing of the table because of the hooks.
    pub fn gaps(&self) -> Vec<Gap> {
        completeness::gaps(&self.plan.features, &self.since, &self.failed)
    }

    /// Since when pins are watched, nanoseconds since the epoch.
    pub fn watching_since(&self) -> Option<i64> {
        self.since.values().min().copied()
    }

    /// Whether leases are traced.
    pub fn sees_leases(&self) -> bool {
        self.plan.feature(Detail::Leases.into()).is_some_and(|feature| feature.state == State::On)
    }

    /// Follows modules that were loaded, removed, or loaded anew, and RDMA devices that came or went.
    pub fn follow_modules(&mut self) {
        let (now, has_devices) = (modules::loaded(&wanted_modules()), modules::has_rdma_devices());
        if now == self.modules && has_devices == self.has_devices {
            return;
        }
        self.has_devices = has_devices;
        let replaced = if now == self.modules { Vec::new() } else { self.plan_anew() };
        self.attach_to_modules(&replaced);
    }

    /// Plans anew for the modules that are loaded now, and takes off the hooks whose functions are gone; gives those that are
    /// to be attached again.
    fn plan_anew(&mut self) -> Vec<Hook> {
        let (modules, plan) = stable_plan(&self.choices);
        let before = std::mem::replace(&mut self.modules, modules);
        if let Err(error) = self.programs.forget_claims() {
            warn!(
                %error,
                "cannot clear which calls pins belong to: some pins may be listed under a wrong subsystem or as unclaimed"
            );
        }
        let names: Vec<&str> = self.modules.iter().map(|module| module.name.as_str()).collect();
        info!(modules = ?names, "the loaded modules that pinwatch hooks have changed");
        // What is in `.rodata` stays what it was: it does not depend on modules.
        let layout = self.plan.layout;
        let old = std::mem::replace(&mut self.plan, Plan { layout, ..plan });
        let changes = changes::changes(&old.hooks, &self.plan.hooks, &before, &self.modules);
        for hook in changes.removed.iter().chain(&changes.replaced) {
            self.failed.remove(hook.name());
            if changes::begins(hook) {
                self.since.remove(&hook.feature);
            }
        }
        changes.removed.iter().for_each(|hook| self.programs.detach(hook.name()));
        changes.replaced
    }

    /// Attaches what is not attached yet, or in vain, to functions of modules: at once by probes, which are verified already,
    /// then by trampolines.
    fn attach_to_modules(&mut self, replaced: &[Hook]) {
        let missing = changes::missing(&self.plan.hooks, |hook| self.method_of(hook), replaced);
        self.attach(&missing, Programs::attach_at_once);
        let has_devices = self.has_devices;
        let other = changes::to_convert(&self.plan.hooks, |hook| self.method_of(hook), has_devices);
        self.attach(&other, if has_devices { Programs::attach } else { Programs::attach_at_once });
    }

    /// Attaches hooks in this order.
    fn attach(&mut self, hooks: &[Hook], how: impl Fn(&mut Programs, &Hook) -> Result<(), BpfError>) {
        if let Some(layout) = &self.plan.module_layout
            && let Err(error) = self.programs.set_module_offsets(layout)
        {
            warn!(%error, "cannot pass the layout of modules' structures to the programs: their pins are not traced");
        }
        for hook in hooks {
            match how(&mut self.programs, hook) {
                Ok(()) => {
                    self.failed.remove(hook.name());
                    self.log_attached(hook.name());
                    if changes::begins(hook) {
                        self.since.entry(hook.feature).or_insert_with(|| Clocks::now().realtime);
                    }
                }
                Err(error) => {
                    warn!(hook = hook.name(), %error, "cannot attach a hook");
                    self.failed.insert(hook.name(), (hook.feature, error.to_string()));
                }
            }
        }
    }

    /// Attaches to the tracepoints of leases being broken, if the plan has it.
    fn attach_lease_breaks(&mut self) {
        let planned = self.plan.feature(Detail::LeaseEvents.into());
        if planned.is_some_and(|feature| matches!(feature.state, State::On | State::Degraded))
            && let Err(error) = self.programs.watch_breaks()
        {
            warn!(%error, "cannot attach to the lease tracepoints: nothing is recorded of who breaks a lease");
            self.failed.insert("break_lease", (Detail::LeaseEvents.into(), error.to_string()));
        }
    }

    fn method_of(&self, hook: &Hook) -> Option<Method> {
        self.programs.attached().get(hook.name()).map(|attached| attached.method)
    }

    fn log_attached(&self, name: &'static str) {
        let Some(attached) = self.programs.attached().get(name) else { return };
        let function = attached.symbol;
        match &attached.instead {
            Some(reason) => info!(hook = name, function, reason, "attached by kprobe instead"),
            None => debug!(hook = name, function, method = ?attached.method, "attached"),
        }
    }
}

/// The plan, made while no module came or went, and the modules that it is true of.
fn stable_plan(choices: &Choices) -> (Vec<Module>, Plan) {
    let mut tries = 0;
    loop {
        let modules = modules::loaded(&wanted_modules());
        let plan = subsystem::plan(&probe(Depth::Quick), choices.clone());
        tries += 1;
        // If it never is quiet, the next event or tick looks again.
        if modules == modules::loaded(&wanted_modules()) || tries == MODULE_TRIES {
            return (modules, plan);
        }
    }
}

/// The modules that have something to hook.
fn wanted_modules() -> Vec<&'static str> {
    subsystem::wanted().modules
}
