//! What `pinwatch check` says: the kernel in a line, then every feature with how it is done or why it is not.
//!
//! Pure: it is made from facts, a plan, and what became of the plan when it was carried out.

use std::fmt::Write as _;

use pinwatch_common::subsystems::{HookPoint, Subsystem};
use serde::Serialize;

use super::{
    facts::{BtfState, Facts},
    feature::Feature,
    feature_name::{FeatureName, State},
    missing::Missing,
    plan::{Hook, Method, Plan, Verdict, hook::describe_as},
};

/// What became of a hook: its name, and how it was attached or why it could not be.
pub type Attached<'a> = (&'a str, Result<Method, String>);

/// The answer to "is it working here?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    kernel: Kernel,
    features: Vec<Feature>,
    hooks: Vec<HookLine>,
    verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Kernel {
    release: String,
    arch: String,
    /// `yes`, `no`, or why it cannot be used.
    btf: String,
    modules: Vec<Module>,
    lockdown: Option<String>,
    preemptible: Option<bool>,
    kprobes: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Module {
    name: String,
    btf: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct HookLine {
    name: &'static str,
    feature: FeatureName,
    function: &'static str,
    module: Option<String>,
    /// `fentry`, `fexit`, `kprobe` or `kretprobe`.
    method: &'static str,
    /// `None`: it was not tried.
    attached: Option<bool>,
    error: Option<String>,
}

impl Check {
    /// `attached` has a result for each hook that was tried; hooks that are not in it are taken as planned.
    pub fn new(facts: &Facts, plan: &Plan, attached: &[Attached<'_>]) -> Self {
        let outcome =
            |hook: &Hook| attached.iter().find(|(name, _)| *name == hook.name()).map(|(_, result)| result);
        let mut features: Vec<_> =
            plan.features.iter().map(|feature| carried_out(feature, &plan.hooks, outcome)).collect();
        let lost: Vec<Subsystem> = (features.iter())
            .filter(|feature| feature.state == State::Off)
            .filter_map(|feature| match feature.name {
                FeatureName::Subsystem(subsystem) => Some(subsystem),
                FeatureName::Part(_) | FeatureName::Detail(_) => None,
            })
            .collect();
        for feature in &mut features {
            if let FeatureName::Part(part) = feature.name
                && feature.state != State::Off
                && lost.contains(&part.subsystem)
            {
                let why = Missing::Needs(FeatureName::Subsystem(part.subsystem));
                *feature = Feature::missing(feature.name, part.loss, why);
            }
        }
        let verdict = Verdict::of(&features);
        let hooks = plan.hooks.iter().map(|hook| HookLine::new(hook, outcome(hook))).collect();
        Self { kernel: Kernel::new(facts), features, hooks, verdict }
    }

    /// 0: nothing is missed; 1: something is; 2: no pin can be traced.
    pub fn exit_code(&self) -> u8 {
        self.verdict.exit_code()
    }

    /// For people. Lines are broken before `width` columns where that is possible.
    pub fn text(&self, width: usize) -> String {
        let mut out = wrapped(&self.kernel.line(), width, 2);
        if let Some(reason) = self.common_reason() {
            out += &wrapped(&feature_line("all", State::Off, reason), width, INDENT);
        } else {
            for feature in &self.features {
                let line = feature_line(feature.name.as_str(), feature.state, &feature.text);
                out += &wrapped(&line, width, INDENT);
            }
        }
        if self.verdict == Verdict::Unusable {
            out +=
                &wrapped("No pin can be traced here. lspins shows what procfs and netlink know.", width, 0);
        }
        out
    }

    /// For scripts: one object, ended by a newline. The names in it are kept from release to release.
    ///
    /// # Errors
    /// Never in practice; what serde_json says.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let mut out = serde_json::to_string_pretty(self)?;
        out.push('\n');
        Ok(out)
    }

    /// Nothing works, and all for the same reason: it is said once.
    fn common_reason(&self) -> Option<&str> {
        let first = self.features.first()?;
        let same =
            self.features.iter().all(|feature| feature.state == State::Off && feature.text == first.text);
        same.then_some(first.text.as_str())
    }
}

/// Columns before the text of a feature.
const INDENT: usize = 17;

fn feature_line(name: &str, state: State, text: &str) -> String {
    format!("{name:<11}{:<6}{text}", state.word())
}

impl Kernel {
    fn new(facts: &Facts) -> Self {
        let modules = facts.modules.iter();
        let modules = modules.map(|module| Module { name: module.name.clone(), btf: btf_word(&module.btf) });
        Self {
            release: facts.release.clone(),
            arch: facts.arch.clone(),
            btf: btf_word(&facts.btf),
            modules: modules.collect(),
            lockdown: facts.lockdown.clone(),
            preemptible: facts.preemptible,
            kprobes: facts.kprobes,
        }
    }

    fn line(&self) -> String {
        let without: Vec<_> = self
            .modules
            .iter()
            .filter(|module| module.btf != "yes")
            .map(|module| module.name.as_str())
            .collect();
        let modules = match (self.modules.is_empty(), without.is_empty()) {
            (true, _) => "no modules to hook".to_owned(),
            (false, true) => "modules' BTF yes".to_owned(),
            (false, false) => format!("modules' BTF not for {}", without.join(", ")),
        };
        let lockdown = self.lockdown.as_deref().unwrap_or("unknown");
        format!("kernel {}, BTF {}, {modules}, lockdown {lockdown}", self.release, self.btf)
    }
}

fn btf_word(state: &BtfState) -> String {
    match state {
        BtfState::Read => "yes".to_owned(),
        BtfState::Absent => "no".to_owned(),
        BtfState::Unusable(why) => why.clone(),
    }
}

impl HookLine {
    fn new(hook: &Hook, outcome: Option<&Result<Method, String>>) -> Self {
        let method = outcome.and_then(|result| result.as_ref().ok()).unwrap_or(&hook.method);
        Self {
            name: hook.name(),
            feature: hook.feature,
            function: hook.symbol,
            module: hook.module.clone(),
            method: hook.method_name(*method),
            attached: outcome.map(Result::is_ok),
            error: outcome.and_then(|result| result.as_ref().err()).map(|error| one_line(error)),
        }
    }
}

/// The feature as it turned out: off if one of its hooks failed, and with the methods that were used.
fn carried_out<'a>(
    feature: &Feature,
    hooks: &'a [Hook],
    outcome: impl Fn(&Hook) -> Option<&'a Result<Method, String>>,
) -> Feature {
    let own: Vec<&Hook> = hooks.iter().filter(|hook| hook.feature == feature.name).collect();
    for hook in &own {
        if let Some(Err(error)) = outcome(hook) {
            let why = Missing::NotAttached {
                symbol: hook.symbol,
                at_return: hook.id.point() == HookPoint::Exit,
                error: one_line(error),
            };
            return Feature::missing(feature.name, feature.loss, why);
        }
    }
    let planned: Vec<_> = own.iter().map(|hook| (*hook, hook.method)).collect();
    let used: Vec<_> = own
        .iter()
        .map(|hook| {
            (*hook, outcome(hook).and_then(|result| result.as_ref().ok()).copied().unwrap_or(hook.method))
        })
        .collect();
    let text = match planned == used {
        true => feature.text.clone(),
        false => feature.text.replacen(&describe_as(&planned), &describe_as(&used), 1),
    };
    Feature { text, ..feature.clone() }
}

/// Errors of the kernel may bring a verifier's log with them.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control())
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Breaks a line between words; what follows is indented. Runs of spaces at the start are kept: they are columns.
fn wrapped(line: &str, width: usize, indent: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for (index, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        let fits = column + 1 + length <= width;
        if index == 0 {
        } else if fits || word.is_empty() || column <= indent {
            out.push(' ');
            column += 1;
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        }
        out += word;
        column += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests;
