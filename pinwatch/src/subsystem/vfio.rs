//! VFIO (type1): what a container maps for its devices' DMA. The modules may come and go.

use pinwatch_common::subsystems::{HookId, Kind, Subsystem, UnknownKind};
use pinwatch_common::{IOMMU_WRITE, LayoutGroup, PinRecord};

use super::{Hooks, Needs, mode_by};
use crate::kernel::feature_name::FeatureName;
use crate::kernel::missing::Missing;
use crate::kernel::plan::Planner;
use crate::kernel::wanted::kernel_functions;
use crate::model::object::vfio::Object;
use crate::model::{self, Counter, Mode};
use crate::source::naming::Naming;

kernel_functions! {
    /// Pins a piece of a DMA mapping.
    VFIO_PIN_PAGES_REMOTE = "vfio_pin_pages_remote"("vfio_dma *", "int", "int") -> "int";
    /// Unpins all of a DMA mapping.
    VFIO_UNMAP_UNPIN = "vfio_unmap_unpin"("vfio_iommu *", "vfio_dma *") -> "int";
}

static NEEDS: Needs = Needs {
    modules: &["vfio", "vfio_iommu_type1"],
    functions: FUNCTIONS,
    structs: &[],
    enumerators: &[],
    parts: &[],
    loss: "DMA mappings of VFIO are not traced",
};

pub struct Room;

impl super::Room for Room {
    fn id(&self) -> Subsystem {
        Subsystem::Vfio
    }

    fn needs(&self) -> &'static Needs {
        &NEEDS
    }

    fn hooks(&self, planner: &mut Planner<'_>) -> Result<Hooks, Missing> {
        planner.needs_module("vfio_iommu_type1", FUNCTIONS)?;
        planner.needs(LayoutGroup::Vfio)?;
        // Mappings are not made often enough to need trampolines.
        let hooks = [(HookId::vfio_pin, &VFIO_PIN_PAGES_REMOTE), (HookId::vfio_unpin, &VFIO_UNMAP_UNPIN)];
        let hooks = planner.hooks_that_free_modules(FeatureName::Subsystem(Subsystem::Vfio), hooks)?;
        planner.module_layout.vfio_watched = 1;
        Ok(hooks.into())
    }

    fn object(&self, _: Kind, record: &PinRecord, _: &Naming<'_>) -> Result<model::Object, UnknownKind> {
        Ok(Object { iova: record.owner }.into())
    }

    fn mode(&self, record: &PinRecord) -> Mode {
        mode_by(record, IOMMU_WRITE)
    }

    fn has_address(&self, _: &PinRecord) -> bool {
        true
    }

    fn memlock(&self) -> &'static [Counter] {
        &[Counter::Locked]
    }
}
