//! One room for each subsystem, behind one trait: what it needs of the kernel, what is hooked, what its records are, why its
//! pins are refused, and what procfs knows of them. What is particular to a subsystem is in its room, here in user space, and
//! in `pinwatch-ebpf/src/subsystem/`; everything else asks the room.
//!
//! Which rooms there are follows from the table (`pinwatch_common::subsystems`): an entry without its file does not compile.
//! Rooms use `kernel` (facts and planner), what `source` names things by, and the model. Nothing in `kernel` or `source` knows
//! them: it is handed functions of this file.

mod plan;
mod refusal;

pub use plan::{feature_names, plan, wanted};
pub use refusal::refusal;

use pinwatch_common::subsystems::{HookId, Kind, Subsystem, UnknownKind};
use pinwatch_common::{PinRecord, RefusedEvent};

use crate::kernel::feature_name::Part;
use crate::kernel::missing::Missing;
use crate::kernel::plan::{Hook, Planner};
use crate::kernel::wanted::KernelFn;
use crate::model::{Counter, Mode, Object, Reason};
use crate::source::naming::{Described, Naming};
use crate::source::proc::Reader;

/// What a subsystem needs of the kernel. Members of structures are in the table.
pub struct Needs {
    /// Modules that have something to hook, if they are not built in. While one is not loaded it is waited for.
    pub modules: &'static [&'static str],
    /// Functions that are hooked, or tell by their presence what this kernel is like.
    pub functions: &'static [&'static KernelFn],
    /// Structures of which it matters whether they are there.
    pub structs: &'static [&'static str],
    /// Enumerators that programs are not told as they are.
    pub enumerators: &'static [&'static str],
    /// What may be missing by itself, each with hooks of its own.
    pub parts: &'static [&'static Part],
    /// What is lost if it is not hooked, as a clause.
    pub loss: &'static str,
}

/// What is hooked of a subsystem.
pub struct Hooks {
    /// All of these, or none.
    pub hooks: Vec<Hook>,
    /// What is not known of its pins all the same, and what follows from that, as a clause.
    pub lacks: Vec<(Missing, &'static str)>,
    /// For each of [`Needs::parts`], in that order.
    pub parts: Vec<Result<Vec<Hook>, Missing>>,
}

impl From<Vec<Hook>> for Hooks {
    fn from(hooks: Vec<Hook>) -> Self {
        Self { hooks, lacks: Vec::new(), parts: Vec::new() }
    }
}

/// Tells of a record whether its object is gone.
pub type IsGone = Box<dyn Fn(&PinRecord) -> bool>;

/// A subsystem.
pub trait Room: Sync {
    /// Which.
    fn id(&self) -> Subsystem;

    /// What it needs of the kernel.
    fn needs(&self) -> &'static Needs;

    /// What is hooked in this kernel. Fills in the subsystem's choices in the planner's layouts.
    ///
    /// # Errors
    /// Why nothing is. Whether that is a loss follows from the reason: see [`Missing::state`].
    fn hooks(&self, planner: &mut Planner<'_>) -> Result<Hooks, Missing>;

    /// The kernel object of a record.
    ///
    /// # Errors
    /// If the kind is none of the subsystem's: the reader sees that a pin is missing.
    fn object(&self, kind: Kind, record: &PinRecord, naming: &Naming<'_>) -> Result<Object, UnknownKind>;

    /// Whether the device may write.
    fn mode(&self, record: &PinRecord) -> Mode;

    /// Whether its pins have a user address: what is pinned of a file without a mapping has none.
    fn has_address(&self, record: &PinRecord) -> bool;

    /// Which counters a pin counts against, in the order in which they are compared with RLIMIT_MEMLOCK; none if it does not
    /// count.
    fn memlock(&self) -> &'static [Counter];

    /// A reason for an errno that has this meaning with this subsystem only.
    fn refused(&self, _errno: i32, _event: &RefusedEvent) -> Option<Reason> {
        None
    }

    /// Asks the kernel, by other ways than the programs have, which objects there are now. The answer tells of a record of the
    /// subsystem whether its object is gone; `None`: nothing else knows.
    fn gone(&self) -> Option<IsGone> {
        None
    }

    /// What finds its pins in procfs, netlink and the like, where BPF cannot be had; `None`: nothing there knows them.
    fn procfs(&self) -> Option<Box<dyn Reader>> {
        None
    }

    /// Finds its pins by reading the running kernel.
    ///
    /// # Errors
    /// [`NotWalked`] until its walk is written.
    fn walk(&self) -> Result<(), NotWalked> {
        Err(NotWalked(self.id()))
    }
}

/// Nobody has written how a subsystem's objects are found by reading the kernel: its pins are known from the moment on that it
/// was hooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} pins are found only as they are made")]
pub struct NotWalked(pub Subsystem);

macro_rules! rooms {
    ($($module:ident: $variant:ident),+) => {
        $(mod $module;)+

        /// All rooms, in the order of the table.
        pub static ALL: [&dyn Room; Subsystem::ALL.len()] = [$(&$module::Room),+];

        /// The room of a subsystem.
        pub fn room(of: Subsystem) -> &'static dyn Room {
            match of {
                $(Subsystem::$variant => &$module::Room),+
            }
        }
    };
}
pinwatch_common::for_each_subsystem!(rooms);

/// Names of the hooks on functions of modules, which may be loaded at any time.
pub fn module_hooks() -> Vec<&'static str> {
    let is_of_module =
        |hook: &HookId| hook.subsystem().is_some_and(|of| !room(of).needs().modules.is_empty());
    HookId::ALL.into_iter().filter(is_of_module).map(HookId::name).collect()
}

/// What a record stands for.
///
/// # Errors
/// A kind that this version does not know.
pub fn describe(record: &PinRecord, naming: &Naming<'_>) -> Result<Described, UnknownKind> {
    let kind = Kind::try_from(record.kind)?;
    let room = room(kind.subsystem());
    Ok(Described {
        object: room.object(kind, record, naming)?,
        mode: room.mode(record),
        address: room.has_address(record).then_some(record.address),
    })
}

/// All that finds pins in procfs, netlink and the like.
pub fn procfs() -> Vec<Box<dyn Reader>> {
    ALL.iter().filter_map(|room| room.procfs()).collect()
}

/// Reading and writing if one of these bits of a record's flags is set.
fn mode_by(record: &PinRecord, writable: u32) -> Mode {
    match record.number.cast_unsigned() & writable {
        0 => Mode::ReadOnly,
        _ => Mode::ReadWrite,
    }
}

#[cfg(test)]
mod tests {
    use pinwatch_common::{DeviceName, FOLL_WRITE, IOMMU_WRITE};
    use rustc_hash::FxHashMap as HashMap;

    use super::*;
    use crate::model::object::io_uring;
    use crate::source::host::char_devices::CharDevices;
    use crate::source::stacks::Callers;

    fn described(record: &PinRecord) -> Result<Described, UnknownKind> {
        let devices: HashMap<u32, DeviceName> = HashMap::default();
        let (char_devices, callers) = (CharDevices::default(), Callers::default());
        describe(record, &Naming { rdma_devices: &devices, char_devices: &char_devices, callers: &callers })
    }

    fn of(kind: Kind) -> PinRecord {
        PinRecord { kind: kind as u32, ..PinRecord::default() }
    }

    #[test]
    fn every_kind_has_an_object_of_its_subsystem() {
        for kind in Kind::ALL {
            let described = described(&of(kind)).unwrap();
            assert_eq!(described.object.subsystem(), kind.subsystem(), "{kind:?}");
        }
        assert!(
            described(&PinRecord { kind: 99, ..PinRecord::default() }).is_err_and(|e| e == UnknownKind(99))
        );
    }

    #[test]
    fn rooms_are_where_their_subsystem_is_and_take_no_others_kinds() {
        for (subsystem, of) in Subsystem::ALL.into_iter().zip(ALL) {
            assert_eq!((of.id(), room(subsystem).id()), (subsystem, subsystem));
            assert!(of.needs().parts.iter().all(|part| part.subsystem == subsystem));
            assert!(of.walk().is_err_and(|e| e == NotWalked(subsystem)));
        }
    }

    #[test]
    fn unknown_numbers_are_not_shown() {
        let record = PinRecord { number: -1, anchor_fd: -1, ..of(Kind::IoUring) };
        let expected = io_uring::Object::Buffer { ring_fd: None, slot: None }.into();
        assert_eq!(described(&record).unwrap().object, expected);
    }

    #[test]
    fn what_is_mapped_for_reading_is_read_only() {
        for (kind, number, mode) in [
            (Kind::RdmaMr, 0, Mode::ReadOnly),
            (Kind::RdmaMr, 4, Mode::ReadOnly),
            (Kind::RdmaMr, 1, Mode::ReadWrite),
            (Kind::Vfio, 1, Mode::ReadOnly),
            (Kind::Vfio, IOMMU_WRITE.cast_signed(), Mode::ReadWrite),
            (Kind::V4l2, 0, Mode::ReadOnly),
            (Kind::V4l2, FOLL_WRITE.cast_signed(), Mode::ReadWrite),
            (Kind::Unclaimed, 0, Mode::ReadOnly),
            (Kind::IoUring, 0, Mode::ReadWrite),
            (Kind::Xdp, 0, Mode::ReadWrite),
            (Kind::Udmabuf, 0, Mode::ReadWrite),
        ] {
            assert_eq!(described(&PinRecord { number, ..of(kind) }).unwrap().mode, mode, "{kind:?} {number}");
        }
    }

    #[test]
    fn what_is_pinned_without_a_mapping_has_no_address() {
        let address = |record: PinRecord| described(&PinRecord { address: 4096, ..record }).unwrap().address;
        assert_eq!(address(of(Kind::Xdp)), Some(4096));
        assert_eq!(address(of(Kind::Udmabuf)), None);
        assert_eq!(address(of(Kind::Unclaimed)), Some(4096));
        assert_eq!(address(PinRecord { device: 1, ..of(Kind::Unclaimed) }), None);
    }

    #[test]
    fn hooks_on_modules_are_those_of_rooms_with_modules() {
        let hooks = module_hooks();
        assert!(
            hooks.contains(&"rdma_track") && hooks.contains(&"vfio_unpin") && hooks.contains(&"v4l2_create")
        );
        assert!(!hooks.contains(&"io_register") && !hooks.contains(&"lease_set"));
    }
}
