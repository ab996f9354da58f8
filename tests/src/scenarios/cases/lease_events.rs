//! What happens to leases, as it is told: taken, broken, dropped, who waited and how it ended, which verdicts changed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::leases::{Pinned, agrees, covered, pinned};
use super::programs::output;
use crate::Outcome;
use crate::actors::Actors;
use crate::guest::{Guest, SOON, eventually, shell};
use crate::schema;

const BREAK_TIME: &str = "/proc/sys/fs/lease-break-time";
/// More events than the daemon keeps.
const FLOOD: u64 = 1500;

/// `lspins --events --follow -j`, while it runs.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(path: &str) -> Result<Self> {
        let mut child = Command::new("lspins")
            .args(["--events", "--follow", "-j", path])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next event for which this holds; others are passed over.
    fn next(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + SOON;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let event: Value = serde_json::from_str(&line)?;
                    schema::check_value(schema::What::Lines("event"), &event)?;
                    if is_it(&event) {
                        return Ok(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("{what} is not told within {} s", SOON.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("lspins --follow has ended before {what}"),
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The events on a file so far.
pub fn told(path: &str) -> Result<Vec<Value>> {
    let (code, text, error) = output("lspins", &["--events", "-j", path])?;
    ensure!(code < 2, "lspins --events: {code} {error}");
    text.lines().map(|line| serde_json::from_str(line).context("no JSON")).collect()
}

/// Waits for the latest event of a kind on a file to be as wanted.
fn latest(path: &str, kind: &str, check: impl Fn(&Value) -> Result<()>) -> Result<Value> {
    eventually(SOON, || {
        let event = told(path)?.into_iter().rfind(|event| event["event"] == kind);
        Ok(event.with_context(|| format!("no {kind}")).and_then(|event| check(&event).map(|()| event)))
    })
}

/// The classical violation: the lease goes with the last descriptor, the pin stays, and who follows is told which.
pub fn events(guest: &mut Guest) -> Result<Outcome> {
    let path = "/mnt/tmpfs/events";
    fs::write(path, "")?;
    let follower = Follower::start(path)?;
    let mut actors = Actors::new()?;
    // The follower has to be there before the pin is made.
    std::thread::sleep(Duration::from_secs(1));
    let Pinned { pid, file, .. } = pinned(&mut actors, "rdma-mr", path, "rw")?;
    let made = follower.next("the pin", |event| event["event"] == "pin_made")?;
    let id = guest.pins()?[0]["id"].clone();
    ensure!(made["pins"][0] == id && made["process"]["pid"] == pid && made["bytes"] == 16384, "{made}");
    actors.tell(pid, &format!("lease {file} write"))?;
    let taken = follower.next("the lease", |event| event["event"] == "lease_taken")?;
    ensure!(taken["lease"]["taker"]["pid"] == pid && taken["lease"]["mode"] == "write", "{taken}");
    let is_verdict =
        |to: &'static str| move |event: &Value| event["event"] == "coverage" && event["to"] == to;
    let covered = follower.next("the verdict `write`", is_verdict("write"))?;
    ensure!(covered["pins"][0] == id && covered["file"]["path"] == path, "{covered}");
    let closed = Instant::now();
    actors.tell(pid, &format!("close {file}"))?;
    let lost = follower.next("the verdict `none`", is_verdict("none"))?;
    let after = closed.elapsed();
    ensure!(lost["pins"][0] == id && lost["from"] == "write", "{lost}");
    actors.end(pid, true)?;
    follower.next("the release", |event| event["event"] == "pin_released" && event["pins"][0] == id)?;
    let warning = format!("is taken away pin={} ", id.as_str().unwrap_or("?"));
    ensure!(!guest.log()?.contains(&warning), "tmpfs needs no lease, and yet the daemon warns of it");
    Ok(Outcome::Passed(Some(format!("the verdict came {} ms after the close", after.as_millis()))))
}

/// Who waits is shown while they do, and how it ended afterwards.
pub fn waits(guest: &mut Guest) -> Result<Outcome> {
    let path = "/mnt/tmpfs/waits";
    let usual = fs::read_to_string(BREAK_TIME)?;
    let mut actors = Actors::new()?;
    let Pinned { pid, file, .. } = pinned(&mut actors, "io_uring", path, "rw")?;
    // A write lease can become a read lease only if nobody has the file open for writing, its holder included.
    actors.tell(pid, &format!("close {file}"))?;
    let file = actors.number(pid, &format!("open-file {path} ro keep"), "fd")?;
    let id = guest.pins()?[0]["id"].clone();
    let mut breaker = actors.spawn()?.pid;
    // Seconds, what breaks it, what the holder does then, and the outcome.
    let cuts = format!("truncate {path} 4096");
    let reads = format!("open-file {path} ro keep");
    for (seconds, order, answer, outcome) in [
        ("45", &cuts, Some("none"), "released"),
        ("45", &reads, Some("read"), "downgraded"),
        ("1", &cuts, None, "timed_out"),
        ("1", &reads, None, "timed_out"),
        ("0", &cuts, Some("none"), "released"),
        ("0", &cuts, None, "given_up"),
    ] {
        let step = format!("{seconds} s, {order}: {outcome}");
        fs::write(BREAK_TIME, seconds)?;
        actors.tell(pid, &format!("lease {file} write"))?;
        covered(guest, "write", 1, &[pid], &step)?;
        actors.order(breaker, order)?;
        let (call, wants) = if *order == cuts { ("truncate", "write") } else { ("openat", "read") };
        if seconds != "1" {
            waiting(guest, pid, breaker, call, wants, seconds).with_context(|| step.clone())?;
        }
        match (answer, outcome) {
            (Some(lease), _) => drop(actors.tell(pid, &format!("lease {file} {lease}"))?),
            (None, "given_up") => {
                actors.end(breaker, true)?;
                breaker = 0;
            }
            _ => {}
        }
        let ended = latest(path, "break_ended", |event| {
            ensure!(
                event["outcome"] == outcome && event["call"] == call && event["wants"] == wants,
                "{step}: {event}"
            );
            Ok(())
        })?;
        ensure!(ended["pins"][0] == id && ended["process"]["comm"] == "mkpins", "{step}: {ended}");
        let waited = ended["waited_seconds"].as_f64().context("no time")?;
        // The clock of a guest and its ticks do not run evenly.
        ensure!(seconds != "1" || (0.5..3.0).contains(&waited), "{step}: it waited {waited} s");
        if breaker != 0 {
            let answer = actors.answer(breaker).with_context(|| format!("{step}: the breaker"))?;
            if let Some(fd) = answer["fd"].as_u64() {
                actors.tell(breaker, &format!("close {fd}"))?;
            }
        }
        let state = match (*order == cuts, outcome) {
            (_, "given_up") => "breaking",
            (true, _) => "none",
            (false, _) => "read",
        };
        let count = u64::from(state == "read");
        let pids: &[u32] = if state == "none" { &[] } else { &[pid] };
        covered(guest, state, count, pids, &step)?;
        if state != "none" {
            actors.tell(pid, &format!("lease {file} none"))?;
            covered(guest, "none", 0, &[], &step)?;
        }
    }
    fs::write(BREAK_TIME, usual)?;
    actors.end(pid, true)?;
    Ok(Outcome::Passed(None))
}

/// The row of the lease, and the explanation of the pin, name who waits.
fn waiting(guest: &Guest, pid: u32, breaker: u32, call: &str, wants: &str, seconds: &str) -> Result<()> {
    let left = guest.wait_for(SOON, |pins| {
        let coverage = &pins[0]["coverage"];
        ensure!(coverage["state"] == "breaking", "{coverage}");
        Ok(coverage["seconds_left"].clone())
    })?;
    ensure!(left.is_null() == (seconds == "0"), "{left} seconds are left of {seconds}");
    let document: Value = serde_json::from_str(&output("lspins", &["--leases", "-J"])?.1)?;
    let lease =
        document["leases"].as_array().into_iter().flatten().find(|lease| lease["taker"]["pid"] == pid);
    let lease = lease.context("the lease is not listed")?;
    let waiter = &lease["waiters"][0];
    ensure!(
        waiter["pid"] == breaker && waiter["call"] == call && waiter["wants"] == wants,
        "who waits is said to be {waiter}"
    );
    ensure!(lease["taken"].is_string() && lease["broken"].is_string(), "{lease}");
    let id = guest.pins()?[0]["id"].as_str().unwrap_or("?").to_owned();
    let text = output("lspins", &["--explain", &id])?.1;
    let said = format!("mkpins[{breaker}] {call}");
    ensure!(
        text.contains(&said) && text.contains("waits for the lease to be released"),
        "--explain says {text}"
    );
    agrees("while it is being waited for")
}

/// Many leases do not push breaks out of the history, and it does not grow.
pub fn history(guest: &mut Guest) -> Result<Outcome> {
    let path = "/mnt/tmpfs/history";
    let mut actors = Actors::new()?;
    let Pinned { pid, file, .. } = pinned(&mut actors, "io_uring", path, "rw")?;
    actors.tell(pid, &format!("lease {file} write"))?;
    let breaker = actors.spawn()?.pid;
    for _ in 0..3 {
        ensure!(actors.tell(breaker, &format!("break {path}"))?["waits"] == true, "the lease stops nobody");
    }
    actors.tell(pid, &format!("lease {file} none"))?;
    latest(path, "lease_dropped", |_| Ok(()))?;
    actors.tell(pid, &format!("lease-loop {file} {FLOOD}"))?;
    std::thread::sleep(Duration::from_secs(2));
    let events = told(path)?;
    let count = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
    // Trying again is no other break.
    ensure!(count("break_began") == 1, "{} breaks", count("break_began"));
    let others = count("lease_taken") + count("lease_dropped");
    let (_, all, _) = output("lspins", &["--events", "-j"])?;
    ensure!(all.lines().count() <= 2000, "{} events are kept", all.lines().count());
    ensure!(others >= 900, "only {others} of the latest events are kept");
    let times: Vec<&str> = all.lines().filter_map(|line| line.split('"').nth(3)).collect();
    ensure!(!times.is_empty(), "no times");
    actors.end(pid, true)?;
    actors.end(breaker, true)?;
    guest.wait_until_empty()?;
    Ok(Outcome::Passed(Some(format!("{others} of {} other events kept", 2 * FLOOD))))
}

/// A delegation that a process has taken (F_SETDELEG): broken by what does not open the file, too.
pub fn delegations(guest: &mut Guest) -> Result<Outcome> {
    if !guest.at_least(6, 19) {
        return Ok(Outcome::Skipped(
            "processes can take delegations from Linux 6.19 on (F_SETDELEG)".to_owned(),
        ));
    }
    let path = "/mnt/tmpfs/delegated";
    let mut actors = Actors::new()?;
    let Pinned { pid, file, .. } = pinned(&mut actors, "io_uring", path, "rw")?;
    actors.tell(pid, &format!("deleg {file} write"))?;
    covered(guest, "deleg", 1, &[pid], "delegated")?;
    let document: Value = serde_json::from_str(&output("lspins", &["--leases", "-J", path])?.1)?;
    ensure!(document["leases"][0]["kind"] == "deleg", "{document}");
    let breaker = actors.spawn()?.pid;
    actors.order(breaker, &format!("unlink {path}"))?;
    latest(path, "break_began", |event| {
        ensure!(event["call"] == "unlink" && event["waits"] == true, "{event}");
        ensure!(event["leases"][0]["kind"] == "deleg", "{event}");
        Ok(())
    })?;
    agrees("being broken")?;
    actors.tell(pid, &format!("deleg {file} none"))?;
    actors.answer(breaker)?;
    covered(guest, "none", 0, &[], "dropped")?;
    actors.end(pid, true)?;
    actors.end(breaker, true)?;
    Ok(Outcome::Passed(None))
}

/// `/proc/locks` hides what processes of other pid namespaces have; lspins does not.
pub fn namespaces(guest: &mut Guest) -> Result<Outcome> {
    let path = "/mnt/tmpfs/namespaces";
    let mut actors = Actors::new()?;
    let Pinned { pid, file, .. } = pinned(&mut actors, "io_uring", path, "rw")?;
    actors.tell(pid, &format!("lease {file} write"))?;
    covered(guest, "write", 1, &[pid], "leased")?;
    let inside = shell(
        "unshare --pid --fork --mount-proc sh -c 'grep -c LEASE /proc/locks; lspins --leases -n /mnt/tmpfs/namespaces'",
    )?;
    let mut lines = inside.lines();
    ensure!(lines.next() == Some("0"), "/proc/locks of another pid namespace shows it: {inside}");
    ensure!(
        lines.next().is_some_and(|line| line.contains(path)),
        "lspins in another pid namespace: {inside}"
    );
    actors.end(pid, true)?;
    Ok(Outcome::Passed(None))
}
