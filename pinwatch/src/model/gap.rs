//! Why a table may not be exact: a [`Gap`] for the whole table, a [`Doubt`] for one row.
//!
//! Only the facts live here, with a code that scripts, metrics and tests match. The sentences for people are in
//! `listing::gaps`, and nowhere else. A gap is opened where the loss is noticed; nothing is decided by its sentence.

use std::fmt;

use serde::{Deserialize, Serialize};

use pinwatch_common::subsystems::Subsystem;

/// An enum whose variants each have one stable word, and the list of them all.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $name {
            /// All of them, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word used in JSON and metrics; it never changes.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words! {
    /// What kind of gap it is. Codes are stable; what people read is not.
    GapCode {
        /// Pins older than the daemon.
        Before = "before",
        /// Pins of a subsystem that are older than the hooks on its modules.
        SubsystemBefore = "subsystem_before",
        /// A subsystem is not traced.
        NotTraced = "not_traced",
        /// A part of a subsystem is not traced.
        PartlyTraced = "partly_traced",
        /// A planned hook could not be attached.
        HookMissing = "hook_missing",
        /// The kernel skipped hooks.
        SkippedHooks = "skipped_hooks",
        /// The kernel had no return probe left.
        MissedReturns = "missed_returns",
        /// The map of pins was full.
        PinsFull = "pins_full",
        /// The map of extents was full.
        ExtentsFull = "extents_full",
        /// The map of files was full.
        FilesFull = "files_full",
        /// The map of calls in progress was full.
        CallsFull = "calls_full",
        /// The map of cloned io_uring buffers was full.
        SharesFull = "shares_full",
        /// The map of leases was full.
        LeasesFull = "leases_full",
        /// The map of threads that wait for a lease was full.
        WaitersFull = "waiters_full",
        /// Records of a kind that this version does not know.
        UnknownKind = "unknown_kind",
        /// The holders of pins could not be read.
        HoldersUnknown = "holders_unknown",
        /// A file system does not answer.
        FileSystemSilent = "file_system_silent",
        /// The file below a leased overlayfs file is not known.
        OverlayLeases = "overlay_leases",
        /// The kernel counts more pinned pages than the pins explain.
        Unattributed = "unattributed",
        /// procfs and netlink show few subsystems.
        ProcfsSubsystems = "procfs_subsystems",
        /// procfs names files only while they are mapped.
        ProcfsMappedFiles = "procfs_mapped_files",
        /// Processes that may not be read.
        ProcessesDenied = "processes_denied",
        /// /proc is mounted with `hidepid`.
        ProcessesHidden = "processes_hidden",
        /// A netlink listing changed while it was read.
        ListingChanged = "listing_changed",
        /// RDMA devices or memory regions could not be listed.
        RdmaNotListed = "rdma_not_listed",
        /// Of RDMA only memory regions are listed.
        RdmaRegionsOnly = "rdma_regions_only",
        /// Memory regions whose holders are not known.
        RdmaHoldersUnknown = "rdma_holders_unknown",
        /// The kernel does not compare descriptors of an RDMA device.
        RdmaNotCompared = "rdma_not_compared",
        /// AF_XDP sockets could not be listed.
        XdpNotListed = "xdp_not_listed",
        /// AF_XDP sockets in other network namespaces.
        XdpOtherNamespaces = "xdp_other_namespaces",
        /// The kernel does not compare io_uring descriptors.
        RingsNotCompared = "rings_not_compared",
        /// io_uring rings that were in use while their buffers were to be listed.
        RingsBusy = "rings_busy",
        /// io_uring rings that only a mapping keeps.
        RingsMappedOnly = "rings_mapped_only",
        /// io_uring buffers that the kernel lists in an unknown form.
        RingBuffersUnreadable = "ring_buffers_unreadable",
        /// io_uring buffers that may be counted twice.
        RingBuffersTwice = "ring_buffers_twice",
    }
}

impl GapCode {
    /// Whether only `lspins` without a daemon can have it: it is about procfs and netlink.
    pub fn is_of_procfs(self) -> bool {
        match self {
            Self::Before
            | Self::SubsystemBefore
            | Self::NotTraced
            | Self::PartlyTraced
            | Self::HookMissing
            | Self::SkippedHooks
            | Self::MissedReturns
            | Self::PinsFull
            | Self::ExtentsFull
            | Self::FilesFull
            | Self::CallsFull
            | Self::SharesFull
            | Self::LeasesFull
            | Self::WaitersFull
            | Self::UnknownKind
            | Self::HoldersUnknown
            | Self::FileSystemSilent
            | Self::OverlayLeases
            | Self::Unattributed => false,
            Self::ProcfsSubsystems
            | Self::ProcfsMappedFiles
            | Self::ProcessesDenied
            | Self::ProcessesHidden
            | Self::ListingChanged
            | Self::RdmaNotListed
            | Self::RdmaRegionsOnly
            | Self::RdmaHoldersUnknown
            | Self::RdmaNotCompared
            | Self::XdpNotListed
            | Self::XdpOtherNamespaces
            | Self::RingsNotCompared
            | Self::RingsBusy
            | Self::RingsMappedOnly
            | Self::RingBuffersUnreadable
            | Self::RingBuffersTwice => true,
        }
    }
}

/// A BPF map that can be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FullMap {
    /// Pins.
    Pins,
    /// Extents after a pin's first.
    Extents,
    /// Files and their names.
    Files,
    /// Calls in progress.
    Calls,
    /// io_uring buffers that several rings share.
    Shares,
    /// When leases were taken.
    Leases,
    /// Threads that wait for a lease to go.
    Waiters,
}

/// One reason why pins may be missing, listed though gone, or shown without what belongs to them.
///
/// Times are nanoseconds since the Unix epoch. `why` is the cause in the words of whoever failed, without a newline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gap {
    /// Pins made before the daemon began to watch are not listed.
    Before {
        /// When it began.
        since: i64,
    },
    /// Pins of a subsystem made before its modules were hooked are not listed.
    SubsystemBefore {
        /// Which.
        subsystem: Subsystem,
        /// When they were.
        since: i64,
    },
    /// A subsystem is not traced at all.
    NotTraced {
        /// Which.
        subsystem: Subsystem,
        /// The cause, and what is lost.
        why: String,
    },
    /// Something of a subsystem is not traced.
    PartlyTraced {
        /// Which.
        subsystem: Subsystem,
        /// The cause, and what is lost.
        why: String,
    },
    /// A planned hook is not attached.
    HookMissing {
        /// What it was for, as `pinwatch check` names it.
        feature: String,
        /// The cause.
        why: String,
    },
    /// The kernel skipped hooks because their program was already running on that CPU.
    SkippedHooks {
        /// At most so many calls.
        calls: u64,
    },
    /// The kernel had no kretprobe instance left.
    MissedReturns {
        /// So many calls.
        calls: u64,
    },
    /// Something found no room in a BPF map.
    MapFull {
        /// Which map.
        map: FullMap,
        /// How many times.
        times: u64,
    },
    /// The programs recorded pins of a kind that this version does not know: they are not listed.
    UnknownKind {
        /// How many.
        pins: u64,
    },
    /// Who keeps the pins could not be read.
    HoldersUnknown {
        /// The cause.
        why: String,
    },
    /// A file system did not answer: whether its files still have their names is not known.
    FileSystemSilent {
        /// Files that were asked for in vain.
        files: u64,
    },
    /// A lease was taken through overlayfs, and which file is below is not known.
    OverlayLeases {
        /// The cause.
        why: String,
    },
    /// The kernel counts more pinned pages than the pins explain.
    Unattributed {
        /// How many more.
        pages: u64,
    },
    /// Without a daemon: only what procfs and netlink list is known.
    ProcfsSubsystems,
    /// Without a daemon: a file is known only while its memory is still mapped.
    ProcfsMappedFiles,
    /// Processes that could not be read.
    ProcessesDenied {
        /// How many.
        processes: u64,
        /// Whether root was refused.
        root: bool,
    },
    /// /proc hides the processes of other users.
    ProcessesHidden,
    /// Objects came or went while they were listed: some may be missing.
    ListingChanged {
        /// Of which subsystem.
        subsystem: Subsystem,
    },
    /// RDMA devices, or the memory regions of one, could not be listed.
    RdmaNotListed {
        /// The device; `None` if no device could be listed.
        device: Option<String>,
        /// The cause.
        why: String,
    },
    /// Of RDMA only memory regions are listed, also those that pin nothing; the buffers of queues are not.
    RdmaRegionsOnly,
    /// Nothing says which open device file belongs to these memory regions.
    RdmaHoldersUnknown {
        /// How many.
        regions: u64,
    },
    /// The kernel does not compare descriptors of a device (kcmp): who holds its memory regions is not known.
    RdmaNotCompared {
        /// Which device.
        device: String,
        /// How many descriptors.
        descriptors: u64,
    },
    /// AF_XDP sockets exist, and cannot be listed: their umems are missing.
    XdpNotListed {
        /// How many.
        sockets: u64,
        /// The cause.
        why: String,
    },
    /// AF_XDP sockets exist in other network namespaces, which diagnostics do not show.
    XdpOtherNamespaces {
        /// How many.
        sockets: u64,
    },
    /// The kernel does not compare io_uring descriptors (kcmp): a shared ring is listed once for each process.
    RingsNotCompared {
        /// How many descriptors.
        descriptors: u64,
    },
    /// Rings were in use all the while, so that the kernel did not list their buffers.
    RingsBusy {
        /// How many.
        rings: u64,
    },
    /// Rings are kept by a mapping without a descriptor: their buffers cannot be listed.
    RingsMappedOnly {
        /// How many.
        rings: u64,
    },
    /// The kernel lists buffers in a form that this version does not know.
    RingBuffersUnreadable {
        /// How many.
        buffers: u64,
    },
    /// Buffers have the address and length of one in another ring: if they were cloned, they are counted twice.
    RingBuffersTwice {
        /// How many.
        buffers: u64,
    },
}

impl Gap {
    /// Its code.
    pub fn code(&self) -> GapCode {
        match self {
            Self::Before { .. } => GapCode::Before,
            Self::SubsystemBefore { .. } => GapCode::SubsystemBefore,
            Self::NotTraced { .. } => GapCode::NotTraced,
            Self::PartlyTraced { .. } => GapCode::PartlyTraced,
            Self::HookMissing { .. } => GapCode::HookMissing,
            Self::SkippedHooks { .. } => GapCode::SkippedHooks,
            Self::MissedReturns { .. } => GapCode::MissedReturns,
            Self::MapFull { map, .. } => match map {
                FullMap::Pins => GapCode::PinsFull,
                FullMap::Extents => GapCode::ExtentsFull,
                FullMap::Files => GapCode::FilesFull,
                FullMap::Calls => GapCode::CallsFull,
                FullMap::Shares => GapCode::SharesFull,
                FullMap::Leases => GapCode::LeasesFull,
                FullMap::Waiters => GapCode::WaitersFull,
            },
            Self::UnknownKind { .. } => GapCode::UnknownKind,
            Self::HoldersUnknown { .. } => GapCode::HoldersUnknown,
            Self::FileSystemSilent { .. } => GapCode::FileSystemSilent,
            Self::OverlayLeases { .. } => GapCode::OverlayLeases,
            Self::Unattributed { .. } => GapCode::Unattributed,
            Self::ProcfsSubsystems => GapCode::ProcfsSubsystems,
            Self::ProcfsMappedFiles => GapCode::ProcfsMappedFiles,
            Self::ProcessesDenied { .. } => GapCode::ProcessesDenied,
            Self::ProcessesHidden => GapCode::ProcessesHidden,
            Self::ListingChanged { .. } => GapCode::ListingChanged,
            Self::RdmaNotListed { .. } => GapCode::RdmaNotListed,
            Self::RdmaRegionsOnly => GapCode::RdmaRegionsOnly,
            Self::RdmaHoldersUnknown { .. } => GapCode::RdmaHoldersUnknown,
            Self::RdmaNotCompared { .. } => GapCode::RdmaNotCompared,
            Self::XdpNotListed { .. } => GapCode::XdpNotListed,
            Self::XdpOtherNamespaces { .. } => GapCode::XdpOtherNamespaces,
            Self::RingsNotCompared { .. } => GapCode::RingsNotCompared,
            Self::RingsBusy { .. } => GapCode::RingsBusy,
            Self::RingsMappedOnly { .. } => GapCode::RingsMappedOnly,
            Self::RingBuffersUnreadable { .. } => GapCode::RingBuffersUnreadable,
            Self::RingBuffersTwice { .. } => GapCode::RingBuffersTwice,
        }
    }

    /// How many calls, objects, pages or processes it is about, where that is known.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::SkippedHooks { calls: n }
            | Self::MissedReturns { calls: n }
            | Self::MapFull { times: n, .. }
            | Self::UnknownKind { pins: n }
            | Self::FileSystemSilent { files: n }
            | Self::Unattributed { pages: n }
            | Self::ProcessesDenied { processes: n, .. }
            | Self::RdmaHoldersUnknown { regions: n }
            | Self::RdmaNotCompared { descriptors: n, .. }
            | Self::XdpNotListed { sockets: n, .. }
            | Self::XdpOtherNamespaces { sockets: n }
            | Self::RingsNotCompared { descriptors: n }
            | Self::RingsBusy { rings: n }
            | Self::RingsMappedOnly { rings: n }
            | Self::RingBuffersUnreadable { buffers: n }
            | Self::RingBuffersTwice { buffers: n } => Some(*n),
            Self::Before { .. }
            | Self::SubsystemBefore { .. }
            | Self::NotTraced { .. }
            | Self::PartlyTraced { .. }
            | Self::HookMissing { .. }
            | Self::HoldersUnknown { .. }
            | Self::OverlayLeases { .. }
            | Self::ProcfsSubsystems
            | Self::ProcfsMappedFiles
            | Self::ProcessesHidden
            | Self::ListingChanged { .. }
            | Self::RdmaNotListed { .. }
            | Self::RdmaRegionsOnly => None,
        }
    }

    /// If it is only about pins made before a moment: that moment, in nanoseconds since the Unix epoch.
    pub fn since(&self) -> Option<i64> {
        match self {
            Self::Before { since } | Self::SubsystemBefore { since, .. } => Some(*since),
            // Any other gap is open now: a new one that is forgotten here makes the table look worse, not better.
            _ => None,
        }
    }

    /// The one subsystem that it is about, if it is about one.
    pub fn subsystem(&self) -> Option<Subsystem> {
        match self {
            Self::SubsystemBefore { subsystem, .. }
            | Self::NotTraced { subsystem, .. }
            | Self::PartlyTraced { subsystem, .. }
            | Self::ListingChanged { subsystem } => Some(*subsystem),
            _ => None,
        }
    }
}

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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_snake_case_and_each_is_there_once() {
        let codes: Vec<&str> = GapCode::ALL.iter().map(|code| code.word()).collect();
        let doubts: Vec<&str> = Doubt::ALL.iter().map(|doubt| doubt.word()).collect();
        for words in [codes, doubts] {
            let snake = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(words.iter().all(snake), "{words:?}");
            assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
        }
    }

    #[test]
    fn a_gap_says_what_it_is_about() {
        let full = Gap::MapFull { map: FullMap::Pins, times: 2 };
        assert_eq!((full.code(), full.count(), full.since()), (GapCode::PinsFull, Some(2), None));
        let before = Gap::SubsystemBefore { subsystem: Subsystem::Rdma, since: 7 };
        assert_eq!(
            (before.since(), before.subsystem(), before.count()),
            (Some(7), Some(Subsystem::Rdma), None)
        );
    }

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
