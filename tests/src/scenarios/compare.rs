//! What mkpins made against what lspins lists.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const PAGE: u64 = 4096;

/// Bytes of a pin by what is behind them: file (`dev:ino`, or `anon`) to extents (offset, length) in ascending order,
/// neighbours joined; anonymous memory has no offsets, so its runs count as one.
type Behind = BTreeMap<String, Vec<(u64, u64)>>;

fn add(behind: &mut Behind, file: String, offset: u64, length: u64) {
    behind.entry(file).or_default().push((offset, length));
}

fn joined(mut behind: Behind) -> Behind {
    for (file, extents) in &mut behind {
        if file == "anon" {
            *extents = vec![(0, extents.iter().map(|(_, length)| length).sum())];
            continue;
        }
        extents.sort_unstable();
        let mut out: Vec<(u64, u64)> = Vec::new();
        for (offset, length) in extents.drain(..) {
            match out.last_mut() {
                Some(last) if last.0 + last.1 == offset => last.1 += length,
                _ => out.push((offset, length)),
            }
        }
        *extents = out;
    }
    behind
}

/// What mkpins says is behind an object; its parts cover whole pages and are cut to the pin here.
fn truth(parts: &[Value], address: u64, length: u64) -> Result<Behind> {
    let mut behind = Behind::new();
    for part in parts {
        let number = |name: &str| part[name].as_u64().with_context(|| format!("no {name} in {part}"));
        let (start, size) = (number("address")?, number("length")?);
        let from = start.max(address);
        let to = (start + size).min(address + length);
        if from >= to {
            continue;
        }
        if part["backing"] == "anon" {
            add(&mut behind, "anon".to_owned(), 0, to - from);
        } else {
            let file = format!("{}:{}", part["dev"].as_str().unwrap_or("?"), part["ino"]);
            add(&mut behind, file, number("offset")? + (from - start), to - from);
        }
    }
    Ok(joined(behind))
}

/// What lspins says is behind a pin.
fn said(pin: &Value) -> Result<Behind> {
    let mut behind = Behind::new();
    let whole = [pin.clone()];
    let parts = pin["parts"].as_array().map_or(&whole[..], Vec::as_slice);
    for part in parts {
        if part["file"].is_null() {
            ensure!(part["backing"] == "anon", "a part without a file is {}", part["backing"]);
            add(&mut behind, "anon".to_owned(), 0, part["bytes"].as_u64().unwrap_or(0));
            continue;
        }
        let file = format!("{}:{}", part["file"]["dev"].as_str().unwrap_or("?"), part["file"]["ino"]);
        for extent in part["extents"].as_array().into_iter().flatten() {
            let number = |name: &str| extent[name].as_u64().with_context(|| format!("no {name} in {extent}"));
            add(&mut behind, file.clone(), number("offset")?, number("length")?);
        }
    }
    Ok(joined(behind))
}

/// The type word that lspins uses for a kind of mkpins.
fn type_of(kind: &str) -> &str {
    kind
}

/// Checks that every object of `made` is listed exactly once and right, and nothing else is.
pub fn exactly(made: &Value, pins: &[Value]) -> Result<()> {
    let objects = made["objects"].as_array().context("mkpins names no objects")?;
    ensure!(
        pins.len() == objects.len(),
        "{} pins are listed, {} exist: {}",
        pins.len(),
        objects.len(),
        Value::from(pins.to_vec())
    );
    let mut left: Vec<&Value> = pins.iter().collect();
    for object in objects {
        let same = |pin: &&Value| {
            (pin["address"] == object["address"] || object["unmapped"] == true && pin["address"].is_null())
                && pin["bytes"] == object["length"]
                && (object["slot"].is_null() || pin["io_uring"]["slot"] == object["slot"])
                && (object["iova"].is_null() || pin["vfio"]["iova"] == object["iova"])
                && (object["lkey"].is_null() || pin["rdma"]["lkey"] == object["lkey"])
        };
        let at = left
            .iter()
            .position(same)
            .with_context(|| format!("no pin is {object}; there are {}", Value::from(pins.to_vec())))?;
        one(made, object, left.swap_remove(at))?;
    }
    Ok(())
}

/// Checks one pin against the object that it stands for.
pub fn one(made: &Value, object: &Value, pin: &Value) -> Result<()> {
    let kind = made["kind"].as_str().context("no kind")?;
    ensure!(pin["type"] == type_of(kind), "type {} for {kind}", pin["type"]);
    let mode = made["mode"].as_str().unwrap_or("rw");
    ensure!(pin["mode"] == mode, "mode {}, not {mode}", pin["mode"]);
    let (address, length) = (object["address"].as_u64().unwrap_or(0), object["length"].as_u64().unwrap_or(0));
    let pages = (address + length - 1) / PAGE - address / PAGE + 1;
    ensure!(pin["pages"].as_u64() == Some(pages), "pages {}, not {pages}", pin["pages"]);
    let creator = &pin["creator"];
    let pid = if object["pid"].is_null() { &made["pid"] } else { &object["pid"] };
    ensure!(
        creator["pid"] == *pid && creator["comm"] == "mkpins" && creator["uid"] == 0,
        "creator {creator}"
    );
    ensure!(pin["origin"] == "trace", "origin {}", pin["origin"]);
    ensure!(pin["exact"] == true, "not exact: {}", pin["doubt"]);
    let parts = if object["parts"].is_null() { &made["parts"] } else { &object["parts"] };
    let parts = parts.as_array().context("mkpins names no parts")?;
    let (truth, said) = (truth(parts, address, length)?, said(pin)?);
    ensure!(truth == said, "behind it is {truth:?}, listed is {said:?}");
    for part in parts.iter().filter(|part| part["backing"] != "anon") {
        paths(part, pin)?;
    }
    Ok(())
}

/// Checks backing and path of a file's part.
fn paths(part: &Value, pin: &Value) -> Result<()> {
    let whole = [pin.clone()];
    let listed = pin["parts"].as_array().map_or(&whole[..], Vec::as_slice);
    let Some(entry) = listed
        .iter()
        .find(|entry| entry["file"]["ino"] == part["ino"] && entry["file"]["dev"] == part["dev"])
    else {
        // A part of the mapping that lies outside of this object.
        return Ok(());
    };
    ensure!(entry["backing"] == part["backing"], "backing {}, not {}", entry["backing"], part["backing"]);
    let truth = part["path"].as_str().unwrap_or_default();
    let truth = truth.strip_suffix(" (deleted)").unwrap_or(truth);
    ensure!(entry["file"]["path"] == truth, "path {}, not {truth:?}", entry["file"]["path"]);
    if let Some(generation) = part["generation"].as_u64() {
        ensure!(
            entry["file"]["generation"].as_u64() == Some(generation),
            "generation {}, not {generation}",
            entry["file"]["generation"]
        );
    }
    Ok(())
}
