//! The hooks of each subsystem, and what they need.

use pinwatch_common::{KernelLayout, LayoutGroup, subsystems::HookId};

use super::{
    Choices, Feature, FeatureName, Hook, Plan, State,
    hook::{self, Target},
    offsets::{self, Groups},
};
use crate::kernel::{
    facts::Facts,
    table::{self, FunctionRule},
};

/// Why there are no RDMA names without RDMA.
pub const NOTHING_TO_NAME: &str = "without rdma there is nothing to name";

/// Feature, part, and how it is done.
const DETAILS: &[(FeatureName, LayoutGroup, &str)] = &[
    (
        FeatureName::Extents,
        LayoutGroup::Extents,
        "which ranges of which files, from the VMAs when the pin is made",
    ),
    (FeatureName::Paths, LayoutGroup::Paths, "names as of the time when the pin is made"),
    (FeatureName::PageCheck, LayoutGroup::PageCheck, "the first page of each extent is looked at"),
    (FeatureName::Owners, LayoutGroup::Owners, "command name and start time of the creator"),
    (
        FeatureName::Holders,
        LayoutGroup::Holders,
        "descriptors, mappings and messages of all processes, when asked",
    ),
    (FeatureName::Anchors, LayoutGroup::Anchors, "file descriptor from the system call's registers"),
    (FeatureName::Refused, LayoutGroup::Limits, "what was asked for, by whom, and what the reason is"),
    (
        FeatureName::Leases,
        LayoutGroup::Leases,
        "those on files that processes have open or mapped, when asked",
    ),
];

/// Adds hooks and features to a plan, one subsystem at a time.
pub struct Planner<'a> {
    pub facts: &'a Facts,
    pub choices: &'a Choices,
    pub parts: &'a Groups,
    pub offsets: &'a mut KernelLayout,
    pub plan: &'a mut Plan,
}

impl Planner<'_> {
    /// RDMA buffers, and their names.
    pub fn rdma(&mut self) {
        let buffers = self.rdma_buffers().unwrap_or_else(|why| Feature::off(FeatureName::Rdma, &why));
        let name = FeatureName::RdmaNames;
        let names = match buffers.state {
            State::On | State::Degraded => match self.rdma_names() {
                Ok(text) => Feature { name, state: State::On, text },
                Err(why) => Feature::off(name, &why),
            },
            State::Off => Feature::off(name, NOTHING_TO_NAME),
            _ => Feature { name, ..buffers.clone() },
        };
        self.plan.features.extend([buffers, names]);
    }

    fn rdma_buffers(&mut self) -> Result<Feature, String> {
        let (facts, name) = (self.facts, FeatureName::Rdma);
        self.is_wanted(name)?;
        let creates = [table::IB_UMEM_GET_VA, table::IB_UMEM_GET];
        // If neither exists, the reason is worded for the older one.
        let create = creates.iter().find(|rule| hook::exists(facts, rule)).unwrap_or(&table::IB_UMEM_GET);
        if !hook::exists(facts, create) && !facts.modules.iter().any(|module| module.name == "ib_uverbs") {
            let text = "module ib_uverbs is not loaded; it is hooked when it is".to_owned();
            return Ok(Feature { name, state: State::Waiting, text });
        }
        let hooks = self
            .targets(name, [(create, HookId::rdma_get), (&table::IB_UMEM_RELEASE, HookId::rdma_release)])?;
        let (module_offsets, parts) = offsets::modules(facts);
        self.plan.module_offsets.get_or_insert(module_offsets);
        let mut text = self.add(hooks);
        let mut state = State::On;
        for (part, loss) in [
            (LayoutGroup::RdmaDevice, "the device is not named"),
            (LayoutGroup::RdmaPages, "RDMA buffers' pages are not checked"),
        ] {
            if let Some(why) = parts.missing(part) {
                state = State::Degraded;
                text += &format!("; {why}, so {loss}");
            }
        }
        Ok(Feature { name, state, text })
    }

    fn rdma_names(&mut self) -> Result<String, String> {
        let (_, parts) = offsets::modules(self.facts);
        if let Some(why) = parts.missing(LayoutGroup::RdmaNames) {
            return Err(why.to_owned());
        }
        let hooks =
            self.targets(FeatureName::RdmaNames, [(&table::RDMA_RESTRACK_ADD, HookId::rdma_track)])?;
        Ok(self.add(hooks))
    }

    /// Registered io_uring buffers.
    pub fn io_uring(&mut self) {
        let known = self.facts.sizes.get(table::IO_MAPPED_UBUF).copied().flatten().is_some();
        let exists = known || hook::exists(self.facts, &table::IO_SQE_BUFFER_REGISTER);
        let outcome = self.io_uring_buffers();
        self.subsystem(FeatureName::IoUring, exists, "CONFIG_IO_URING", outcome);
    }

    fn io_uring_buffers(&mut self) -> Result<String, String> {
        self.is_wanted(FeatureName::IoUring)?;
        if let Some(why) = self.parts.missing(LayoutGroup::IoUring) {
            return Err(why.to_owned());
        }
        let register = &table::IO_SQE_BUFFER_REGISTER;
        let (returns_node, arguments, has_buffer) = self.io_register_call()?;
        if !has_buffer {
            let member = if returns_node { "io_rsrc_node.buf" } else { "io_ring_ctx.user_bufs" };
            return Err(format!("{member} is not in this kernel's BTF"));
        }
        let mut wanted = vec![(register, HookId::io_register)];
        if hook::exists(self.facts, &table::IO_RELEASE_UBUF) {
            wanted.push((&table::IO_RELEASE_UBUF, HookId::io_release));
        } else {
            wanted.push((&table::IO_BUFFER_UNMAP, HookId::io_unmap));
            // A buffer that two rings share is released by the last one only, which is known after the call.
            if self.offsets.has.io_buf_refs != 0 {
                wanted.push((&table::IO_BUFFER_UNMAP, HookId::io_unmap_done));
            }
        }
        let clone = &table::IO_REGISTER_CLONE_BUFFERS;
        if hook::exists(self.facts, clone) && self.offsets.has.io_ctx_buffers != 0 {
            wanted.push((clone, HookId::io_clone));
        }
        let memory = self.ring_memory();
        wanted.extend(&memory);
        let hooks = self.targets(FeatureName::IoUring, wanted)?;
        let by_pages = memory.iter().any(|(_, hook)| *hook == HookId::io_pin);
        self.offsets.io_ring_memory = u64::from(by_pages);
        self.offsets.io_uring_returns_node = u64::from(returns_node);
        self.offsets.io_register_args = arguments as u64;
        Ok(self.add(hooks))
    }

    /// What tells of memory that rings keep other than buffers, as far as this kernel can.
    fn ring_memory(&mut self) -> Vec<(&'static FunctionRule, HookId)> {
        let create = &table::IO_CREATE_REGION;
        if hook::exists(self.facts, create) {
            let function = self.facts.functions.get(create.symbol).and_then(|fact| fact.btf.as_ref());
            let first = function.and_then(|function| Some(function.params.first()?.shape == "io_ring_ctx *"));
            self.offsets.io_region_takes_ring = u64::from(first == Some(true));
            let free = (&table::IO_FREE_REGION, HookId::io_region_free);
            return vec![(create, HookId::io_region), free];
        }
        // Their end is found by looking at their pages.
        let provide = &table::IO_REGISTER_PBUF_RING;
        let pin = &table::IO_PIN_PAGES;
        let can_look = self.parts.missing(LayoutGroup::PageState).is_none();
        if !can_look || !hook::exists(self.facts, provide) || !hook::exists(self.facts, pin) {
            return Vec::new();
        }
        let mut wanted = vec![(pin, HookId::io_pin), (provide, HookId::io_provide)];
        if hook::exists(self.facts, &table::IO_UADDR_MAP) {
            wanted.push((&table::IO_UADDR_MAP, HookId::io_queues));
        }
        wanted
    }

    /// Whether registering returns a node, how many arguments it has, and whether the buffer can be found then.
    fn io_register_call(&self) -> Result<(bool, usize, bool), String> {
        let symbol = table::IO_SQE_BUFFER_REGISTER.symbol;
        let fact = self.facts.functions.get(symbol).and_then(|fact| fact.btf.as_ref());
        let function = fact.ok_or_else(|| format!("{symbol} is not in this kernel's BTF"))?;
        match function.returns.as_str() {
            "int" if function.params.get(2).is_some_and(|param| param.shape == "io_mapped_ubuf **") => {
                Ok((false, function.params.len(), self.offsets.has.io_ctx_user_bufs != 0))
            }
            "int" => Err(format!("{symbol} returns an int here, but not the buffer by its third parameter")),
            _ => Ok((true, function.params.len(), self.offsets.has.io_node_buf != 0)),
        }
    }

    /// AF_XDP umems.
    pub fn xdp(&mut self) {
        let functions = [&table::XDP_UMEM_CREATE, &table::XSK_BIND];
        let exists = functions.into_iter().any(|rule| hook::exists(self.facts, rule));
        let outcome = self.xdp_umems();
        self.subsystem(FeatureName::Xdp, exists, "CONFIG_XDP_SOCKETS", outcome);
    }

    fn xdp_umems(&mut self) -> Result<String, String> {
        self.is_wanted(FeatureName::Xdp)?;
        if let Some(why) = self.parts.missing(LayoutGroup::Xdp) {
            return Err(why.to_owned());
        }
        let hooks = self.targets(
            FeatureName::Xdp,
            [(&table::XDP_UMEM_CREATE, HookId::xdp_create), (&table::UNPIN_PAGES, HookId::xdp_release)],
        )?;
        Ok(self.add(hooks))
    }

    /// Whatever pins pages for the long term and is none of these.
    pub fn unclaimed(&mut self) {
        let name = FeatureName::Unclaimed;
        let feature = match self.unclaimed_pins() {
            Ok(Ok(text)) => Feature { name, state: State::On, text },
            Ok(Err(why)) => Feature { state: State::Disabled, ..Feature::off(name, why) },
            Err(why) => Feature::off(name, &why),
        };
        self.plan.features.push(feature);
    }

    /// What is hooked, or why that is not wanted; an error says why it cannot be.
    fn unclaimed_pins(&mut self) -> Result<Result<String, &'static str>, String> {
        if self.choices.generic == Some(false) {
            return Ok(Err("not wanted (--generic off)"));
        }
        for part in [LayoutGroup::PageCheck, LayoutGroup::PageState] {
            if let Some(why) = self.parts.missing(part) {
                return Err(why.to_owned());
            }
        }
        let mut wanted = vec![
            (&table::PIN_USER_PAGES, HookId::pin_pages),
            (&table::PIN_USER_PAGES_FAST, HookId::pin_fast),
            (&table::PIN_USER_PAGES_REMOTE, HookId::pin_remote),
            (&table::PIN_USER_PAGES_UNLOCKED, HookId::pin_unlocked),
        ];
        if hook::exists(self.facts, &table::MEMFD_PIN_FOLIOS) {
            wanted.push((&table::MEMFD_PIN_FOLIOS, HookId::pin_folios));
        }
        let hooks = self.targets(FeatureName::Unclaimed, wanted)?;
        // One program takes 6 % of what a direct read of 4 KiB takes (6.12), two instances of it 9 % (6.18, 7.3), a kprobe and
        // its return more: `cargo xtask bench hooks`. That is over the budget of 4 %.
        let is_busy = hook::exists(self.facts, &table::IOV_ITER_EXTRACT_PAGES);
        if self.choices.generic.is_none() && is_busy {
            return Ok(Err(
                "direct reads and writes would pay for it here; --generic on has them all the same",
            ));
        }
        // Before 6.2 or so it is no enumerator.
        let flag = self.facts.enums.get(table::FOLL_LONGTERM).copied().flatten();
        self.offsets.long_term = match flag {
            Some(value) => u64::try_from(value).map_err(|_| "FOLL_LONGTERM is negative here".to_owned())?,
            None => table::OLD_FOLL_LONGTERM,
        };
        let plain = self.facts.functions.get(table::PIN_USER_PAGES.symbol).and_then(|fact| fact.btf.as_ref());
        self.offsets.pin_pages_args = plain.map_or(0, |function| function.params.len() as u64);
        Ok(Ok(self.add(hooks)))
    }

    /// Whether the user has switched a subsystem off.
    pub(super) fn is_wanted(&self, name: FeatureName) -> Result<(), String> {
        match self.choices.without.contains(&name) {
            true => Err(format!("switched off (--without {name})")),
            false => Ok(()),
        }
    }

    /// The features that tell more of a pin than that it is there.
    pub fn details(&mut self) {
        let mut extents_known = true;
        for (name, part, how) in DETAILS {
            let needs_extents = matches!(part, LayoutGroup::Paths | LayoutGroup::PageCheck);
            let feature = match self.parts.missing(*part) {
                _ if needs_extents && !extents_known => {
                    Feature::off(*name, "without extents no file is known")
                }
                Some(missing) => Feature::off(*name, missing),
                None => Feature { name: *name, state: State::On, text: (*how).to_owned() },
            };
            if *part == LayoutGroup::Extents {
                extents_known = feature.state == State::On;
            }
            self.plan.features.push(feature);
        }
    }

    /// What happens to leases: two hooks, and the kernel's tracepoints where a lease is in somebody's way.
    pub fn lease_events(&mut self) {
        let name = FeatureName::LeaseEvents;
        let outcome = match self.parts.missing(LayoutGroup::Leases) {
            Some(_) => Err("without leases there is nothing to tell".to_owned()),
            None => self.lease_hooks(),
        };
        self.plan.features.push(match outcome {
            Ok(text) => {
                let lacking = self.parts.missing(LayoutGroup::Breakers);
                let (state, more) = match lacking {
                    Some(why) => (State::Degraded, format!("; {why}, so what a breaker does is not known")),
                    None => (State::On, String::new()),
                };
                Feature {
                    name,
                    state,
                    text: format!("{text}, tracepoints break_lease_*, time_out_leases{more}"),
                }
            }
            Err(why) => Feature::off(name, &why),
        });
    }

    fn lease_hooks(&mut self) -> Result<String, String> {
        // Leases had no struct of their own before 6.9.
        let function = self.facts.functions.get(table::LEASE_MODIFY.symbol);
        let takes = function.and_then(|fact| Some(fact.btf.as_ref()?.params.first()?.shape.as_str()));
        let of_lock = takes == table::LEASE_MODIFY_LOCK.params.first().copied();
        let modify = if of_lock { &table::LEASE_MODIFY_LOCK } else { &table::LEASE_MODIFY };
        let hooks = self.targets(
            FeatureName::LeaseEvents,
            [(&table::GENERIC_SETLEASE, HookId::lease_set), (modify, HookId::lease_change)],
        )?;
        Ok(self.add(hooks))
    }

    /// All of the functions, or why one of them cannot be hooked: a start without its end is of no use.
    pub(super) fn targets<'r>(
        &self,
        feature: FeatureName,
        wanted: impl IntoIterator<Item = (&'r FunctionRule, HookId)>,
    ) -> Result<Vec<Hook>, String> {
        let hooks = wanted.into_iter().map(|(rule, id)| {
            let Target { module, btf_id, method, fallback } =
                hook::target(self.facts, self.choices.attach, rule)?;
            Ok(Hook { id, feature, symbol: rule.symbol, module, btf_id, method, fallback })
        });
        hooks.collect()
    }

    /// Adds the hooks and tells of them.
    pub(super) fn add(&mut self, hooks: Vec<Hook>) -> String {
        let told: Vec<_> = hooks.iter().map(|hook| (hook, hook.method)).collect();
        let text = hook::describe(&told);
        self.plan.hooks.extend(hooks);
        text
    }

    pub(super) fn subsystem(
        &mut self,
        name: FeatureName,
        exists: bool,
        option: &str,
        outcome: Result<String, String>,
    ) {
        self.plan.features.push(match outcome {
            Ok(text) => Feature { name, state: State::On, text },
            Err(why) if exists => Feature::off(name, &why),
            Err(_) => Feature {
                name,
                state: State::Absent,
                text: format!("not in this kernel ({option} is not set)"),
            },
        });
    }
}
