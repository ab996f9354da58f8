//! `lspins` with daemons: good, broken, foreign, of another version, and none.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::thread;

use pinwatch::model::*;
use pinwatch::wire;
use serde_json::Value;

use crate::schema;
use crate::support::*;

/// A daemon that answers every connection the same way, for as long as the test runs.
pub struct Daemon {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Daemon {
    fn new(serve: impl Fn(&mut UnixStream) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pinwatch.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                serve(&mut stream);
            }
        });
        Self { _dir: dir, path }
    }

    /// One that reads the request and sends these bytes.
    pub fn answering(bytes: Vec<u8>) -> Self {
        Self::new(move |stream| {
            let _ = wire::read_message(stream, wire::REQUEST_LIMIT);
            let _ = stream.write_all(&bytes);
        })
    }

    pub fn with(table: &Table) -> Self {
        Self::answering(wire::encode_table(table).unwrap())
    }

    pub fn run(&self, args: &[&str]) -> Output {
        lspins().arg("--socket").arg(&self.path).args(args).output().unwrap()
    }
}

/// A complete table with so many pins on as many files, by a process of its own each.
pub fn table(pins: u32) -> Table {
    let mut table =
        Table { watching_since: Some(1_795_218_904_000_000_000), kernel: None, ..Table::default() };
    for n in 0..pins {
        table.files.push(File {
            id: FileId { dev: Device { major: 253, minor: 1 }, ino: u64::from(n) + 100, generation: Some(n) },
            path: Name::from(format!("/srv/pool/file-{n}.dat")),
            path_complete: true,
            fstype: "xfs".into(),
            deleted: Some(n % 2 == 1),
            dax: false,
        });
        table.processes.push(Process {
            pid: n + 1,
            start: Some(81234),
            comm: Name::from(format!("worker-{n}")),
            uid: Some(n),
            user: Some("app".into()),
            alive: true,
            cgroup: Some(Name::from("/system.slice/x.service")),
            namespaces: Namespaces { pid: Some(4_026_532_190), mount: (n % 2 == 0).then_some(7) },
        });
        let bytes = 4096 * u64::from(n + 1);
        table.holdings.push(Holding {
            holders: vec![Holder { process: ProcessIndex(n), via: vec![Via::Fd(5)] }],
            in_flight: Some(0),
            receivers: Vec::new(),
        });
        table.pins.push(Pin {
            id: PinId { subsystem: Subsystem::Rdma, sequence: u64::from(n) + 1 },
            object: object::rdma::Object::Region { device: "rxe0".into(), mrn: n, lkey: Some(1), rkey: None }
                .into(),
            mode: Mode::ReadOnly,
            bytes,
            pages: u64::from(n) + 1,
            address: Some(0x7f00_0000_0000),
            parts: parts_of(&[Segment {
                backing: Backing::File,
                file: Some(FileIndex(n)),
                offset: 0,
                length: bytes,
            }]),
            doubts: Doubts::NONE,
            orphan_pages: Some(0),
            creator: Some(ProcessIndex(n)),
            holding: Some(HoldingIndex(n)),
            coverage: Coverage::default(),
            created: Some(1_795_218_904_123_456_789),
            origin: Origin::Trace,
        });
    }
    table
}

#[test]
fn a_good_daemon() {
    let daemon = Daemon::with(&table(3));
    let output = daemon.run(&["-J", "--strict"]);
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    schema::check(&document);
    assert_eq!((document["complete"].as_bool(), document["pins"].as_array().unwrap().len()), (Some(true), 3));
    assert_eq!(document["pins"][0]["bytes"], 3 * 4096);

    let output = daemon.run(&["-j"]);
    let lines: Vec<Value> = stdout(&output).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    lines.iter().for_each(schema::check_line);
    assert_eq!(lines.len(), 3);

    assert_eq!(stdout(&daemon.run(&["-t", "-p", "2,3"])), "2\n3\n");
    let table = daemon.run(&["--deleted", "-b", "-n", "-o", "pinned,name"]);
    assert_eq!(stdout(&table), "  8192 /srv/pool/file-1.dat (deleted)\n".trim_start());
    assert_eq!(stderr(&table), "");
    let output = daemon.run(&["-v", "/etc/passwd"]);
    assert_eq!((code(&output), stdout(&output)), (1, String::new()));
    assert!(stderr(&output).starts_with("lspins: no long-term pins on /etc/passwd"), "{}", stderr(&output));
    assert!(stderr(&output).trim_end().ends_with("; complete)") && stderr(&output).lines().count() == 1);
}

#[test]
fn an_incomplete_answer_is_told() {
    let before = Gap::Before { since: 1_795_218_904_000_000_000 };
    let daemon = Daemon::with(&Table { gaps: vec![before], hidden: (2, 4096), ..table(1) });
    let output = daemon.run(&["--strict"]);
    assert_eq!((code(&output), stdout(&output).lines().count()), (3, 2));
    let said = stderr(&output);
    assert!(said.starts_with("lspins: not complete: pins made before 2026-11-20T23:55:04Z"), "{said}");
    assert!(said.contains("2 pins of other users"), "{said}");
    assert_eq!(code(&daemon.run(&[])), 0);
    let document: Value = serde_json::from_slice(&daemon.run(&["-J"]).stdout).unwrap();
    schema::check(&document);
    assert_eq!((document["complete"].as_bool(), document["hidden"]["pins"].as_u64()), (Some(false), Some(2)));
    assert_eq!(document["gaps"].as_array().unwrap().len(), 1);
    assert_eq!(document["gaps"][0]["code"], "before");
    assert_eq!(document["gaps"][0]["text"], document["incomplete"][0]);
    // What was made since is all there.
    assert_eq!(document["complete_since"], "2026-11-20T23:55:04Z");

    let skipped = vec![Gap::SkippedHooks { calls: 3 }];
    let document = Daemon::with(&Table { gaps: skipped, ..table(1) }).run(&["-J"]);
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["gaps"][0]["code"], "skipped_hooks");
    assert_eq!((&document["gaps"][0]["count"], &document["complete_since"]), (&3.into(), &Value::Null));
}

#[test]
fn broken_and_foreign_daemons_are_errors() {
    let good = wire::encode_table(&table(3)).unwrap();
    let mut newer = good.clone();
    newer[4] += 1;
    let mut out_of_range = table(1);
    out_of_range.pins[0].creator = Some(ProcessIndex(9));
    let cases: [(Vec<u8>, &str); 6] = [
        (good[..good.len() - 1].to_vec(), "cut off"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(), "not pinwatch"),
        (newer, "upgrade this program"),
        (wire::encode_table(&out_of_range).unwrap(), "damaged"),
        (wire::encode_error("no room\x1b").unwrap(), "pinwatch reports: no room\\x1b"),
        (Vec::new(), "closed the connection at once"),
    ];
    for (answer, expected) in cases {
        let output = Daemon::answering(answer).run(&[]);
        let said = stderr(&output);
        assert_eq!((code(&output), stdout(&output)), (2, String::new()), "{said}");
        assert!(
            said.starts_with("lspins: ") && said.contains(expected) && said.lines().count() == 1,
            "{said}"
        );
    }
    // One that hangs up without reading.
    let output = Daemon::new(|_| ()).run(&[]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("not pinwatch"), "{}", stderr(&output));
}

#[test]
fn no_daemon_where_one_was_asked_for_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    for expected in ["there is no socket", "nobody listens"] {
        let output = lspins().env("PINWATCH_SOCKET", &path).output().unwrap();
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        // What a daemon that was killed leaves behind.
        let _ = UnixListener::bind(&path);
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = lspins().arg("--socket").arg(&file).output().unwrap();
    assert_eq!(code(&output), 2);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let daemon = Daemon::with(&table(20_000));
    for form in ["-j", "-J", "-t", "-n"] {
        let mut child = lspins()
            .arg("--socket")
            .arg(&daemon.path)
            .arg(form)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut start = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut start).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), stderr(&output)), (0, String::new()), "{form}");
    }
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = lspins().arg("--socket").arg(&daemon.path).arg("-j").stdout(full).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).starts_with("lspins: cannot write the listing"));
}

/// Figures: `cargo test --release --test lspins -- --ignored --nocapture figures`.
#[test]
#[ignore = "prints figures"]
fn figures() {
    let daemon = Daemon::with(&table(100_000));
    for args in [&["-j"][..], &["-J"], &["-t"], &["-p", "5"], &[]] {
        let mut best = [std::time::Duration::MAX; 2];
        for _ in 0..7 {
            let (start, used) = (std::time::Instant::now(), children());
            let mut command = lspins();
            let status =
                command.arg("--socket").arg(&daemon.path).args(args).stdout(Stdio::null()).status().unwrap();
            assert!(status.success());
            best = [best[0].min(start.elapsed()), best[1].min(children() - used)];
        }
        println!("100,000 pins, {args:?}: {:?} elapsed, {:?} of the processor", best[0], best[1]);
    }
}

/// Processor time of all children that have ended.
fn children() -> std::time::Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage(2) fills the struct that it is given.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    std::time::Duration::from_micros(micros(usage.ru_utime) + micros(usage.ru_stime))
}
