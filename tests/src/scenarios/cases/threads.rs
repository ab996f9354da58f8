//! Copies of descriptors, and threads: a process holds a pin as long as one of them is left.

use anyhow::{Context, Result, ensure};

use super::holders::{expect, gone, held};
use crate::Outcome;
use crate::actors::Actors;
use crate::guest::{Guest, SOON};

const KINDS: [&str; 3] = ["rdma-mr", "io_uring", "xdp"];

/// A process with one anchor: its pid, the descriptor, and how to pin.
fn start(actors: &mut Actors, kind: &str) -> Result<(u32, u64, String)> {
    let pid = actors.spawn()?.pid;
    let answer = actors.tell(pid, &format!("open {kind} keep"))?;
    let fd = answer["fd"].as_u64().context("no fd")?;
    let with = answer["pd"].as_u64().unwrap_or(0);
    Ok((pid, fd, format!("register {fd} {kind} 0 4 {with}")))
}

/// `dup`, `dup` again, and closing one after the other.
pub fn dup(guest: &mut Guest) -> Result<Outcome> {
    for kind in KINDS {
        let mut actors = Actors::new()?;
        let (pid, fd, register) = start(&mut actors, kind)?;
        actors.tell(pid, &register)?;
        let creator = u64::from(pid);
        let first = actors.number(pid, &format!("dup {fd} keep"), "fd")?;
        let second = actors.number(pid, &format!("dup {first} cloexec"), "fd")?;
        expect(guest, creator, &held(&[(creator, &[fd, first, second])]), 0, &format!("{kind}: three"))?;
        actors.tell(pid, &format!("close {fd}"))?;
        expect(guest, creator, &held(&[(creator, &[first, second])]), 0, &format!("{kind}: two"))?;
        actors.order(pid, "exec")?;
        actors.welcome(pid)?;
        expect(
            guest,
            creator,
            &held(&[(creator, &[first])]),
            0,
            &format!("{kind}: the one that exec leaves"),
        )?;
        actors.tell(pid, &format!("close {first}"))?;
        gone(guest, creator, &format!("{kind}: none"))?;
        actors.end(pid, false)?;
    }
    Ok(Outcome::Passed(None))
}

/// A child, its child, and the creator gone first: who is left holds what was inherited.
pub fn chain(guest: &mut Guest) -> Result<Outcome> {
    for kind in KINDS {
        let mut actors = Actors::new()?;
        let (first, fd, register) = start(&mut actors, kind)?;
        actors.tell(first, &register)?;
        let mut chain = vec![first];
        for _ in 0..2 {
            let parent = chain[chain.len() - 1];
            let child = actors.number(parent, "fork", "pid")? as u32;
            chain.push(actors.welcome(child)?.pid);
        }
        let creator = u64::from(first);
        while !chain.is_empty() {
            let fds = [fd];
            let all: Vec<(u64, &[u64])> = chain.iter().map(|pid| (u64::from(*pid), &fds[..])).collect();
            expect(guest, creator, &held(&all), 0, &format!("{kind}: {} are left", chain.len()))?;
            let ended = chain.remove(0);
            actors.end(ended, ended == first)?;
            let still = |pins: &[serde_json::Value]| {
                let pin = pins.first().context("its pin is not listed")?;
                ensure!(pin["creator"]["alive"] == false && pin["state"] == "held", "{pin}");
                Ok(())
            };
            if !chain.is_empty() {
                guest.wait_for(SOON, still).with_context(|| format!("{kind}: its creator is gone"))?;
            }
        }
        gone(guest, creator, &format!("{kind}: all are gone"))?;
    }
    Ok(Outcome::Passed(None))
}

/// The thread that made the pin ends; the first thread ends; a thread has descriptors of its own.
pub fn threads(guest: &mut Guest) -> Result<Outcome> {
    for kind in KINDS {
        let mut actors = Actors::new()?;
        let (pid, fd, register) = start(&mut actors, kind)?;
        let creator = u64::from(pid);
        actors.tell(pid, &format!("in-thread {register}"))?;
        let process = held(&[(creator, &[fd])]);
        expect(guest, creator, &process, 0, &format!("{kind}: its thread ended"))?;
        actors.tell(pid, "thread private")?;
        actors.tell(pid, &format!("close {fd}"))?;
        expect(guest, creator, &process, 0, &format!("{kind}: a thread of its process has a copy"))?;
        actors.tell(pid, "end-thread")?;
        gone(guest, creator, &format!("{kind}: the thread with the copy ended"))?;
        actors.end(pid, false)?;

        let (pid, fd, register) = start(&mut actors, kind)?;
        let creator = u64::from(pid);
        actors.tell(pid, &register)?;
        actors.tell(pid, "thread shared")?;
        actors.order(pid, "leave")?;
        let process = held(&[(creator, &[fd])]);
        expect(guest, creator, &process, 0, &format!("{kind}: its first thread ended"))?;
        guest
            .wait_for(SOON, |pins| {
                let pin = pins.first().context("its pin is not listed")?;
                ensure!(pin["creator"]["alive"] == true, "the creator is said to be gone");
                Ok(())
            })
            .with_context(|| format!("{kind}: its first thread ended"))?;
        actors.end(pid, true)?;
        gone(guest, creator, &format!("{kind}: killed"))?;
    }
    Ok(Outcome::Passed(None))
}
