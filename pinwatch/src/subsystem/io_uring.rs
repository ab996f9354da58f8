//! io_uring: registered buffers, and what else a ring keeps in memory of its user. How a buffer is registered has changed in
//! 6.12, 6.13 and 6.15, how other memory is kept in 6.5 and 6.13.

use pinwatch_common::subsystems::{HookId, Kind, Subsystem, UnknownKind};
use pinwatch_common::{FileKey, LayoutGroup, PinRecord, RefusedEvent};

use super::{Hooks, Needs};
use crate::kernel::feature_name::FeatureName;
use crate::kernel::missing::Missing;
use crate::kernel::plan::Planner;
use crate::kernel::wanted::{KernelFn, kernel_functions};
use crate::model::object::io_uring::Object;
use crate::model::{self, Counter, Mode, Reason};
use crate::source::naming::Naming;
use crate::source::proc::{Reader, Rings};

kernel_functions! {
    /// Before 6.13 it returns an int, and the buffer through its third parameter.
    IO_SQE_BUFFER_REGISTER = "io_sqe_buffer_register"("io_ring_ctx *", "iovec *") -> "int" | "io_rsrc_node *";
    /// 6.15 and later.
    IO_RELEASE_UBUF = "io_release_ubuf"("void *") -> "void";
    /// Before 6.13; later it takes a node.
    IO_BUFFER_UNMAP = "io_buffer_unmap"("io_ring_ctx *", "io_mapped_ubuf **") -> "void";
    /// 6.12 and later: puts the buffers of one ring into another.
    IO_REGISTER_CLONE_BUFFERS = "io_register_clone_buffers"("io_ring_ctx *", "void *") -> "int";
    /// Pins memory that rings keep, and buffers.
    IO_PIN_PAGES = "io_pin_pages"("int", "int", "int *") -> "page **";
    /// Makes a ring of provided buffers.
    IO_REGISTER_PBUF_RING = "io_register_pbuf_ring"("io_ring_ctx *", "void *") -> "int";
    /// 6.5 to 6.12: the queues of a ring in user memory.
    IO_UADDR_MAP = "__io_uaddr_map"("page ***", "int *", "int", "int") -> "void *";
    /// 6.13 and later: memory of a ring. Its first parameter is the ring, or the user.
    IO_CREATE_REGION = "io_create_region"() -> "int";
    /// The end of one.
    IO_FREE_REGION = "io_free_region"() -> "void";
}

/// A kernel without it has no io_uring.
const IO_MAPPED_UBUF: &str = "io_mapped_ubuf";

static NEEDS: Needs = Needs {
    modules: &[],
    functions: FUNCTIONS,
    structs: &[IO_MAPPED_UBUF],
    enumerators: &[],
    parts: &[],
    loss: "registered buffers are not traced",
};

pub struct Room;

impl super::Room for Room {
    fn id(&self) -> Subsystem {
        Subsystem::IoUring
    }

    fn needs(&self) -> &'static Needs {
        &NEEDS
    }

    fn hooks(&self, planner: &mut Planner<'_>) -> Result<Hooks, Missing> {
        let is_known = planner.facts.sizes.get(IO_MAPPED_UBUF).copied().flatten().is_some();
        if !is_known && !planner.exists(&IO_SQE_BUFFER_REGISTER) {
            return Err(Missing::NotConfigured { option: "CONFIG_IO_URING" });
        }
        planner.needs(LayoutGroup::IoUring)?;
        let call = register_call(planner)?;
        let has = planner.layout.has;
        let mut wanted: Vec<(HookId, &KernelFn)> = vec![(HookId::io_register, &IO_SQE_BUFFER_REGISTER)];
        if planner.exists(&IO_RELEASE_UBUF) {
            wanted.push((HookId::io_release, &IO_RELEASE_UBUF));
        } else {
            wanted.push((HookId::io_unmap, &IO_BUFFER_UNMAP));
            // A buffer that two rings share is released by the last one only, which is known after the call.
            if has.io_buf_refs != 0 {
                wanted.push((HookId::io_unmap_done, &IO_BUFFER_UNMAP));
            }
        }
        if planner.exists(&IO_REGISTER_CLONE_BUFFERS) && has.io_ctx_buffers != 0 {
            wanted.push((HookId::io_clone, &IO_REGISTER_CLONE_BUFFERS));
        }
        let memory = ring_memory(planner);
        let by_pages = memory.iter().any(|(hook, _)| *hook == HookId::io_pin);
        wanted.extend(memory);
        let hooks = planner.hooks(FeatureName::Subsystem(Subsystem::IoUring), wanted)?;
        planner.layout.io_ring_memory = u64::from(by_pages);
        planner.layout.io_uring_returns_node = u64::from(call.returns_node);
        planner.layout.io_register_args = call.arguments;
        Ok(hooks.into())
    }

    fn object(&self, kind: Kind, record: &PinRecord, _: &Naming<'_>) -> Result<model::Object, UnknownKind> {
        let known = |number: i32| u32::try_from(number).ok();
        let ring_fd = known(record.anchor_fd);
        let object = match kind {
            Kind::IoUring => Object::Buffer { ring_fd, slot: known(record.number) },
            Kind::IoUringMemory => Object::Memory { ring_fd },
            _ => return Err(UnknownKind(record.kind)),
        };
        Ok(object.into())
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
        Some(Box::new(Rings))
    }

    fn refused(&self, errno: i32, event: &RefusedEvent) -> Option<Reason> {
        // Devices are on a file system in memory, too.
        (errno == libc::EOPNOTSUPP && event.file != FileKey::default()).then_some(Reason::NoFiles)
    }
}

/// How `io_sqe_buffer_register` is called here.
struct RegisterCall {
    returns_node: bool,
    arguments: u64,
}

fn register_call(planner: &Planner<'_>) -> Result<RegisterCall, Missing> {
    let function = planner.signature(&IO_SQE_BUFFER_REGISTER)?;
    let arguments = function.params.len() as u64;
    let has = planner.layout.has;
    if function.returns != "int" {
        return match has.io_node_buf {
            0 => Err(Missing::NoMember { paths: &["io_rsrc_node.buf"] }),
            _ => Ok(RegisterCall { returns_node: true, arguments }),
        };
    }
    if function.params.get(2).is_none_or(|param| param.shape != "io_mapped_ubuf **") {
        let taken: Vec<&str> = function.params.iter().map(|param| param.shape.as_str()).collect();
        return Err(Missing::TakesOther {
            symbol: IO_SQE_BUFFER_REGISTER.symbol,
            known: "io_ring_ctx *, iovec *, io_mapped_ubuf **".to_owned(),
            here: taken.join(", "),
        });
    }
    match has.io_ctx_user_bufs {
        0 => Err(Missing::NoMember { paths: &["io_ring_ctx.user_bufs"] }),
        _ => Ok(RegisterCall { returns_node: false, arguments }),
    }
}

/// What sees memory that rings keep other than buffers, as far as this kernel can.
fn ring_memory(planner: &mut Planner<'_>) -> Vec<(HookId, &'static KernelFn)> {
    if planner.exists(&IO_CREATE_REGION) {
        let first = planner.signature(&IO_CREATE_REGION).ok().and_then(|function| function.params.first());
        let takes_ring = first.is_some_and(|param| param.shape == "io_ring_ctx *");
        planner.layout.io_region_takes_ring = u64::from(takes_ring);
        return vec![(HookId::io_region, &IO_CREATE_REGION), (HookId::io_region_free, &IO_FREE_REGION)];
    }
    // Their end is found by looking at their pages.
    let can_look = planner.needs(LayoutGroup::PageState).is_ok();
    if !can_look || !planner.exists(&IO_REGISTER_PBUF_RING) || !planner.exists(&IO_PIN_PAGES) {
        return Vec::new();
    }
    let mut wanted: Vec<(HookId, &KernelFn)> =
        vec![(HookId::io_pin, &IO_PIN_PAGES), (HookId::io_provide, &IO_REGISTER_PBUF_RING)];
    if planner.exists(&IO_UADDR_MAP) {
        wanted.push((HookId::io_queues, &IO_UADDR_MAP));
    }
    wanted
}
