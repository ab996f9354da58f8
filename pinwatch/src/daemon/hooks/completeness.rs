//! What is missing of the table because of the hooks: which are off, which could not be attached, and since when each
//! subsystem is watched. Pure.

use std::collections::BTreeMap;

use crate::kernel::feature::Feature;
use crate::kernel::feature_name::{FeatureName, State};
use crate::model::Gap;

/// The gaps. `since`: when the hooks of each feature were attached that see pins made, nanoseconds since the epoch; `failed`:
/// hooks that could not be attached, and why.
pub fn gaps(
    features: &[Feature],
    since: &BTreeMap<FeatureName, i64>,
    failed: &BTreeMap<&'static str, (FeatureName, String)>,
) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let first = since.values().min().copied();
    gaps.extend(first.map(|since| Gap::Before { since }));
    for (feature, since) in since.iter().filter(|(_, since)| Some(**since) != first) {
        if let FeatureName::Subsystem(subsystem) = *feature {
            gaps.push(Gap::SubsystemBefore { subsystem, since: *since });
        }
    }
    for feature in features {
        let FeatureName::Subsystem(subsystem) = feature.name else { continue };
        let why = || feature.text.clone();
        match feature.state {
            State::Off => gaps.push(Gap::NotTraced { subsystem, why: why() }),
            State::Degraded => gaps.push(Gap::PartlyTraced { subsystem, why: why() }),
            State::On | State::Waiting | State::Absent | State::Disabled => {}
        }
    }
    for (feature, reason) in failed.values().filter(|(feature, _)| !feature.is_history()) {
        gaps.push(Gap::HookMissing { feature: feature.to_string(), why: reason.clone() });
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::feature_name::Detail;
    use crate::model::{GapCode, Subsystem};

    const FIRST: i64 = 1_000;
    const LATER: i64 = 2_000;

    fn feature(name: FeatureName, state: State) -> Feature {
        Feature { name, loss: "", state, text: "why".to_owned(), reasons: Vec::new() }
    }

    fn codes(gaps: &[Gap]) -> Vec<GapCode> {
        gaps.iter().map(Gap::code).collect()
    }

    /// Two features that see pins, and one that only records what happens.
    fn names() -> (FeatureName, FeatureName, FeatureName) {
        (Subsystem::Rdma.into(), Subsystem::Xdp.into(), Detail::LeaseEvents.into())
    }

    #[test]
    fn what_was_hooked_together_is_one_gap_and_what_came_later_one_each() {
        let (a, b, _) = names();
        assert_eq!(gaps(&[], &BTreeMap::new(), &BTreeMap::new()), []);
        let same: BTreeMap<_, _> = [(a, FIRST), (b, FIRST)].into();
        assert_eq!(gaps(&[], &same, &BTreeMap::new()), [Gap::Before { since: FIRST }]);
        let later: BTreeMap<_, _> = [(a, FIRST), (b, LATER)].into();
        let of_b = Gap::SubsystemBefore { subsystem: Subsystem::Xdp, since: LATER };
        assert_eq!(gaps(&[], &later, &BTreeMap::new()), [Gap::Before { since: FIRST }, of_b]);
    }

    #[test]
    fn only_a_subsystem_that_is_off_or_degraded_is_a_gap() {
        let (a, _, history) = names();
        for (state, wanted) in [
            (State::Off, Some(GapCode::NotTraced)),
            (State::Degraded, Some(GapCode::PartlyTraced)),
            (State::On, None),
            (State::Waiting, None),
            (State::Absent, None),
            (State::Disabled, None),
        ] {
            let found = gaps(&[feature(a, state)], &BTreeMap::new(), &BTreeMap::new());
            assert_eq!(codes(&found), wanted.into_iter().collect::<Vec<_>>(), "{state:?}");
        }
        // The table is none the worse for it.
        assert_eq!(gaps(&[feature(history, State::Off)], &BTreeMap::new(), &BTreeMap::new()), []);
    }

    #[test]
    fn a_hook_that_is_missing_is_a_gap_unless_it_only_records_what_happens() {
        let (a, _, history) = names();
        let failed: BTreeMap<_, _> =
            [("one", (a, "no room".to_owned())), ("break_lease", (history, "denied".to_owned()))].into();
        let found = gaps(&[], &BTreeMap::new(), &failed);
        assert_eq!(found, [Gap::HookMissing { feature: a.to_string(), why: "no room".to_owned() }]);
    }
}
