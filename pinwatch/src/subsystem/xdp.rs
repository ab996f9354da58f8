//! AF_XDP: the memory that a socket's packets are in.

use pinwatch_common::subsystems::{HookId, Kind, Subsystem, UnknownKind};
use pinwatch_common::{LayoutGroup, PinRecord};

use super::{Hooks, Needs};
use crate::kernel::feature_name::FeatureName;
use crate::kernel::missing::Missing;
use crate::kernel::plan::Planner;
use crate::kernel::wanted::kernel_functions;
use crate::model::object::xdp::Object;
use crate::model::{self, Counter, Mode};
use crate::source::naming::Naming;
use crate::source::proc::{Reader, Umems};

kernel_functions! {
    /// The start of a umem.
    XDP_UMEM_CREATE = "xdp_umem_create"("xdp_umem_reg *") -> "xdp_umem *";
    /// The end of one: `xdp_umem_release` is inlined before 7.x, so it is known by its array of pages.
    UNPIN_PAGES = "unpin_user_pages_dirty_lock"("page **", "int", "int") -> "void";
    /// Never hooked: it tells a kernel without AF_XDP.
    XSK_BIND = "xsk_bind"() -> "int";
}

static NEEDS: Needs = Needs {
    modules: &[],
    functions: FUNCTIONS,
    structs: &[],
    enumerators: &[],
    parts: &[],
    loss: "umems are not traced",
};

pub struct Room;

impl super::Room for Room {
    fn id(&self) -> Subsystem {
        Subsystem::Xdp
    }

    fn needs(&self) -> &'static Needs {
        &NEEDS
    }

    fn hooks(&self, planner: &mut Planner<'_>) -> Result<Hooks, Missing> {
        if !planner.exists(&XDP_UMEM_CREATE) && !planner.exists(&XSK_BIND) {
            return Err(Missing::NotConfigured { option: "CONFIG_XDP_SOCKETS" });
        }
        planner.needs(LayoutGroup::Xdp)?;
        let hooks = [(HookId::xdp_create, &XDP_UMEM_CREATE), (HookId::xdp_release, &UNPIN_PAGES)];
        Ok(planner.hooks(FeatureName::Subsystem(Subsystem::Xdp), hooks)?.into())
    }

    fn object(&self, _: Kind, record: &PinRecord, _: &Naming<'_>) -> Result<model::Object, UnknownKind> {
        Ok(Object { umem: record.number.cast_unsigned() }.into())
    }

    fn mode(&self, _: &PinRecord) -> Mode {
        Mode::ReadWrite
    }

    fn has_address(&self, _: &PinRecord) -> bool {
        true
    }

    fn memlock(&self) -> &'static [Counter] {
        &[Counter::User]
    }

    fn procfs(&self) -> Option<Box<dyn Reader>> {
        Some(Box::new(Umems::default()))
    }
}
