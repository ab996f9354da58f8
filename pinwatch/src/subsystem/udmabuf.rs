//! udmabuf: DMA buffers made of memfds. Since 6.11 their pages are pinned for the long term.

use pinwatch_common::subsystems::{HookId, Kind, Subsystem, UnknownKind};
use pinwatch_common::{LayoutGroup, PinRecord, RefusedEvent};

use super::{Hooks, Needs};
use crate::kernel::feature_name::FeatureName;
use crate::kernel::missing::Missing;
use crate::kernel::plan::Planner;
use crate::kernel::wanted::{MEMFD_PIN_FOLIOS, kernel_functions};
use crate::model::object::udmabuf::Object;
use crate::model::{self, Counter, Mode, Reason};
use crate::source::naming::Naming;

kernel_functions! {
    /// Makes a DMA buffer, of whatever kind.
    DMA_BUF_EXPORT = "dma_buf_export"("dma_buf_export_info *") -> "dma_buf *";
    /// Makes one of memfds. Out of line since it pins their pages (6.11).
    UDMABUF_CREATE = "udmabuf_create"("miscdevice *", "udmabuf_create_list *", "udmabuf_create_item *") -> "int";
    /// The end of one.
    RELEASE_UDMABUF = "release_udmabuf"("dma_buf *") -> "void";
}

static NEEDS: Needs = Needs {
    modules: &[],
    functions: FUNCTIONS,
    structs: &[],
    enumerators: &[],
    parts: &[],
    loss: "DMA buffers made of memfds are not traced",
};

pub struct Room;

impl super::Room for Room {
    fn id(&self) -> Subsystem {
        Subsystem::Udmabuf
    }

    fn needs(&self) -> &'static Needs {
        &NEEDS
    }

    fn hooks(&self, planner: &mut Planner<'_>) -> Result<Hooks, Missing> {
        if !planner.exists(&MEMFD_PIN_FOLIOS) {
            return Err(Missing::TakesNoPins { subsystem: Subsystem::Udmabuf, since: "6.11" });
        }
        if !planner.exists(&UDMABUF_CREATE) && !planner.exists(&RELEASE_UDMABUF) {
            return Err(Missing::NotConfigured { option: "CONFIG_UDMABUF" });
        }
        planner.needs(LayoutGroup::Udmabuf)?;
        planner.needs(LayoutGroup::Holders)?;
        let hooks = [
            (HookId::udmabuf_export, &DMA_BUF_EXPORT),
            (HookId::udmabuf_create, &UDMABUF_CREATE),
            (HookId::udmabuf_release, &RELEASE_UDMABUF),
        ];
        Ok(planner.hooks(FeatureName::Subsystem(Subsystem::Udmabuf), hooks)?.into())
    }

    fn object(&self, _: Kind, record: &PinRecord, _: &Naming<'_>) -> Result<model::Object, UnknownKind> {
        Ok(Object { ino: record.number.cast_unsigned() }.into())
    }

    fn mode(&self, _: &PinRecord) -> Mode {
        Mode::ReadWrite
    }

    fn has_address(&self, _: &PinRecord) -> bool {
        // They are pinned without a mapping.
        false
    }

    fn memlock(&self) -> &'static [Counter] {
        &[]
    }

    fn refused(&self, errno: i32, _: &RefusedEvent) -> Option<Reason> {
        match errno {
            libc::EINVAL => Some(Reason::Seals),
            libc::EBADFD => Some(Reason::NoMemfd),
            _ => None,
        }
    }
}
