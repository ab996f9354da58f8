//! What the kernel's programs tell as it happens, as it comes out of the ring buffer.

use pinwatch_common::{Event, LeaseEvent, PinEvent, RefusedEvent, event};

use crate::kernel::sys::read_record as record;

/// One thing that was told.
pub enum Told {
    /// Modules came or went.
    Modules,
    /// A pin was made that nobody has claimed yet.
    Unclaimed,
    /// A pin was made or released.
    Pin(PinEvent),
    /// A pin was refused.
    Refused(RefusedEvent),
    /// Something happened to a lease.
    Lease(LeaseEvent),
}

impl Told {
    /// From the bytes of a record; `None` for what this version does not know.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let event: Event = record(bytes)?;
        match event.what {
            event::MODULES => Some(Self::Modules),
            event::REFUSED => record(bytes).map(Self::Refused),
            event::UNCLAIMED => Some(Self::Unclaimed),
            event::MADE | event::RELEASED => record(bytes).map(Self::Pin),
            event::LEASE_TAKEN..=event::BREAK_DONE => record(bytes).map(Self::Lease),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_unknown_records_are_left_out() {
        let mut bytes = vec![0_u8; size_of::<LeaseEvent>()];
        assert!(Told::read(&bytes).is_none());
        bytes[16] = event::LEASE_TAKEN as u8;
        assert!(matches!(Told::read(&bytes), Some(Told::Lease(_))));
        assert!(Told::read(&bytes[..size_of::<LeaseEvent>() - 1]).is_none());
        bytes[16] = event::MODULES as u8;
        assert!(matches!(Told::read(&bytes[..size_of::<Event>()]), Some(Told::Modules)));
        assert!(Told::read(&[]).is_none());
    }
}
