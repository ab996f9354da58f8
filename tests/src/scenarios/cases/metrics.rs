//! `pinwatch metrics`: totals equal what is listed at the same moment, with the daemon and without.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::leases::{Pinned, covered, pinned};
use super::programs::output;
use super::prometheus::{ADDRESS, curl, eventually};
use crate::Outcome;
use crate::actors::Actors;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON};

/// Values by name and labels.
fn metrics(arguments: &[&str]) -> Result<BTreeMap<String, f64>> {
    let all: Vec<&str> = ["metrics"].iter().chain(arguments).copied().collect();
    let (code, text, error) = output("pinwatch", &all)?;
    ensure!(code == 0, "pinwatch metrics: {code} {error}");
    values(&text)
}

/// The same of a text, which promtool has to find no fault with.
fn values(text: &str) -> Result<BTreeMap<String, f64>> {
    std::fs::write("/tmp/metrics.prom", text)?;
    let (code, said, error) = output("sh", &["-c", "promtool check metrics < /tmp/metrics.prom"])?;
    ensure!(code == 0 && said.is_empty() && error.is_empty(), "promtool: {code} {said}{error}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("no metric: {line}"))?;
            Ok((name.to_owned(), value.parse().with_context(|| format!("no number: {line}"))?))
        })
        .collect()
}

/// What the metrics of pins should be, by the listing.
fn totals(pins: &[Value]) -> BTreeMap<String, f64> {
    let mut totals = BTreeMap::new();
    for pin in pins {
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let labels = format!(
            "{{subsystem=\"{}\",backing=\"{}\",coverage=\"{}\"}}",
            word(&pin["subsystem"]),
            word(&pin["backing"]),
            word(&pin["coverage"]["state"])
        );
        *totals.entry(format!("pinwatch_pins{labels}")).or_default() += 1.0;
        *totals.entry(format!("pinwatch_pinned_bytes{labels}")).or_default() +=
            pin["bytes"].as_f64().unwrap_or(0.0);
    }
    totals
}

/// What the daemon serves.
fn served() -> Result<BTreeMap<String, f64>> {
    values(&curl(&[&format!("http://{ADDRESS}/metrics")])?.body)
}

/// Names that others choose are in the metrics only where they are asked for, and never more than so many.
pub fn names(guest: &mut Guest) -> Result<Outcome> {
    let cgroup = "/sys/fs/cgroup/e\"vil\\.slice";
    std::fs::create_dir_all(cgroup)?;
    let mut actors = Actors::new()?;
    let mut pids = Vec::new();
    for n in 0..4 {
        let path = format!("/mnt/tmpfs/a\"}} {n}\n# HELP x \\");
        std::fs::write(&path, vec![0_u8; 16384])?;
        let pid = actors.spawn()?.pid;
        std::fs::write(format!("{cgroup}/cgroup.procs"), pid.to_string())?;
        let ring = actors.number(pid, "open io_uring keep", "fd")?;
        let link = format!("/tmp/link{n}");
        std::os::unix::fs::symlink(&path, &link)?;
        let file = actors.number(pid, &format!("open-file {link} rw keep"), "fd")?;
        actors.tell(pid, &format!("pin {ring} io_uring 0 {file} 4 rw"))?;
        std::fs::remove_file(&link)?;
        std::fs::remove_file(&path)?;
        pids.push(pid);
    }
    guest.wait_for(SOON, |pins| {
        ensure!(pins.len() == 4, "{} pins", pins.len());
        Ok(())
    })?;
    let text = eventually(SOON * 5, || {
        let text = curl(&[&format!("http://{ADDRESS}/metrics")])?.body;
        ensure!(text.contains("pinwatch_folded_groups{by=\"file\"} 2"), "{text}");
        Ok(text)
    })?;
    let all = values(&text)?;
    let of = |name: &str| all.keys().filter(|key| key.starts_with(name)).count();
    // Two, and all others.
    ensure!(of("pinwatch_file_pinned_bytes{") == 3 && of("pinwatch_user_pinned_bytes{") == 1, "{all:?}");
    ensure!(all.keys().any(|key| key.contains(r#"slice="e\"vil\\\\.slice""#)), "{all:?}");
    ensure!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("p")), "{text}");
    for pid in pids {
        actors.end(pid, true)?;
    }
    guest.wait_until_empty()?;
    std::fs::remove_dir(cgroup)?;
    Ok(Outcome::Passed(None))
}

/// Each subsystem's pins by size are as many as were made, and no class has fewer than none.
fn sizes_add_up(served: &BTreeMap<String, f64>) -> Result<()> {
    const MADE: &str = "pinwatch_pins_made_total{";
    let mut subsystems = 0;
    for (name, made) in served.iter().filter(|(name, _)| name.starts_with(MADE)) {
        let labels = &name[MADE.len()..];
        let count = served.get(&format!("pinwatch_registration_bytes_count{{{labels}"));
        ensure!(count == Some(made), "{name} is {made}, the sizes are of {count:?} pins");
        subsystems += 1;
    }
    ensure!(subsystems > 0, "no subsystem has totals");
    Ok(())
}

/// `metrics`.
pub fn metrics_are_totals(guest: &mut Guest) -> Result<Outcome> {
    let anonymous = Mkpins::start("rdma-mr anon --length 1M")?;
    let huge = Mkpins::start("io_uring memfd --length 256K --count 3")?;
    // Pinned in several batches: where unclaimed pins are looked for, such a one grows before it is claimed and taken back.
    let batches = Mkpins::start("rdma-mr anon --length 16M")?;
    let mut actors = Actors::new()?;
    let Pinned { pid, file, .. } = pinned(&mut actors, "xdp", "/mnt/tmpfs/metrics", "rw")?;
    actors.tell(pid, &format!("lease {file} write"))?;
    let pins = guest.pins()?;
    let (wanted, said) = (totals(&pins), metrics(&[])?);
    let of_pins =
        |name: &str| name.starts_with("pinwatch_pins{") || name.starts_with("pinwatch_pinned_bytes{");
    let listed: BTreeMap<String, f64> = said.clone().into_iter().filter(|(name, _)| of_pins(name)).collect();
    ensure!(listed == wanted, "the metrics are {listed:?}, the listing has {wanted:?}");
    ensure!(wanted.len() == 6, "{wanted:?}");
    ensure!(said["pinwatch_leases{kind=\"lease\",state=\"active\"}"] == 1.0, "{said:?}");
    let served = served()?;
    sizes_add_up(&served)?;
    let differs = |name: &String| of_pins(name) && served.get(name) != said.get(name);
    ensure!(!said.keys().chain(served.keys()).any(differs), "HTTP has {served:?}, the command {said:?}");
    ensure!(served["pinwatch_pins_made_total{subsystem=\"xdp\"}"] >= 1.0, "{served:?}");
    ensure!(served.len() < 500, "{} series", served.len());
    // None of these has to have a lease, unless all have to.
    ensure!(said["pinwatch_unleased_pins"] == 0.0, "{said:?}");
    let all = metrics(&["--require-lease", "all"])?;
    ensure!(
        all["pinwatch_unleased_pins"] == 3.0 && all["pinwatch_unleased_bytes"] == f64::from(3 << 18),
        "{all:?}"
    );
    let without = metrics(&["--socket", "/tmp/no-daemon.sock"])?;
    let gap = |of: &BTreeMap<String, f64>, code: &str| {
        of.get(&format!("pinwatch_gaps{{code=\"{code}\"}}")).copied()
    };
    ensure!(
        gap(&without, "procfs_subsystems") == Some(1.0) && without["pinwatch_complete"] == 0.0,
        "{without:?}"
    );
    let of_daemon = [gap(&said, "before"), gap(&said, "pins_full"), gap(&said, "procfs_subsystems")];
    ensure!(of_daemon == [Some(1.0), Some(0.0), None], "{said:?}");
    drop((anonymous, huge, batches));
    guest.wait_for(crate::guest::EMPTY, |pins| {
        ensure!(pins.len() == 1, "{} pins", pins.len());
        Ok(())
    })?;
    covered(guest, "write", 1, &[pid], "the last one")?;
    actors.end(pid, true)?;
    Ok(Outcome::Passed(Some(format!("{} metrics", said.len()))))
}
