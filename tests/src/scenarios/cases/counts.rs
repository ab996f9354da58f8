//! The kernel's own count of pinned pages against what lspins knows.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::devices;
use super::unclaimed::{BOUND, Driver};
use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::guest::{EMPTY, Guest, SOON, eventually, shell};

/// Waits until all that the kernel counts is explained; gives its count.
pub(super) fn explained(guest: &Guest) -> Result<Value> {
    eventually(SOON, || {
        let kernel = guest.table()?["kernel"].clone();
        Ok(if kernel["unattributed"] == 0 && kernel["uncertain"] == 0 {
            Ok(kernel)
        } else {
            Err(anyhow::anyhow!("the kernel's count is not explained: {kernel}"))
        })
    })
}

/// One pin of every kind at once, on all kinds of memory.
const OF_EVERY_KIND: &[&str] = &[
    "rdma-mr memfd --length 3M --offset 8192",
    "rdma-mr memfd-huge --length 4M",
    "rdma-mr anon --length 100K --skew 100",
    "io_uring thp --length 4M",
    "io_uring memfd-huge --length 4M",
    "io_uring memfd --length 64K --count 3",
    "xdp file --path /mnt/tmpfs/count --length 1M",
    "xdp memfd-huge --length 2M",
    "io_uring-mem memfd --length 64K --count 2",
    "udmabuf memfd-huge --length 4M",
    "vfio memfd-huge --length 2M",
    "v4l2 memfd --length 128K",
    "unclaimed memfd --length 1M --batch 100",
    "unclaimed anon --by pages",
];

/// In a quiet machine nothing is left over, whatever is pinned.
pub fn quiet(guest: &mut Guest) -> Result<Outcome> {
    let _driver = Driver::load()?;
    devices::load(guest)?;
    explained(guest).context("nothing is pinned")?;
    let mut made = Vec::new();
    let mut before = 0;
    let here = || OF_EVERY_KIND.iter().filter(|arguments| devices::has(guest, arguments));
    for arguments in here() {
        let mkpins = Mkpins::pinned(arguments)?;
        made.push(mkpins);
        let kernel = explained(guest).with_context(|| (*arguments).to_owned())?;
        let references = kernel["references"].as_i64().unwrap_or(0);
        ensure!(references > before, "{arguments}: the kernel counts {references} after {before}");
        before = references;
    }
    // What a daemon that comes later does not know is left over.
    let all = guest.table()?["kernel"]["references"].clone();
    for mkpins in &mut made {
        mkpins.tell("release")?;
    }
    guest.wait_until_empty()?;
    explained(guest).context("all is released")?;
    Ok(Outcome::Passed(Some(format!("{all} references of {} kinds of pins", here().count()))))
}

/// Direct reads into pinned memory while it is pinned and let go of: no pin is lost, none invented, nothing left over.
pub fn direct_io(guest: &mut Guest) -> Result<Outcome> {
    let (reads, rounds) = if guest.full { (340_000, 100) } else { (8_000, 6) };
    let _driver = Driver::load()?;
    std::fs::write("/mnt/ext4/direct", vec![7; 1 << 20])?;
    let kinds = ["unclaimed memfd --count 2", "io_uring memfd --count 2", "rdma-mr memfd --count 2"];
    let mut made = Vec::new();
    for arguments in kinds {
        let mut mkpins = Mkpins::pinned(&format!("{arguments} --length 64K"))?;
        mkpins.tell(&format!("direct /mnt/ext4/direct {reads}"))?;
        made.push(mkpins);
    }
    let own = |pins: &[Value], pid: u32| -> Vec<Value> {
        pins.iter().filter(|pin| pin["creator"]["pid"] == pid).cloned().collect()
    };
    for round in 0..rounds {
        let at = round % made.len();
        let pid = made[at].pid();
        made[at].tell("release")?;
        guest
            .wait_for(if kinds[at].starts_with("io_uring") { EMPTY } else { BOUND }, |pins| {
                let left = own(pins, pid).len();
                ensure!(left == 0, "{left} are left");
                Ok(())
            })
            .with_context(|| format!("round {round}, {} released", kinds[at]))?;
        made[at].made = made[at].tell("register")?;
        guest
            .wait_for(SOON, |pins| {
                for mkpins in &made {
                    compare::exactly(&mkpins.made, &own(pins, mkpins.pid()))?;
                }
                Ok(())
            })
            .with_context(|| format!("round {round}, {} made again", kinds[at]))?;
    }
    for mkpins in &mut made {
        mkpins.order("direct-wait")?;
        mkpins.answer(Duration::from_secs(300)).context("the readers")?;
    }
    explained(guest).context("the readers have ended")?;
    for mkpins in &mut made {
        mkpins.tell("release")?;
    }
    guest.wait_until_empty()?;
    explained(guest).context("all is released")?;
    Ok(Outcome::Passed(Some(format!("{} reads, {rounds} rounds", reads * 3))))
}

/// A real-time task that never sleeps has a CPU for itself, as where packets are polled for: no kernel worker runs there, so that
/// it never adds its part of the kernel's count.
pub fn busy_cpu(guest: &mut Guest) -> Result<Outcome> {
    if !std::path::Path::new("/sys/devices/system/cpu/cpu1").exists() {
        return Ok(Outcome::Skipped("this guest has one CPU".to_owned()));
    }
    let mut mkpins = Mkpins::pinned("rdma-mr memfd --length 1M")?;
    explained(guest)?;
    let busy = Busy::start()?;
    let (left, off) = eventually(SOON, || {
        let table = guest.table_at_once()?;
        compare::exactly(&mkpins.made, table["pins"].as_array().map_or(&[], Vec::as_slice))?;
        let kernel = &table["kernel"];
        let off = kernel["uncertain"].as_u64().filter(|off| *off > 0);
        let off = off.with_context(|| format!("it claims to be certain: {kernel}"));
        Ok(off.map(|off| (kernel["unattributed"].as_i64().unwrap_or(i64::MAX), off)))
    })?;
    ensure!(left.unsigned_abs() <= off, "off by {left}, and it says by {off} at most");
    drop(busy);
    explained(guest).context("the CPU is free again")?;
    mkpins.tell("release")?;
    Ok(Outcome::Passed(Some(format!("give or take {off} references"))))
}

/// The second CPU does nothing but one real-time task.
struct Busy(Child);

impl Busy {
    fn start() -> Result<Self> {
        // From 6.12 on each CPU keeps some time for other tasks even so (fair_server).
        shell(
            "echo -1 > /proc/sys/kernel/sched_rt_runtime_us; \
             ! test -e /sys/kernel/debug/sched/fair_server || echo 0 > /sys/kernel/debug/sched/fair_server/cpu1/runtime",
        )?;
        // What ends it must not be where it is.
        let mut command = Command::new("timeout");
        command.args("120 taskset -c 1 chrt -f 50 sh -c".split(' ')).arg("while :; do :; done");
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // `timeout` passes it on.
        let _ = shell(&format!("kill {}", self.0.id()));
        let _ = self.0.wait();
        let _ = shell(
            "echo 950000 > /proc/sys/kernel/sched_rt_runtime_us; \
             ! test -e /sys/kernel/debug/sched/fair_server || echo 50000000 > /sys/kernel/debug/sched/fair_server/cpu1/runtime",
        );
    }
}
