//! Pins that the kernel refuses: `lspins --refused` has each once, with the reason.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::programs::output;
use crate::Outcome;
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
