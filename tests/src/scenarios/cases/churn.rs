//! Many pins at once, coming and going, beside remapping and killing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::gaps;
use crate::guest::{Guest, SOON};

/// Buffers are registered while another thread maps and unmaps without pause. Each row is exact, or says that it is not.
pub fn remap_race(guest: &mut Guest) -> Result<Outcome> {
    let (mut rows, mut doubtful) = (0, 0);
    for (kind, count) in [("io_uring", 64), ("rdma-mr", 64), ("xdp", 1)] {
        for round in 0..if guest.full { 20 } else { 4 } {
            let seed = guest.seed + round;
            let mut mkpins = Mkpins::start(&format!(
                "remap-race --kind {kind} --count {count} --iterations 3 --seed {seed}"
            ))?;
            ensure!(mkpins.refused().is_none(), "{}", mkpins.made);
            let made = mkpins.made.clone();
            let doing = || format!("{kind}, seed {seed}");
            let objects = made["objects"].as_array().context("no objects")?.clone();
            guest
                .wait_for(SOON, |pins| {
                    ensure!(pins.len() == count, "{} pins instead of {count}", pins.len());
                    let exact: Vec<Value> = pins.iter().filter(|pin| pin["exact"] == true).cloned().collect();
                    exact.iter().try_for_each(|pin| {
                        let same = |object: &&Value| {
                            pin["address"] == object["address"]
                                && (object["lkey"].is_null() || pin["rdma"]["lkey"] == object["lkey"])
                        };
                        let object = objects.iter().find(same).context("a pin is none of mkpins")?;
                        compare::one(&made, object, pin)
                    })
                })
                .with_context(doing)?;
            rows += count;
            doubtful += guest.pins()?.iter().filter(|pin| pin["exact"] != true).count();
            mkpins.kill();
            guest.wait_until_empty()?;
        }
    }
    Ok(Outcome::Passed(Some(format!("{doubtful} of {rows} rows say that they are not exact"))))
}

/// Buffers are registered while another thread keeps mappings locked, so that they cannot be looked at: what is known of the
/// pages, and of the files' names since an earlier pin, is enough.
pub fn mappings_locked(guest: &mut Guest) -> Result<Outcome> {
    let mut rows = 0;
    for (kind, count) in [("io_uring", 16), ("rdma-mr", 16), ("xdp", 1)] {
        let mut mkpins =
            Mkpins::pinned(&format!("remap-race --kind {kind} --count {count} --iterations 2 --locked"))?;
        guest.wait_for(SOON, |pins| compare::exactly(&mkpins.made, pins)).with_context(|| kind.to_owned())?;
        rows += count;
        mkpins.kill();
        guest.wait_until_empty()?;
    }
    Ok(Outcome::Passed(Some(format!("{rows} rows"))))
}

/// How many calls or pins the daemon says it lost.
pub(super) fn lost(table: &Value) -> u64 {
    let losses = [
        "skipped_hooks",
        "missed_returns",
        "pins_full",
        "extents_full",
        "files_full",
        "calls_full",
        "shares_full",
        "leases_full",
        "waiters_full",
    ];
    losses.iter().map(|code| gaps::count(table, code)).sum()
}

/// Registrations and releases from four processes at once, some killed in between. The table has to be right, whatever
/// the daemon says it may have lost.
pub fn churn(guest: &mut Guest) -> Result<Outcome> {
    // A registration takes io_uring of 6.1 some 17 ms of waiting for RCU, whatever the machine.
    let slow_io_uring = !guest.at_least(6, 2);
    let mut notes = Vec::new();
    for kind in ["rdma-mr", "io_uring", "xdp"] {
        let iterations = match (guest.full, kind) {
            (true, "io_uring") if slow_io_uring => 4000,
            (true, "rdma-mr" | "io_uring") => 20_000,
            (true, _) => 4000,
            (false, "io_uring") if slow_io_uring => 600,
            (false, "xdp") => 600,
            (false, _) => 3000,
        };
        let arguments = format!(
            "churn --kind {kind} --iterations {iterations} --processes 4 --kill-every 200 --keep 3 --seed {} --seconds 240",
            guest.seed
        );
        let lost_before = lost(&guest.table()?);
        let mut command = std::process::Command::new("mkpins");
        command.args(arguments.split_ascii_whitespace());
        let mut mkpins = Mkpins::spawn_patiently(&mut command, &arguments, Duration::from_secs(300))?;
        let told = mkpins.made.clone();
        let alive = told["alive"].as_array().context("no alive list")?.clone();
        let compared = guest.wait_for(Duration::from_secs(15), |pins| {
            ensure!(pins.len() == alive.len(), "{} pins are listed, {} exist", pins.len(), alive.len());
            for object in &alive {
                let same = |pin: &&Value| pin["creator"]["pid"] == object["pid"] && pin["address"] == object["address"] && pin["bytes"] == object["length"];
                let pin = pins.iter().find(same).with_context(|| format!("no pin is {object}"))?;
                let made = serde_json::json!({"kind": object["kind"], "pid": object["pid"], "mode": "rw", "parts": object["parts"]});
                compare::one(&made, object, pin)?;
            }
            Ok(())
        });
        let table = guest.table()?;
        compared.with_context(|| {
            format!("{kind} after {}: the gaps are {}", told["registrations"], table["gaps"])
        })?;
        // An upper bound: the kernel counts what it skipped, not whether it was about a pin.
        let lost = lost(&table).saturating_sub(lost_before);
        notes.push(format!(
            "{kind}: {} registrations, {} killed, {} alive, at most {lost} calls lost",
            told["registrations"],
            told["killed"],
            alive.len(),
        ));
        mkpins.kill();
        guest.wait_until_empty().with_context(|| format!("{kind} after churn"))?;
    }
    Ok(Outcome::Passed(Some(notes.join("; "))))
}

/// A small generator whose sequence a seed repeats (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Programs that register, release, unmap, close and die in any order; after every few steps the table is as it should be.
pub fn random_run(guest: &mut Guest) -> Result<Outcome> {
    const PROGRAMS: usize = 6;
    const KINDS: [&str; 6] = [
        "rdma-mr memfd",
        "io_uring memfd",
        "xdp memfd",
        "rdma-mr anon --count 3",
        "io_uring anon --count 4",
        "io_uring file --path /mnt/tmpfs/random-run",
    ];
    let steps = if guest.full { 2000 } else { 200 };
    let mut random = Random(guest.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut programs: Vec<Option<(Mkpins, bool)>> = (0..PROGRAMS).map(|_| None).collect();
    for step in 0..steps {
        let at = random.below(PROGRAMS);
        let action = random.below(6);
        let doing = || format!("step {step}, seed {}", guest.seed);
        match (programs[at].take(), action) {
            (None, _) => {
                let mkpins = Mkpins::start(KINDS[random.below(KINDS.len())]).with_context(doing)?;
                ensure!(mkpins.refused().is_none(), "{}: {}", doing(), mkpins.made);
                programs[at] = Some((mkpins, true));
            }
            (Some((mut mkpins, true)), 0 | 1) if mkpins.made["kind"] != "xdp" => {
                mkpins.tell("release").with_context(doing)?;
                programs[at] = Some((mkpins, false));
            }
            (Some((mut mkpins, false)), 0..=3) => {
                let made = mkpins.tell("register");
                match made {
                    Ok(made) => {
                        mkpins.made = made;
                        programs[at] = Some((mkpins, true));
                    }
                    // Its memory is unmapped: nothing can be registered any more.
                    Err(_) => mkpins.kill(),
                }
            }
            (Some((mut mkpins, pinned)), 2 | 3) => {
                let command = if action == 2 { "munmap" } else { "close" };
                // A second munmap is refused, which changes nothing.
                let _ = mkpins.tell(command);
                programs[at] = Some((mkpins, pinned));
            }
            (Some((mut mkpins, _)), 4) => mkpins.kill(),
            (Some((mkpins, _)), 5) => mkpins.end(),
            (Some(program), _) => programs[at] = Some(program),
        }
        if step % 5 != 4 && step + 1 != steps {
            continue;
        }
        let alive: Vec<&Value> =
            programs.iter().flatten().filter(|(_, pinned)| *pinned).map(|(mkpins, _)| &mkpins.made).collect();
        guest
            .wait_for(Duration::from_secs(15), |pins| {
                let expected: usize =
                    alive.iter().map(|made| made["objects"].as_array().map_or(0, Vec::len)).sum();
                ensure!(pins.len() == expected, "{} pins are listed, {expected} exist", pins.len());
                for made in &alive {
                    let theirs: Vec<Value> =
                        pins.iter().filter(|pin| pin["creator"]["pid"] == made["pid"]).cloned().collect();
                    compare::exactly(made, &theirs)?;
                }
                Ok(())
            })
            .with_context(doing)?;
    }
    drop(programs);
    Ok(Outcome::Passed(Some(format!("{steps} steps, seed {}", guest.seed))))
}
