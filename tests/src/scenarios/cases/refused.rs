//! Pins that the kernel refuses: `lspins --refused` has each once, with the reason.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::programs::output;
use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON, eventually, shell};

/// What lspins says was refused to a process.
pub(super) fn of(pid: u32) -> Result<Vec<Value>> {
    let (code, lines, error) = output("lspins", &["--refused", "-j", "-p", &pid.to_string()])?;
    ensure!(code < 2, "lspins --refused: {error}");
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Checks that a process was refused one pin, which mkpins tells of, for this reason.
pub(super) fn once(made: &Value, kind: &str, errno: &str, reason: &str) -> Result<Value> {
    let pid = made["pid"].as_u64().context("mkpins names no pid")? as u32;
    eventually(SOON, || {
        let all = of(pid)?;
        let check = || {
            ensure!(all.len() == 1, "{} refusals: {}", all.len(), Value::from(all.clone()));
            let one = &all[0];
            let subsystem = kind.split('-').next().unwrap_or(kind);
            ensure!(
                one["subsystem"] == subsystem && one["error"] == errno && one["reason"] == reason,
                "{errno} because of {reason} was expected, and there is {one}"
            );
            ensure!(one["process"]["comm"] == "mkpins" && one["bytes"].as_u64() > Some(0), "{one}");
            Ok(one.clone())
        };
        Ok(check())
    })
}

/// The limits of memory that may be locked, by each counter; and what is not mapped.
pub fn refused(guest: &mut Guest) -> Result<Outcome> {
    shell("chmod 666 /dev/infiniband/uverbs*")?;
    let user = "setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=+net_raw --ambient-caps=+net_raw prlimit --memlock=65536:65536";
    let wrapper: Vec<&str> = user.split(' ').collect();
    for (arguments, kind, errno, counter) in [
        ("io_uring memfd --length 128K", "io_uring", "ENOMEM", "user"),
        ("rdma-mr memfd --length 128K", "rdma", "ENOMEM", "pinned"),
        ("xdp memfd --length 128K", "xdp", "ENOBUFS", "user"),
    ] {
        let mkpins = Mkpins::start_through(&wrapper, arguments)?;
        ensure!(mkpins.refused() == Some(errno), "{arguments}: {}", mkpins.made);
        let one = once(&mkpins.made, kind, errno, "memlock").with_context(|| arguments.to_owned())?;
        let memlock = &one["memlock"];
        ensure!(memlock["counter"] == counter && memlock["limit"] == 65536, "{arguments}: {memlock}");
        ensure!(one["process"]["uid"] == 1000, "{}", one["process"]);
    }
    // Another user sees what was refused to them, and nothing else.
    let (_, theirs, _) =
        output("setpriv", &["--reuid", "1000", "--clear-groups", "lspins", "--refused", "-j"])?;
    ensure!(theirs.lines().count() >= 3 && !theirs.contains("\"uid\":0"), "they see {theirs}");
    let mut mkpins = Mkpins::start("rdma-mr memfd --length 128K")?;
    mkpins.tell("release")?;
    mkpins.tell("munmap")?;
    mkpins.order("register")?;
    let answer = mkpins.answer(SOON)?;
    ensure!(answer["error"]["name"] == "EFAULT", "{answer}");
    once(&mkpins.made, "rdma", "EFAULT", "unmapped")?;
    let (_, text, _) = output("lspins", &["--refused", "-p", &mkpins.pid().to_string()])?;
    ensure!(text.contains("nothing is mapped at 0x"), "it says {text}");
    // Nobody may look into secret memory, devices included.
    for kind in ["rdma-mr", "io_uring"] {
        let mkpins = Mkpins::start(&format!("{kind} secret"))?;
        ensure!(mkpins.refused() == Some("EFAULT"), "{kind}: {}", mkpins.made);
        once(&mkpins.made, kind, "EFAULT", "secret").with_context(|| kind.to_owned())?;
    }
    guest.wait_until_empty()?;
    Ok(Outcome::Passed(None))
}

/// Memory whose pages the kernel can move, as long as nobody else holds them: the last block that can be made so.
struct Movable {
    block: PathBuf,
}

impl Movable {
    /// `None` where no block can be taken offline.
    fn make() -> Result<Option<Self>> {
        let blocks = fs::read_dir("/sys/devices/system/memory").context("no memory blocks")?;
        let number = |path: &Path| path.to_str()?.rsplit_once("memory")?.1.parse::<u32>().ok();
        let mut blocks: Vec<PathBuf> =
            blocks.flatten().map(|entry| entry.path()).filter(|path| number(path).is_some()).collect();
        blocks.sort_by_key(|path| number(path));
        for block in blocks.into_iter().rev() {
            let state = block.join("state");
            if fs::write(&state, "offline").is_ok() {
                fs::write(&state, "online_movable").context("a memory block stays offline")?;
                return Ok(Some(Self { block }));
            }
        }
        Ok(None)
    }
}

impl Drop for Movable {
    fn drop(&mut self) {
        // What cannot be moved out of it any more keeps it as it is, which harms nothing.
        let state = self.block.join("state");
        let _ = fs::write(&state, "offline").and_then(|()| fs::write(&state, "online_kernel"));
    }
}

/// Pages that somebody else holds cannot be moved out of a movable zone, and are refused; let go of, they can.
pub fn movable(guest: &mut Guest) -> Result<Outcome> {
    let Some(_movable) = Movable::make()? else {
        return Ok(Outcome::Skipped("no block of memory can be taken offline".to_owned()));
    };
    for kind in ["io_uring", "rdma-mr", "xdp"] {
        let mut mkpins = Mkpins::start(&format!("{kind} anon --length 64K --held --stay"))?;
        let no_memory = mkpins.refused();
        ensure!(no_memory == Some("ENOMEM"), "{kind}: {}", mkpins.made);
        let one = once(&mkpins.made, kind, "ENOMEM", "no-memory").with_context(|| kind.to_owned())?;
        ensure!(one["bytes"] == 65536, "{kind}: {one}");
        mkpins.tell("let-go")?;
        mkpins.order("register")?;
        let made = mkpins.answer(SOON)?;
        guest.wait_for(SOON, |pins| compare::exactly(&made, pins)).with_context(|| kind.to_owned())?;
        drop(mkpins);
        guest.wait_until_empty()?;
    }
    Ok(Outcome::Passed(None))
}
