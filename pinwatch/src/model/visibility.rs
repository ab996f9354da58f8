//! Who may see what: root all; another user the pins and leases that a process of theirs made, took or holds, and of the
//! rest how many and how large.
//!
//! Security-critical, so it is pure and all in one place: what leaves the daemon for another user than root passes
//! [`Table::redact_for`]. What may be seen is decided by the effective user id of the peer (SO_PEERCRED) and of the
//! processes, never by what a client says of itself.

use super::event::{Event, Happened};
use super::file::{Device, FileId};
use super::index::{FileIndex, HoldingIndex, ProcessIndex};
use super::name::Name;
use super::pin::{HiddenVia, Holder, Holding, Pin, Via};
use super::process::Process;
use super::refusal::Refusal;
use super::table::Table;

/// The user who sees all.
const ROOT: u32 = 0;

impl Table {
    /// What a user may see of this table. Indices stay what they are: what may not be seen is emptied in its place.
    #[must_use]
    pub fn redact_for(mut self, uid: u32) -> Self {
        if uid == ROOT {
            return self;
        }
        self.hide_pins(uid);
        self.hide_leases(uid);
        // Names of files and processes that nothing visible refers to are nobody's business.
        let used = Used::of(&self);
        keep_used(&mut self.holdings, &used.holdings, Holding::default);
        keep_used(&mut self.processes, &used.processes, Process::default);
        for (file, used) in self.files.iter_mut().zip(&used.files) {
            if !used {
                file.path = Name::default();
                file.fstype.clear();
                file.id = FileId { dev: Device::default(), ino: 0, generation: None };
            }
        }
        self.hide_addresses(uid);
        self
    }

    /// Removes the pins that no process of the user made or holds; they are counted.
    fn hide_pins(&mut self, uid: u32) {
        let pins = std::mem::take(&mut self.pins);
        let (visible, hidden): (Vec<Pin>, Vec<Pin>) = pins.into_iter().partition(|pin| {
            let holders = self.holders(pin).iter().map(|holder| holder.process);
            pin.creator.into_iter().chain(holders).any(|process| self.is_of(process, uid))
        });
        let bytes = hidden.iter().fold(0_u64, |sum, pin| sum.saturating_add(pin.bytes));
        self.pins = visible;
        self.hidden = (hidden.len() as u64, bytes);
    }

    /// Removes the leases that are neither on a file of a visible pin nor taken or held by a process of the user.
    fn hide_leases(&mut self, uid: u32) {
        let Some(mut leases) = self.leases.take() else { return };
        leases.retain(|lease| {
            let holding = self.holdings.get(lease.holding.0 as usize);
            let holders = holding.into_iter().flat_map(|holding| &holding.holders);
            let mut processes = lease.taker.into_iter().chain(holders.map(|holder| holder.process));
            processes.any(|process| self.is_of(process, uid))
                || self.pins.iter().any(|pin| pin.is_leased_by(lease))
        });
        self.leases = Some(leases);
    }

    /// Empties addresses and descriptor numbers that are other users' processes', and addresses of the kernel.
    fn hide_addresses(&mut self, uid: u32) {
        let theirs: Vec<bool> = self.processes.iter().map(|process| process.uid == Some(uid)).collect();
        let is_theirs = |at: ProcessIndex| theirs.get(at.0 as usize).copied().unwrap_or(false);
        for holding in &mut self.holdings {
            let Holding { holders, in_flight: _, receivers } = holding;
            for holder in holders.iter_mut().chain(receivers).filter(|holder| !is_theirs(holder.process)) {
                let Holder { process: _, via } = holder;
                via.iter_mut().for_each(hide_number);
            }
        }
        for pin in &mut self.pins {
            let is_own = pin.creator.is_some_and(is_theirs);
            pin.address = pin.address.filter(|_| is_own);
            pin.object.redact(is_own);
        }
    }

    fn is_of(&self, process: ProcessIndex, uid: u32) -> bool {
        self.process(process).is_some_and(|process| process.uid == Some(uid))
    }
}

impl Event {
    /// What a user may see of this event; `None` if nothing. Which other users it concerns is for root.
    #[must_use]
    pub fn redact_for(&self, uid: u32) -> Option<Self> {
        if uid == ROOT {
            return Some(self.clone());
        }
        // That events were lost concerns whoever reads them.
        let is_visible = self.uids.contains(&uid) || matches!(self.what, Happened::Lost { .. });
        is_visible.then(|| Self { uids: Vec::new(), ..self.clone() })
    }
}

impl Refusal {
    /// Whether a user may see this refusal: root all, others their own.
    pub fn is_visible_to(&self, uid: u32) -> bool {
        uid == ROOT || self.who.uid == Some(uid)
    }
}

/// Which rows of a table its pins and leases refer to.
struct Used {
    files: Vec<bool>,
    processes: Vec<bool>,
    holdings: Vec<bool>,
}

impl Used {
    fn of(table: &Table) -> Self {
        let mut used = Self {
            files: vec![false; table.files.len()],
            processes: vec![false; table.processes.len()],
            holdings: vec![false; table.holdings.len()],
        };
        for pin in &table.pins {
            pin.parts.iter().filter_map(|part| part.file).for_each(|file| used.mark_file(file));
            pin.creator.into_iter().for_each(|process| used.mark_process(process));
            pin.holding.into_iter().for_each(|holding| used.mark_holding(table, holding));
        }
        for lease in table.leases.iter().flatten() {
            lease.files().for_each(|file| used.mark_file(file));
            lease.taker.into_iter().for_each(|process| used.mark_process(process));
            used.mark_holding(table, lease.holding);
        }
        used
    }

    fn mark_file(&mut self, at: FileIndex) {
        mark(&mut self.files, at.0);
    }

    fn mark_process(&mut self, at: ProcessIndex) {
        mark(&mut self.processes, at.0);
    }

    /// A holding with all processes in it: who else can let go of a pin is the business of who has it.
    fn mark_holding(&mut self, table: &Table, at: HoldingIndex) {
        mark(&mut self.holdings, at.0);
        let Some(holding) = table.holdings.get(at.0 as usize) else { return };
        for holder in holding.holders.iter().chain(&holding.receivers) {
            self.mark_process(holder.process);
        }
    }
}

fn mark(used: &mut [bool], at: u32) {
    if let Some(used) = used.get_mut(at as usize) {
        *used = true;
    }
}

fn keep_used<T>(rows: &mut [T], used: &[bool], empty: impl Fn() -> T) {
    for (row, used) in rows.iter_mut().zip(used) {
        if !used {
            *row = empty();
        }
    }
}

fn hide_number(via: &mut Via) {
    let what = match via {
        Via::Fd(_) => HiddenVia::Fd,
        Via::Mapping(_) => HiddenVia::Mapping,
        Via::Registered(_) => HiddenVia::Registered,
        Via::RingFile(_) => HiddenVia::RingFile,
        Via::Hidden(what) => *what,
    };
    *via = Via::Hidden(what);
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::model::object::{Object, io_uring, unclaimed};
    use crate::model::{
        Backing, Coverage, Doubts, Extents, File, HeldState, Lease, LeaseKind, LeaseMode, LeaseState, Mode,
        Origin, Part, PinId, Reason, Subsystem, Who,
    };

    const MAKER: u32 = 1000;
    const HOLDER: u32 = 1001;
    const RECEIVER: u32 = 1002;
    const LESSEE: u32 = 1003;
    const STRANGER: u32 = 1004;

    fn file(ino: u64, path: &str) -> File {
        let id = FileId { dev: Device { major: 253, minor: 1 }, ino, generation: Some(1) };
        let fstype = "xfs".to_owned();
        File { id, path: Name::from(path), path_complete: true, fstype, deleted: Some(false), dax: false }
    }

    fn process(uid: u32) -> Process {
        Process { pid: uid + 1, comm: Name::from("x"), uid: Some(uid), ..Process::default() }
    }

    fn pin(sequence: u64, object: Object, file: u32, creator: u32, holding: Option<u32>) -> Pin {
        let part = Part {
            backing: Backing::File,
            file: Some(FileIndex(file)),
            extents: Extents::new(),
            bytes: 4096 * sequence,
        };
        Pin {
            id: PinId { subsystem: object.subsystem(), sequence },
            object,
            mode: Mode::ReadWrite,
            bytes: 4096 * sequence,
            pages: sequence,
            address: Some(0x7f00_0000),
            parts: smallvec![part],
            doubts: Doubts::NONE,
            orphan_pages: None,
            creator: Some(ProcessIndex(creator)),
            holding: holding.map(HoldingIndex),
            coverage: Coverage::default(),
            created: None,
            origin: Origin::Trace,
        }
    }

    /// Root's pin 1 of file 0; the maker's pin 2 of file 1, which the holder holds and the receiver may receive; a lease on
    /// file 2, which nobody has pinned.
    fn table() -> Table {
        let ring: Object = io_uring::Object::Buffer { ring_fd: Some(5), slot: Some(0) }.into();
        let holder = |process, via| Holder { process: ProcessIndex(process), via };
        let lease = Lease {
            file: FileIndex(2),
            below: Vec::new(),
            kind: LeaseKind::Lease,
            mode: LeaseMode::Write,
            state: LeaseState::Active,
            taker: Some(ProcessIndex(4)),
            holding: HoldingIndex(2),
            taken: None,
            broken: None,
            waiters: Vec::new(),
        };
        Table {
            files: vec![file(1, "/root"), file(2, "/shared"), file(3, "/leased")],
            processes: [ROOT, MAKER, HOLDER, RECEIVER, LESSEE].map(process).into(),
            holdings: vec![
                Holding { holders: vec![holder(0, vec![Via::Fd(3)])], ..Holding::nobody() },
                Holding {
                    holders: vec![holder(1, vec![Via::Fd(5)]), holder(2, vec![Via::Mapping(0x6f00_0000)])],
                    in_flight: Some(1),
                    receivers: vec![holder(3, vec![Via::Fd(9)])],
                },
                Holding { holders: vec![holder(4, vec![Via::Fd(7)])], ..Holding::nobody() },
            ],
            pins: vec![pin(1, ring.clone(), 0, 0, Some(0)), pin(2, ring, 1, 1, Some(1))],
            leases: Some(vec![lease]),
            ..Table::default()
        }
    }

    fn paths(table: &Table) -> Vec<String> {
        table.files.iter().map(|file| file.path.text().into_owned()).collect()
    }

    fn pids(table: &Table) -> Vec<u32> {
        table.processes.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn root_sees_all_of_it_as_it_is() {
        assert_eq!(table().redact_for(ROOT), table());
    }

    #[test]
    fn each_user_sees_what_is_theirs_and_the_size_of_the_rest() {
        // Who asks; whether they see pin 2; how many pins and bytes they do not see; how many leases they see.
        for (uid, sees, hidden, leases) in [
            (MAKER, true, (1, 4096), 0),
            (HOLDER, true, (1, 4096), 0),
            // It could become a holder, and is none.
            (RECEIVER, false, (2, 3 * 4096), 0),
            (LESSEE, false, (2, 3 * 4096), 1),
            (STRANGER, false, (2, 3 * 4096), 0),
        ] {
            let seen = table().redact_for(uid);
            let sequences: Vec<u64> = seen.pins.iter().map(|pin| pin.id.sequence).collect();
            let wanted: &[u64] = if sees { &[2] } else { &[] };
            assert_eq!((&sequences[..], seen.hidden), (wanted, hidden), "{uid}");
            assert_eq!(seen.leases.map(|leases| leases.len()), Some(leases), "{uid}");
        }
    }

    #[test]
    fn files_processes_and_holdings_that_are_not_theirs_are_emptied_in_place() {
        let cases: [(u32, [&str; 3], [u32; 5]); 3] = [
            (MAKER, ["", "/shared", ""], [0, MAKER + 1, HOLDER + 1, RECEIVER + 1, 0]),
            (LESSEE, ["", "", "/leased"], [0, 0, 0, 0, LESSEE + 1]),
            (STRANGER, ["", "", ""], [0; 5]),
        ];
        for (uid, files, processes) in cases {
            let seen = table().redact_for(uid);
            assert_eq!(
                (paths(&seen), pids(&seen)),
                (files.map(str::to_owned).into(), processes.into()),
                "{uid}"
            );
            let is_empty =
                |file: &File| file.path.as_bytes().is_empty() && file.id.ino == 0 && file.fstype.is_empty();
            assert!(seen.files.iter().all(|file| is_empty(file) || file.fstype == "xfs"), "{uid}");
        }
        assert_eq!(table().redact_for(MAKER).holdings[0], Holding::default());
    }

    #[test]
    fn a_lease_on_the_file_of_a_visible_pin_is_visible() {
        let mut with = table();
        with.leases.as_mut().unwrap()[0].file = FileIndex(1);
        let seen = with.redact_for(MAKER);
        assert_eq!(seen.leases.as_ref().map(Vec::len), Some(1));
        assert_eq!(
            (pids(&seen)[4], &seen.holdings[2].holders[0].via[..]),
            (LESSEE + 1, &[Via::Hidden(HiddenVia::Fd)][..])
        );
    }

    #[test]
    fn addresses_and_descriptors_of_other_users_are_hidden_and_their_own_are_not() {
        let vias = |table: &Table| -> Vec<Via> {
            let holding = &table.holdings[1];
            holding.holders.iter().chain(&holding.receivers).flat_map(|holder| holder.via.clone()).collect()
        };
        let ring = |ring_fd| Object::from(io_uring::Object::Buffer { ring_fd, slot: Some(0) });
        let seen = table().redact_for(MAKER);
        let hidden = (Via::Hidden(HiddenVia::Mapping), Via::Hidden(HiddenVia::Fd));
        assert_eq!(vias(&seen), [Via::Fd(5), hidden.0, hidden.1]);
        assert_eq!((seen.pins[0].address, &seen.pins[0].object), (Some(0x7f00_0000), &ring(Some(5))));
        let seen = table().redact_for(HOLDER);
        assert_eq!(vias(&seen), [hidden.1, Via::Mapping(0x6f00_0000), hidden.1]);
        assert_eq!((seen.pins[0].address, &seen.pins[0].object), (None, &ring(None)));
        // What keeps the pin does not look different for that.
        assert_eq!(seen.held_state(&seen.pins[0]), HeldState::Held);
        let mut mapped = table();
        mapped.holdings[1].holders[0].via = vec![Via::Mapping(1)];
        let seen = mapped.redact_for(HOLDER);
        assert_eq!(seen.held_state(&seen.pins[0]), HeldState::Closed);
    }

    #[test]
    fn no_bare_address_of_the_kernel_is_shown() {
        let stack = ["pin_it+0x18", "0xffffffffc0000018", "0x18 [pintest]"].map(str::to_owned);
        let unclaimed = |stack| Object::from(unclaimed::Object { stack, ..unclaimed::Object::default() });
        let mut with = table();
        with.pins[1].object = unclaimed(stack.to_vec());
        assert_eq!(with.clone().redact_for(ROOT), with);
        let shown = ["pin_it+0x18", "?", "0x18 [pintest]"].map(str::to_owned);
        assert_eq!(with.redact_for(MAKER).pins[0].object, unclaimed(shown.to_vec()));
    }

    #[test]
    fn events_and_refusals_are_for_whom_they_concern() {
        let by = Who { pid: 7, comm: Name::from("x"), uid: Some(MAKER) };
        let event = |what, uids: &[u32]| Event {
            number: 1,
            time: 0,
            what,
            file: None,
            pins: Vec::new(),
            pin_count: 1,
            uids: uids.to_vec(),
        };
        let made = event(Happened::PinMade { by: by.clone(), bytes: 1 }, &[MAKER, HOLDER]);
        assert_eq!(made.redact_for(ROOT), Some(made.clone()));
        assert_eq!(made.redact_for(HOLDER), Some(Event { uids: Vec::new(), ..made.clone() }));
        assert_eq!(made.redact_for(STRANGER), None);
        assert!(event(Happened::Lost { events: 3 }, &[]).redact_for(STRANGER).is_some());
        let refusal = Refusal {
            time: 0,
            who: by,
            tid: 7,
            subsystem: Subsystem::Rdma,
            module: None,
            address: 0,
            bytes: 1,
            errno: 14,
            reason: Reason::ReadOnly,
            file: None,
        };
        assert_eq!([ROOT, MAKER, HOLDER].map(|uid| refusal.is_visible_to(uid)), [true, true, false]);
    }

    #[test]
    fn indices_of_a_broken_table_are_no_panic() {
        let mut broken = table();
        broken.pins[1].holding = Some(HoldingIndex(99));
        broken.pins[1].parts[0].file = Some(FileIndex(99));
        broken.leases.as_mut().unwrap()[0].taker = Some(ProcessIndex(99));
        assert_eq!(broken.redact_for(MAKER).pins.len(), 1);
    }
}
