//! `pinwatch check`: hooks attached for real for a moment, and what came of it.

use std::collections::BTreeMap;

use super::hooks::{Hooks, probe};
use crate::kernel::check::Check;
use crate::kernel::facts::Depth;
use crate::kernel::plan::{Choices, Method, Verdict};
use crate::subsystem;

/// Room for pins: none is recorded long enough to matter.
const MAX_PINS: u32 = 64;

/// Looks at this kernel, and attaches what the plan has for it, unless nothing can be.
pub fn check(choices: &Choices) -> Check {
    let facts = probe(Depth::Thorough);
    let plan = subsystem::plan(&facts, choices.clone());
    if plan.verdict() == Verdict::Unusable {
        return Check::new(&facts, &plan, &[]);
    }
    let results: Vec<(&str, Result<Method, String>)> = match Hooks::start(choices, MAX_PINS, false) {
        Ok(hooks) => {
            let report = hooks.report();
            let attached: BTreeMap<&str, Option<Method>> = report.hooks.iter().copied().collect();
            let result = |name: &'static str| match attached.get(name) {
                Some(Some(method)) => Ok(*method),
                Some(None) | None => Err((report.failed.get(name))
                    .map_or_else(|| "it was not attached".to_owned(), |(_, reason)| reason.clone())),
            };
            plan.hooks.iter().map(|hook| (hook.name(), result(hook.name()))).collect()
        }
        Err(error) => plan.hooks.iter().map(|hook| (hook.name(), Err(error.to_string()))).collect(),
    };
    Check::new(&facts, &plan, &results)
}
