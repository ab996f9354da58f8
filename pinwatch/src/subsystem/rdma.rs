//! RDMA: memory regions and queue buffers, which are all an `ib_umem`. The modules may come and go.

use pinwatch_common::subsystems::{HookId, Kind, Subsystem, UnknownKind};
use pinwatch_common::{LayoutGroup, PinRecord, RDMA_WRITABLE};

use super::{Hooks, Needs, mode_by};
use crate::kernel::feature_name::{FeatureName, Part};
use crate::kernel::missing::Missing;
use crate::kernel::plan::{Hook, Planner};
use crate::kernel::wanted::kernel_functions;
use crate::model::object::rdma::{BufferKind, Object};
use crate::model::{self, Counter, Mode};
use crate::source::host::rdma::Regions;
use crate::source::naming::Naming;
use crate::source::proc::{MemoryRegions, Reader};

kernel_functions! {
    /// 7.x: static, but out of line; all other `ib_umem_get_*` call it.
    IB_UMEM_GET_VA = "__ib_umem_get_va"("ib_device *", "int", "int", "int") -> "ib_umem *";
    /// 6.x.
    IB_UMEM_GET = "ib_umem_get"("ib_device *", "int", "int", "int") -> "ib_umem *";
    /// The end of an RDMA buffer.
    IB_UMEM_RELEASE = "ib_umem_release"("ib_umem *") -> "void";
    /// Gives memory regions, queues and the like their numbers.
    RDMA_RESTRACK_ADD = "rdma_restrack_add"("rdma_restrack_entry *") -> "void";
}

/// Numbers and keys of RDMA memory regions, and what the other RDMA buffers are for.
static NAMES: Part =
    Part { subsystem: Subsystem::Rdma, word: "rdma names", loss: "memory regions have no numbers and keys" };

static NEEDS: Needs = Needs {
    // `ib_uverbs_support` is new in 7.x, and `ib_umem` moved to `ib_core` there.
    modules: &["ib_core", "ib_uverbs", "ib_uverbs_support"],
    functions: FUNCTIONS,
    structs: &[],
    enumerators: &[],
    parts: &[&NAMES],
    loss: "RDMA pins are not traced",
};

pub struct Room;

impl super::Room for Room {
    fn id(&self) -> Subsystem {
        Subsystem::Rdma
    }

    fn needs(&self) -> &'static Needs {
        &NEEDS
    }

    fn hooks(&self, planner: &mut Planner<'_>) -> Result<Hooks, Missing> {
        // If neither exists, the reason is worded for the older one.
        let create = if planner.exists(&IB_UMEM_GET_VA) { &IB_UMEM_GET_VA } else { &IB_UMEM_GET };
        planner.needs_module("ib_uverbs", &[create])?;
        let hooks = planner.hooks(
            FeatureName::Subsystem(Subsystem::Rdma),
            [(HookId::rdma_get, create), (HookId::rdma_release, &IB_UMEM_RELEASE)],
        )?;
        let lacks = [
            (LayoutGroup::RdmaDevice, "the device is not named"),
            (LayoutGroup::RdmaPages, "RDMA buffers' pages are not checked"),
        ];
        let lacks = lacks.into_iter().filter_map(|(group, so)| Some((planner.needs(group).err()?, so)));
        Ok(Hooks { hooks, lacks: lacks.collect(), parts: vec![names(planner)] })
    }

    fn object(
        &self,
        kind: Kind,
        record: &PinRecord,
        naming: &Naming<'_>,
    ) -> Result<model::Object, UnknownKind> {
        let device = naming.rdma_device(record.device);
        let buffer = |kind| Object::Buffer { device: device.clone(), kind };
        let object = match kind {
            Kind::RdmaMr => {
                Object::Region { device, mrn: record.mrn, lkey: Some(record.lkey), rkey: Some(record.rkey) }
            }
            Kind::RdmaCq => buffer(BufferKind::Cq),
            Kind::RdmaQp => buffer(BufferKind::Qp),
            Kind::RdmaSrq => buffer(BufferKind::Srq),
            Kind::RdmaBuffer => buffer(BufferKind::Other),
            _ => return Err(UnknownKind(record.kind)),
        };
        Ok(object.into())
    }

    fn mode(&self, record: &PinRecord) -> Mode {
        mode_by(record, RDMA_WRITABLE)
    }

    fn has_address(&self, _: &PinRecord) -> bool {
        true
    }

    fn memlock(&self) -> &'static [Counter] {
        &[Counter::Pinned]
    }

    /// The RDMA netlink lists all memory regions.
    fn gone(&self) -> Option<super::IsGone> {
        let regions = Regions::read();
        Some(Box::new(move |pin| pin.kind == Kind::RdmaMr as u32 && regions.lack(pin.device, pin.mrn)))
    }

    fn procfs(&self) -> Option<Box<dyn Reader>> {
        Some(Box::new(MemoryRegions))
    }
}

fn names(planner: &Planner<'_>) -> Result<Vec<Hook>, Missing> {
    planner.needs(LayoutGroup::RdmaNames)?;
    planner.hooks(FeatureName::Part(&NAMES), [(HookId::rdma_track, &RDMA_RESTRACK_ADD)])
}
