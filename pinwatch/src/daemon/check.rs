//! `pinwatch check`: hooks attached for real for a moment, and what came of it.

use std::collections::BTreeMap;

use super::exporter::Limits;
use super::{Settings, Watch, probe, web};
use crate::kernel::check::Check;
use crate::kernel::facts::Depth;
use crate::kernel::plan::{Choices, Method, Plan, Verdict};
use crate::model::LeasePolicy;
use crate::wire;

/// Looks at this kernel, and attaches what the plan has for it, unless nothing can be.
pub fn check(choices: &Choices) -> Check {
    let facts = probe(Depth::Thorough);
    let plan = Plan::decide(&facts, choices.clone());
    if plan.verdict() == Verdict::Unusable {
        return Check::new(&facts, &plan, &[]);
    }
    let settings = Settings {
        socket: wire::SOCKET.into(),
        choices: choices.clone(),
        max_pins: 64,
        bpf_log: false,
        policy: LeasePolicy::default(),
        limits: Limits::default(),
        web: web::Settings::default(),
        statistics: false,
    };
    let results: Vec<(&str, Result<Method, String>)> = match Watch::start(&settings) {
        Ok(watch) => {
            let attached: BTreeMap<_, _> =
                watch.programs().attached().iter().map(|(name, attached)| (*name, attached.method)).collect();
            let failed = watch.failed_hooks();
            let result = |name: &'static str| match attached.get(name) {
                Some(method) => Ok(*method),
                None => Err(failed.get(name).cloned().unwrap_or_else(|| "it was not attached".to_owned())),
            };
            plan.hooks.iter().map(|hook| (hook.name(), result(hook.name()))).collect()
        }
        Err(error) => plan.hooks.iter().map(|hook| (hook.name(), Err(error.to_string()))).collect(),
    };
    Check::new(&facts, &plan, &results)
}
