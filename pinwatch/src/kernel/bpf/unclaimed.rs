//! Pins that no subsystem has claimed: what the programs noted of them, and whether they are there still.

use pinwatch_common::{PageRecord, SampledPages, counter};

use super::{BpfError, Programs};

impl Programs {
    /// How many such pins were noted so far, claimed ones included.
    pub fn unclaimed(&self) -> u64 {
        self.counter(counter::UNCLAIMED).unwrap_or(0)
    }

    /// By what they are known to be there, by sequence number.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn sampled_pages(&self) -> Result<Vec<(u64, SampledPages)>, BpfError> {
        self.entries("LIVENESS")
    }

    /// Whether a page that was pinned still can be.
    ///
    /// # Errors
    /// [`BpfError::Iterate`]
    pub fn is_pinned(&mut self, page: &PageRecord) -> Result<bool, BpfError> {
        Ok(page.page != 0 && self.ask("still_pinned", [page.page, page.mapping, page.index])? != 0)
    }

    /// Whether the system call that has its registers there is still under way.
    ///
    /// # Errors
    /// [`BpfError::Iterate`]
    pub fn is_in_call(&mut self, registers: u64) -> Result<bool, BpfError> {
        Ok(self.ask("in_call", [registers, 0, 0])? != 0)
    }

    /// Takes a pin back if a subsystem has made it: the first time that one makes several in one call, only the latest is
    /// known as its own at once. Whether it was taken back.
    ///
    /// # Errors
    /// [`BpfError::Iterate`]
    pub fn take_back_claimed(&mut self, sequence: u64) -> Result<bool, BpfError> {
        Ok(self.ask("take_back_claimed", [sequence, 0, 0])? != 0)
    }

    /// Has the programs forget that a thread may go on with a pin, and a subsystem claim it.
    ///
    /// # Errors
    /// [`BpfError::Iterate`]
    pub fn settle(&mut self, thread: u64, sequence: u64) -> Result<(), BpfError> {
        self.ask("settled", [thread, sequence, 0]).map(drop)
    }

    /// Forgets from where subsystems pin: modules have come or gone, and the addresses may be others' by now.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn forget_claims(&mut self) -> Result<(), BpfError> {
        let claimed: Vec<(u64, u32)> = self.entries("CLAIMED")?;
        let addresses: Vec<u64> = claimed.into_iter().map(|(address, _)| address).collect();
        self.remove::<u64, u32>("CLAIMED", &addresses)
    }
}
