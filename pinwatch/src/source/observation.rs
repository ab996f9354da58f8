//! The one shape in which every source says what it saw of a pin.
//!
//! Each source knows a part of it and leaves the rest unknown; none decides what follows. [`super::assemble`] makes the table
//! of observations, whatever source they are from. An observation refers to rows that its source has added there already, and
//! is used up at once: with a hundred thousand pins there is no second copy of them.

use std::collections::BTreeSet;

use crate::model::{Doubts, FileIndex, HoldingIndex, Lease, Mode, Object, Origin, ProcessIndex, Segment};

/// A pin as a source saw it.
#[derive(Clone, Debug)]
pub struct PinObservation<'a> {
    /// How it is known. One for each source.
    pub origin: Origin,
    /// Tells it from the other pins of its subsystem.
    pub sequence: u64,
    /// The kernel object.
    pub object: Object,
    /// Whether the device may write.
    pub mode: Mode,
    /// Bytes asked for.
    pub bytes: u64,
    /// Pages pinned, in units of the system's base page.
    pub pages: u64,
    /// User address of the first byte when the pin was made, if known.
    pub address: Option<u64>,
    /// What its pages belong to.
    pub memory: Memory<'a>,
    /// Why the memory may not be exact.
    pub doubts: Doubts,
    /// Who made it; `None` if the source does not know.
    pub creator: Option<ProcessIndex>,
    /// Who keeps it.
    pub held: Held,
    /// When it was made, in nanoseconds since the Unix epoch; `None` if the source does not know.
    pub created: Option<i64>,
}

/// What the pages of a pin belong to.
#[derive(Clone, Copy, Debug)]
pub enum Memory<'a> {
    /// The runs of its address range, in their order.
    Runs(&'a [Segment]),
    /// The source does not say which memory it is.
    Unknown,
}

/// Who keeps a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nobody has looked.
    Unknown,
    /// The source has found the holders.
    By(HoldingIndex),
    /// The kernel's objects by which the holders are found: the pin's own, and its anchor (0 if that is not known).
    Anchor {
        /// The object.
        object: u64,
        /// The `struct file` that keeps it.
        anchor: u64,
    },
}

/// The leases that a source saw, and what they do not settle.
#[derive(Debug, Default)]
pub struct LeaseObservations {
    /// The leases.
    pub leases: Vec<Lease>,
    /// Whether this kernel grants leases on hugetlbfs.
    pub hugetlb: bool,
    /// Whether there may be any number of leases that the source may not see.
    pub some_unseen: bool,
    /// Files that have a lease of which it is not known who has it open.
    pub unclear_files: BTreeSet<FileIndex>,
    /// Processes that have a lease of which it is not known on which file it is.
    pub unclear_holders: BTreeSet<ProcessIndex>,
    /// Whether a part of a pin's memory that is not known may be on a file: then nothing is known of that pin's leases.
    pub unknown_may_be_files: bool,
}
