//! Why a pin was refused: from what the kernel's programs saw. Pure. What is the same for all subsystems is here; what an
//! errno means with one of them only, and by which counters it goes, its room says.

use pinwatch_common::subsystems::{Kind, Subsystem, UnknownKind};
use pinwatch_common::{RefusedEvent, magic, refused_flag, vm};

use super::{Room, room};
use crate::model::{Counter, Reason};
use crate::source::trace::PAGE;

/// Which subsystem refused it, and the reason as far as the event shows it.
///
/// # Errors
/// A kind of object that this version does not know.
pub fn refusal(event: &RefusedEvent) -> Result<(Subsystem, Reason), UnknownKind> {
    let subsystem = Kind::try_from(event.event.kind)?.subsystem();
    let room = room(subsystem);
    let errno = event.errno;
    let has = |flag| event.flags & flag != 0;
    let reason = match errno {
        libc::EFAULT | libc::EREMOTEIO | libc::EOPNOTSUPP if event.magic == magic::SECRETMEM => {
            Reason::Secret
        }
        libc::ENOMEM | libc::ENOBUFS | libc::EPERM => memlock(room, event).unwrap_or(match errno {
            libc::EPERM => Reason::Unknown,
            _ => Reason::NoMemory,
        }),
        libc::EINTR | libc::EAGAIN => Reason::Interrupted,
        // Device DAX has the flag too, and is on a file system in memory.
        libc::EOPNOTSUPP if has(refused_flag::DAX) && !in_memory(event) => Reason::FsDax,
        _ => room.refused(errno, event).unwrap_or_else(|| by_mapping(errno, event)),
    };
    Ok((subsystem, reason))
}

/// What the memory that was to be pinned has to do with it.
fn by_mapping(errno: i32, event: &RefusedEvent) -> Reason {
    let has = |flag| event.flags & flag != 0;
    let wants_write = has(refused_flag::WRITE);
    let is_file = event.magic != 0;
    let shared = event.mapping & vm::SHARED != 0;
    match errno {
        libc::EFAULT | libc::EREMOTEIO if event.mapping & (vm::IO | vm::PFNMAP) != 0 => Reason::Device,
        libc::EFAULT if !has(refused_flag::MAPPED) && event.hole != 0 => Reason::Unmapped { at: event.hole },
        libc::EFAULT if has(refused_flag::MAPPED) && event.mapping & vm::WRITE == 0 => Reason::ReadOnly,
        libc::EFAULT if wants_write && shared && is_file && !in_memory(event) => Reason::DirtyTracking,
        libc::EFAULT if event.hole != 0 => Reason::Unmapped { at: event.hole },
        _ => Reason::Unknown,
    }
}

fn in_memory(event: &RefusedEvent) -> bool {
    event.magic == magic::TMPFS || event.magic == magic::HUGETLBFS
}

/// Whether the pin would have exceeded RLIMIT_MEMLOCK, by a counter that its subsystem charges.
fn memlock(room: &dyn Room, event: &RefusedEvent) -> Option<Reason> {
    let pages = event.length.div_ceil(PAGE);
    let limit = event.limit / PAGE;
    room.memlock().iter().find_map(|counter| {
        let used = match counter {
            Counter::Pinned => event.pinned,
            Counter::Locked => event.locked,
            Counter::User => event.user_locked,
        };
        (used.saturating_add(pages) > limit).then_some(Reason::Memlock {
            counter: *counter,
            used: used.saturating_mul(PAGE),
            limit: event.limit,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinwatch_common::FileKey;

    fn refused_for(event: &RefusedEvent) -> Reason {
        refusal(event).unwrap().1
    }

    fn event(errno: i32) -> RefusedEvent {
        let mut event = RefusedEvent { length: 8 * PAGE, limit: 64 * PAGE, ..RefusedEvent::default() };
        event.event.kind = Kind::RdmaMr as u32;
        event.errno = errno;
        event.flags = refused_flag::MAPPED | refused_flag::WRITE;
        event.mapping = vm::WRITE | vm::SHARED;
        event
    }

    #[test]
    fn reasons_follow_from_errno_and_mapping() {
        const XFS: u64 = 0x5846_5342;
        let file = RefusedEvent { magic: XFS, ..event(libc::EFAULT) };
        assert_eq!(refused_for(&file), Reason::DirtyTracking);
        assert_eq!(refused_for(&RefusedEvent { mapping: vm::SHARED, ..file }), Reason::ReadOnly);
        assert_eq!(refused_for(&RefusedEvent { magic: magic::SECRETMEM, ..file }), Reason::Secret);
        assert_eq!(refused_for(&RefusedEvent { mapping: vm::IO | vm::SHARED, ..file }), Reason::Device);
        assert_eq!(refused_for(&RefusedEvent { magic: magic::TMPFS, ..file }), Reason::Unknown);
        let hole =
            RefusedEvent { flags: refused_flag::WRITE, hole: 0x1000, mapping: 0, ..event(libc::EFAULT) };
        assert_eq!(refused_for(&hole), Reason::Unmapped { at: 0x1000 });
        let dax = RefusedEvent {
            magic: XFS,
            flags: refused_flag::MAPPED | refused_flag::DAX,
            ..event(libc::EOPNOTSUPP)
        };
        assert_eq!(refused_for(&dax), Reason::FsDax);
        let file = FileKey { ino: 3, ..FileKey::default() };
        let mut ring = RefusedEvent { file, ..event(libc::EOPNOTSUPP) };
        ring.event.kind = Kind::IoUring as u32;
        assert_eq!(refused_for(&ring), Reason::NoFiles);
        assert_eq!(refused_for(&event(libc::EINVAL)), Reason::Unknown);
    }

    #[test]
    fn a_limit_is_the_reason_only_if_it_would_have_been_passed() {
        assert_eq!(refused_for(&event(libc::ENOMEM)), Reason::NoMemory);
        let full = RefusedEvent { pinned: 57, ..event(libc::ENOMEM) };
        let over = |counter, used: u64| Reason::Memlock { counter, used: used * PAGE, limit: 64 * PAGE };
        assert_eq!(refused_for(&full), over(Counter::Pinned, 57));
        let mut umem = RefusedEvent { user_locked: 60, ..event(libc::ENOBUFS) };
        umem.event.kind = Kind::Xdp as u32;
        assert_eq!(refused_for(&umem), over(Counter::User, 60));
        let mut other = RefusedEvent { locked: 60, ..event(libc::ENOMEM) };
        other.event.kind = Kind::Unclaimed as u32;
        assert_eq!(refused_for(&other), over(Counter::Locked, 60));
        let mapping = |locked| {
            let mut event = RefusedEvent { locked, ..event(libc::ENOMEM) };
            event.event.kind = Kind::Vfio as u32;
            event
        };
        assert_eq!(refused_for(&mapping(60)), over(Counter::Locked, 60));
        assert_eq!(refused_for(&mapping(50)), Reason::NoMemory);
        let absurd = RefusedEvent { pinned: u64::MAX, length: u64::MAX, ..event(libc::ENOMEM) };
        assert!(matches!(refused_for(&absurd), Reason::Memlock { .. }));
    }

    #[test]
    fn an_unknown_kind_has_no_reason() {
        let mut event = event(libc::ENOMEM);
        event.event.kind = 99;
        assert_eq!(refusal(&event), Err(UnknownKind(99)));
    }
}
