//! One hook: what is attached where, and how.

use pinwatch_common::{
    KERNEL_CALLS,
    subsystems::{HookId, HookPoint},
};
use serde::Serialize;

use super::{AttachMode, CAP_SYS_ADMIN, may_have, trampolines_refused};
use crate::kernel::{
    btf::Function,
    facts::{BtfState, Facts, FunctionFact},
    feature::FeatureName,
    table::{self, FunctionRule},
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

/// A function that can be hooked.
pub struct Target {
    /// The module that it is in.
    pub module: Option<String>,
    /// Its BTF id.
    pub btf_id: Option<u32>,
    /// How.
    pub method: Method,
    /// Whether a kprobe is a way out.
    pub fallback: bool,
}

/// Whether the kernel, or a module that is loaded, has the function. A symbol is believed only if its module has no BTF:
/// where there is BTF and the function is not in it, its arguments are not where the source has them.
pub fn exists(facts: &Facts, rule: &FunctionRule) -> bool {
    facts.functions.get(rule.symbol).is_some_and(|fact| fact.btf.is_some() || is_opaque(facts, fact))
}

fn is_opaque(facts: &Facts, fact: &FunctionFact) -> bool {
    let without_btf = facts.modules.iter().filter(|module| module.btf != BtfState::Read);
    fact.symbol == Some(true)
        && without_btf.into_iter().any(|module| fact.module.as_ref() == Some(&module.name))
}

/// Whether a function is called as it is known to be, or how it is called instead.
fn fits(function: &Function, rule: &FunctionRule) -> Result<(), String> {
    let symbol = rule.symbol;
    let taken: Vec<_> = function.params.iter().map(|param| param.shape.as_str()).collect();
    if !taken.starts_with(rule.params) {
        let (here, known) = (taken.join(", "), rule.params.join(", "));
        return Err(format!("{symbol} takes ({here}) here, where ({known}) is known"));
    }
    if !rule.returns.contains(&function.returns.as_str()) {
        let known = rule.returns.join(" or ");
        return Err(format!("{symbol} returns {} here, where {known} is known", function.returns));
    }
    Ok(())
}

/// The type ids of what programs call, in the order of [`pinwatch_common::KERNEL_CALLS`], if the kernel proper has all of it.
pub fn kernel_calls(facts: &Facts) -> Option<[u32; KERNEL_CALLS.len()]> {
    const RULES: [FunctionRule; KERNEL_CALLS.len()] =
        [table::PREEMPT_DISABLE, table::PREEMPT_ENABLE, table::IRQ_SAVE, table::IRQ_RESTORE];
    let mut ids = [0; KERNEL_CALLS.len()];
    for (id, rule) in ids.iter_mut().zip(&RULES) {
        let fact = facts.functions.get(rule.symbol).filter(|fact| fact.module.is_none())?;
        let function = fact.btf.as_ref().filter(|function| fits(function, rule).is_ok())?;
        *id = function.id;
    }
    Some(ids)
}

/// How the function can be hooked, or why not.
pub fn target(facts: &Facts, mode: AttachMode, rule: &FunctionRule) -> Result<Target, String> {
    let symbol = rule.symbol;
    let fact = facts.functions.get(symbol).cloned().unwrap_or_default();
    if fact.btf.is_none() && !is_opaque(facts, &fact) {
        return Err(missing(facts, symbol, fact.symbol));
    }
    if let Some(function) = &fact.btf {
        fits(function, rule)?;
    }
    if fact.traceable == Some(false) {
        return Err(format!("{symbol} cannot be traced: ftrace does not list it"));
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
        _ => {
            return Err(format!(
                "{symbol} can be hooked by kprobe only, and this kernel has none (CONFIG_KPROBES)"
            ));
        }
    };
    let fallback = kprobes && method != Method::Kprobe;
    Ok(Target { module: fact.module, btf_id: fact.btf.map(|function| function.id), method, fallback })
}

fn missing(facts: &Facts, symbol: &str, in_kallsyms: Option<bool>) -> String {
    let without_btf = facts.modules.iter().find(|module| module.btf != BtfState::Read);
    match (without_btf, in_kallsyms) {
        (Some(module), None) => {
            let name = &module.name;
            format!("{symbol} was not found: module {name} has no BTF, and /proc/kallsyms cannot be read")
        }
        (_, Some(true)) => format!("{symbol} is not in this kernel's BTF, though it is in /proc/kallsyms"),
        _ => format!("{symbol} is not in this kernel"),
    }
}

/// "ib_umem_get (fexit), ib_umem_release (fentry) in ib_uverbs": which functions are hooked, and how.
pub fn describe(hooks: &[(&Hook, Method)]) -> String {
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
