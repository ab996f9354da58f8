//! Pins that no subsystem claims: of a driver that pinwatch does not know, and of subsystems that are switched off.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::devices;
use super::programs::{Own, table_at};
use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::guest::{EMPTY, Guest, SOON, eventually, shell, start_daemon};

/// A release is seen at the next tick, half a second later at most; a guest is 20 times slower than the machine.
pub(super) const BOUND: Duration = Duration::from_secs(3);

/// The driver, unloaded when it goes.
pub(super) struct Driver;

impl Driver {
    pub(super) fn load() -> Result<Self> {
        shell("mkpins module load")?;
        Ok(Self)
    }
}

impl Driver {
    /// Unloads it with all that it has pinned.
    fn unload(self) -> Result<()> {
        std::mem::forget(self);
        shell("mkpins module unload").map(drop)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // What a scenario that failed has left would stay for ever.
        let _ = shell("mkpins module release");
        let _ = shell("mkpins module unload");
    }
}

/// What lspins has of the driver's only pin.
fn of_driver(pins: &[Value]) -> Result<&Value> {
    ensure!(pins.len() == 1, "{} pins are listed: {}", pins.len(), Value::from(pins.to_vec()));
    let (pin, caller) = (&pins[0], &pins[0]["unclaimed"]);
    ensure!(
        pin["object"] == "(pintest)" && caller["module"] == "pintest" && caller["module_loaded"] == true,
        "it is {} of {caller}",
        pin["object"]
    );
    ensure!(!caller["function"].is_null(), "no function: {caller}");
    let stack = caller["stack"].as_array().cloned().unwrap_or_default();
    let named = |frame: &Value| frame.as_str().is_some_and(|frame| frame.ends_with("[pintest]"));
    ensure!(stack.first().is_some_and(named), "its stack is {}", caller["stack"]);
    let is_call = |frame: &Value| frame.as_str().is_some_and(|frame| frame.starts_with("__x64_sys_ioctl"));
    ensure!(stack.iter().any(is_call), "its stack does not reach the system call: {}", caller["stack"]);
    Ok(pin)
}

/// Through each of the kernel's functions, in batches, and let go of in process context, in a kworker, in an RCU callback.
pub fn functions(guest: &mut Guest) -> Result<Outcome> {
    let _driver = Driver::load()?;
    let backings = [
        "memfd --length 3M --offset 8192 --batch 100",
        "file --path /mnt/tmpfs/unclaimed --length 1M",
        "anon --length 2M --batch 512",
        "memfd-huge --length 4M --batch 300",
        "layout",
    ];
    let mut slowest = Duration::ZERO;
    let mut done = 0;
    for (at, by) in ["pages", "fast", "remote", "unlocked", "folios"].into_iter().enumerate() {
        // 6.1 has no such function for folios, and refuses pages for the long term by the one that takes the lock itself.
        if by == "folios" && !guest.at_least(6, 11) || by == "unlocked" && !guest.at_least(6, 2) {
            continue;
        }
        for (nth, release) in ["process", "kworker", "rcu"].into_iter().enumerate() {
            // Each function and each place once; with --full each function with each place.
            if !guest.full && nth != at % 3 {
                continue;
            }
            // Folios are of a memfd, or of a file on tmpfs or hugetlbfs.
            let backing = match (by, backings[(at + nth) % backings.len()]) {
                ("folios", _) => {
                    ["memfd --length 1M --offset 8192", "memfd-huge --length 4M", backings[1]][nth]
                }
                (_, "layout") => "--layout memfd:0:3,anon:5,memfd:8192:8 --batch 4",
                (_, backing) => backing,
            };
            let arguments = format!("unclaimed {backing} --by {by} --release-in {release}");
            one(guest, &arguments, &mut slowest).with_context(|| arguments.clone())?;
            done += 1;
        }
    }
    Ok(Outcome::Passed(Some(format!(
        "{done} pins; the last to be seen gone was {} ms after it was let go of",
        slowest.as_millis()
    ))))
}

fn one(guest: &Guest, arguments: &str, slowest: &mut Duration) -> Result<()> {
    let mut mkpins = Mkpins::pinned(arguments)?;
    let made = mkpins.made.clone();
    guest.wait_for(SOON, |pins| {
        of_driver(pins)?;
        compare::exactly(&made, pins)
    })?;
    mkpins.tell("munmap")?;
    mkpins.tell("close")?;
    guest.wait_for(SOON, |pins| of_driver(pins).map(|_| ()))?;
    mkpins.tell("release")?;
    let released = Instant::now();
    guest.wait_until_empty_for(BOUND)?;
    *slowest = (*slowest).max(released.elapsed());
    Ok(())
}

/// A module that is unloaded with its pins held: they are shown, by its name.
pub fn unloaded(guest: &mut Guest) -> Result<Outcome> {
    let driver = Driver::load()?;
    let mkpins = Mkpins::pinned("unclaimed memfd --length 1M")?;
    guest.wait_for(SOON, |pins| of_driver(pins).map(|_| ()))?;
    let slots: Value = serde_json::from_str(&shell("mkpins module slots")?)?;
    let [slot, how, array, number] = [0, 1, 2, 3].map(|part| slots["slots"][0][part].to_string());
    driver.unload()?;
    let check = |pins: &[Value]| {
        ensure!(pins.len() == 1, "{} pins are listed", pins.len());
        let (pin, caller) = (&pins[0], &pins[0]["unclaimed"]);
        ensure!(
            pin["object"] == "(pintest) unloaded"
                && caller["module_loaded"] == false
                && !caller["function"].is_null(),
            "{pin}"
        );
        compare::exactly(&mkpins.made, pins)
    };
    guest.wait_for(SOON, check)?;
    let driver = Driver::load()?;
    // Loaded again it may be where it was.
    shell(&format!("mkpins module adopt {slot} {how} {array} {number} && mkpins module release"))?;
    guest.wait_until_empty_for(BOUND)?;
    drop(driver);
    Ok(Outcome::Passed(None))
}

/// What is pinned of each subsystem.
const OF_SUBSYSTEMS: [(&str, &str); 7] = [
    ("rdma", "rdma-mr memfd --length 4M --offset 8192"),
    ("io_uring", "io_uring memfd --length 4M --offset 8192"),
    ("io_uring", "io_uring-mem memfd --length 64K --offset 8192"),
    ("xdp", "xdp file --path /mnt/tmpfs/without --length 1M"),
    ("udmabuf", "udmabuf memfd --length 1M --offset 8192"),
    ("vfio", "vfio memfd --length 4M --offset 8192"),
    ("v4l2", "v4l2 memfd --length 128K --offset 8192"),
];

/// Subsystems switched off, all at once or, with --full, in turn: their pins turn up as unclaimed, with the same bytes and
/// files; where they are on they are listed once, as their own.
pub fn without(guest: &mut Guest) -> Result<Outcome> {
    devices::load(guest)?;
    let here = || OF_SUBSYSTEMS.into_iter().filter(|(_, arguments)| devices::has(guest, arguments));
    let mut all: Vec<&str> = here().map(|(name, _)| name).collect();
    all.dedup();
    let turns: Vec<Vec<&str>> = match guest.full {
        true => all.iter().map(|name| vec![*name]).chain([all.clone()]).collect(),
        false => vec![all],
    };
    for off in turns {
        let socket = "/tmp/without.sock";
        let names = off.join(",");
        let options =
            ["--attach", &guest.attach, "--socket", socket, "--unclaimed", "on", "--without", &names];
        let options = [&options[..], &["--web.listen-address", ""]].concat();
        let _own = Own(start_daemon(&options, "/tmp/without.log")?);
        for (name, arguments) in here() {
            switched_off(guest, socket, arguments, off.contains(&name))
                .with_context(|| format!("{name} without {names}"))?;
        }
    }
    Ok(Outcome::Passed(None))
}

fn switched_off(guest: &Guest, socket: &str, arguments: &str, is_off: bool) -> Result<()> {
    let mut mkpins = Mkpins::pinned(arguments)?;
    guest.wait_for(SOON, |pins| compare::exactly(&mkpins.made, pins))?;
    let mut made = mkpins.made.clone();
    if is_off {
        made["kind"] = "unclaimed".into();
        for object in made["objects"].as_array_mut().into_iter().flatten() {
            for key in ["lkey", "slot", "iova"] {
                object.as_object_mut().map(|object| object.remove(key));
            }
        }
    }
    let listed =
        || -> Result<Vec<Value>> { Ok(table_at(socket)?["pins"].as_array().cloned().unwrap_or_default()) };
    eventually(SOON, || Ok(compare::exactly(&made, &listed()?)))?;
    mkpins.tell("release")?;
    eventually(EMPTY, || {
        let left = listed()?.len();
        Ok(if left == 0 { Ok(()) } else { Err(anyhow::anyhow!("{left} pins are left")) })
    })
}
