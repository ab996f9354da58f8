//! Why a pin was refused: from what the kernel's programs saw. Pure.

use pinwatch_common::{FileKey, RefusedEvent, magic, refused, subsystems::Kind, vm};

use super::records::PAGE;
use crate::model::{Counter, Reason};

/// The reason, as far as it can be told.
pub fn reason(event: &RefusedEvent) -> Reason {
    let errno = event.event.reserved.cast_signed();
    let has = |flag| event.flags & flag != 0;
    let kind = Kind::try_from(event.event.kind);
    let wants_write = has(refused::WRITE);
    let is_file = event.magic != 0;
    let in_memory = event.magic == magic::TMPFS || event.magic == magic::HUGETLBFS;
    let is_ring = matches!(kind, Ok(Kind::IoUring | Kind::IoUringMemory));
    let shared = event.mapping & vm::SHARED != 0;
    match errno {
        libc::EFAULT | libc::EREMOTEIO | libc::EOPNOTSUPP if event.magic == magic::SECRETMEM => {
            Reason::Secret
        }
        libc::ENOMEM | libc::ENOBUFS | libc::EPERM => memlock(event).unwrap_or(match errno {
            libc::EPERM => Reason::Unknown,
            _ => Reason::NoMemory,
        }),
        libc::EINTR | libc::EAGAIN => Reason::Interrupted,
        libc::EINVAL if kind == Ok(Kind::Udmabuf) => Reason::Seals,
        libc::EBADFD if kind == Ok(Kind::Udmabuf) => Reason::NoMemfd,
        // Device DAX has the flag too, and is on a file system in memory.
        libc::EOPNOTSUPP if has(refused::DAX) && !in_memory => Reason::FsDax,
        // Devices are on a file system in memory, too.
        libc::EOPNOTSUPP if is_ring && event.file != FileKey::default() => Reason::NoFiles,
        libc::EFAULT | libc::EREMOTEIO if event.mapping & (vm::IO | vm::PFNMAP) != 0 => Reason::Device,
        libc::EFAULT if !has(refused::MAPPED) && event.hole != 0 => Reason::Unmapped { at: event.hole },
        libc::EFAULT if has(refused::MAPPED) && event.mapping & vm::WRITE == 0 => Reason::ReadOnly,
        libc::EFAULT if wants_write && shared && is_file && !in_memory => Reason::DirtyTracking,
        libc::EFAULT if event.hole != 0 => Reason::Unmapped { at: event.hole },
        _ => Reason::Unknown,
    }
}

/// Whether what was asked for would have been more than RLIMIT_MEMLOCK allows, by the counter that the subsystem goes by.
fn memlock(event: &RefusedEvent) -> Option<Reason> {
    let pages = event.length.div_ceil(PAGE);
    let limit = event.limit / PAGE;
    let over = |counter: Counter, used: u64| {
        (used.saturating_add(pages) > limit).then_some(Reason::Memlock {
            counter,
            used: used.saturating_mul(PAGE),
            limit: event.limit,
        })
    };
    let pinned = || over(Counter::Pinned, event.pinned);
    let user = || over(Counter::User, event.user_locked);
    match Kind::try_from(event.event.kind).ok()? {
        Kind::IoUring | Kind::IoUringMemory | Kind::Xdp => user(),
        Kind::Vfio => over(Counter::Locked, event.locked),
        Kind::Udmabuf | Kind::V4l2 => None,
        Kind::Unclaimed => pinned().or_else(|| over(Counter::Locked, event.locked)).or_else(user),
        Kind::RdmaBuffer | Kind::RdmaMr | Kind::RdmaCq | Kind::RdmaQp | Kind::RdmaSrq => pinned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(errno: i32) -> RefusedEvent {
        let mut event = RefusedEvent { length: 8 * PAGE, limit: 64 * PAGE, ..RefusedEvent::default() };
        event.event.kind = Kind::RdmaMr as u32;
        event.event.reserved = errno.cast_unsigned();
        event.flags = refused::MAPPED | refused::WRITE;
        event.mapping = vm::WRITE | vm::SHARED;
        event
    }

    #[test]
    fn reasons_follow_from_errno_and_mapping() {
        const XFS: u64 = 0x5846_5342;
        let file = RefusedEvent { magic: XFS, ..event(libc::EFAULT) };
        assert_eq!(reason(&file), Reason::DirtyTracking);
        assert_eq!(reason(&RefusedEvent { mapping: vm::SHARED, ..file }), Reason::ReadOnly);
        assert_eq!(reason(&RefusedEvent { magic: magic::SECRETMEM, ..file }), Reason::Secret);
        assert_eq!(reason(&RefusedEvent { mapping: vm::IO | vm::SHARED, ..file }), Reason::Device);
        assert_eq!(reason(&RefusedEvent { magic: magic::TMPFS, ..file }), Reason::Unknown);
        let hole = RefusedEvent { flags: refused::WRITE, hole: 0x1000, mapping: 0, ..event(libc::EFAULT) };
        assert_eq!(reason(&hole), Reason::Unmapped { at: 0x1000 });
        let dax =
            RefusedEvent { magic: XFS, flags: refused::MAPPED | refused::DAX, ..event(libc::EOPNOTSUPP) };
        assert_eq!(reason(&dax), Reason::FsDax);
        let file = FileKey { ino: 3, ..FileKey::default() };
        let mut ring = RefusedEvent { file, ..event(libc::EOPNOTSUPP) };
        ring.event.kind = Kind::IoUring as u32;
        assert_eq!(reason(&ring), Reason::NoFiles);
        assert_eq!(reason(&event(libc::EINVAL)), Reason::Unknown);
    }

    #[test]
    fn a_limit_is_the_reason_only_if_it_would_have_been_passed() {
        assert_eq!(reason(&event(libc::ENOMEM)), Reason::NoMemory);
        let full = RefusedEvent { pinned: 57, ..event(libc::ENOMEM) };
        let over = |counter, used: u64| Reason::Memlock { counter, used: used * PAGE, limit: 64 * PAGE };
        assert_eq!(reason(&full), over(Counter::Pinned, 57));
        let mut umem = RefusedEvent { user_locked: 60, ..event(libc::ENOBUFS) };
        umem.event.kind = Kind::Xdp as u32;
        assert_eq!(reason(&umem), over(Counter::User, 60));
        let mut other = RefusedEvent { locked: 60, ..event(libc::ENOMEM) };
        other.event.kind = Kind::Unclaimed as u32;
        assert_eq!(reason(&other), over(Counter::Locked, 60));
        let mapping = |locked| {
            let mut event = RefusedEvent { locked, ..event(libc::ENOMEM) };
            event.event.kind = Kind::Vfio as u32;
            event
        };
        assert_eq!(reason(&mapping(60)), over(Counter::Locked, 60));
        assert_eq!(reason(&mapping(50)), Reason::NoMemory);
        let absurd = RefusedEvent { pinned: u64::MAX, length: u64::MAX, ..event(libc::ENOMEM) };
        assert!(matches!(reason(&absurd), Reason::Memlock { .. }));
    }
}
