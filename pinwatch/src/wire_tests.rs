//! Tests of the messages: what is sent comes back, and nothing that a peer sends breaks the reader.

use std::os::unix::net::UnixListener;
use std::thread;

use super::*;
use crate::model::object::xdp;
use crate::model::{
    Doubt, FileIndex, Gap, Holder, Holding, HoldingIndex, Origin, Part, Pin, PinId, ProcessIndex, Subsystem,
};

fn pin() -> Pin {
    Pin {
        id: PinId { subsystem: Subsystem::Xdp, sequence: 3 },
        object: xdp::Object { umem: 3 }.into(),
        mode: crate::model::Mode::ReadWrite,
        bytes: 4096,
        pages: 1,
        address: None,
        parts: Part::unknown(4096),
        doubts: Doubt::MemoryUnknown.into(),
        orphan_pages: None,
        creator: None,
        holding: None,
        coverage: Default::default(),
        created: None,
        origin: Origin::Proc,
    }
}

fn table() -> Table {
    Table {
        pins: vec![pin()],
        gaps: vec![Gap::SkippedHooks { calls: 3 }, Gap::HoldersUnknown { why: "no memory".into() }],
        hidden: (2, 8192),
        ..Table::default()
    }
}

fn body(message: &[u8]) -> &[u8] {
    &message[HEADER..]
}

#[test]
fn what_is_sent_comes_back() {
    let request = encode_request(&Request::List {}).unwrap();
    let body = read_message(&mut request.as_slice(), REQUEST_LIMIT).unwrap();
    assert_eq!(decode_request(&body).unwrap(), Request::List {});
    let reply = encode_table(&table()).unwrap();
    let body = read_message(&mut reply.as_slice(), REPLY_LIMIT).unwrap();
    assert_eq!(decode_reply(&body).unwrap(), Reply::Table(table()));
    let reply = encode_error("no").unwrap();
    assert_eq!(decode_reply(&reply[HEADER..]).unwrap(), Reply::Error("no".into()));
}

#[test]
fn every_truncation_is_an_error() {
    let reply = encode_table(&table()).unwrap();
    for end in 0..reply.len() {
        let error = read_message(&mut &reply[..end], REPLY_LIMIT).unwrap_err();
        match end {
            ..HEADER => assert!(matches!(error, WireError::NotPinwatch(_)), "{end}: {error}"),
            _ => assert!(matches!(error, WireError::Truncated { .. }), "{end}: {error}"),
        }
        assert!(decode_reply(&reply[HEADER.min(end)..end]).is_err() || end < HEADER);
    }
}

#[test]
fn no_garbage_breaks_the_reader() {
    let good = encode_table(&table()).unwrap();
    for at in 0..body(&good).len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = body(&good).to_vec();
            bad[at] = value;
            let _ = decode_reply(&bad);
        }
    }
    // Lengths of 2^60 in every place.
    let _ = decode_reply(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    assert!(matches!(
        read_message(&mut &b"HTTP/1.1 400 Bad"[..], REPLY_LIMIT),
        Err(WireError::NotPinwatch(_))
    ));
}

#[test]
fn a_length_over_the_bound_is_refused_unread() {
    let mut reply = encode_error("x").unwrap();
    reply[6..HEADER].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = read_message(&mut reply.as_slice(), REPLY_LIMIT).unwrap_err();
    assert!(matches!(error, WireError::Oversized { length: 0xffff_ffff, .. }));
}

#[test]
fn another_version_names_the_side_to_upgrade() {
    let mut reply = encode_error("x").unwrap();
    reply[4..6].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let error = read_message(&mut reply.as_slice(), REPLY_LIMIT).unwrap_err();
    assert!(error.to_string().ends_with("upgrade this program"), "{error}");
    reply[4..6].copy_from_slice(&0u16.to_le_bytes());
    let error = read_message(&mut reply.as_slice(), REPLY_LIMIT).unwrap_err();
    assert!(error.to_string().ends_with("upgrade the other side"), "{error}");
}

#[test]
fn references_out_of_range_are_refused() {
    let mut no_file = table();
    no_file.pins[0].parts[0].file = Some(FileIndex(0));
    let mut no_process = table();
    no_process.pins[0].creator = Some(ProcessIndex(7));
    let mut no_parts = table();
    no_parts.pins[0].parts.clear();
    let mut no_holding = table();
    no_holding.pins[0].holding = Some(HoldingIndex(0));
    let mut no_holder = table();
    let holders = vec![Holder { process: ProcessIndex(0), via: Vec::new() }];
    no_holder.holdings.push(Holding { holders, ..Holding::default() });
    for bad in [no_file, no_process, no_parts, no_holding, no_holder] {
        let message = encode_table(&bad).unwrap();
        assert!(matches!(decode_reply(body(&message)), Err(WireError::Damaged(_))));
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let mut message = encode_error("x").unwrap();
    message.push(0);
    assert!(decode_reply(body(&message)).is_err());
}

/// Runs `serve` on the first connection to a new socket and gives what `ask` makes of it.
fn ask_one(serve: impl FnOnce(UnixStream) + Send + 'static) -> Result<Reply, WireError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || serve(listener.accept().unwrap().0));
    let reply = ask(&path, &Request::List {}, Duration::from_millis(300));
    server.join().unwrap();
    reply
}

#[test]
fn asking_over_a_socket() {
    let reply = ask_one(|mut s| {
        read_message(&mut s, REQUEST_LIMIT).unwrap();
        s.write_all(&encode_table(&table()).unwrap()).unwrap();
    });
    assert_eq!(reply.unwrap(), Reply::Table(table()));
    assert!(matches!(ask_one(drop), Err(WireError::NotPinwatch(_))));
}

#[test]
fn a_peer_that_trickles_does_not_hold_us() {
    let error = ask_one(|mut s| {
        for byte in encode_table(&table()).unwrap() {
            thread::sleep(Duration::from_millis(25));
            if s.write_all(&[byte]).is_err() {
                return;
            }
        }
    })
    .unwrap_err();
    assert!(matches!(error, WireError::TimedOut(_)), "{error}");
}

#[test]
fn no_daemon_is_told_from_a_broken_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    assert!(matches!(ask(&path, &Request::List {}, Duration::from_secs(1)), Err(WireError::Absent)));
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(ask(&path, &Request::List {}, Duration::from_secs(1)), Err(WireError::Refused)));
    let long = dir.path().join("s".repeat(300));
    assert!(matches!(ask(&long, &Request::List {}, Duration::from_secs(1)), Err(WireError::Io(_))));
}
