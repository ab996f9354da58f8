//! The JSON lines that mkpins prints. Scenarios compare the tool under test against these, so a field here is what
//! mkpins asked for or read back itself, never what a tool says.

use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::sys::{Refused, errno_name};

/// What was made: one line for each `register`, the first at the start.
#[derive(Debug, Clone, Serialize)]
pub struct Made {
    pub kind: &'static str,
    pub pid: u32,
    /// The thread that made the pin.
    pub tid: i32,
    /// The anchor's descriptor number in `pid`.
    pub fd: Option<i32>,
    /// The second anchor: the ring that buffers were cloned into, the socket that shares the umem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd2: Option<i32>,
    /// First byte asked for.
    pub address: u64,
    /// Bytes asked for.
    pub length: u64,
    /// 4 KiB pages that the range touches.
    pub pages: u64,
    pub mode: &'static str,
    /// One for each pin.
    pub objects: Vec<Object>,
    /// What lies under the range, whole pages, in the order of the addresses, as it was right after the pin.
    pub parts: Vec<Part>,
    /// What a mode of its own adds.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

/// One pin. The keys of other subsystems are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Object {
    /// First byte asked for.
    pub address: u64,
    /// Bytes asked for.
    pub length: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lkey: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rkey: Option<u32>,
    /// The MR's number in its uverbs file; not the mrn of the rdma netlink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<u32>,
    /// It is pinned as a part of its files: its address is only where mkpins has mapped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmapped: Option<bool>,
    /// The first address that the device uses for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iova: Option<u64>,
    /// The slot in the ring's buffer table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The descriptor of this object's own anchor, where each has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// The socket's inode number, by which sock_diag names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_ino: Option<u64>,
}

/// A run of pages of one backing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// `anon`, `file`, `shmem`, `hugetlb` or `devdax`.
    pub backing: &'static str,
    pub address: u64,
    pub length: u64,
    /// Whether the mapping is MAP_PRIVATE. Anonymous pages of a private file mapping say true here.
    pub private: bool,
    /// Not there for anonymous pages.
    #[serde(flatten)]
    pub file: Option<FilePart>,
}

/// The file under a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilePart {
    /// `MAJOR:MINOR` of st_dev, decimal.
    pub dev: String,
    pub ino: u64,
    /// Bytes into the file of the part's first page.
    pub offset: u64,
    /// As given, made absolute; what procfs shows for a memfd.
    pub path: String,
    /// The inode's generation where the file system tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// `MAJOR:MINOR` of the device itself, for a device node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdev: Option<String>,
}

/// The `error` of a refused call.
pub fn refusal(refused: &Refused) -> Value {
    json!({"errno": refused.errno, "name": errno_name(refused.errno), "call": refused.call, "message": refused.to_string()})
}

/// The `error` of anything that went wrong, with errno where a call refused.
pub fn failure(error: &anyhow::Error) -> Value {
    match error.downcast_ref::<Refused>() {
        Some(refused) => refusal(refused),
        None => json!({"message": format!("{error:#}")}),
    }
}

/// Prints one line at once. A reader that went away is the end of the program's use, not an error.
pub fn say(line: &impl Serialize) {
    let Ok(mut text) = serde_json::to_string(line) else { return };
    text.push('\n');
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_line() {
        let file = FilePart {
            dev: "0:27".into(),
            ino: 9,
            offset: 4096,
            path: "/a".into(),
            generation: None,
            rdev: None,
        };
        let made = Made {
            kind: "io_uring",
            pid: 1,
            tid: 2,
            fd: Some(3),
            fd2: None,
            address: 0x1000,
            length: 16,
            pages: 1,
            mode: "rw",
            objects: vec![Object { address: 0x1000, length: 16, slot: Some(0), ..Object::default() }],
            parts: vec![
                Part { backing: "shmem", address: 0x1000, length: 4096, private: false, file: Some(file) },
                Part { backing: "anon", address: 0x2000, length: 4096, private: true, file: None },
            ],
            more: serde_json::Map::new(),
        };
        assert_eq!(
            serde_json::to_value(&made).unwrap(),
            json!({"kind": "io_uring", "pid": 1, "tid": 2, "fd": 3, "address": 4096, "length": 16, "pages": 1,
                "mode": "rw", "objects": [{"address": 4096, "length": 16, "slot": 0}],
                "parts": [{"backing": "shmem", "address": 4096, "length": 4096, "private": false, "dev": "0:27",
                           "ino": 9, "offset": 4096, "path": "/a"},
                          {"backing": "anon", "address": 8192, "length": 4096, "private": true}]})
        );
    }

    #[test]
    fn failures() {
        let refused = Refused { call: "ibv_reg_mr", errno: libc::EFAULT };
        let value = failure(&anyhow::Error::from(refused).context("pinning"));
        assert_eq!(
            (&value["errno"], &value["name"], &value["call"]),
            (&json!(14), &json!("EFAULT"), &json!("ibv_reg_mr"))
        );
        assert_eq!(failure(&anyhow::anyhow!("no such device")), json!({"message": "no such device"}));
    }
}
