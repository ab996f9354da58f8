//! The sentences for gaps and doubts: all of them are here. Subject, verb, cause, effect, and what to do.
//!
//! A sentence has no full stop, and ends up in JSON and behind "not complete:". Nothing may depend on its words: scripts and
//! tests match codes. What a peer or the kernel put into it is escaped by whoever prints it.

use std::borrow::Cow;

use super::size::{self, counted};
use crate::model::{Backing, Doubt, FullMap, Gap, Pin, Subsystem};

/// One gap, as a sentence without a full stop.
pub fn sentence(gap: &Gap) -> String {
    match gap {
        Gap::Before { since } => {
            format!("pins made before {}, when pinwatch began to watch, are not listed", time(*since))
        }
        Gap::SubsystemBefore { subsystem, since } => format!(
            "{} pins made before {}, when the modules of {0} were hooked, are not listed",
            subsystem.word(),
            time(*since)
        ),
        Gap::NotTraced { subsystem, why } => {
            format!("{} pins are not listed: {why}; `pinwatch check` tells more", subsystem.word())
        }
        Gap::PartlyTraced { subsystem, why } => {
            format!("some {} pins are not listed: {why}; `pinwatch check` tells more", subsystem.word())
        }
        Gap::HookMissing { feature, why } => {
            format!("{feature}: a hook could not be attached: {why}; `pinwatch check` tells more")
        }
        Gap::SkippedHooks { calls } => format!(
            "the kernel skipped up to {} (it does not run a BPF program twice on one CPU): so many pins may be missing, or \
             listed though released",
            counted(*calls, "hook call")
        ),
        Gap::MissedReturns { calls } => format!(
            "{} missing: the kernel had no return probe (kretprobe) left for them",
            are(*calls, "registration")
        ),
        Gap::MapFull { map, times } => full(*map, *times),
        Gap::UnknownKind { pins } => format!(
            "{} not listed: the BPF programs are of a newer pinwatch, which knows another kind of pin; restart the daemon",
            are(*pins, "pin")
        ),
        Gap::HoldersUnknown { why } => format!("the holders of all pins are unknown: {why}"),
        Gap::FileSystemSilent { files } => format!(
            "a file system does not answer: whether {} there still {} a name is not known; check its server or device",
            counted(*files, "file"),
            if *files == 1 { "has" } else { "have" }
        ),
        Gap::OverlayLeases { why } => format!(
            "a lease was taken through overlayfs, and the file below it is not known ({why}): the coverage of its holders' \
             pins is shown as unknown"
        ),
        Gap::Unattributed { pages } => format!(
            "the kernel counts {} more than the listed pins explain: pins may be missing, or direct I/O is under way",
            counted(*pages, "pinned page")
        ),
        Gap::ProcfsSubsystems => {
            "without pinwatch only registered io_uring buffers, RDMA memory regions and AF_XDP umems are \
                                  listed, and of io_uring only rings that a process has open"
                .to_owned()
        }
        Gap::ProcfsMappedFiles => {
            "without pinwatch a file is known only while its memory is still mapped where it was pinned"
                .to_owned()
        }
        Gap::ProcessesDenied { processes, root: true } => {
            format!("{} could not be read, even by root: pins they hold may be missing", process(*processes))
        }
        Gap::ProcessesDenied { processes, root: false } => format!(
            "{} of other users could not be read: pins they hold are missing; run as root",
            process(*processes)
        ),
        Gap::ProcessesHidden => {
            "this /proc hides the processes of other users (hidepid): their pins are missing; run as root"
                .to_owned()
        }
        Gap::ListingChanged { subsystem } => format!(
            "{} changed while they were listed: some may be missing; list again",
            match subsystem {
                Subsystem::Rdma => "RDMA memory regions".to_owned(),
                Subsystem::Xdp => "AF_XDP sockets".to_owned(),
                other => format!("{} objects", other.word()),
            }
        ),
        Gap::RdmaNotListed { device: None, why } => {
            format!("RDMA devices could not be listed ({why}): their memory regions are missing")
        }
        Gap::RdmaNotListed { device: Some(device), why } => {
            format!("the memory regions of {device} could not be listed ({why}): they are missing")
        }
        Gap::RdmaRegionsOnly => {
            "of RDMA only memory regions are listed, also those that pin nothing (on demand, dma-buf); the \
                                 buffers of queues are missing"
                .to_owned()
        }
        Gap::RdmaHoldersUnknown { regions } => format!(
            "the holders of {} are unknown: the kernel does not say which open device file belongs to which context",
            counted(*regions, "RDMA memory region")
        ),
        Gap::RdmaNotCompared { device, descriptors } => format!(
            "the kernel refuses to compare {} of {device} (kcmp): the holders of its memory regions are unknown",
            counted(*descriptors, "descriptor")
        ),
        Gap::XdpNotListed { sockets, why } => format!(
            "{} could not be listed ({why}): their umems are missing; load the module xsk_diag if this kernel has it",
            counted(*sockets, "AF_XDP socket")
        ),
        Gap::XdpOtherNamespaces { sockets } => format!(
            "{} not listed: socket diagnostics end at this network namespace",
            match sockets {
                1 => "1 AF_XDP socket in another network namespace is".to_owned(),
                n => format!("{n} AF_XDP sockets in other network namespaces are"),
            }
        ),
        Gap::RingsNotCompared { descriptors } => format!(
            "the kernel refuses to compare {} (kcmp): a ring that processes share is listed once for each of them",
            counted(*descriptors, "io_uring descriptor")
        ),
        Gap::RingsBusy { rings } => format!(
            "{} in use all the while, so that the kernel did not list their buffers: these are missing; list again",
            match rings {
                1 => "1 io_uring ring was".to_owned(),
                n => format!("{n} io_uring rings were"),
            }
        ),
        Gap::RingsMappedOnly { rings } => format!(
            "{} kept by a mapping without a descriptor: their buffers cannot be listed",
            are(*rings, "io_uring ring")
        ),
        Gap::RingBuffersUnreadable { buffers } => format!(
            "{} missing: the kernel lists them in a form that this lspins does not know",
            are(*buffers, "io_uring buffer")
        ),
        Gap::RingBuffersTwice { buffers } => format!(
            "{} the address and length of one in another ring: if they were cloned, their bytes are counted twice",
            match buffers {
                1 => "1 io_uring buffer has".to_owned(),
                n => format!("{n} io_uring buffers have"),
            }
        ),
    }
}

/// What a full map cost.
fn full(map: FullMap, times: u64) -> String {
    match map {
        FullMap::Pins => format!(
            "{} missing: the map of pins was full; start pinwatch with a larger --max-pins",
            are(times, "pin")
        ),
        FullMap::Extents => {
            format!("the map of extents was full {}: those pins are marked as not exact", often(times))
        }
        FullMap::Files => {
            format!("the map of file names was full {}: those pins are marked as not exact", often(times))
        }
        FullMap::Calls => {
            format!("{} missing: the map of calls in progress was full", are(times, "registration"))
        }
        FullMap::Shares => format!(
            "the map of cloned io_uring buffers was full {}: rings that hold a pin may be missing among its holders",
            often(times)
        ),
        FullMap::Leases => {
            format!(
                "the map of leases was full {}: pins that they cover may be shown without a lease",
                often(times)
            )
        }
        FullMap::Waiters => {
            format!("the map of lease waiters was full {}: those threads are not shown", often(times))
        }
    }
}

/// The doubts about a pin, as clauses; `None` if there are none.
pub fn doubts(pin: &Pin) -> Option<String> {
    let clauses: Vec<Cow<'static, str>> = pin.doubts.iter().map(|doubt| clause(doubt, pin)).collect();
    (!clauses.is_empty()).then(|| clauses.join("; "))
}

fn clause(doubt: Doubt, pin: &Pin) -> Cow<'static, str> {
    let clause = match doubt {
        Doubt::MappingsBusy => "another thread kept changing the mappings of its memory while they were read",
        Doubt::Unmapped => "a part of its memory was unmapped before it could be looked at",
        Doubt::TooManyMappings => "it spans more mappings than pinwatch reads",
        Doubt::ExtentsFull => "the map of extents had no room for all of its extents",
        Doubt::PageMismatch => "its memory was remapped, or its file truncated, while it was being pinned",
        Doubt::NoPath => "the map of files had no room for the name of its file",
        Doubt::ForeignMemory => {
            "its memory is another process's, of which at most the first page was looked at"
        }
        Doubt::MappedNow => {
            "its file is what is mapped at that address now, which may be another than was pinned"
        }
        Doubt::NoLongerMapped => "its memory is no longer mapped: its file is not known",
        Doubt::PartlyUnmapped => {
            let unknown = pin.parts.iter().filter(|part| part.backing == Backing::Unknown);
            let bytes = unknown.fold(0_u64, |sum, part| sum.saturating_add(part.bytes));
            return format!(
                "{} of its memory are no longer mapped: their file is not known",
                size::long(bytes)
            )
            .into();
        }
        Doubt::MemoryUnknown => match pin.subsystem() {
            Subsystem::Rdma => "the RDMA netlink does not say which memory it is",
            Subsystem::Xdp => "AF_XDP diagnostics do not say which memory it is",
            _ => "its source does not say which memory it is",
        },
        Doubt::MaybeNotPinned => "it may pin nothing (on demand, dma-buf): its source does not say",
    };
    clause.into()
}

/// A moment in nanoseconds since the Unix epoch, to the second.
fn time(since: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(since)) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// "1 pin is", "2 pins are".
fn are(number: u64, word: &str) -> String {
    format!("{} {}", counted(number, word), if number == 1 { "is" } else { "are" })
}

/// "once", "2 times".
fn often(times: u64) -> String {
    if times == 1 { "once".to_owned() } else { format!("{times} times") }
}

fn process(number: u64) -> String {
    if number == 1 { "1 process".to_owned() } else { format!("{number} processes") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GapCode;

    /// One gap for each code.
    fn all() -> Vec<Gap> {
        let why = || "the cause".to_owned();
        let maps = [
            FullMap::Pins,
            FullMap::Extents,
            FullMap::Files,
            FullMap::Calls,
            FullMap::Shares,
            FullMap::Leases,
            FullMap::Waiters,
        ];
        let mut gaps = vec![
            Gap::Before { since: 0 },
            Gap::SubsystemBefore { subsystem: Subsystem::Rdma, since: i64::MIN },
            Gap::NotTraced { subsystem: Subsystem::Xdp, why: why() },
            Gap::PartlyTraced { subsystem: Subsystem::Xdp, why: why() },
            Gap::HookMissing { feature: "rdma".to_owned(), why: why() },
            Gap::SkippedHooks { calls: 1 },
            Gap::MissedReturns { calls: 2 },
            Gap::UnknownKind { pins: 1 },
            Gap::HoldersUnknown { why: why() },
            Gap::FileSystemSilent { files: 3 },
            Gap::OverlayLeases { why: why() },
            Gap::Unattributed { pages: 512 },
            Gap::ProcfsSubsystems,
            Gap::ProcfsMappedFiles,
            Gap::ProcessesDenied { processes: 1, root: false },
            Gap::ProcessesHidden,
            Gap::ListingChanged { subsystem: Subsystem::Xdp },
            Gap::RdmaNotListed { device: None, why: why() },
            Gap::RdmaRegionsOnly,
            Gap::RdmaHoldersUnknown { regions: 2 },
            Gap::RdmaNotCompared { device: "rxe0".to_owned(), descriptors: 2 },
            Gap::XdpNotListed { sockets: 2, why: why() },
            Gap::XdpOtherNamespaces { sockets: 2 },
            Gap::RingsNotCompared { descriptors: 2 },
            Gap::RingsBusy { rings: 2 },
            Gap::RingsMappedOnly { rings: 1 },
            Gap::RingBuffersUnreadable { buffers: 2 },
            Gap::RingBuffersTwice { buffers: 2 },
        ];
        gaps.extend(maps.map(|map| Gap::MapFull { map, times: 2 }));
        gaps
    }

    #[test]
    fn each_gap_is_worded_in_one_line_with_its_cause_and_its_count() {
        let gaps = all();
        assert!(GapCode::ALL.iter().all(|code| gaps.iter().any(|gap| gap.code() == *code)));
        for gap in gaps {
            let said = sentence(&gap);
            assert!(!said.contains('\n') && !said.contains("  ") && !said.ends_with('.'), "{said}");
            assert!(gap.count().is_none_or(|n| said.contains(&n.to_string())), "{gap:?}: {said}");
            if format!("{gap:?}").contains("the cause") {
                assert!(said.contains("the cause"), "{said}");
            }
        }
    }

    #[test]
    fn sentences_read_well() {
        assert_eq!(
            sentence(&Gap::MapFull { map: FullMap::Pins, times: 1 }),
            "1 pin is missing: the map of pins was full; start pinwatch with a larger --max-pins"
        );
        assert_eq!(
            sentence(&Gap::Before { since: 1_795_218_904_000_000_000 }),
            "pins made before 2026-11-20T23:55:04Z, when pinwatch began to watch, are not listed"
        );
    }

    #[test]
    fn doubts_are_clauses() {
        let mut pin = crate::listing::sample::table().pins.remove(0);
        assert_eq!(doubts(&pin), None);
        pin.doubts = [Doubt::NoPath, Doubt::Unmapped].into_iter().collect();
        assert_eq!(doubts(&pin).unwrap().matches("; ").count(), 1);
        for doubt in Doubt::ALL {
            let said = clause(*doubt, &pin);
            assert!(!said.is_empty() && !said.contains(';') && !said.contains("  "), "{said}");
        }
    }
}
