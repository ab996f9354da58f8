//! Why one row may not be exact: a set of [`Doubt`]s. They are worded in `listing::gaps`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::words::words;

words! {
    /// Why one row may not be exact.
    Doubt {
        /// Another thread was changing the mappings all the while they were looked at.
        MappingsBusy = "mappings_busy",
        /// A part of the memory was unmapped before it could be looked at.
        Unmapped = "unmapped",
        /// More mappings than are looked at.
        TooManyMappings = "too_many_mappings",
        /// There was no room for all of its extents.
        ExtentsFull = "extents_full",
        /// The memory was remapped, or its file truncated, while it was being pinned.
        PageMismatch = "page_mismatch",
        /// There was no room for the name of its file.
        NoPath = "no_path",
        /// The memory is another process's: at most its first page was looked at.
        ForeignMemory = "foreign_memory",
        /// The file is what a process has mapped at the address now, not when it was pinned.
        MappedNow = "mapped_now",
        /// Nothing is mapped at the address any more: which file it was is not known.
        NoLongerMapped = "no_longer_mapped",
        /// A part of it is no longer mapped.
        PartlyUnmapped = "partly_unmapped",
        /// The source does not say which memory it is.
        MemoryUnknown = "memory_unknown",
        /// The source does not say whether the object pins anything.
        MaybeNotPinned = "maybe_not_pinned",
    }
}

impl Doubt {
    fn bit(self) -> u16 {
        1 << self as u16
    }
}

const _: () = assert!(Doubt::ALL.len() <= 16, "the doubts of a row fit into 16 bits");

/// The doubts about one row.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Doubts(u16);

impl Doubts {
    /// No doubt at all: the row is exact.
    pub const NONE: Self = Self(0);

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this is one of them.
    pub fn contains(self, doubt: Doubt) -> bool {
        self.0 & doubt.bit() != 0
    }

    /// All of them, in the order in which they are shown.
    pub fn iter(self) -> impl Iterator<Item = Doubt> {
        Doubt::ALL.iter().copied().filter(move |doubt| self.contains(*doubt))
    }
}

impl fmt::Debug for Doubts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Doubt> for Doubts {
    fn from_iter<T: IntoIterator<Item = Doubt>>(doubts: T) -> Self {
        Self(doubts.into_iter().fold(0, |bits, doubt| bits | doubt.bit()))
    }
}

impl From<Doubt> for Doubts {
    fn from(doubt: Doubt) -> Self {
        Self(doubt.bit())
    }
}

impl From<Doubts> for u16 {
    fn from(doubts: Doubts) -> Self {
        doubts.0
    }
}

/// Bits that stand for no [`Doubt`]: whoever sent them is of another version, or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDoubts(u16);

impl fmt::Display for UnknownDoubts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bits {:#x} are no doubts", self.0)
    }
}

impl TryFrom<u16> for Doubts {
    type Error = UnknownDoubts;

    fn try_from(bits: u16) -> Result<Self, UnknownDoubts> {
        let known: Self = Doubt::ALL.iter().copied().collect();
        if bits & !known.0 == 0 { Ok(Self(bits)) } else { Err(UnknownDoubts(bits & !known.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_are_a_set_and_unknown_bits_are_refused() {
        let all: Doubts = Doubt::ALL.iter().copied().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), Doubt::ALL);
        let one = Doubts::from(Doubt::NoPath);
        assert!(one.contains(Doubt::NoPath) && !one.contains(Doubt::Unmapped) && !one.is_empty());
        assert_eq!(Doubts::try_from(u16::from(one)), Ok(one));
        assert_eq!(Doubts::try_from(1 << 15), Err(UnknownDoubts(1 << 15)));
        assert_eq!(Doubts::from_iter([]), Doubts::NONE);
    }
}
