//! Why a table may not be exact: a [`Gap`] for the whole table. What makes one row doubtful is in `doubt`.
//!
//! Only the facts live here, with a code that scripts, metrics and tests match. The sentences for people are in
//! `listing::gaps`, and nowhere else. A gap is opened where the loss is noticed; nothing is decided by its sentence.

use serde::{Deserialize, Serialize};

use pinwatch_common::subsystems::Subsystem;

use super::words::words;

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::doubt::Doubt;

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
}
