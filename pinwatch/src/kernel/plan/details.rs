//! What is told of pins of all subsystems: features without hooks, and the hooks on leases.

use pinwatch_common::LayoutGroup;
use pinwatch_common::subsystems::HookId;

use super::hook::{Hook, describe};
use super::planner::Planner;
use crate::kernel::feature::Feature;
use crate::kernel::feature_name::{Detail, FeatureName};
use crate::kernel::missing::Missing;
use crate::kernel::wanted;

/// Feature, what it needs, and how it is done.
const DETAILS: &[(Detail, LayoutGroup, &str)] = &[
    (
        Detail::Extents,
        LayoutGroup::Extents,
        "which ranges of which files, from the VMAs when the pin is made",
    ),
    (Detail::Paths, LayoutGroup::Paths, "names as of the time when the pin is made"),
    (Detail::PageCheck, LayoutGroup::PageCheck, "the first page of each extent is looked at"),
    (Detail::Owners, LayoutGroup::Owners, "command name and start time of the creator"),
    (
        Detail::Holders,
        LayoutGroup::Holders,
        "descriptors, mappings and messages of all processes, when asked",
    ),
    (Detail::Anchors, LayoutGroup::Anchors, "file descriptor from the system call's registers"),
    (Detail::Refused, LayoutGroup::Limits, "what was asked for, by whom, and what the reason is"),
    (Detail::Leases, LayoutGroup::Leases, "those on files that processes have open or mapped, when asked"),
];

impl Planner<'_> {
    /// The features that tell more of a pin than that it is there.
    pub(super) fn details(&mut self) {
        let extents = self.needs(LayoutGroup::Extents);
        for (detail, group, how) in DETAILS {
            let name = FeatureName::Detail(*detail);
            let needs_extents = matches!(detail, Detail::Paths | Detail::PageCheck);
            let outcome = match &extents {
                Err(_) if needs_extents => Err(Missing::Needs(FeatureName::Detail(Detail::Extents))),
                _ => self.needs(*group),
            };
            let feature = match outcome {
                Ok(()) => Feature::on(name, detail.loss(), (*how).to_owned()),
                Err(why) => Feature::missing(name, detail.loss(), why),
            };
            self.add(feature, Vec::new());
        }
    }

    /// What happens to leases: two hooks, and the kernel's tracepoints where a lease is in somebody's way.
    pub(super) fn lease_events(&mut self) {
        let (name, loss) = (FeatureName::Detail(Detail::LeaseEvents), Detail::LeaseEvents.loss());
        match self.lease_hooks(name) {
            Ok(hooks) => {
                let how = format!("{}, tracepoints break_lease_*, time_out_leases", describe(&hooks));
                let lacks = self.needs(LayoutGroup::Breakers).err();
                let lacks = lacks.map(|why| (why, "what a breaker does is not known"));
                self.add(Feature::lacking(name, loss, how, lacks.into_iter().collect()), hooks);
            }
            Err(why) => self.add(Feature::missing(name, loss, why), Vec::new()),
        }
    }

    fn lease_hooks(&self, name: FeatureName) -> Result<Vec<Hook>, Missing> {
        if self.needs(LayoutGroup::Leases).is_err() {
            return Err(Missing::Needs(FeatureName::Detail(Detail::Leases)));
        }
        // Leases had no struct of their own before 6.9.
        let takes = self.signature(&wanted::LEASE_MODIFY).ok().and_then(|function| function.params.first());
        let of_lock = takes
            .is_some_and(|param| Some(&param.shape.as_str()) == wanted::LEASE_MODIFY_LOCK.params.first());
        let modify = if of_lock { &wanted::LEASE_MODIFY_LOCK } else { &wanted::LEASE_MODIFY };
        let hooks = [(HookId::lease_set, &wanted::GENERIC_SETLEASE), (HookId::lease_change, modify)];
        self.hooks(name, hooks)
    }
}
