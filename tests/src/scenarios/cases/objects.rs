//! The objects themselves: numbers, sharing, slots, and every way a process ends.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON, shell};

/// T2: mrn, length and keys are those of the rdma tool.
pub fn rdma_numbers(guest: &mut Guest) -> Result<Outcome> {
    let mut programs = Vec::new();
    for arguments in [
        "rdma-mr anon --count 3 --length 16",
        "rdma-mr memfd --count 4",
        "rdma-mr anon --length 9701376",
        "rdma-mr anon --skew 100 --length 5000",
        "rdma-mr anon --service-thread",
    ] {
        let mkpins = Mkpins::pinned(arguments)?;
        programs.push(mkpins);
    }
    let told: Value = serde_json::from_str(&shell("rdma -dd -j resource show mr")?)?;
    let mut told: Vec<(u64, u64, u64, u64)> = told
        .as_array()
        .context("the rdma tool lists nothing")?
        .iter()
        .map(|mr| {
            let key = |name: &str| {
                mr[name].as_str().map_or(mr[name].as_u64(), |text| {
                    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
                })
            };
            Ok((
                mr["mrn"].as_u64().context("no mrn")?,
                mr["mrlen"].as_u64().context("no mrlen")?,
                key("lkey").context("no lkey")?,
                key("rkey").context("no rkey")?,
            ))
        })
        .collect::<Result<_>>()?;
    told.sort_unstable();
    let count = told.len();
    ensure!(count == 10, "the rdma tool lists {count} memory regions, not 10");
    guest.wait_for(SOON, |pins| {
        let number = |pin: &Value, name: &str| {
            pin["rdma"][name].as_u64().with_context(|| format!("no {name} in {pin}"))
        };
        let mut listed: Vec<(u64, u64, u64, u64)> = pins
            .iter()
            .map(|pin| {
                Ok((
                    number(pin, "mrn")?,
                    pin["bytes"].as_u64().context("no bytes")?,
                    number(pin, "lkey")?,
                    number(pin, "rkey")?,
                ))
            })
            .collect::<Result<_>>()?;
        listed.sort_unstable();
        ensure!(listed == told, "rdma says {told:?}, lspins {listed:?}");
        Ok(())
    })?;
    for mkpins in programs {
        mkpins.end();
    }
    Ok(Outcome::Passed(Some(format!("{count} memory regions"))))
}

/// T4: the umem of one socket, and of two.
pub fn umem(guest: &mut Guest) -> Result<Outcome> {
    for arguments in ["xdp memfd", "xdp memfd --shared"] {
        let mut mkpins = Mkpins::pinned(arguments)?;
        let made = mkpins.made.clone();
        let mut first = made.clone();
        first["objects"] = Value::from(made["objects"].as_array().context("no objects")?[..1].to_vec());
        guest.wait_for(SOON, |pins| compare::exactly(&first, pins)).with_context(|| arguments.to_owned())?;
        mkpins.tell("close-anchor")?;
        if arguments.contains("shared") {
            std::thread::sleep(std::time::Duration::from_secs(1));
            guest
                .wait_for(SOON, |pins| compare::exactly(&first, pins))
                .context("one of two sockets is closed")?;
            mkpins.tell("close-ring2").or_else(|_| mkpins.tell("release")).context("the second socket")?;
        }
        guest.wait_until_empty().with_context(|| arguments.to_owned())?;
    }
    Ok(Outcome::Passed(None))
}

/// A program with a completion queue and a queue pair: its memory regions are listed as such, and nothing else is.
pub fn rdma_queues(guest: &mut Guest) -> Result<Outcome> {
    // The first run pays for what is made only once.
    regions(guest, "")?;
    let (bare, with_queues) = (regions(guest, "")?, regions(guest, "--with-qp")?);
    ensure!(
        bare == with_queues,
        "the kernel pinned {bare} pages for two regions, {with_queues} with queues: queues are pinned, but not listed"
    );
    Ok(Outcome::Passed(Some(format!(
        "soft-RoCE keeps its queues in kernel memory: with and without them the kernel counts {bare} pages pinned"
    ))))
}

/// Makes two regions, which must be all that is listed; the pages that the kernel pinned for it by its own count.
fn regions(guest: &Guest, queues: &str) -> Result<u64> {
    let before = pages_ever_pinned()?;
    let mut mkpins = Mkpins::pinned(&format!("rdma-mr memfd --count 2 {queues}"))?;
    let made = mkpins.made.clone();
    guest.wait_for(SOON, |pins| compare::exactly(&made, pins))?;
    let pinned = pages_ever_pinned()? - before;
    mkpins.tell("release")?;
    guest.wait_until_empty()?;
    Ok(pinned)
}

/// `nr_foll_pin_acquired` of /proc/vmstat, the CPUs' shares folded in (mm/vmstat.c).
fn pages_ever_pinned() -> Result<u64> {
    std::fs::write("/proc/sys/vm/stat_refresh", "1")?;
    let text = std::fs::read_to_string("/proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("nr_foll_pin_acquired "));
    Ok(line.context("/proc/vmstat has no nr_foll_pin_acquired")?.trim().parse()?)
}

/// Two rings, one buffer: one pin, until both let go.
pub fn clone(guest: &mut Guest) -> Result<Outcome> {
    if !guest.at_least(6, 12) {
        return Ok(Outcome::Skipped("this kernel has no IORING_REGISTER_CLONE_BUFFERS (6.12)".to_owned()));
    }
    for order in [["close-anchor", "close-ring2"], ["close-ring2", "close-anchor"]] {
        let mut mkpins = Mkpins::pinned("io_uring memfd --clone")?;
        let listed = |guest: &Guest| {
            guest.wait_for(SOON, |pins| {
                ensure!(
                    pins.len() == 1,
                    "{} pins instead of one: {}",
                    pins.len(),
                    Value::from(pins.to_vec())
                );
                Ok(())
            })
        };
        listed(guest)?;
        mkpins.tell(order[0])?;
        std::thread::sleep(SOON);
        listed(guest).with_context(|| format!("after {}", order[0]))?;
        mkpins.tell(order[1])?;
        guest.wait_until_empty()?;
    }
    Ok(Outcome::Passed(None))
}

/// Slots of a sparse table, filled and replaced one by one.
pub fn sparse_update(guest: &mut Guest) -> Result<Outcome> {
    let mut mkpins = Mkpins::pinned("io_uring memfd --sparse --slots 8 --slot 3")?;
    let slots = |guest: &Guest, wanted: &[u64]| {
        guest.wait_for(SOON, |pins| {
            let mut slots: Vec<u64> =
                pins.iter().filter_map(|pin| pin["io_uring"]["slot"].as_u64()).collect();
            slots.sort_unstable();
            ensure!(
                slots == wanted && pins.len() == wanted.len(),
                "slots {slots:?} of {} pins, not {wanted:?}",
                pins.len()
            );
            Ok(())
        })
    };
    slots(guest, &[3])?;
    mkpins.tell("update 6")?;
    slots(guest, &[3, 6])?;
    mkpins.tell("update 3")?;
    slots(guest, &[3, 6])?;
    mkpins.tell("clear 3")?;
    slots(guest, &[6])?;
    mkpins.tell("release")?;
    guest.wait_until_empty()?;
    Ok(Outcome::Passed(None))
}

/// SIGKILL lets every pin go.
pub fn exit_paths(guest: &mut Guest) -> Result<Outcome> {
    for kind in ["rdma-mr", "io_uring", "xdp"] {
        let mut mkpins = Mkpins::start(&format!("{kind} memfd"))?;
        let made = mkpins.made.clone();
        guest.wait_for(SOON, |pins| compare::exactly(&made, pins)).with_context(|| kind.to_owned())?;
        mkpins.kill();
        guest.wait_until_empty().with_context(|| format!("{kind} after SIGKILL"))?;
    }
    Ok(Outcome::Passed(None))
}
