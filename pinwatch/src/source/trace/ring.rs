//! Records that the BPF programs write to the ring buffer as things happen.

use pinwatch_common::{Event, LeaseEvent, PinEvent, RefusedEvent, event};

use crate::kernel::sys::read_record as record;

/// One decoded record.
pub enum RingRecord {
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

impl RingRecord {
    /// From the bytes of a record; `None` for what this version does not know.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
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
        assert!(RingRecord::parse(&bytes).is_none());
        bytes[16] = event::LEASE_TAKEN as u8;
        assert!(matches!(RingRecord::parse(&bytes), Some(RingRecord::Lease(_))));
        assert!(RingRecord::parse(&bytes[..size_of::<LeaseEvent>() - 1]).is_none());
        bytes[16] = event::MODULES as u8;
        assert!(matches!(RingRecord::parse(&bytes[..size_of::<Event>()]), Some(RingRecord::Modules)));
        assert!(RingRecord::parse(&[]).is_none());
    }
}
