//! Leases of the kernel's own NFS server: delegations, and the layout leases of pNFS.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lease_events::told;
use super::leases::{Pinned, agrees, pinned};
use super::programs::output;
use crate::Outcome;
use crate::actors::Actors;
use crate::guest::{Guest, SOON, shell};

/// As the server has it, and as the client does.
const HERE: &str = "/srv/nfs/pool";
const THERE: &str = "/mnt/nfs/pool";
const LENGTH: usize = 1 << 20;
const MOST_CLIENTS: usize = 20;

/// `lease-nfsd`.
pub fn nfsd(guest: &mut Guest) -> Result<Outcome> {
    shell("nfs-up /dev/ram2")?;
    let result = leases(guest);
    let down = shell("nfs-down");
    result?;
    down?;
    Ok(Outcome::Passed(None))
}

fn leases(guest: &Guest) -> Result<()> {
    let mut actors = Actors::new()?;
    // Blocks that are on the disk: others have no layout.
    let mode = if guest.at_least(6, 5) { "ro" } else { "rw" };
    let Pinned { pid, file, .. } = pinned(&mut actors, "rdma-mr", HERE, mode)?;
    fs::write(HERE, vec![7_u8; LENGTH])?;
    shell("sync")?;
    actors.tell(pid, &format!("close {file}"))?;
    verdict(guest, "none", "pinned")?;
    // A client of this very machine. The server gives it a delegation once it knows that the client can be called back, but
    // none to an open without page cache; a read without it asks for a layout.
    let mut clients = Vec::new();
    while !fs::read_to_string("/proc/locks")?.contains("DELEG") {
        ensure!(clients.len() < MOST_CLIENTS, "the server grants no delegation");
        clients.push(File::open(THERE)?);
        let client = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(THERE)?;
        let mut space = vec![0_u8; 2 * 4096];
        let aligned = space.as_ptr().align_offset(4096);
        client.read_exact_at(&mut space[aligned..aligned + 4096], 0).context("reading through pNFS")?;
        clients.push(client);
        std::thread::sleep(Duration::from_millis(500));
    }
    verdict(guest, "other", "a client reads")?;
    let listed = listed()?;
    for (kind, mode) in [("layout", "read"), ("deleg", "read")] {
        let lease = listed.iter().find(|lease| lease["kind"] == kind);
        let lease = lease.with_context(|| format!("no {kind} among {listed:?}"))?;
        ensure!(lease["mode"] == mode && lease["state"] == "active", "{lease}");
        ensure!(lease["taker"]["comm"] == "nfsd", "not of the server: {lease}");
        ensure!(lease["holders"].as_array().is_some_and(Vec::is_empty), "held by a process: {lease}");
        ensure!(lease["pins"].as_array().is_some_and(|pins| pins.len() == 1), "{lease}");
    }
    let text = output("lspins", &["--leases", HERE])?.1;
    ensure!(text.matches("kernel (nfsd[").count() == 2, "--leases says {text}");
    for kind in ["layout", "deleg"] {
        let taken = |event: &Value| event["event"] == "lease_taken" && event["lease"]["kind"] == kind;
        let events = told(HERE)?;
        let event = events.iter().find(|event| taken(event));
        let event = event.with_context(|| format!("no {kind} was told of: {events:?}"))?;
        ensure!(event["lease"]["taker"]["comm"] == "nfsd", "{event}");
    }
    // The same while a process has the file open, too: then they are seen at the inode.
    let open = File::open(HERE)?;
    agrees("while it is open here")?;
    drop(open);
    // Written to on the server: the delegation is called back, then the layout.
    let writer = OpenOptions::new().write(true).open(HERE)?;
    broken("deleg")?;
    writer.set_len(LENGTH as u64 / 2)?;
    writer.write_all_at(&[1; 4096], 0)?;
    broken("layout")?;
    drop((writer, clients));
    verdict(guest, "none", "written to")?;
    let mut rest = Vec::new();
    File::open(THERE)?.read_to_end(&mut rest)?;
    ensure!(rest.len() == LENGTH / 2 && rest[0] == 1, "the client reads {} bytes", rest.len());
    actors.end(pid, true)?;
    guest.wait_until_empty()
}

/// The leases on the file, as they are listed; compared with `/proc/locks`.
fn listed() -> Result<Vec<Value>> {
    agrees("of the server")?;
    let document: Value = serde_json::from_str(&output("lspins", &["--leases", "-J", HERE])?.1)?;
    document["leases"].as_array().cloned().context("no leases")
}

/// A lease of this kind, and none of another, was in somebody's way, and is gone.
fn broken(kind: &str) -> Result<()> {
    let of_kind = |lease: &Value| lease["kind"] == kind;
    let leases = |event: &Value| event["leases"].as_array().cloned().unwrap_or_default();
    let began = |event: &Value| event["event"] == "break_began" && leases(event).iter().all(of_kind);
    let dropped = |event: &Value| event["event"] == "lease_dropped" && of_kind(&event["lease"]);
    let until = Instant::now() + SOON;
    loop {
        let events = told(HERE)?;
        let began = events.iter().rfind(|event| began(event));
        if let (Some(began), Some(_)) = (began, events.iter().rfind(|event| dropped(event))) {
            ensure!(began["process"]["comm"] == "scenarios" && leases(began).len() == 1, "{began}");
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "no break of a {kind}, or it was not dropped: {}",
            Value::from(events)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn verdict(guest: &Guest, state: &str, step: &str) -> Result<()> {
    guest.wait_for(SOON, |pins| {
        ensure!(pins.len() == 1, "{step}: {} pins", pins.len());
        ensure!(pins[0]["coverage"]["state"] == state, "{step}: {}", pins[0]["coverage"]);
        Ok(())
    })
}
