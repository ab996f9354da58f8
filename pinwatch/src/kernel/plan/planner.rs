//! A plan in the making: what rooms ask while they decide which functions to hook.

use pinwatch_common::subsystems::HookId;
use pinwatch_common::{KFUNCS, KernelLayout, LayoutGroup, ModuleLayout};

use super::hook::{self, Hook, may_have, trampolines_refused};
use super::layout::{self, Groups};
use super::{AttachMode, Choices, Plan};
use crate::kernel::btf::Function;
use crate::kernel::facts::{BtfState, Facts};
use crate::kernel::feature::Feature;
use crate::kernel::feature_name::FeatureName;
use crate::kernel::missing::Missing;
use crate::kernel::wanted::KernelFn;

/// Adds hooks and features to a plan, one subsystem at a time.
pub struct Planner<'a> {
    /// What this host is like.
    pub facts: &'a Facts,
    /// What the user has chosen.
    pub choices: &'a Choices,
    /// What programs are told of vmlinux. Rooms fill in their `choices`. It is frozen before modules come: nothing of it may
    /// depend on a module.
    pub layout: KernelLayout,
    /// What programs are told of modules. Rooms fill in their `choices`.
    pub module_layout: ModuleLayout,
    groups: Groups,
    kfuncs: Option<[u32; KFUNCS.len()]>,
    hooks_modules: bool,
    hooks: Vec<Hook>,
    features: Vec<Feature>,
}

impl<'a> Planner<'a> {
    /// A plan without hooks.
    ///
    /// # Errors
    /// If nothing at all can be traced here.
    pub fn new(facts: &'a Facts, choices: &'a Choices) -> Result<Self, Missing> {
        blocked(facts)?;
        let mut groups = Groups::default();
        let mut layout = layout::kernel(facts, &mut groups);
        let module_layout = layout::modules(facts, &mut groups);
        // A kernel that does not preempt itself runs each program to its end. Frozen before modules come: so it does not
        // depend on which hooks there are yet.
        let trampolines = choices.attach == AttachMode::Auto && !trampolines_refused(facts);
        layout.backups = u64::from(trampolines && facts.preemptible != Some(false));
        let kfuncs = hook::kfuncs(facts).filter(|_| layout.backups != 0);
        layout.unpreempted = u64::from(kfuncs.is_some());
        layout.page_shift = u64::from(facts.page_shift);
        Ok(Self {
            facts,
            choices,
            layout,
            module_layout,
            groups,
            kfuncs,
            hooks_modules: false,
            hooks: Vec::new(),
            features: Vec::new(),
        })
    }

    /// Whether all of a group of members is known.
    ///
    /// # Errors
    /// The first thing that it lacks.
    pub fn needs(&self, group: LayoutGroup) -> Result<(), Missing> {
        self.groups.missing(group).map_or(Ok(()), |why| Err(why.clone()))
    }

    /// Whether the kernel, or a module that is loaded, has the function.
    pub fn exists(&self, function: &KernelFn) -> bool {
        hook::exists(self.facts, function)
    }

    /// Whether there is something to hook of a module: it is loaded, or one of these functions is there without it.
    ///
    /// # Errors
    /// [`Missing::NotLoaded`]
    pub fn needs_module(&self, module: &'static str, functions: &[&KernelFn]) -> Result<(), Missing> {
        let is_loaded = self.facts.modules.iter().any(|loaded| loaded.name == module);
        match is_loaded || functions.iter().any(|function| self.exists(function)) {
            true => Ok(()),
            false => Err(Missing::NotLoaded { module }),
        }
    }

    /// How the function is called in this kernel.
    ///
    /// # Errors
    /// If BTF does not tell.
    pub fn signature(&self, function: &KernelFn) -> Result<&'a Function, Missing> {
        let fact = self.facts.functions.get(function.symbol);
        fact.and_then(|fact| fact.btf.as_ref())
            .ok_or_else(|| hook::missing(self.facts, function.symbol, fact.and_then(|fact| fact.symbol)))
    }

    /// A hook for each of the functions: a start without its end is of no use.
    ///
    /// # Errors
    /// Why one of them cannot be hooked.
    pub fn hooks<'f>(
        &self,
        feature: FeatureName,
        wanted: impl IntoIterator<Item = (HookId, &'f KernelFn)>,
    ) -> Result<Vec<Hook>, Missing> {
        let wanted = wanted.into_iter();
        wanted
            .map(|(id, function)| Hook::new(id, feature, self.facts, self.choices.attach, function))
            .collect()
    }

    /// The same, but kprobes for all functions that are a module's: a trampoline keeps the module from being removed.
    ///
    /// # Errors
    /// As [`Self::hooks`].
    pub fn hooks_that_free_modules<'f>(
        &self,
        feature: FeatureName,
        wanted: impl IntoIterator<Item = (HookId, &'f KernelFn)>,
    ) -> Result<Vec<Hook>, Missing> {
        let one = |(id, function)| {
            let hook = Hook::new(id, feature, self.facts, self.choices.attach, function)?;
            match hook.module {
                Some(_) => Hook::new(id, feature, self.facts, AttachMode::Kprobe, function),
                None => Ok(hook),
            }
        };
        wanted.into_iter().map(one).collect()
    }

    /// Has the programs told of modules' structures.
    pub fn uses_module_layout(&mut self) {
        self.hooks_modules = true;
    }

    /// Adds a feature with its hooks.
    pub fn add(&mut self, feature: Feature, hooks: Vec<Hook>) {
        self.features.push(feature);
        self.hooks.extend(hooks);
    }

    /// The plan, with what belongs to no subsystem.
    pub fn finish(mut self) -> Plan {
        self.details();
        self.lease_events();
        Plan {
            layout: self.layout,
            kfuncs: self.kfuncs,
            module_layout: self.hooks_modules.then_some(self.module_layout),
            hooks: self.hooks,
            features: self.features,
        }
    }
}

/// Whether anything can be traced here.
fn blocked(facts: &Facts) -> Result<(), Missing> {
    use hook::{CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN};
    if facts.arch != "x86_64" {
        return Err(Missing::OtherArchitecture { arch: facts.arch.clone() });
    }
    match &facts.btf {
        BtfState::Read => {}
        BtfState::Absent => return Err(Missing::NoBtf),
        BtfState::Unusable(error) => return Err(Missing::UnusableBtf { error: error.clone() }),
    }
    let bpf_and_perfmon = may_have(facts, CAP_BPF) && may_have(facts, CAP_PERFMON);
    if !bpf_and_perfmon && !may_have(facts, CAP_SYS_ADMIN) {
        return Err(Missing::NoCapabilities);
    }
    if facts.lockdown.as_deref() == Some("confidentiality") {
        return Err(Missing::Lockdown);
    }
    match facts.bpf_tracing {
        Some(libc::EPERM) => Err(Missing::Forbidden),
        Some(libc::ENOSYS) => Err(Missing::NoBpf),
        // Any other answer is one to tracing programs only: kprobes are tried.
        _ => Ok(()),
    }
}
