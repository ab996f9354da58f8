//! Who keeps a pin: after each step the holders are those that the steps leave, no more and no fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Outcome;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON, shell};

const KINDS: [&str; 3] = ["rdma-mr", "io_uring", "xdp"];

/// Processes and the descriptors through which they keep the pin.
pub(super) type Held = BTreeMap<u64, BTreeSet<u64>>;

pub(super) fn held(of: &[(u64, &[u64])]) -> Held {
    of.iter().map(|(pid, fds)| (*pid, fds.iter().copied().collect())).collect()
}

fn start(kind: &str) -> Result<(Mkpins, u64, u64)> {
    let mkpins = Mkpins::pinned(&format!("{kind} memfd"))?;
    let number =
        |name: &str| mkpins.made[name].as_u64().with_context(|| format!("no {name} in {}", mkpins.made));
    let (pid, fd) = (number("pid")?, number("fd")?);
    Ok((mkpins, pid, fd))
}

fn said(holders: &Value) -> Result<Held> {
    let one = |holder: &Value| {
        let fds =
            holder["via"].as_array().into_iter().flatten().filter_map(|via| via["fd"].as_u64()).collect();
        Ok((holder["pid"].as_u64().context("a holder has no pid")?, fds))
    };
    holders.as_array().context("nobody has looked for holders")?.iter().map(one).collect()
}

/// Waits until the pins that `creator` made are kept as told; with how many descriptors in flight.
pub(super) fn expect(guest: &Guest, creator: u64, wanted: &Held, in_flight: u64, step: &str) -> Result<()> {
    guest
        .wait_for(SOON, |pins| {
            let theirs: Vec<&Value> = pins.iter().filter(|pin| pin["creator"]["pid"] == creator).collect();
            ensure!(!theirs.is_empty(), "its pin is not listed");
            for pin in theirs {
                let found = said(&pin["holders"])?;
                ensure!(found == *wanted, "held by {found:?}, not {wanted:?}");
                ensure!(pin["in_flight"] == in_flight, "{} in flight, not {in_flight}", pin["in_flight"]);
                ensure!(pin["creator"]["comm"] == "mkpins", "creator {}", pin["creator"]);
            }
            Ok(())
        })
        .with_context(|| step.to_owned())
}

pub(super) fn gone(guest: &Guest, creator: u64, step: &str) -> Result<()> {
    guest
        .wait_for(Duration::from_secs(15), |pins| {
            let left = pins.iter().filter(|pin| pin["creator"]["pid"] == creator).count();
            ensure!(left == 0, "{left} pins are still listed");
            Ok(())
        })
        .with_context(|| step.to_owned())
}

/// The creator forks twice and dies, then one child after the other.
pub fn fork(guest: &mut Guest) -> Result<Outcome> {
    for kind in KINDS {
        let (mut mkpins, pid, fd) = start(kind)?;
        expect(guest, pid, &held(&[(pid, &[fd])]), 0, &format!("{kind}: made"))?;
        let mut child = || mkpins.tell("fork")?["pid"].as_u64().context("no pid");
        let (first, second) = (child()?, child()?);
        let all = held(&[(pid, &[fd]), (first, &[fd]), (second, &[fd])]);
        expect(guest, pid, &all, 0, &format!("{kind}: forked"))?;
        mkpins.kill();
        let children = held(&[(first, &[fd]), (second, &[fd])]);
        expect(guest, pid, &children, 0, &format!("{kind}: its creator is gone"))?;
        ensure!(guest.pins()?[0]["creator"]["alive"] == false, "{kind}: its creator is not shown as gone");
        shell(&format!("kill -9 {first}"))?;
        expect(guest, pid, &held(&[(second, &[fd])]), 0, &format!("{kind}: one child is gone"))?;
        shell(&format!("kill -9 {second}"))?;
        gone(guest, pid, &format!("{kind}: all are gone"))?;
    }
    Ok(Outcome::Passed(None))
}

/// Kernels since 6.7, and the older ones that are still maintained, refuse to pass a ring (`scm_fp_copy`, net/core/scm.c).
const PASSED: [&str; 2] = ["rdma-mr", "xdp"];
const NO_RINGS: &str = "not for io_uring: the kernel refuses to pass a ring's descriptor";

/// The anchor is passed to a process that has nothing to do with its creator.
pub fn passed(guest: &mut Guest) -> Result<Outcome> {
    for kind in PASSED {
        let (mut mkpins, pid, fd) = start(kind)?;
        let (mut other, other_pid, _) = start("io_uring")?;
        other.order("recv /tmp/passed")?;
        mkpins.tell("send /tmp/passed")?;
        let got = other.answer(Duration::from_secs(30))?["fd"].as_u64().context("nothing was received")?;
        let both = held(&[(pid, &[fd]), (other_pid, &[got])]);
        expect(guest, pid, &both, 0, &format!("{kind}: passed"))?;
        mkpins.kill();
        expect(guest, pid, &held(&[(other_pid, &[got])]), 0, &format!("{kind}: its creator is gone"))?;
        other.tell("close-received")?;
        gone(guest, pid, &format!("{kind}: closed by its last holder"))?;
        let _ = std::fs::remove_file("/tmp/passed");
    }
    Ok(Outcome::Passed(Some(NO_RINGS.to_owned())))
}

/// The anchor is in a message that nobody receives: nobody holds the pin, until the socket goes.
pub fn in_flight(guest: &mut Guest) -> Result<Outcome> {
    for kind in PASSED {
        let (mut mkpins, pid, fd) = start(kind)?;
        mkpins.tell("inflight")?;
        expect(guest, pid, &held(&[(pid, &[fd])]), 1, &format!("{kind}: sent"))?;
        mkpins.tell("close-anchor")?;
        let pins = guest.pins()?;
        let mapped = pins.first().is_some_and(|pin| pin["holders"][0]["via"][0]["mapping"].is_u64());
        if mapped {
            // The memory that it shares with the kernel keeps it too.
            mkpins.kill();
            gone(guest, pid, &format!("{kind}: the socket is gone"))?;
            continue;
        }
        expect(guest, pid, &Held::new(), 1, &format!("{kind}: only in flight"))?;
        let pins = guest.pins()?;
        ensure!(pins[0]["receivers"][0]["pid"] == pid, "{kind}: receivers {}", pins[0]["receivers"]);
        let unheld = shell("lspins --unheld -J")?;
        let unheld: Value = serde_json::from_str(&unheld)?;
        ensure!(unheld["pins"].as_array().is_some_and(|pins| pins.len() == 1), "--unheld says {unheld}");
        mkpins.kill();
        gone(guest, pid, &format!("{kind}: the socket is gone"))?;
    }
    Ok(Outcome::Passed(Some(NO_RINGS.to_owned())))
}

/// The creator becomes another program, with and without the anchor.
pub fn exec(guest: &mut Guest) -> Result<Outcome> {
    for kind in KINDS {
        let (mut mkpins, pid, fd) = start(kind)?;
        mkpins.order("exec-sleep")?;
        guest
            .wait_for(SOON, |pins| {
                let pin = pins.first().context("its pin is not listed")?;
                ensure!(pin["holders"][0]["comm"] == "sleep", "holders {}", pin["holders"]);
                ensure!(said(&pin["holders"])? == held(&[(pid, &[fd])]), "holders {}", pin["holders"]);
                ensure!(pin["creator"]["alive"] == true, "the creator is said to be gone");
                Ok(())
            })
            .with_context(|| format!("{kind}: became sleep"))?;
        mkpins.kill();
        gone(guest, pid, &format!("{kind}: killed"))?;
        let (mut mkpins, pid, _) = start(kind)?;
        mkpins.order("exec-sleep drop")?;
        gone(guest, pid, &format!("{kind}: became sleep without it"))?;
        mkpins.kill();
    }
    Ok(Outcome::Passed(None))
}

/// A buffer that two rings share is kept by both, then by whichever is left.
pub fn shared_ring(guest: &mut Guest) -> Result<Outcome> {
    if !guest.at_least(6, 12) {
        return Ok(Outcome::Skipped("this kernel has no IORING_REGISTER_CLONE_BUFFERS (6.12)".to_owned()));
    }
    for (first, second) in [("close-anchor", "close-ring2"), ("close-ring2", "close-anchor")] {
        let mut mkpins = Mkpins::pinned("io_uring memfd --clone")?;
        let (pid, fd) = (mkpins.made["pid"].as_u64().unwrap_or(0), mkpins.made["fd"].as_u64().unwrap_or(0));
        let other = mkpins.made["fd2"].as_u64().context("no fd2")?;
        expect(guest, pid, &held(&[(pid, &[fd, other])]), 0, "cloned")?;
        mkpins.tell(first)?;
        let left = if first == "close-ring2" { fd } else { other };
        expect(guest, pid, &held(&[(pid, &[left])]), 0, &format!("after {first}"))?;
        mkpins.tell(second)?;
        gone(guest, pid, &format!("after {first} and {second}"))?;
    }
    Ok(Outcome::Passed(None))
}

/// A umem that two sockets share is kept by both, then by whichever is left.
pub fn shared_umem(guest: &mut Guest) -> Result<Outcome> {
    for (first, second) in [("close-anchor", "close-ring2"), ("close-ring2", "close-anchor")] {
        let mut mkpins = Mkpins::pinned("xdp memfd --shared")?;
        let (pid, fd) = (mkpins.made["pid"].as_u64().unwrap_or(0), mkpins.made["fd"].as_u64().unwrap_or(0));
        let other = mkpins.made["fd2"].as_u64().context("no fd2")?;
        expect(guest, pid, &held(&[(pid, &[fd, other])]), 0, "shared")?;
        mkpins.tell(first)?;
        let left = if first == "close-ring2" { fd } else { other };
        expect(guest, pid, &held(&[(pid, &[left])]), 0, &format!("after {first}"))?;
        mkpins.tell(second)?;
        gone(guest, pid, &format!("after {first} and {second}"))?;
    }
    Ok(Outcome::Passed(None))
}

/// A ring whose queue is mapped outlives its descriptor.
pub fn mapped(guest: &mut Guest) -> Result<Outcome> {
    let mut mkpins = Mkpins::pinned("io_uring memfd --map-ring")?;
    let (pid, fd) = (mkpins.made["pid"].as_u64().unwrap_or(0), mkpins.made["fd"].as_u64().unwrap_or(0));
    expect(guest, pid, &held(&[(pid, &[fd])]), 0, "made")?;
    let is_mapped = |pins: &[Value]| {
        let via = &pins.first().context("its pin is not listed")?["holders"][0]["via"];
        let ways = via.as_array().into_iter().flatten();
        ensure!(ways.filter(|way| way["mapping"].is_u64()).count() == 1, "it is kept by {via}");
        Ok(())
    };
    guest.wait_for(SOON, is_mapped).context("mapped")?;
    mkpins.tell("close-anchor")?;
    expect(guest, pid, &held(&[(pid, &[])]), 0, "closed")?;
    guest.wait_for(SOON, is_mapped).context("closed")?;
    mkpins.kill();
    gone(guest, pid, "killed")?;
    Ok(Outcome::Passed(None))
}
