//! Events: the ring buffer is drained, and what is in its records goes into the history.
//!
//! The ring carries history and wake-ups only: no pin is lost if it overflows.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{MapData, RingBuf};
use pinwatch_common::{Event as RingEvent, PinEvent, PinRecord, RefusedEvent, event};
use tracing::debug;

use super::history::History;
use crate::kernel::bpf::{BpfError, Programs};
use crate::source::clocks::Clocks;
use crate::source::leases::OVERLAYFS;
use crate::source::trace::{RingRecord, Snapshot};

/// So many clients may follow at once: others have to have room to ask.
const MAX_FOLLOWERS: u32 = 16;

/// The ring buffer, and who follows what comes out of it.
pub struct Events {
    ring: Option<RingBuf<MapData>>,
    /// A lease on a pinned file has changed.
    lease_changed: bool,
    followers: u32,
    received: u64,
}

/// What a drain found besides history.
#[derive(Default)]
pub struct Drained {
    /// Modules came or went.
    pub modules_changed: bool,
    /// A pin was made that nobody has claimed yet.
    pub made_unclaimed: bool,
    /// Pins that were refused.
    pub refused: Vec<RefusedEvent>,
}

/// Why a client cannot follow.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Too many do.
    #[error("{MAX_FOLLOWERS} clients follow already; end one of them")]
    TooMany,
    /// The programs cannot be told to report pins.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

impl Events {
    /// Nothing has happened yet.
    pub fn new(ring: Option<RingBuf<MapData>>) -> Self {
        Self { ring, lease_changed: false, followers: 0, received: 0 }
    }

    /// Becomes ready to read when the ring buffer has something that cannot wait.
    ///
    /// # Errors
    /// If there is no ring buffer.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        let ring = self.ring.as_ref().ok_or(io::ErrorKind::NotFound)?;
        ring.as_fd().try_clone_to_owned()
    }

    /// Reads all records.
    pub fn drain(&mut self, programs: &Programs, history: &mut History, clocks: Clocks) -> Drained {
        let mut drained = Drained::default();
        let Some(ring) = &mut self.ring else { return drained };
        while let Some(item) = ring.next() {
            self.received += 1;
            match RingRecord::parse(&item) {
                Some(RingRecord::Modules) => drained.modules_changed = true,
                Some(RingRecord::Unclaimed) => drained.made_unclaimed = true,
                Some(RingRecord::Refused(event)) => drained.refused.push(event),
                Some(RingRecord::Pin(pin)) => {
                    let (sequence, what) = (pin.event.sequence, pin.event.what);
                    debug!(sequence, pid = pin.event.pid, what, "pin");
                    if self.followers > 0 {
                        history.pin(&pin, clocks);
                    }
                }
                Some(RingRecord::Lease(lease)) => {
                    let file = lease.file;
                    // For overlayfs the lower file is only known after a full pass.
                    let is_pinned = history.is_pinned(&file) || lease.magic == OVERLAYFS;
                    self.lease_changed |= is_pinned || Snapshot::file(programs, &file).is_some();
                    history.lease(&lease, clocks);
                }
                None => {}
            }
        }
        drained
    }

    /// Takes note of a pin for which there is no record: that nobody claims it is known only afterwards.
    pub fn note_made(&self, pin: &PinRecord, history: &mut History, clocks: Clocks) {
        if self.followers == 0 {
            return;
        }
        let creator = (pin.pid_tgid >> 32) as u32;
        let (time, sequence, what) = (pin.created, pin.sequence, event::MADE);
        let event = RingEvent { time, sequence, what, kind: pin.kind, pid: creator, reserved: 0 };
        let (file, length, start, comm, uid) = (pin.first.file, pin.length, pin.start, pin.comm, pin.uid);
        history.pin(&PinEvent { event, file, length, start, comm, creator, uid }, clocks);
    }

    /// Whether a lease on a pinned file has changed since the latest pass.
    pub fn has_lease_changed(&self) -> bool {
        self.lease_changed
    }

    /// Takes note of a pass: it has seen the leases as they are now.
    pub fn note_pass(&mut self) {
        self.lease_changed = false;
    }

    /// How many records came so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// A client begins to follow: pins are reported while anybody does.
    ///
    /// # Errors
    /// [`FollowError`]
    pub fn add_follower(&mut self, programs: &mut Programs) -> Result<(), FollowError> {
        if self.followers == MAX_FOLLOWERS {
            return Err(FollowError::TooMany);
        }
        if self.followers == 0 {
            programs.follow_pins(true)?;
        }
        self.followers += 1;
        Ok(())
    }

    /// A client has ended to follow.
    ///
    /// # Errors
    /// [`BpfError`] if the programs go on reporting pins.
    pub fn remove_follower(&mut self, programs: &mut Programs) -> Result<(), BpfError> {
        self.followers = self.followers.saturating_sub(1);
        if self.followers == 0 { programs.follow_pins(false) } else { Ok(()) }
    }
}
