//! Who a process is, where it runs, how it ends, and what `--explain` says to do about it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::holders::gone;
use crate::Outcome;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON, shell};

fn mount_cgroups() -> Result<()> {
    shell("mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup").map(drop)
}

fn made_by(pins: &[Value], pid: u64) -> Result<&Value> {
    pins.iter().find(|pin| pin["creator"]["pid"] == pid).context("its pin is not listed")
}

/// What `--explain` prints last is done, and the pin is gone.
pub fn explain(guest: &mut Guest) -> Result<Outcome> {
    for kind in ["rdma-mr", "io_uring", "xdp"] {
        let mut mkpins = Mkpins::pinned(&format!("{kind} memfd"))?;
        let pid = u64::from(mkpins.pid());
        let child = mkpins.tell("fork")?["pid"].as_u64().context("no pid")?;
        let two = |pins: &[Value]| {
            let pin = made_by(pins, pid)?;
            let holders = pin["holders"].as_array().map_or(0, Vec::len);
            ensure!(holders == 2, "{holders} holders");
            Ok(pin["id"].as_str().unwrap_or_default().to_owned())
        };
        let id = guest.wait_for(SOON, two).context(kind)?;
        let text = shell(&format!("lspins --explain {id} 2>/dev/null"))?;
        for part in [
            format!("by mkpins[{pid}] (root)"),
            "memfd:mkpins".to_owned(),
            format!("Ending mkpins[{pid}] alone releases nothing."),
            "all of these must go".to_owned(),
        ] {
            ensure!(text.contains(&part), "{kind}: {part:?} is not in what it says:\n{text}");
        }
        let command = text.lines().last().unwrap_or_default().trim();
        let (low, high) = (pid.min(child), pid.max(child));
        ensure!(command == format!("kill {low} {high}"), "{kind}: it ends with {command:?}:\n{text}");
        shell(&command.replacen("kill", "kill -9", 1))?;
        gone(guest, pid, &format!("{kind}: both are killed"))?;
        let after = shell(&format!("lspins --explain {id} 2>&1; echo status $?"))?;
        ensure!(
            after.contains(&format!("no pin has the id {id}")) && after.ends_with("status 1\n"),
            "{kind}: {after}"
        );
    }
    Ok(Outcome::Passed(None))
}

const CONTAINER: &str = "3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899";
const POD: &str = "0d6f1c9e-2b7a-4f53-9a51-4f1c2d3e4b5a";

/// Control groups as docker, containerd and CRI-O name them; the process in pid, mount and cgroup namespaces of its own.
pub fn container(guest: &mut Guest) -> Result<Outcome> {
    mount_cgroups()?;
    let underscores = POD.replace('-', "_");
    let slice = "kubepods.slice/kubepods-burstable.slice";
    let groups = [
        (format!("system.slice/docker-{CONTAINER}.scope"), None),
        (
            format!("{slice}/kubepods-burstable-pod{underscores}.slice/cri-containerd-{CONTAINER}.scope"),
            Some(POD),
        ),
        (format!("{slice}/kubepods-burstable-pod{underscores}.slice/crio-{CONTAINER}.scope"), Some(POD)),
        (format!("kubepods/besteffort/pod{POD}/{CONTAINER}"), Some(POD)),
    ];
    for (group, pod) in groups {
        let enter = format!(
            "mkdir -p /sys/fs/cgroup/{group} && echo 0 > /sys/fs/cgroup/{group}/cgroup.procs && \
             exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup \"$@\""
        );
        let mut mkpins = Mkpins::start_through(&["sh", "-c", &enter, "sh"], "io_uring memfd --length 12K")?;
        ensure!(mkpins.refused().is_none(), "{}", mkpins.made);
        ensure!(mkpins.made["pid"] == 1, "it is not the first of its pid namespace: {}", mkpins.made);
        let theirs = |pins: &[Value]| {
            let pin = pins.iter().find(|pin| pin["bytes"] == 12288).context("its pin is not listed")?;
            let creator = &pin["creator"];
            ensure!(creator["cgroup"] == format!("/{group}"), "its cgroup is {}", creator["cgroup"]);
            ensure!(creator["container"] == CONTAINER, "its container is {}", creator["container"]);
            ensure!(creator["pod"].as_str() == pod, "its pod is {}", creator["pod"]);
            let namespaces = [&creator["pid_namespace"], &creator["mount_namespace"]].map(Value::as_u64);
            ensure!(namespaces.iter().all(Option::is_some), "its namespaces are {creator}");
            let holders = pin["holders"].as_array().map_or(&[][..], Vec::as_slice);
            ensure!(holders.len() == 1 && holders[0]["pid"] == creator["pid"], "holders {}", pin["holders"]);
            let holder = &holders[0];
            ensure!(
                holder["container"] == CONTAINER && holder["pod"].as_str() == pod,
                "its holder is {holder}"
            );
            Ok((creator["pid"].as_u64().context("no pid")?, namespaces))
        };
        let (pid, numbers) = guest.wait_for(SOON, theirs).with_context(|| group.clone())?;
        for (name, number) in ["pid", "mnt"].into_iter().zip(numbers) {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
            let truth = format!("{name}:[{}]", number.unwrap_or(0));
            ensure!(link.to_str() == Some(&truth), "{group}: {link:?} is not {truth}");
        }
        let namespaces = shell(&format!("grep NSpid: /proc/{pid}/status"))?;
        ensure!(namespaces.split_whitespace().last() == Some("1"), "{group}: process {pid} has {namespaces}");
        mkpins.tell("release")?;
        drop(mkpins);
        guest.wait_until_empty().with_context(|| group.clone())?;
        shell(&format!("for n in 1 2 3 4 5; do rmdir /sys/fs/cgroup/{group} && break; sleep 0.2; done"))?;
    }
    Ok(Outcome::Passed(None))
}

/// SIGKILL, and the kernel when a control group is out of memory: the pin goes with its last holder, and its creator's name
/// stays as long as it is kept.
pub fn killed(guest: &mut Guest) -> Result<Outcome> {
    mount_cgroups()?;
    for kind in ["rdma-mr", "io_uring", "xdp"] {
        let mut mkpins = Mkpins::start(&format!("{kind} memfd"))?;
        let pid = u64::from(mkpins.pid());
        guest.wait_for(SOON, |pins| made_by(pins, pid).map(|_| ())).context(kind)?;
        mkpins.kill();
        gone(guest, pid, &format!("{kind}: killed"))?;
        let group = "/sys/fs/cgroup/tight";
        shell(&format!("echo +memory > /sys/fs/cgroup/cgroup.subtree_control; mkdir -p {group}"))?;
        let mkpins = Mkpins::start(&format!("{kind} memfd"))?;
        let pid = u64::from(mkpins.pid());
        guest.wait_for(SOON, |pins| made_by(pins, pid).map(|_| ())).context(kind)?;
        // A shell that eats memory in the same group; the group dies as a whole.
        shell(&format!(
            "echo 1 > {group}/memory.oom.group; echo {pid} > {group}/cgroup.procs; \
             echo 20M > {group}/memory.max; echo 0 > {group}/memory.swap.max 2>/dev/null; \
             (sh -c 'echo 0 > {group}/cgroup.procs; exec head -c 64M /dev/zero | tail > /dev/null') 2>/dev/null; true"
        ))?;
        gone(guest, pid, &format!("{kind}: out of memory"))?;
        let events = shell(&format!("cat {group}/memory.events"))?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        ensure!(kills.is_some_and(|n| n != "0"), "{kind}: the kernel killed nobody: {events}");
        drop(mkpins);
        shell(&format!("for n in 1 2 3 4 5; do rmdir {group} && break; sleep 0.2; done"))?;
    }
    Ok(Outcome::Passed(None))
}
