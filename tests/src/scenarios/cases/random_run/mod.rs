//! The random run over holders: eight processes that open, pin, release, fork, dup, pass on, close, map, unmap, exec, exit
//! and are killed in any order, take leases on the files that they pin, drop, break and pass them on; after each step pins,
//! holders and verdicts are those of a model. The seed repeats it.

mod leases;
mod model;
mod steps;

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Outcome;
use crate::guest::{EMPTY, Guest, SOON};
use model::{Row, Verdict, Ways};
use steps::RandomRun;

/// Steps that a failure tells of.
const TOLD: usize = 12;

/// `holders-random-run`.
pub fn holders(guest: &mut Guest) -> Result<Outcome> {
    let steps = if guest.full { 2000 } else { 200 };
    let _unhurried = leases::Unhurried::begin()?;
    let mut run = RandomRun::new(guest.seed)?;
    let mut told: VecDeque<String> = VecDeque::new();
    let mut rows = 0;
    let mut met: BTreeMap<String, u64> = BTreeMap::new();
    for step in 0..steps {
        let done = run.step();
        if told.len() == TOLD {
            told.pop_front();
        }
        let what = match &done {
            Ok(what) => what.clone(),
            Err(_) => "failed".to_owned(),
        };
        told.push_back(format!("{step}: {what}"));
        let checked = done.map(drop).and_then(|()| check(guest, &run.world.rows()));
        checked.with_context(|| {
            let told: Vec<&str> = told.iter().map(String::as_str).collect();
            let seed = guest.seed;
            format!("step {step}; --seed {seed} repeats it; the last steps were\n{}", told.join("\n"))
        })?;
        for row in run.world.rows() {
            rows += 1;
            let ways = row.holders.values().flatten().filter_map(|way| way.split(' ').next());
            ways.for_each(|way| *met.entry(way.to_owned()).or_default() += 1);
            *met.entry("in flight".to_owned()).or_default() += row.in_flight;
            *met.entry(format!("lease:{}", row.verdict.state)).or_default() += 1;
        }
    }
    let verdicts =
        ["none", "write", "read", "partial", "other", "breaking"].map(|word| format!("lease:{word}"));
    let ways = ["fd", "mapping", "registered", "ring_file", "in flight"].map(str::to_owned);
    for way in ways.iter().chain(&verdicts) {
        let never = met.get(way.as_str()).is_none_or(|times| *times == 0);
        ensure!(!guest.full || !never, "in {steps} steps there was never a pin with: {way}");
    }
    let seed = guest.seed;
    let met: Vec<String> = met.iter().map(|(way, times)| format!("{way} {times}")).collect();
    let met = met.join(", ");
    Ok(Outcome::Passed(Some(format!("{steps} steps, seed {seed}, {rows} rows compared; met {met}"))))
}

/// Waits until what is listed is the truth. A pin that nobody holds any more may take the kernel longer to let go of.
fn check(guest: &Guest, truth: &[Row]) -> Result<()> {
    let compare = |mut rows: Vec<Row>| {
        rows.sort_unstable();
        let missing: Vec<&Row> = truth.iter().filter(|row| !rows.contains(row)).collect();
        let wrong: Vec<&Row> = rows.iter().filter(|row| !truth.contains(row)).collect();
        ensure!(
            rows == truth,
            "of {} rows these are missing: {missing:#?}\nand these wrong: {wrong:#?}",
            truth.len()
        );
        Ok(())
    };
    let held = |row: &Row| !row.holders.is_empty() || row.in_flight > 0;
    guest.wait_for(SOON, |pins| compare(listed(pins)?.into_iter().filter(held).collect()))?;
    guest.wait_for(EMPTY, |pins| compare(listed(pins)?)).context("what nobody holds is not released")
}

fn listed(pins: &[Value]) -> Result<Vec<Row>> {
    pins.iter().map(row).collect()
}

fn row(pin: &Value) -> Result<Row> {
    let number = |value: &Value, name: &str| value.as_u64().with_context(|| format!("no {name} in {pin}"));
    let creator = &pin["creator"];
    ensure!(pin["exact"] == true, "not exact: {pin}");
    Ok(Row {
        kind: pin["type"].as_str().unwrap_or_default().to_owned(),
        creator: number(&creator["pid"], "creator.pid")? as u32,
        alive: creator["alive"].as_bool().context("no creator.alive")?,
        address: number(&pin["address"], "address")?,
        bytes: number(&pin["bytes"], "bytes")?,
        ino: number(&pin["file"]["ino"], "file.ino")?,
        slot: pin["io_uring"]["slot"].as_u64(),
        holders: ways(&pin["holders"])?,
        in_flight: number(&pin["in_flight"], "in_flight")?,
        receivers: ways(&pin["receivers"])?,
        verdict: verdict(&pin["coverage"])?,
    })
}

fn verdict(coverage: &Value) -> Result<Verdict> {
    let pids = coverage["lease_pids"].as_array().into_iter().flatten();
    Ok(Verdict {
        state: coverage["state"].as_str().context("no coverage")?.to_owned(),
        covered: coverage["covered"].as_u64().unwrap_or(0),
        pids: pids.filter_map(|pid| u32::try_from(pid.as_u64()?).ok()).collect(),
    })
}

fn ways(holders: &Value) -> Result<Ways> {
    let one = |holder: &Value| {
        ensure!(holder["comm"] == "mkpins", "a holder is {holder}");
        let via = holder["via"].as_array().into_iter().flatten();
        let words = via.flat_map(|way| way.as_object().into_iter().flatten());
        let ways = words.map(|(what, number)| format!("{what} {number}")).collect();
        Ok((holder["pid"].as_u64().context("a holder has no pid")? as u32, ways))
    };
    holders.as_array().into_iter().flatten().map(one).collect()
}
