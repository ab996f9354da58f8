//! V4L2: user memory that video devices use as buffers. The module may come and go.

use pinwatch_common::subsystems::{HookId, Kind, Subsystem, UnknownKind};
use pinwatch_common::{FOLL_WRITE, LayoutGroup, PinRecord};

use super::{Hooks, Needs, mode_by};
use crate::kernel::feature_name::FeatureName;
use crate::kernel::missing::Missing;
use crate::kernel::plan::Planner;
use crate::kernel::wanted::kernel_functions;
use crate::model::object::v4l2::Object;
use crate::model::{self, Counter, Mode};
use crate::source::naming::Naming;

kernel_functions! {
    /// Pins user memory. From 6.2 or so on it has a third parameter: whether the device writes.
    VB2_CREATE_FRAMEVEC = "vb2_create_framevec"("int", "int") -> "frame_vector *";
    /// Unpins it.
    VB2_DESTROY_FRAMEVEC = "vb2_destroy_framevec"("frame_vector *") -> "void";
}

static NEEDS: Needs = Needs {
    modules: &["videobuf2_memops"],
    functions: FUNCTIONS,
    structs: &[],
    enumerators: &[],
    parts: &[],
    loss: "buffers of video devices in user memory are not traced",
};

pub struct Room;

impl super::Room for Room {
    fn id(&self) -> Subsystem {
        Subsystem::V4l2
    }

    fn needs(&self) -> &'static Needs {
        &NEEDS
    }

    fn hooks(&self, planner: &mut Planner<'_>) -> Result<Hooks, Missing> {
        planner.needs_module("videobuf2_memops", FUNCTIONS)?;
        planner.needs(LayoutGroup::V4l2)?;
        // Buffers are not made often enough to need trampolines.
        let hooks =
            [(HookId::v4l2_create, &VB2_CREATE_FRAMEVEC), (HookId::v4l2_destroy, &VB2_DESTROY_FRAMEVEC)];
        let hooks = planner.hooks_that_free_modules(FeatureName::Subsystem(Subsystem::V4l2), hooks)?;
        let create = planner.signature(&VB2_CREATE_FRAMEVEC);
        let is_told_write = create.is_ok_and(|function| function.params.len() > 2);
        planner.module_layout.frame_told_write = u64::from(is_told_write);
        Ok(hooks.into())
    }

    fn object(&self, _: Kind, record: &PinRecord, naming: &Naming<'_>) -> Result<model::Object, UnknownKind> {
        Ok(Object { device: naming.char_device(record.device) }.into())
    }

    fn mode(&self, record: &PinRecord) -> Mode {
        mode_by(record, FOLL_WRITE)
    }

    fn has_address(&self, _: &PinRecord) -> bool {
        true
    }

    fn memlock(&self) -> &'static [Counter] {
        &[]
    }
}
