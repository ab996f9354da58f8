//! Without the daemon: who holds a pin by procfs, netlink and kcmp; and a procfs that hides, lies or goes away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::programs::{no_panic, output};
use crate::Outcome;
use crate::factory::Mkpins;
use crate::gaps;
use crate::guest::{Guest, SOON, shell};

/// What `lspins --no-daemon -J` says.
fn table() -> Result<Value> {
    let (code, json, error) = output("lspins", &["--no-daemon", "-J"])?;
    no_panic(&error)?;
    ensure!(code < 2, "lspins ends with {code}: {error}");
    serde_json::from_str(&json).with_context(|| format!("lspins says {json:.300}"))
}

/// Processes and descriptors that hold the only pin of a type.
fn holders(kind: &str) -> Result<BTreeSet<(u64, u64)>> {
    let table = table()?;
    let pins: Vec<&Value> =
        table["pins"].as_array().into_iter().flatten().filter(|pin| pin["type"] == kind).collect();
    ensure!(pins.len() == 1, "{} pins of {kind}: {table}", pins.len());
    let holders = pins[0]["holders"].as_array().with_context(|| format!("no holders: {table}"))?;
    let fds = holders.iter().flat_map(|holder| {
        let pid = holder["pid"].as_u64().unwrap_or(0);
        let via = holder["via"].as_array().into_iter().flatten();
        via.filter_map(move |way| Some((pid, way["fd"].as_u64()?)))
    });
    Ok(fds.collect())
}

/// Holders by kcmp: the creator, its child, the child alone.
pub fn kcmp(_guest: &mut Guest) -> Result<Outcome> {
    let diagnostics = shell("modprobe xsk_diag").is_ok();
    let kinds = if diagnostics { &["rdma-mr", "io_uring", "xdp"][..] } else { &["rdma-mr", "io_uring"] };
    for kind in kinds {
        let mut mkpins = Mkpins::pinned(&format!("{kind} memfd"))?;
        let (pid, fd) = (u64::from(mkpins.pid()), mkpins.made["fd"].as_u64().context("no fd")?);
        // Another file of the same device, which must not be taken for it.
        let mut other = Mkpins::start(&format!("{kind} memfd"))?;
        other.tell("release")?;
        let found = holders(kind)?;
        ensure!(found == BTreeSet::from([(pid, fd)]), "{kind}: held by {found:?}");
        let child = mkpins.tell("fork")?["pid"].as_u64().context("no pid")?;
        let found = holders(kind)?;
        ensure!(found == BTreeSet::from([(pid, fd), (child, fd)]), "{kind}, forked: held by {found:?}");
        mkpins.kill();
        let found = holders(kind)?;
        ensure!(found == BTreeSet::from([(child, fd)]), "{kind}, its creator gone: held by {found:?}");
        shell(&format!("kill -9 {child}"))?;
    }
    let note = "AF_XDP not: this kernel has no xsk_diag".to_owned();
    Ok(Outcome::Passed((!diagnostics).then_some(note)))
}

/// A procfs that hides other users' processes, one that may not be read, and processes that end while they are looked at.
pub fn hiding(guest: &mut Guest) -> Result<Outcome> {
    let roots = Mkpins::start("io_uring memfd --length 128K")?;
    let user = "setpriv --reuid 1234 --regid 1234 --clear-groups lspins --no-daemon -J";
    let hidden = format!("unshare -m sh -c 'mount -t proc -o hidepid=2 proc /proc && {user}' || test $? = 1");
    for (command, code, other) in [
        (hidden, "processes_hidden", "processes_denied"),
        (format!("{user} || test $? = 1"), "processes_denied", "processes_hidden"),
    ] {
        let table: Value = serde_json::from_str(&shell(&command)?)?;
        let none = table["pins"].as_array().is_some_and(Vec::is_empty);
        ensure!(none && table["complete"] == false, "{command}: {table}");
        let is_right = gaps::is_open(&table, code) && !gaps::is_open(&table, other);
        ensure!(is_right, "{command}: the gaps are {}", table["gaps"]);
    }
    // The daemon sees with its own eyes: whoever mounts what, root's lspins is complete.
    let all = shell("unshare -m sh -c 'mount -t proc -o hidepid=2 proc /proc && lspins -J'")?;
    let all: Value = serde_json::from_str(&all)?;
    ensure!(all["pins"][0]["holders"][0]["pid"] == roots.made["pid"], "hidepid and the daemon: {all}");
    drop(roots);
    guest.wait_until_empty()?;
    let mut churn = std::process::Command::new("mkpins")
        .args("churn --kind io_uring --iterations 100000000 --kill-every 20 --keep 0 --seconds 60".split(' '))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let until = Instant::now() + Duration::from_secs(if guest.full { 30 } else { 5 });
    let mut rounds = 0;
    let looked = (|| -> Result<()> {
        while Instant::now() < until {
            for table in [table()?, guest.table()?] {
                for pin in table["pins"].as_array().into_iter().flatten() {
                    let comm = &pin["creator"]["comm"];
                    ensure!(comm == "mkpins" || pin["creator"].is_null(), "a wrong row: {pin}");
                }
            }
            rounds += 1;
        }
        Ok(())
    })();
    let _ = churn.kill();
    churn.wait()?;
    looked?;
    Ok(Outcome::Passed(Some(format!("{rounds} looks at processes that come and go"))))
}

/// Names that want to break the table: of a command, and of a control group.
pub fn names(guest: &mut Guest) -> Result<Outcome> {
    let evil = "/tmp/\u{1b}[31mev\nil\u{1b}c";
    let mkpins = shell("command -v mkpins")?;
    std::fs::copy(mkpins.trim(), evil)?;
    let mut command = std::process::Command::new(evil);
    let made = Mkpins::spawn(command.args(["io_uring", "memfd"]), "with an evil name")?;
    for arguments in [&["-o", "+HELDBY"][..], &["--explain", "ID"], &["--no-daemon"], &["--by", "process"]] {
        let id = guest.pins()?[0]["id"].as_str().context("no id")?.to_owned();
        let arguments: Vec<&str> = arguments.iter().map(|a| if *a == "ID" { &id[..] } else { *a }).collect();
        let (code, text, error) = output("lspins", &arguments)?;
        ensure!(code == 0, "{arguments:?}: {code} {error}");
        let escaped = "\\x1b[31mev\\nil\\x1b";
        ensure!(text.contains(escaped) && !text.contains('\u{1b}'), "{arguments:?}: {text:?}");
    }
    drop(made);
    guest.wait_until_empty()?;
    std::fs::remove_file(evil)?;
    long_group(guest)
}

/// A control group whose path is as long as paths can be.
fn long_group(guest: &Guest) -> Result<Outcome> {
    shell("mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup")?;
    const PART: usize = 249;
    const PARTS: usize = 16;
    let enter = format!(
        "cd /sys/fs/cgroup; n=0; while [ $n -lt {PARTS} ]; do p=$(printf '%0{PART}d' $n); mkdir $p; cd $p; n=$((n+1)); \
         done; echo 0 > cgroup.procs; exec \"$@\""
    );
    let made = Mkpins::start_through(&["sh", "-c", &enter, "sh"], "io_uring memfd")?;
    let pid = &made.made["pid"];
    let path = guest.wait_for(SOON, |pins| {
        let pin = pins.iter().find(|pin| pin["creator"]["pid"] == *pid).context("its pin is not listed")?;
        Ok(pin["creator"]["cgroup"].as_str().with_context(|| format!("no cgroup: {pin}"))?.to_owned())
    })?;
    ensure!(path.len() == PARTS * (PART + 1), "its path has {} bytes", path.len());
    let (code, text, error) = output("lspins", &["-o", "PID,CGROUP"])?;
    ensure!(code == 0 && text.contains(&path), "{code} {error} {text:.200}");
    drop(made);
    guest.wait_until_empty()?;
    shell("cd /sys/fs/cgroup && find 0* -depth -type d -exec rmdir {} +")?;
    Ok(Outcome::Passed(None))
}

/// Leases and verdicts by `/proc/locks` and fdinfo alone.
pub fn leases(_guest: &mut Guest) -> Result<Outcome> {
    let path = "/mnt/tmpfs/proc-leases";
    let mut mkpins = Mkpins::pinned(&format!("io_uring file --path {path}"))?;
    let pid = mkpins.pid();
    let is = |state: &str, covered: u64, step: &str| {
        let table = table()?;
        let pins = table["pins"].as_array().context("no pins")?;
        ensure!(pins.len() == 1, "{step}: {} pins", pins.len());
        let coverage = &pins[0]["coverage"];
        ensure!(coverage["state"] == state && coverage["covered"] == covered, "{step}: {coverage}");
        Ok(())
    };
    is("none", 0, "pinned")?;
    mkpins.tell("lease write")?;
    is("write", 1, "leased")?;
    let (code, text, error) = output("lspins", &["--no-daemon", "--leases", "-n"])?;
    no_panic(&error)?;
    let wanted = format!("lease write active ? mkpins[{pid}] - 1 64.0K {path}");
    let words: Vec<&str> = text.split_whitespace().collect();
    ensure!(code == 0 && words.join(" ") == wanted, "--leases says {text} {error}");
    let child = mkpins.tell("fork")?["pid"].as_u64().context("no pid")?;
    is("partial", 1, "forked")?;
    shell(&format!("kill -9 {child}"))?;
    mkpins.tell("close")?;
    // The mapping keeps the lease, which procfs does not tell.
    is("unknown", 0, "only mapped")?;
    mkpins.tell("munmap")?;
    is("unknown", 0, "unmapped")?;
    let code = output("lspins", &["--no-daemon", "--leases"])?.0;
    ensure!(code == 1, "--leases ends with {code} where there are none");
    Ok(Outcome::Passed(None))
}
