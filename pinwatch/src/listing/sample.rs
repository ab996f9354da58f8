//! A table for tests: a named file, a deleted one in two parts, anonymous memory, and names that want to break things.

use smallvec::smallvec;

use crate::model::object::{io_uring, rdma, xdp};
use crate::model::*;

/// 2026-11-20T23:55:04Z.
pub const CREATED: i64 = 1_795_218_904_000_000_000;

fn file(ino: u64, path: &[u8], deleted: bool) -> File {
    let id = FileId { dev: Device { major: 253, minor: 1 }, ino, generation: Some(9) };
    File {
        id,
        path: Name::from(path),
        path_complete: true,
        fstype: "xfs".into(),
        deleted: Some(deleted),
        dax: false,
    }
}

fn process(pid: u32, comm: &str, alive: bool) -> Process {
    let (uid, user) = (Some(pid % 10), Some(format!("user{}", pid % 10)));
    let cgroup = Some(Name::from("/system.slice/x.service"));
    // One in a container.
    let namespaces = Namespaces { pid: (pid == 990).then_some(4_026_532_190), mount: None };
    Process { pid, start: Some(81234), comm: Name::from(comm), uid, user, alive, cgroup, namespaces }
}

fn part(backing: Backing, file: Option<u32>, bytes: u64) -> Part {
    let extents =
        if file.is_some() { smallvec![Extent { offset: 0, length: bytes }] } else { Extents::new() };
    Part { backing, file: file.map(FileIndex), extents, bytes }
}

fn pin(sequence: u64, object: Object, parts: &[Part]) -> Pin {
    let bytes = parts.iter().map(|p| p.bytes).sum();
    Pin {
        id: PinId { subsystem: object.subsystem(), sequence },
        object,
        mode: Mode::ReadWrite,
        bytes,
        pages: bytes / 4096,
        address: Some(0x7f00_0000),
        parts: parts.into(),
        doubts: Doubts::NONE,
        orphan_pages: Some(0),
        creator: Some(ProcessIndex(0)),
        holding: Some(HoldingIndex(0)),
        coverage: Coverage { state: CoverageState::Unknown, ..Coverage::default() },
        created: Some(CREATED),
        origin: Origin::Trace,
    }
}

fn holding(holders: Vec<Holder>) -> Holding {
    Holding { holders, in_flight: Some(0), receivers: Vec::new() }
}

/// The table.
pub fn table() -> Table {
    let mr = rdma::Object::Region { device: "rxe0".into(), mrn: 7, lkey: None, rkey: Some(0x1234) }.into();
    let ring = io_uring::Object::Buffer { ring_fd: Some(5), slot: Some(0) }.into();
    let mut passed =
        pin(2, ring, &[part(Backing::Shmem, Some(1), 16 << 20), part(Backing::File, Some(2), 8192)]);
    passed.creator = Some(ProcessIndex(1));
    passed.holding = Some(HoldingIndex(1));
    let mut gone = pin(3, xdp::Object { umem: 3 }.into(), &[part(Backing::Anon, None, 4 << 20)]);
    gone.creator = Some(ProcessIndex(3));
    gone.holding = Some(HoldingIndex(2));
    gone.created = None;
    gone.coverage.state = CoverageState::NotApplicable;
    Table {
        files: vec![
            file(131, b"/srv/pool.dat", false),
            file(1034, b"/srv/q\n\x1b[31m\xff", true),
            file(1035, b"/srv/deep/r", false),
        ],
        processes: vec![
            process(812, "ib_server", true),
            process(990, "worker", true),
            process(1044, "helper", true),
            process(1201, "old", false),
        ],
        holdings: vec![
            holding(vec![Holder { process: ProcessIndex(0), via: vec![Via::Fd(5)] }]),
            holding(vec![
                Holder { process: ProcessIndex(1), via: vec![Via::Fd(5)] },
                Holder { process: ProcessIndex(2), via: vec![Via::Fd(7), Via::Mapping(4096)] },
            ]),
            holding(vec![]),
        ],
        pins: vec![gone, pin(1, mr, &[part(Backing::File, Some(0), 64 << 20)]), passed],
        leases: None,
        policy: None,
        gaps: vec![],
        watching_since: Some(CREATED),
        kernel: Some(KernelCount { references: 21506, attributed: 21506, unclaimed: 0, uncertain: Some(0) }),
        hidden: (0, 0),
    }
}
