//! The JSON of `-J` and `-j`; its contract is `schema/lspins-v1.schema.json`. Fields are added, never renamed or
//! removed, within a version.

mod pin;
mod process;
mod shared;
pub(super) mod writer;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

pub(super) use self::process::holding_fields;
use self::shared::Shared;
use super::gaps;
use crate::model::{self, KernelCount, Name, Pin, Table, Who};

/// The version of the contract.
pub const VERSION: u32 = 1;

/// Writes one document. `now` is in nanoseconds since the Unix epoch; `pretty` is for reading by eye.
pub fn document(
    out: &mut impl Write,
    table: &Table,
    pins: &[&Pin],
    now: i64,
    pretty: bool,
) -> io::Result<()> {
    let head = Head {
        version: VERSION,
        complete: table.complete(),
        complete_since: table.complete_since().and_then(time),
        watching_since: table.watching_since.and_then(time),
        incomplete: table.gaps.iter().map(gaps::sentence).collect(),
        gaps: table.gaps.iter().map(Gap::new).collect(),
        unattributed_pages: table.kernel.map(|kernel| kernel.unattributed()),
        kernel: table.kernel.map(Kernel::new),
        hidden: Hidden { pins: table.hidden.0, bytes: table.hidden.1 },
    };
    let mut document = Vec::new();
    serde_json::to_writer(&mut document, &head)?;
    // The pins are its last field.
    document.pop();
    document.extend_from_slice(b",\"pins\":[");
    let shared = Shared::new(table)?;
    for (at, pin) in pins.iter().enumerate() {
        if at > 0 {
            document.push(b',');
        }
        pin::write(&mut document, &shared, pin, now);
    }
    document.extend_from_slice(b"]}");
    if pretty {
        let value: serde_json::Value = serde_json::from_slice(&document)?;
        serde_json::to_writer_pretty(&mut *out, &value)?;
    } else {
        out.write_all(&document)?;
    }
    out.write_all(b"\n")
}

/// Writes one line for each pin.
pub fn lines(out: &mut impl Write, table: &Table, pins: &[&Pin], now: i64) -> io::Result<()> {
    /// Written at once: one call for each token would cost more than the tokens.
    const PIECE: usize = 1 << 16;
    let shared = Shared::new(table)?;
    let mut piece = Vec::with_capacity(PIECE + 4096);
    for pin in pins {
        pin::write(&mut piece, &shared, pin, now);
        piece.push(b'\n');
        if piece.len() >= PIECE {
            out.write_all(&piece)?;
            piece.clear();
        }
    }
    out.write_all(&piece)
}

#[derive(Serialize)]
struct Head {
    version: u32,
    complete: bool,
    complete_since: Option<Time>,
    watching_since: Option<Time>,
    incomplete: Vec<String>,
    gaps: Vec<Gap>,
    unattributed_pages: Option<i64>,
    kernel: Option<Kernel>,
    hidden: Hidden,
}

/// A gap: what scripts match, and the sentence for people.
#[derive(Serialize)]
struct Gap {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subsystem: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    text: String,
}

impl Gap {
    fn new(gap: &model::Gap) -> Self {
        Self {
            code: gap.code().word(),
            count: gap.count(),
            subsystem: gap.subsystem().map(model::Subsystem::word),
            since: gap.since().and_then(time),
            text: gaps::sentence(gap),
        }
    }
}

/// The kernel's own count, in references to pages.
#[derive(Serialize)]
pub(super) struct Kernel {
    references: i64,
    attributed: u64,
    unclaimed: u64,
    unattributed: i64,
    uncertain: Option<u64>,
}

impl Kernel {
    pub(super) fn new(count: KernelCount) -> Self {
        let KernelCount { references, attributed, unclaimed, uncertain } = count;
        Self { references, attributed, unclaimed, unattributed: count.unattributed(), uncertain }
    }
}

#[derive(Serialize)]
struct Hidden {
    pins: u64,
    bytes: u64,
}

#[derive(Serialize)]
pub(super) struct File<'a> {
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    path_complete: bool,
    #[serde(serialize_with = "text_of")]
    dev: model::Device,
    ino: u64,
    generation: Option<u32>,
    fstype: Option<&'a str>,
    deleted: Option<bool>,
}

impl<'a> File<'a> {
    pub(super) fn new(file: &'a model::File) -> Self {
        Self {
            path: file.path.text(),
            path_hex: lossless(&file.path),
            path_complete: file.path_complete,
            dev: file.id.dev,
            ino: file.id.ino,
            generation: file.id.generation,
            fstype: Some(file.fstype.as_str()).filter(|t| !t.is_empty()),
            deleted: file.deleted,
        }
    }
}

fn text_of<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A moment, written as RFC 3339.
pub(super) struct Time(jiff::Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A time of the model; `None` if it is beyond what the calendar has.
pub(super) fn time(nanoseconds: i64) -> Option<Time> {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).ok().map(Time)
}

/// Who did something.
pub(super) fn who(who: &Who) -> serde_json::Value {
    serde_json::json!({"pid": who.pid, "comm": who.comm.text(), "uid": who.uid})
}

/// The bytes of a name in hexadecimal, if its text has lost some.
fn lossless(name: &Name) -> Option<String> {
    if name.is_utf8() {
        return None;
    }
    let mut hex = String::with_capacity(name.as_bytes().len() * 2);
    for byte in name.as_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Some(hex)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::listing::sample;
    use crate::model::object::{io_uring, rdma, udmabuf, unclaimed, v4l2, vfio, xdp};

    fn parsed(pretty: bool) -> Value {
        let table = sample::table();
        let pins: Vec<&Pin> = table.pins.iter().collect();
        let mut out = Vec::new();
        document(&mut out, &table, &pins, sample::CREATED + 180_000_000_000, pretty).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn objects_have_a_field_of_their_subsystem() {
        let device = || "rx\"e".to_owned();
        for (object, expected) in [
            (
                rdma::Object::Region { device: device(), mrn: 7, lkey: Some(1), rkey: None }.into(),
                r#""object":"rx\"e mr 7","rdma":{"device":"rx\"e","mrn":7,"lkey":1,"rkey":null}"#,
            ),
            (
                rdma::Object::Buffer { device: device(), kind: rdma::BufferKind::Cq }.into(),
                r#""object":"rx\"e cq buffer","rdma":{"device":"rx\"e","mrn":null,"lkey":null,"rkey":null}"#,
            ),
            (
                io_uring::Object::Buffer { ring_fd: None, slot: Some(3) }.into(),
                r#""object":"ring ? buf 3","io_uring":{"ring_fd":null,"slot":3}"#,
            ),
            (
                io_uring::Object::Memory { ring_fd: Some(5) }.into(),
                r#""object":"ring 5 memory","io_uring":{"ring_fd":5,"slot":null}"#,
            ),
            (xdp::Object { umem: 3 }.into(), r#""object":"umem 3","xdp":{"umem":3}"#),
            (udmabuf::Object { ino: 17 }.into(), r#""object":"dmabuf 17","udmabuf":{"inode":17}"#),
            (vfio::Object { iova: 4096 }.into(), r#""object":"iova 0x1000","vfio":{"iova":4096}"#),
            (v4l2::Object { device: device() }.into(), r#""object":"rx\"e buf","v4l2":{"device":"rx\"e"}"#),
            (
                unclaimed::Object {
                    module: Some(device()),
                    function: None,
                    stack: vec!["a+0x10".to_owned(), "b".to_owned()],
                    unloaded: true,
                }
                .into(),
                r#""object":"(rx\"e) unloaded","unclaimed":{"module":"rx\"e","module_loaded":false,"function":null,"stack":["a+0x10","b"]}"#,
            ),
            (
                unclaimed::Object::default().into(),
                r#""object":"(?)","unclaimed":{"module":null,"module_loaded":null,"function":null,"stack":[]}"#,
            ),
        ] {
            let mut table = sample::table();
            table.pins[0].object = object;
            let mut out = Vec::new();
            document(&mut out, &table, &[&table.pins[0]], 0, false).unwrap();
            let document = String::from_utf8(out).unwrap();
            assert!(document.contains(&format!(",{expected},\"mode\":")), "{expected} is not in {document}");
            serde_json::from_str::<Value>(&document).unwrap();
        }
    }

    #[test]
    fn the_document_is_as_the_contract_says() {
        let document = parsed(false);
        assert_eq!(document, parsed(true));
        assert_eq!((document["version"].as_u64(), document["complete"].as_bool()), (Some(1), Some(true)));
        assert_eq!(document["watching_since"], "2026-11-20T23:55:04Z");
        let time = |at| {
            let mut out = Vec::new();
            Shared::new(&Table::default()).unwrap().time(&mut out, at);
            String::from_utf8(out).unwrap()
        };
        assert_eq!((time(None), time(Some(0))), ("null".to_owned(), r#""1970-01-01T00:00:00Z""#.to_owned()));
        assert_eq!(time(Some(1_500_000_000)), r#""1970-01-01T00:00:01.5Z""#);
        assert_eq!(time(Some(-1)), r#""1969-12-31T23:59:59.999999999Z""#);
        let pin = &document["pins"][1];
        let expected = serde_json::json!({
            "id": "r1", "subsystem": "rdma", "type": "rdma-mr", "object": "rxe0 mr 7", "mode": "rw",
            "rdma": {"device": "rxe0", "mrn": 7, "lkey": null, "rkey": 0x1234},
            "bytes": 67108864, "pages": 16384, "address": 0x7f00_0000, "backing": "file",
            "file": {"path": "/srv/pool.dat", "path_complete": true, "dev": "253:1", "ino": 131, "generation": 9,
                     "fstype": "xfs", "deleted": false},
            "extents": [{"offset": 0, "length": 67108864}], "orphan_pages": 0,
            "creator": {"pid": 812, "start": 81234, "comm": "ib_server", "uid": 2, "user": "user2", "alive": true,
                        "cgroup": "/system.slice/x.service", "unit": "x.service", "container": null, "pod": null},
            "state": "held",
            "holders": [{"pid": 812, "start": 81234, "comm": "ib_server", "uid": 2, "user": "user2",
                         "unit": "x.service", "via": [{"fd": 5}]}],
            "in_flight": 0, "receivers": [],
            "coverage": {"state": "unknown", "covered": 0, "holders": 0, "lease_pids": [], "seconds_left": null},
            "created": "2026-11-20T23:55:04Z", "age_seconds": 180, "origin": "trace", "exact": true, "doubt": null, "doubts": []
        });
        assert_eq!(*pin, expected);
    }

    #[test]
    fn names_are_lossless_and_parts_complete() {
        let document = parsed(false);
        let pin = &document["pins"][2];
        assert_eq!(pin["file"]["path_hex"], "2f7372762f710a1b5b33316dff");
        assert_eq!(pin["file"]["path"], "/srv/q\n\u{1b}[31m\u{fffd}");
        assert_eq!(pin["parts"].as_array().unwrap().len(), 2);
        assert_eq!(pin["parts"][1]["file"]["ino"], 1035);
        assert_eq!(pin["holders"][1]["via"][1]["mapping"], 4096);
        let gone = &document["pins"][0];
        assert!(gone["file"].is_null() && gone["created"].is_null() && gone["age_seconds"].is_null());
        assert_eq!((gone["holders"].as_array().unwrap().len(), gone["state"].as_str()), (0, Some("unheld")));
    }

    #[test]
    fn a_line_is_an_element_of_the_document() {
        let table = sample::table();
        let pins: Vec<&Pin> = table.pins.iter().collect();
        let mut out = Vec::new();
        lines(&mut out, &table, &pins, sample::CREATED).unwrap();
        let lines: Vec<Value> = out
            .split(|&b| b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2]["file"], parsed(false)["pins"][2]["file"]);
    }
}
