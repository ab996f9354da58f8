//! One hook: what is attached where, and how.

use pinwatch_common::{
    KFUNCS,
    subsystems::{HookId, HookPoint},
};
use serde::Serialize;

use super::AttachMode;
use crate::kernel::{
    btf::Function,
    facts::{BtfState, Facts, FunctionFact},
    feature_name::FeatureName,
    missing::Missing,
    wanted::{self, KernelFn},
};

/// How a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// fentry or fexit on a function of the kernel proper.
    Trampoline,
    /// The same on a module's function, by the module's BTF.
    ModuleTrampoline,
    /// By symbol.
    Kprobe,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Which: it says what the BPF programs are called (see [`Hook::programs`]), and where they sit.
    pub id: HookId,
    /// What is lost if it cannot be attached.
    pub feature: FeatureName,
    /// The function.
    pub symbol: &'static str,
    /// The module that the function is in; `None`: the kernel proper.
    pub module: Option<String>,
    /// The function's id in the BTF of the module or the kernel, if it is known.
    pub btf_id: Option<u32>,
    /// How.
    pub method: Method,
    /// If a trampoline cannot be attached, a kprobe may be tried.
    pub fallback: bool,
}

impl Hook {
    /// The hook on a function, if it can be hooked.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn new(
        id: HookId,
        feature: FeatureName,
        facts: &Facts,
        mode: AttachMode,
        wanted: &KernelFn,
    ) -> Result<Self, Missing> {
        let symbol = wanted.symbol;
        let fact = facts.functions.get(symbol).cloned().unwrap_or_default();
        if fact.btf.is_none() && !is_opaque(facts, &fact) {
            return Err(missing(facts, symbol, fact.symbol));
        }
        if let Some(function) = &fact.btf {
            fits(function, wanted)?;
        }
        if fact.traceable == Some(false) {
            return Err(Missing::NotTraceable { symbol });
        }
        // A trampoline passes on what is in registers.
        const IN_REGISTERS: usize = 6;
        let fits = fact.btf.as_ref().is_some_and(|function| function.params.len() <= IN_REGISTERS);
        let by_btf = mode == AttachMode::Auto && !trampolines_refused(facts) && fits;
        let kprobes = facts.kprobes != Some(false);
        let method = match &fact.module {
            None if by_btf => Method::Trampoline,
            // A module's BTF is opened by its id, which takes this capability.
            Some(_) if by_btf && may_have(facts, CAP_SYS_ADMIN) => Method::ModuleTrampoline,
            _ if kprobes => Method::Kprobe,
            _ => return Err(Missing::NoKprobes { symbol }),
        };
        let fallback = kprobes && method != Method::Kprobe;
        let btf_id = fact.btf.map(|function| function.id);
        Ok(Self { id, feature, symbol, module: fact.module, btf_id, method, fallback })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.id.name()
    }

    /// Names of the BPF programs to attach, in this order, if this is done by `method`. `backups`: behind each trampoline's
    /// program there is a second one.
    pub fn programs(&self, method: Method, backups: bool) -> Vec<String> {
        let name = self.name();
        match (method, self.id.point()) {
            (Method::Kprobe, HookPoint::Entry) => vec![format!("{name}_kprobe")],
            // The return probe comes first: a call seen by the entry probe alone would be kept for ever.
            (Method::Kprobe, HookPoint::Exit) => vec![format!("{name}_kretprobe"), format!("{name}_kprobe")],
            // The kernel runs what was attached last first (`hlist_add_head` in kernel/bpf/trampoline.c), and the backup
            // has to run second.
            _ if backups => vec![format!("{name}_backup"), name.to_owned()],
            _ => vec![name.to_owned()],
        }
    }

    /// In the words of `pinwatch check`.
    pub fn method_name(&self, method: Method) -> &'static str {
        match (method, self.id.point()) {
            (Method::Kprobe, HookPoint::Entry) => "kprobe",
            (Method::Kprobe, HookPoint::Exit) => "kretprobe",
            (_, HookPoint::Entry) => "fentry",
            (_, HookPoint::Exit) => "fexit",
        }
    }
}

pub const CAP_SYS_ADMIN: u32 = 21;
pub const CAP_PERFMON: u32 = 38;
pub const CAP_BPF: u32 = 39;

/// Whether the process has the capability, or may have it for all that is known.
pub fn may_have(facts: &Facts, capability: u32) -> bool {
    facts.capabilities.is_none_or(|set| set >> capability & 1 == 1)
}

/// Loading a tracing program was tried, and failed.
pub fn trampolines_refused(facts: &Facts) -> bool {
    facts.bpf_tracing.is_some_and(|errno| errno != 0)
}

/// Whether the kernel, or a module that is loaded, has the function. A symbol is believed only if its module has no BTF:
/// where there is BTF and the function is not in it, its arguments are not where the source has them.
pub fn exists(facts: &Facts, wanted: &KernelFn) -> bool {
    facts.functions.get(wanted.symbol).is_some_and(|fact| fact.btf.is_some() || is_opaque(facts, fact))
}

fn is_opaque(facts: &Facts, fact: &FunctionFact) -> bool {
    let without_btf = facts.modules.iter().filter(|module| module.btf != BtfState::Read);
    fact.symbol == Some(true)
        && without_btf.into_iter().any(|module| fact.module.as_ref() == Some(&module.name))
}

/// Whether a function is called as it is known to be.
fn fits(function: &Function, wanted: &KernelFn) -> Result<(), Missing> {
    let symbol = wanted.symbol;
    let taken: Vec<_> = function.params.iter().map(|param| param.shape.as_str()).collect();
    if !taken.starts_with(wanted.params) {
        return Err(Missing::TakesOther { symbol, known: wanted.params.join(", "), here: taken.join(", ") });
    }
    if !wanted.returns.contains(&function.returns.as_str()) {
        let known = wanted.returns.join(" or ");
        return Err(Missing::ReturnsOther { symbol, known, here: function.returns.clone() });
    }
    Ok(())
}

/// The type ids of what programs call, in the order of [`pinwatch_common::KFUNCS`], if the kernel proper has all of it.
pub fn kfuncs(facts: &Facts) -> Option<[u32; KFUNCS.len()]> {
    let all = [&wanted::PREEMPT_DISABLE, &wanted::PREEMPT_ENABLE, &wanted::IRQ_SAVE, &wanted::IRQ_RESTORE];
    let mut ids = [0; KFUNCS.len()];
    for (id, wanted) in ids.iter_mut().zip(all) {
        let fact = facts.functions.get(wanted.symbol).filter(|fact| fact.module.is_none())?;
        let function = fact.btf.as_ref().filter(|function| fits(function, wanted).is_ok())?;
        *id = function.id;
    }
    Some(ids)
}

/// Why a function was not found.
pub fn missing(facts: &Facts, symbol: &'static str, in_kallsyms: Option<bool>) -> Missing {
    let without_btf = facts.modules.iter().find(|module| module.btf != BtfState::Read);
    match (without_btf, in_kallsyms) {
        (Some(module), None) => Missing::NotFound { symbol, module: module.name.clone() },
        (_, Some(true)) => Missing::NotInBtf { symbol },
        (_, Some(false)) | (None, None) => Missing::NotInKernel { symbol },
    }
}

/// "ib_umem_get (fexit), ib_umem_release (fentry) in ib_uverbs": which functions are hooked, and how.
pub fn describe(hooks: &[Hook]) -> String {
    let planned: Vec<_> = hooks.iter().map(|hook| (hook, hook.method)).collect();
    describe_as(&planned)
}

/// The same, where they are hooked otherwise than planned.
pub fn describe_as(hooks: &[(&Hook, Method)]) -> String {
    let mut text = String::new();
    for (index, (hook, method)) in hooks.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        text += &format!("{separator}{} ({})", hook.symbol, hook.method_name(*method));
        let module = hook.module.as_deref();
        let next = hooks.get(index + 1).and_then(|(next, _)| next.module.as_deref());
        if let Some(module) = module.filter(|_| next != module) {
            text += &format!(" in {module}");
        }
    }
    text
}
