//! What the hooks may fail to see: calls in a crowd, and those that come while they are switched off.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::churn::lost;
use super::devices;
use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::guest::{EMPTY, Guest, shell};

/// Four times as many processes as CPUs register buffers all at once, and are killed at once: then the kernel undoes them in
/// threads of its own. Where it preempts them, they do so in the middle of each other's calls.
pub fn crowd(guest: &mut Guest) -> Result<Outcome> {
    const PROCESSES: usize = 8;
    // A registration takes io_uring of 6.1 some 17 ms of waiting for RCU, whatever the machine.
    let buffers = match (guest.full, guest.at_least(6, 2)) {
        (true, true) => 1500,
        (false, true) => 400,
        (_, false) => 60,
    };
    // What is left to chance are the few instructions before preemption is off and after it is on again: who is preempted there
    // may cost the others what they do in one turn.
    let few = |missed: u64, when: &str| {
        let few = missed <= (buffers * PROCESSES) as u64 / 10;
        ensure!(few, "{missed} calls were lost, {buffers} pins by each of {PROCESSES} {when}");
        Ok(())
    };
    let before = lost(&guest.table()?);
    let mut crowd = Mkpins::crowd(&format!("many --count {buffers} --rings 4"), PROCESSES)?;
    let table = guest.table()?;
    let made = buffers * PROCESSES;
    let (listed, missed) = (table["pins"].as_array().map_or(0, Vec::len), lost(&table) - before);
    ensure!(
        listed <= made && listed as u64 + missed >= made as u64,
        "{listed} of {made} are listed, {missed} lost"
    );
    few(missed, "made")?;
    for mkpins in &mut crowd {
        mkpins.order("exit")?;
    }
    crowd.iter_mut().for_each(Mkpins::kill);
    guest.wait_until_empty()?;
    let missed = lost(&guest.table()?) - before;
    few(missed, "made and released")?;
    Ok(Outcome::Passed(Some(format!("{made} pins, {missed} calls lost"))))
}

/// Pins that are released while all kprobes are switched off: nobody sees it, and the kernel does not say so. Its count does.
pub fn unseen_release(guest: &mut Guest) -> Result<Outcome> {
    if guest.attach != "kprobe" {
        return Ok(Outcome::Skipped("trampolines cannot be switched off".to_owned()));
    }
    devices::load(guest)?;
    let of_every_kind = [
        "io_uring memfd --length 64K --count 3",
        "io_uring thp --length 4M",
        "io_uring-mem memfd --length 64K --count 2",
        "rdma-mr anon --length 100K --skew 100",
        "rdma-mr memfd-huge --length 4M",
        "xdp file --path /mnt/tmpfs/unseen --length 1M",
        "v4l2 memfd --length 128K",
        "udmabuf memfd-huge --length 4M",
    ];
    let here = of_every_kind.into_iter().filter(|arguments| devices::has(guest, arguments));
    let mut gone = here.map(Mkpins::pinned).collect::<Result<Vec<_>>>()?;
    let mut kept = Mkpins::pinned("io_uring file --path /mnt/tmpfs/kept --length 64K --count 2")?;
    let listed = guest.pins()?.len();
    let switched_off = Off::switch()?;
    for mkpins in &mut gone {
        mkpins.tell("release")?;
    }
    // Some are released in a kworker.
    std::thread::sleep(Duration::from_secs(2));
    drop(switched_off);
    guest.wait_for(EMPTY, |pins| compare::exactly(&kept.made, pins))?;
    drop(gone);
    kept.tell("release")?;
    guest.wait_until_empty()?;
    Ok(Outcome::Passed(Some(format!("{} of {listed} pins were released unseen", listed - 2))))
}

/// All kprobes are switched off.
struct Off;

impl Off {
    fn switch() -> Result<Self> {
        shell("echo 0 > /sys/kernel/debug/kprobes/enabled")?;
        Ok(Self)
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        let _ = shell("echo 1 > /sys/kernel/debug/kprobes/enabled");
    }
}
