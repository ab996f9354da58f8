//! Who may see what: root all, others what their own processes made or hold.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::programs::{no_panic, output};
use crate::Outcome;
use crate::actors::Actors;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON};

/// Runs a command as another user; with options of setpriv that take an id each.
const USER: [&str; 5] = ["--reuid", "1234", "--regid", "1234", "--clear-groups"];
const OTHER: [&str; 5] = ["--reuid", "1235", "--regid", "1235", "--clear-groups"];

fn lspins(setpriv: &[&str], arguments: &[&str]) -> Result<(i32, String, String)> {
    let all: Vec<&str> = setpriv.iter().chain(&["lspins"]).chain(arguments).copied().collect();
    let (code, out, error) = output("setpriv", &all)?;
    no_panic(&error)?;
    Ok((code, out, error))
}

fn table(setpriv: &[&str]) -> Result<Value> {
    let (_, json, error) = lspins(setpriv, &["-J"])?;
    serde_json::from_str(&json).with_context(|| format!("lspins says {json}{error}"))
}

/// Two users and root, pins of each, ids that are tried, and a pin that one passes to the other.
pub fn other_user(guest: &mut Guest) -> Result<Outcome> {
    let roots = Mkpins::start("io_uring memfd --length 128K")?;
    let through: Vec<&str> = ["setpriv"].iter().chain(&USER).copied().collect();
    let theirs = Mkpins::start_through(&through, "io_uring anon --length 4K")?;
    ensure!(theirs.refused().is_none(), "{}", theirs.made);
    let seen = table(&USER)?;
    let pins = seen["pins"].as_array().context("no pins")?;
    ensure!(pins.len() == 1 && pins[0]["creator"]["pid"] == theirs.made["pid"], "they see {seen}");
    ensure!(!seen.to_string().contains("memfd:mkpins"), "they see another user's file: {seen}");
    let hidden = |table: &Value| (table["hidden"]["pins"].as_u64(), table["hidden"]["bytes"].as_u64());
    ensure!(hidden(&seen) == (Some(1), Some(131_072)), "hidden is {}", seen["hidden"]);
    let seen = table(&OTHER)?;
    ensure!(hidden(&seen) == (Some(2), Some(131_072 + 4096)), "a third user sees {seen}");
    // An effective user id is what counts, whatever the others are; what was given up is given up.
    let effective = ["--euid", "1235"];
    ensure!(hidden(&table(&effective)?).0 == Some(2), "with the real id of root: {}", table(&effective)?);
    // Ids of pins are no secret, and no key either.
    let all = guest.pins()?;
    let id_of = |made: &Value| {
        let pin = all.iter().find(|pin| pin["creator"]["pid"] == made["pid"]);
        pin.and_then(|pin| pin["id"].as_str()).context("a pin is not listed")
    };
    for (setpriv, made, allowed) in
        [(&USER, &roots.made, false), (&USER, &theirs.made, true), (&OTHER, &theirs.made, false)]
    {
        let id = id_of(made)?;
        let (code, out, error) = lspins(setpriv, &["--explain", id])?;
        ensure!((code == 0) == allowed && out.is_empty() != allowed, "--explain {id}: {code} {out} {error}");
        let said = error.contains("no pin that you may see has the id");
        ensure!(allowed || (code == 1 && said), "--explain {id}: {code} {error}");
    }
    for pid in [&roots.made["pid"], &theirs.made["pid"]] {
        let (code, ..) = lspins(&OTHER, &["-p", &pid.to_string()])?;
        ensure!(code == 1, "-p {pid} gives a third user {code}");
    }
    drop((roots, theirs));
    passed(guest)?;
    events(guest)?;
    Ok(Outcome::Passed(None))
}

/// Who is given an anchor holds the pin, and sees it then.
fn passed(guest: &Guest) -> Result<()> {
    let mut actors = Actors::new()?;
    let (root, user) = (actors.spawn()?.pid, actors.spawn_as(&USER)?.pid);
    let answer = actors.tell(root, "open rdma-mr keep")?;
    let (fd, pd) = (&answer["fd"], &answer["pd"]);
    actors.tell(root, &format!("register {fd} rdma-mr 0 4 {pd}"))?;
    let count = |pins: usize| {
        guest.wait_for(SOON, |_| {
            let seen = table(&USER)?;
            let listed = seen["pins"].as_array().map_or(0, Vec::len);
            ensure!(listed == pins, "they see {seen}");
            Ok(())
        })
    };
    count(0).context("before it is passed")?;
    let path = "/tmp/to-user";
    actors.order(user, &format!("recv {path} keep"))?;
    actors.tell(root, &format!("send {path} {fd}"))?;
    let got = actors.answer(user)?["fd"].clone();
    count(1).context("passed")?;
    actors.tell(user, &format!("close {got}"))?;
    count(0).context("closed")?;
    actors.end(root, false)?;
    actors.end(user, false)
}

/// Who takes a lease is told of it, and no other user.
fn events(guest: &Guest) -> Result<()> {
    let path = "/mnt/tmpfs/of-user";
    std::fs::write(path, "")?;
    std::os::unix::fs::chown(path, Some(1234), None)?;
    let mut actors = Actors::new()?;
    let user = actors.spawn_as(&USER)?.pid;
    let file = actors.number(user, &format!("open-file {path} rw keep"), "fd")?;
    actors.tell(user, &format!("lease {file} write"))?;
    let told =
        |setpriv: &[&str]| Ok::<_, anyhow::Error>(lspins(setpriv, &["--events", "-j"])?.1.contains(path));
    guest.wait_for(SOON, |_| {
        ensure!(told(&USER)?, "who has taken the lease is not told of it");
        Ok(())
    })?;
    ensure!(output("lspins", &["--events", "-j"])?.1.contains(path), "root is not told of it");
    ensure!(!told(&OTHER)?, "another user is told of it");
    let seen = lspins(&OTHER, &["--leases"])?.1;
    ensure!(!seen.contains(path), "another user sees the lease: {seen}");
    actors.end(user, false)
}
