//! The hooks of what makes pins for devices: udmabuf, VFIO, V4L2.

use super::{
    AttachMode, Feature, FeatureName, Hook, State,
    hook::{self, Target},
    offsets,
    subsystem::Planner,
};
use pinwatch_common::{LayoutGroup, subsystems::HookId};

use crate::kernel::table::{self, FunctionRule};

impl Planner<'_> {
    /// DMA buffers made of memfds.
    pub fn udmabuf(&mut self) {
        let name = FeatureName::Udmabuf;
        if !hook::exists(self.facts, &table::MEMFD_PIN_FOLIOS) {
            let text = "udmabuf takes no pins for the long term here (before 6.11)".to_owned();
            self.plan.features.push(Feature { name, state: State::Absent, text });
            return;
        }
        let functions = [&table::UDMABUF_CREATE, &table::RELEASE_UDMABUF];
        let exists = functions.into_iter().any(|rule| hook::exists(self.facts, rule));
        let outcome = self.udmabufs();
        self.subsystem(name, exists, "CONFIG_UDMABUF", outcome);
    }

    fn udmabufs(&mut self) -> Result<String, String> {
        self.is_wanted(FeatureName::Udmabuf)?;
        for part in [LayoutGroup::Udmabuf, LayoutGroup::Holders] {
            if let Some(why) = self.parts.missing(part) {
                return Err(why.to_owned());
            }
        }
        let hooks = self.targets(
            FeatureName::Udmabuf,
            [
                (&table::DMA_BUF_EXPORT, HookId::udmabuf_export),
                (&table::UDMABUF_CREATE, HookId::udmabuf_create),
                (&table::RELEASE_UDMABUF, HookId::udmabuf_release),
            ],
        )?;
        Ok(self.add(hooks))
    }

    /// DMA mappings of VFIO.
    pub fn vfio(&mut self) {
        let name = FeatureName::Vfio;
        let wanted = [
            (&table::VFIO_PIN_PAGES_REMOTE, HookId::vfio_pin),
            (&table::VFIO_UNMAP_UNPIN, HookId::vfio_unpin),
        ];
        let feature = self.of_module(name, LayoutGroup::Vfio, "vfio_iommu_type1", wanted);
        if feature.state == State::On
            && let Some(offsets) = &mut self.plan.module_offsets
        {
            offsets.vfio_watched = 1;
        }
        self.plan.features.push(feature);
    }

    /// User memory that V4L2 devices use as buffers.
    pub fn v4l2(&mut self) {
        let name = FeatureName::V4l2;
        let wanted = [
            (&table::VB2_CREATE_FRAMEVEC, HookId::v4l2_create),
            (&table::VB2_DESTROY_FRAMEVEC, HookId::v4l2_destroy),
        ];
        let feature = self.of_module(name, LayoutGroup::V4l2, "videobuf2_memops", wanted);
        let create = self.facts.functions.get(table::VB2_CREATE_FRAMEVEC.symbol);
        let is_told =
            create.and_then(|fact| fact.btf.as_ref()).is_some_and(|function| function.params.len() > 2);
        if let Some(offsets) = &mut self.plan.module_offsets {
            offsets.frame_told_write = u64::from(is_told);
        }
        self.plan.features.push(feature);
    }

    /// What a module has, which may be loaded at any time, or be built in.
    fn of_module(
        &mut self,
        name: FeatureName,
        part: LayoutGroup,
        module: &str,
        wanted: [(&FunctionRule, HookId); 2],
    ) -> Feature {
        if let Err(why) = self.is_wanted(name) {
            return Feature::off(name, &why);
        }
        let is_there = wanted.iter().any(|(rule, _)| hook::exists(self.facts, rule))
            || self.facts.modules.iter().any(|loaded| loaded.name == module);
        if !is_there {
            let text = format!("module {module} is not loaded; it is hooked when it is");
            return Feature { name, state: State::Waiting, text };
        }
        let (module_offsets, parts) = offsets::modules(self.facts);
        if let Some(why) = parts.missing(part) {
            return Feature::off(name, why);
        }
        let hooks: Result<Vec<Hook>, String> = wanted
            .into_iter()
            .map(|(rule, id)| {
                let mut target = hook::target(self.facts, self.choices.attach, rule)?;
                // A trampoline would keep the module from being removed; here nothing is made often enough to need one.
                if target.module.is_some() {
                    target = hook::target(self.facts, AttachMode::Kprobe, rule)?;
                }
                let Target { module, btf_id, method, fallback } = target;
                Ok(Hook { id, feature: name, symbol: rule.symbol, module, btf_id, method, fallback })
            })
            .collect();
        match hooks {
            Ok(hooks) => {
                self.plan.module_offsets.get_or_insert(module_offsets);
                let text = self.add(hooks);
                Feature { name, state: State::On, text }
            }
            Err(why) => Feature::off(name, &why),
        }
    }
}
