//! `pinwatch metrics`: totals equal what is listed at the same moment, with the daemon and without.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::leases::{Pinned, covered, pinned};
use super::programs::output;
use crate::Outcome;
use crate::actors::Actors;
use crate::factory::Mkpins;
use crate::guest::Guest;

/// Values by name and labels.
fn metrics(arguments: &[&str]) -> Result<BTreeMap<String, i64>> {
    let all: Vec<&str> = ["metrics"].iter().chain(arguments).copied().collect();
    let (code, text, error) = output("pinwatch", &all)?;
    ensure!(code == 0, "pinwatch metrics: {code} {error}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("no metric: {line}"))?;
            Ok((name.to_owned(), value.parse().with_context(|| format!("no number: {line}"))?))
        })
        .collect()
}

/// What the metrics of pins should be, by the listing.
fn totals(pins: &[Value]) -> BTreeMap<String, i64> {
    let mut totals = BTreeMap::new();
    for pin in pins {
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let labels = format!(
            "{{backing=\"{}\",coverage=\"{}\",subsystem=\"{}\"}}",
            word(&pin["backing"]),
            word(&pin["coverage"]["state"]),
            word(&pin["subsystem"])
        );
        *totals.entry(format!("pinwatch_pins{labels}")).or_default() += 1;
        *totals.entry(format!("pinwatch_pinned_bytes{labels}")).or_default() +=
            pin["bytes"].as_i64().unwrap_or(0);
    }
    totals
}

/// `metrics`.
pub fn metrics_are_totals(guest: &mut Guest) -> Result<Outcome> {
    let anonymous = Mkpins::start("rdma-mr anon --length 1M")?;
    let huge = Mkpins::start("io_uring memfd --length 256K --count 3")?;
    let mut actors = Actors::new()?;
    let Pinned { pid, file, .. } = pinned(&mut actors, "xdp", "/mnt/tmpfs/metrics", "rw")?;
    actors.tell(pid, &format!("lease {file} write"))?;
    let pins = guest.pins()?;
    let (wanted, said) = (totals(&pins), metrics(&[])?);
    let of_pins =
        |name: &str| name.starts_with("pinwatch_pins{") || name.starts_with("pinwatch_pinned_bytes{");
    let listed: BTreeMap<String, i64> = said.clone().into_iter().filter(|(name, _)| of_pins(name)).collect();
    ensure!(listed == wanted, "the metrics are {listed:?}, the listing has {wanted:?}");
    ensure!(wanted.len() == 6, "{wanted:?}");
    ensure!(said["pinwatch_leases{kind=\"lease\",state=\"active\"}"] == 1, "{said:?}");
    // None of these has to have a lease, unless all have to.
    ensure!(said["pinwatch_unleased_pins"] == 0, "{said:?}");
    let all = metrics(&["--require-lease", "all"])?;
    ensure!(all["pinwatch_unleased_pins"] == 3 && all["pinwatch_unleased_bytes"] == 3 << 18, "{all:?}");
    let without = metrics(&["--socket", "/tmp/no-daemon.sock"])?;
    ensure!(without["pinwatch_complete"] == 0, "{without:?}");
    drop((anonymous, huge));
    guest.wait_for(crate::guest::EMPTY, |pins| {
        ensure!(pins.len() == 1, "{} pins", pins.len());
        Ok(())
    })?;
    covered(guest, "write", 1, &[pid], "the last one")?;
    actors.end(pid, true)?;
    Ok(Outcome::Passed(Some(format!("{} metrics", said.len()))))
}
