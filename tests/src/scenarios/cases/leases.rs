//! Leases: whether those who hold a pin would be asked before its file is taken away.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::programs::output;
use crate::Outcome;
use crate::actors::Actors;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON, shell};

/// A process with an anchor, and a pin on a file that it has open.
pub struct Pinned {
    pub pid: u32,
    /// The anchor's descriptor.
    pub anchor: u64,
    /// The file's.
    pub file: u64,
}

/// Makes one. Kernels since 6.5 let an ordinary file be pinned for reading only.
pub fn pinned(actors: &mut Actors, kind: &str, path: &str, mode: &str) -> Result<Pinned> {
    fs::write(path, vec![7_u8; 16384])?;
    pinned_as_it_is(actors, kind, path, mode)
}

/// The same with a file that is there.
fn pinned_as_it_is(actors: &mut Actors, kind: &str, path: &str, mode: &str) -> Result<Pinned> {
    let pid = actors.spawn()?.pid;
    let answer = actors.tell(pid, &format!("open {kind} keep"))?;
    let (anchor, with) = (answer["fd"].as_u64().context("no fd")?, answer["pd"].as_u64().unwrap_or(0));
    let file = actors.number(pid, &format!("open-file {path} {mode} keep"), "fd")?;
    actors.tell(pid, &format!("pin {anchor} {kind} {with} {file} 4 {mode}"))?;
    Ok(Pinned { pid, anchor, file })
}

/// Waits until the only pin's coverage is as wanted.
pub fn covered(guest: &Guest, state: &str, covered: u64, pids: &[u32], step: &str) -> Result<()> {
    guest
        .wait_for(SOON, |pins| {
            ensure!(pins.len() == 1, "{} pins are listed", pins.len());
            let coverage = &pins[0]["coverage"];
            let said: BTreeSet<u64> =
                coverage["lease_pids"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
            let wanted: BTreeSet<u64> = pids.iter().map(|pid| u64::from(*pid)).collect();
            ensure!(
                coverage["state"] == state && coverage["covered"] == covered && said == wanted,
                "not {state}, {covered}, {wanted:?}, but {coverage}"
            );
            Ok(())
        })
        .with_context(|| step.to_owned())?;
    agrees(step)
}

/// `--leases` has what `/proc/locks` has: file, process, kind, mode and state.
pub fn agrees(step: &str) -> Result<()> {
    let (code, text, error) = output("lspins", &["--leases", "-J"])?;
    ensure!(code < 2, "{step}: lspins --leases: {code} {error}");
    let document: Value = serde_json::from_str(&text)?;
    let ours: BTreeSet<String> = (document["leases"].as_array().into_iter().flatten())
        .map(|lease| {
            let (file, word) =
                (&lease["file"], |name: &str| lease[name].as_str().unwrap_or("?").to_uppercase());
            // There an expired lease still is being broken, and a layout is called a lease.
            let state = if word("state") == "ACTIVE" { "ACTIVE" } else { "BREAKING" };
            let kind = if word("kind") == "DELEG" { "DELEG" } else { "LEASE" };
            let dev = file["dev"].as_str().unwrap_or("?");
            let mode = if state == "ACTIVE" { word("mode") } else { String::new() };
            format!("{kind} {state} {mode} {} {dev}:{}", lease["taker"]["pid"], file["ino"])
        })
        .collect();
    let theirs: BTreeSet<String> = fs::read_to_string("/proc/locks")?
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() > 5 && (words[1] == "LEASE" || words[1] == "DELEG"))
        .map(|words| {
            let file: Vec<&str> = words[5].split(':').collect();
            let hex = |word: &str| u32::from_str_radix(word, 16).unwrap_or(u32::MAX);
            let file = format!("{}:{}:{}", hex(file[0]), hex(file[1]), file[2]);
            // Of one that is being broken it names what is to become of it.
            let mode = if words[2] == "ACTIVE" { words[3] } else { "" };
            format!("{} {} {mode} {} {file}", words[1], words[2], words[4])
        })
        .collect();
    ensure!(ours == theirs, "{step}: --leases has {ours:?}, /proc/locks {theirs:?}");
    Ok(())
}

/// The kinds that can be pinned on a file system, and how.
pub fn kinds(guest: &Guest, on_disk: bool) -> &'static [(&'static str, &'static str)] {
    match (on_disk, guest.at_least(6, 5)) {
        (false, _) => &[("rdma-mr", "rw"), ("io_uring", "rw"), ("xdp", "rw")],
        (true, false) => &[("rdma-mr", "rw"), ("xdp", "rw")],
        (true, true) => &[("rdma-mr", "ro")],
    }
}

/// The rule, kept and violated: the lease goes with `close`, the pin stays.
pub fn violation(guest: &mut Guest) -> Result<Outcome> {
    let mut cells = 0;
    for (place, on_disk) in [("/mnt/tmpfs", false), ("/mnt/ext4", true), ("/mnt/xfs", true)] {
        for (kind, mode) in kinds(guest, on_disk) {
            let step = |what: &str| format!("{kind} {mode} on {place}: {what}");
            let path = format!("{place}/leased");
            let mut actors = Actors::new()?;
            let Pinned { pid, file, .. } = pinned(&mut actors, kind, &path, mode)?;
            covered(guest, "none", 0, &[], &step("pinned"))?;
            let unleased = output("lspins", &["--unleased"])?.0;
            ensure!((unleased == 0) == on_disk, "{}: --unleased ends with {unleased}", step("pinned"));
            let unleased = output("lspins", &["--unleased", "--require-lease", "all"])?.0;
            ensure!(unleased == 0, "{}: --unleased, all required: {unleased}", step("pinned"));
            let lease = if *mode == "rw" { "write" } else { "read" };
            actors.tell(pid, &format!("lease {file} {lease}"))?;
            covered(guest, lease, 1, &[pid], &step("leased"))?;
            ensure!(
                output("lspins", &["--unleased", "--require-lease", "all"])?.0 == 1,
                "{}",
                step("leased")
            );
            ensure!(output("lspins", &["--coverage", lease])?.0 == 0, "{}", step("--coverage"));
            actors.tell(pid, &format!("close {file}"))?;
            covered(guest, "none", 0, &[], &step("closed"))?;
            // The daemon warns of it where its policy wants a lease.
            let id = guest.pins()?[0]["id"].as_str().unwrap_or("?").to_owned();
            let warned = guest.log()?.contains(&format!(
                "a pin has lost its lease: its file can be truncated or removed without its holders being asked pin={id} "
            ));
            ensure!(warned == on_disk, "{}: warned: {warned}", step("closed"));
            let file = actors.number(pid, &format!("open-file {path} {mode} keep"), "fd")?;
            actors.tell(pid, &format!("lease {file} {lease}"))?;
            covered(guest, lease, 1, &[pid], &step("leased again"))?;
            actors.tell(pid, &format!("lease {file} none"))?;
            covered(guest, "none", 0, &[], &step("dropped"))?;
            actors.end(pid, true)?;
            guest.wait_until_empty()?;
            cells += 1;
        }
    }
    Ok(Outcome::Passed(Some(format!("{cells} kinds on file systems"))))
}

/// Where files can be pinned, and how an RDMA region of them is made there.
fn places(guest: &Guest) -> [(&'static str, &'static str); 3] {
    let on_disk = if guest.at_least(6, 5) { "ro" } else { "rw" };
    [("/mnt/tmpfs", "rw"), ("/mnt/ext4", on_disk), ("/mnt/xfs", on_disk)]
}

/// The pin is passed on, the lease is not; then the receiver takes its own.
pub fn passed_on(guest: &mut Guest) -> Result<Outcome> {
    for (place, mode) in places(guest) {
        passed_on_at(guest, &format!("{place}/passed-on"), mode).with_context(|| place.to_owned())?;
    }
    Ok(Outcome::Passed(None))
}

fn passed_on_at(guest: &Guest, path: &str, mode: &str) -> Result<()> {
    let mut actors = Actors::new()?;
    let Pinned { pid, anchor, file } = pinned(&mut actors, "rdma-mr", path, mode)?;
    // A read lease wants nobody to have the file open for writing.
    actors.tell(pid, &format!("close {file}"))?;
    let file = actors.number(pid, &format!("open-file {path} ro keep"), "fd")?;
    actors.tell(pid, &format!("lease {file} read"))?;
    covered(guest, "read", 1, &[pid], "leased")?;
    let other = actors.spawn()?.pid;
    let socket = "/tmp/pass-pin";
    actors.order(other, &format!("recv {socket} keep"))?;
    actors.tell(pid, &format!("send {socket} {anchor}"))?;
    let got = actors.answer(other)?["fd"].as_u64().context("no fd")?;
    covered(guest, "partial", 1, &[pid], "passed on")?;
    let theirs = actors.number(other, &format!("open-file {path} ro keep"), "fd")?;
    actors.tell(other, &format!("lease {theirs} read"))?;
    covered(guest, "read", 2, &[pid, other], "both have a lease")?;
    let second = actors.tell(other, &format!("lease {theirs} write"));
    ensure!(second.is_err_and(|error| format!("{error:#}").contains("EAGAIN")), "two exclusive leases");
    actors.tell(other, &format!("lease {theirs} none"))?;
    actors.tell(pid, &format!("close {anchor}"))?;
    covered(guest, "other", 0, &[pid], "only the process that does not hold it has a lease")?;
    let id = guest.pins()?[0]["id"].as_str().unwrap_or("?").to_owned();
    let text = output("lspins", &["--explain", &id])?.1;
    let said = format!("the signal goes to mkpins[{pid}], which does not hold the pin");
    ensure!(text.contains(&said), "--explain says {text}");
    actors.tell(other, &format!("close {got}"))?;
    guest.wait_until_empty()?;
    actors.end(pid, false)?;
    actors.end(other, false)
}

/// The lease lives as long as any copy of its descriptor: dup, fork, exec, a message, a mapping, a ring's file.
pub fn copies(guest: &mut Guest) -> Result<Outcome> {
    let path = "/mnt/tmpfs/copies";
    let mut actors = Actors::new()?;
    let Pinned { pid, anchor, file } = pinned(&mut actors, "io_uring", path, "rw")?;
    actors.tell(pid, &format!("lease {file} write"))?;
    let copy = actors.number(pid, &format!("dup {file} cloexec"), "fd")?;
    actors.tell(pid, &format!("close {file}"))?;
    covered(guest, "write", 1, &[pid], "a copy is left")?;
    let child = actors.number(pid, "fork", "pid")? as u32;
    actors.welcome(child)?;
    covered(guest, "write", 2, &[pid, child], "forked")?;
    actors.tell(child, &format!("close {copy}"))?;
    covered(guest, "partial", 1, &[pid], "the child has closed its copy")?;
    actors.end(child, true)?;
    covered(guest, "write", 1, &[pid], "the child is gone")?;
    let answer = actors.tell(pid, "box")?;
    actors.tell(pid, &format!("put {} {copy}", answer["a"]))?;
    actors.tell(pid, &format!("close {copy}"))?;
    // The lease is there, and nobody who could be asked has the file.
    guest
        .wait_for(SOON, |pins| {
            ensure!(pins[0]["coverage"]["state"] == "other", "{}", pins[0]["coverage"]);
            Ok(())
        })
        .context("in a message")?;
    agrees("in a message")?;
    let back = actors.number(pid, &format!("take {} keep", answer["b"]), "fd")?;
    covered(guest, "write", 1, &[pid], "received")?;
    actors.tell(pid, &format!("file {anchor} 0 {back}"))?;
    actors.tell(pid, &format!("close {back}"))?;
    covered(guest, "write", 1, &[pid], "registered with the ring")?;
    actors.tell(pid, &format!("unfile {anchor} 0"))?;
    covered(guest, "none", 0, &[], "the last copy is gone")?;
    let file = actors.number(pid, &format!("open-file {path} rw cloexec"), "fd")?;
    actors.tell(pid, &format!("lease {file} write"))?;
    covered(guest, "write", 1, &[pid], "leased again")?;
    actors.order(pid, "exec")?;
    actors.welcome(pid)?;
    covered(guest, "none", 0, &[], "exec has closed it")?;
    actors.end(pid, false)?;
    Ok(Outcome::Passed(None))
}

/// Somebody wants to write: the seconds run down, then the lease is worth nothing.
pub fn breaks(guest: &mut Guest) -> Result<Outcome> {
    let time = "/proc/sys/fs/lease-break-time";
    let usual = fs::read_to_string(time)?;
    let [tmpfs, ext4, xfs] = places(guest);
    for ((place, mode), seconds) in [(tmpfs, "45"), (tmpfs, "2"), (tmpfs, "0"), (ext4, "2"), (xfs, "2")] {
        fs::write(time, seconds)?;
        let path = &format!("{place}/broken");
        let mut actors = Actors::new()?;
        let kind = if place == tmpfs.0 { "io_uring" } else { "rdma-mr" };
        let Pinned { pid, file, .. } = pinned(&mut actors, kind, path, mode)?;
        actors.tell(pid, &format!("lease {file} write"))?;
        covered(guest, "write", 1, &[pid], &format!("{seconds} s: leased"))?;
        let breaker = actors.spawn()?.pid;
        ensure!(actors.tell(breaker, &format!("break {path}"))?["waits"] == true, "the lease stops nobody");
        let left = guest
            .wait_for(SOON, |pins| {
                let coverage = &pins[0]["coverage"];
                ensure!(coverage["state"] == "breaking", "{seconds} s: {coverage}");
                Ok(coverage["seconds_left"].as_u64())
            })
            .context("being broken")?;
        agrees("being broken")?;
        match seconds {
            "45" => {
                ensure!(left.is_some_and(|left| (40..=45).contains(&left)), "45 s, and {left:?} are left");
                std::thread::sleep(std::time::Duration::from_secs(2));
                let later = guest.pins()?[0]["coverage"]["seconds_left"].as_u64();
                ensure!(later < left, "it stood at {left:?} and stands at {later:?}");
                let leases = output("lspins", &["--leases"])?.1;
                ensure!(leases.contains(" breaking 4"), "--leases says {leases}");
            }
            "2" => covered(guest, "none", 0, &[], "its time is up")?,
            // The kernel waits for ever.
            _ => ensure!(left.is_none(), "without a deadline {left:?} are left"),
        }
        actors.tell(pid, &format!("lease {file} none"))?;
        covered(guest, "none", 0, &[], "dropped")?;
        actors.end(pid, true)?;
        actors.end(breaker, true)?;
        guest.wait_until_empty()?;
    }
    fs::write(time, usual)?;
    Ok(Outcome::Passed(None))
}

/// A lease on an overlay's file, and a pin on the one below: the file that was made, copied up, or only read.
pub fn overlay(guest: &mut Guest) -> Result<Outcome> {
    if shell("modprobe overlay").is_err() {
        return Ok(Outcome::Skipped("this kernel has no overlayfs".to_owned()));
    }
    shell(
        "cd /mnt/tmpfs && mkdir -p lower upper work merged && head -c 16384 /dev/zero | tee lower/old > lower/read && \
         mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged",
    )?;
    let mut cells = 0;
    for (name, mode) in [("new", "rw"), ("old", "rw"), ("read", "ro")] {
        if mode == "ro" && !guest.at_least(6, 5) {
            // Pins for reading need a mapping that can be written to before 6.5.
            continue;
        }
        let path = format!("/mnt/tmpfs/merged/{name}");
        let step = |what: &str| format!("{path}: {what}");
        let mut actors = Actors::new()?;
        let kind = if mode == "ro" { "rdma-mr" } else { "io_uring" };
        let Pinned { pid, file, .. } = match mode {
            "ro" => pinned_as_it_is(&mut actors, kind, &path, mode)?,
            _ => pinned(&mut actors, kind, &path, mode)?,
        };
        covered(guest, "none", 0, &[], &step("pinned"))?;
        let lease = if mode == "ro" { "read" } else { "write" };
        actors.tell(pid, &format!("lease {file} {lease}"))?;
        covered(guest, lease, 1, &[pid], &step("leased through the overlay"))?;
        let document: Value = serde_json::from_str(&output("lspins", &["--leases", "-J"])?.1)?;
        let listed = &document["leases"][0];
        ensure!(listed["file"]["path"] == path.as_str(), "{listed}");
        ensure!(listed["pins"].as_array().is_some_and(|pins| pins.len() == 1), "{listed}");
        actors.tell(pid, &format!("lease {file} none"))?;
        covered(guest, "none", 0, &[], &step("dropped"))?;
        actors.end(pid, false)?;
        guest.wait_until_empty()?;
        cells += 1;
    }
    shell("umount /mnt/tmpfs/merged")?;
    Ok(Outcome::Passed(Some(format!("{cells} files"))))
}

/// What cannot be leased is no violation: anonymous memory, a device, and huge pages where the kernel refuses.
pub fn nothing_to_lease(guest: &mut Guest) -> Result<Outcome> {
    let huge = if guest.at_least(7, 0) { "n/a" } else { "none" };
    let mut cells = vec![
        ("io_uring anon".to_owned(), "n/a"),
        ("io_uring memfd".to_owned(), "none"),
        ("io_uring file --path /mnt/huge/lease --length 2M".to_owned(), huge),
    ];
    if let Some(device) = &guest.devdax {
        cells.push((format!("rdma-mr devdax --path {device} --length 2M"), "n/a"));
    }
    for (arguments, state) in &cells {
        let mkpins = Mkpins::pinned(arguments)?;
        covered(guest, state, 0, &[], arguments)?;
        drop(mkpins);
        guest.wait_until_empty()?;
    }
    let mut mkpins = Mkpins::start("io_uring file --path /mnt/huge/lease --length 2M")?;
    let granted = mkpins.tell("lease write");
    if guest.at_least(7, 0) {
        ensure!(granted.is_err_and(|error| format!("{error:#}").contains("EINVAL")), "a lease on hugetlbfs");
    } else {
        granted?;
        covered(guest, "write", 1, &[mkpins.pid()], "hugetlbfs, leased")?;
    }
    drop(mkpins);
    shell("rm -f /mnt/huge/lease")?;
    Ok(Outcome::Passed(Some(format!("{} cells; hugetlbfs: {huge}", cells.len()))))
}
