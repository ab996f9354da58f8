//! The plan of all subsystems: each room is asked in turn.

use crate::kernel::facts::Facts;
use crate::kernel::feature::Feature;
use crate::kernel::feature_name::{Detail, FeatureName, State};
use crate::kernel::missing::Missing;
use crate::kernel::plan::{Choices, Plan, Planner, describe};
use crate::kernel::wanted::{self, Wanted};

use super::{ALL, Hooks, Room};

/// What there is to look for in a kernel.
pub fn wanted() -> Wanted {
    let mut all = Wanted { functions: wanted::FUNCTIONS.to_vec(), ..Wanted::default() };
    for needs in ALL.iter().map(|room| room.needs()) {
        all.modules.extend(needs.modules);
        all.functions.extend(needs.functions);
        all.structs.extend(needs.structs);
        all.enumerators.extend(needs.enumerators);
    }
    all
}

/// Decides what is hooked, and how.
pub fn plan(facts: &Facts, choices: impl Into<Choices>) -> Plan {
    let choices = choices.into();
    match Planner::new(facts, &choices) {
        Ok(mut planner) => {
            ALL.iter().for_each(|room| add(&mut planner, *room));
            planner.finish()
        }
        Err(why) => Plan::nothing(&why, features()),
    }
}

/// All features that a plan has, in the order in which they are shown.
pub fn feature_names() -> impl Iterator<Item = FeatureName> {
    features().map(|(name, _)| name).chain(Detail::ALL.map(FeatureName::Detail))
}

/// The features of subsystems, in the order in which they are shown, with what is lost without each.
fn features() -> impl Iterator<Item = (FeatureName, &'static str)> {
    ALL.iter().flat_map(|room| {
        let parts = room.needs().parts.iter().map(|part| (FeatureName::Part(part), part.loss));
        [(FeatureName::Subsystem(room.id()), room.needs().loss)].into_iter().chain(parts)
    })
}

/// Adds a subsystem to the plan.
fn add(planner: &mut Planner<'_>, room: &dyn Room) {
    let (name, needs) = (FeatureName::Subsystem(room.id()), room.needs());
    let before = (planner.layout, planner.module_layout);
    let outcome = match room.hooks(planner) {
        // What is not in this kernel need not be switched off.
        Err(why) if why.state() == State::Absent => Err(why),
        _ if planner.choices.without.contains(&room.id()) => Err(Missing::SwitchedOff(room.id())),
        outcome => outcome,
    };
    match outcome {
        Ok(Hooks { hooks, lacks, parts }) => {
            if !needs.modules.is_empty() {
                planner.uses_module_layout();
            }
            let feature = Feature::lacking(name, needs.loss, describe(&hooks), lacks);
            planner.add(feature, hooks);
            for (part, hooks) in needs.parts.iter().zip(parts) {
                let name = FeatureName::Part(part);
                match hooks {
                    Ok(hooks) => planner.add(Feature::on(name, part.loss, describe(&hooks)), hooks),
                    Err(why) => planner.add(Feature::missing(name, part.loss, why), Vec::new()),
                }
            }
        }
        Err(why) => {
            // Programs are told nothing of what is not hooked.
            (planner.layout, planner.module_layout) = before;
            let of_parts = if why.state() == State::Off { Missing::Needs(name) } else { why.clone() };
            planner.add(Feature::missing(name, needs.loss, why), Vec::new());
            for part in needs.parts {
                let feature = Feature::missing(FeatureName::Part(part), part.loss, of_parts.clone());
                planner.add(feature, Vec::new());
            }
        }
    }
}

#[cfg(test)]
mod layout_tests;
#[cfg(test)]
mod tests;
