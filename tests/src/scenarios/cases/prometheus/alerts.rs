//! From a pin to the page that somebody gets: the real daemon, Prometheus with our rules, Alertmanager, and a webhook. Each
//! alert that can be provoked in a guest is.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::webhook::Webhook;
use super::{ADDRESS, Server, eventually};
use crate::Outcome;
use crate::actors::Actors;
use crate::cases::leases::{Pinned, kinds, pinned};
use crate::cases::programs::{Own, output};
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON, start_daemon};

const RULES: &str = include_str!("../../../../../dashboards/pinwatch.rules.yml");
const TESTS: &str = include_str!("../../../../../dashboards/pinwatch.rules.test.yml");
const DASHBOARDS: [&str; 2] = [
    include_str!("../../../../../dashboards/fleet.json"),
    include_str!("../../../../../dashboards/machine.json"),
];
const BREAK_TIME: &str = "/proc/sys/fs/lease-break-time";
/// Alerts that no guest provokes in the time there is: promtool's unit tests show them.
const UNPROVOKED: [(&str, &str); 3] = [
    ("PinnedMemoryGrows", "it takes an hour of growth"),
    ("PinwatchPinsUnseen", "the kernel skips hooks only now and then"),
    ("PinwatchTotalsStale", "it takes a look of six seconds"),
];
/// Another daemon, with little room and something missing.
const SMALL: &str = "127.0.0.1:9747";
const SMALL_PINS: u64 = 16;
const SMALL_SOCKET: &str = "/tmp/small.sock";

/// The rules, their unit tests, and what they say of themselves.
fn rules() -> Result<Vec<String>> {
    fs::write("/tmp/pinwatch.rules.yml", RULES)?;
    fs::write("/tmp/pinwatch.rules.test.yml", TESTS)?;
    for arguments in
        [["check", "rules", "/tmp/pinwatch.rules.yml"], ["test", "rules", "/tmp/pinwatch.rules.test.yml"]]
    {
        let (code, text, error) = output("promtool", &arguments)?;
        ensure!(code == 0 && text.contains("SUCCESS"), "promtool {arguments:?}: {code} {text}{error}");
    }
    let names: Vec<String> =
        RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    for name in &names {
        let tested = TESTS.matches(&format!("alertname: {name}")).count();
        ensure!(tested >= 2, "{name} is tested {tested} times");
    }
    Ok(names)
}

/// `alerts`.
pub fn alerts(guest: &mut Guest) -> Result<Outcome> {
    let names = rules()?;
    let webhook = Webhook::start()?;
    // What is waited for before an alert is promtool's business; here it would take an hour.
    let quick: Vec<String> = (RULES.lines())
        .map(|line| {
            if line.trim_start().starts_with("for: ") {
                "        for: 1s".to_owned()
            } else {
                line.to_owned()
            }
        })
        .collect();
    fs::write("/tmp/quick.rules.yml", quick.join("\n"))?;
    let _manager = Server::alertmanager(&format!(
        "route: {{receiver: hook, group_by: ['...'], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}\n\
         receivers: [{{name: hook, webhook_configs: [{{url: '{}', send_resolved: true}}]}}]\n",
        webhook.url
    ))?;
    // The small daemon is there only for a while: its job is not one of those that PinwatchDown is about.
    let server = Server::prometheus(&format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s}}\n\
         rule_files: [/tmp/quick.rules.yml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:9093']}}]}}]}}\n\
         scrape_configs:\n- job_name: pinwatch\n  static_configs: [{{targets: ['{ADDRESS}']}}]\n\
         - job_name: small\n  static_configs: [{{targets: ['{SMALL}']}}]\n"
    ))?;
    eventually(SOON * 10, || {
        let up = server.query("up{job=\"pinwatch\"} == 1")?;
        ensure!(up.len() == 1, "Prometheus has not scraped anything yet");
        Ok(())
    })?;
    let mut fired = Vec::new();
    let usual = fs::read_to_string(BREAK_TIME)?;
    let result = leases(guest, &webhook, &server, &mut fired);
    fs::write(BREAK_TIME, usual)?;
    result?;
    pins(guest, &webhook, &mut fired)?;
    small(guest, &webhook, &mut fired)?;
    stopped(guest, &webhook, &mut fired)?;
    for name in &names {
        let excused = UNPROVOKED.iter().any(|(other, _)| other == name);
        ensure!(
            fired.contains(&name.as_str()) != excused,
            "{name} was {}provoked",
            if excused { "" } else { "not " }
        );
    }
    let excuses: Vec<String> = UNPROVOKED.iter().map(|(name, why)| format!("{name} not ({why})")).collect();
    Ok(Outcome::Passed(Some(format!("{} alerts arrived; {}", fired.len(), excuses.join(", ")))))
}

fn fires(webhook: &Webhook, name: &'static str, fired: &mut Vec<&'static str>) -> Result<Value> {
    let alert = webhook.wait_for(name, "firing")?;
    let runbook = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
    ensure!(runbook.starts_with("https://") && runbook.ends_with(".md"), "{name}: {alert}");
    fired.push(name);
    Ok(alert)
}

/// Pins without leases, and leases in somebody's way.
fn leases(guest: &Guest, webhook: &Webhook, server: &Server, fired: &mut Vec<&'static str>) -> Result<()> {
    let mut actors = Actors::new()?;
    let Pinned { pid, file, .. } = pinned(&mut actors, "io_uring", "/mnt/tmpfs/alert", "rw")?;
    let breaker = actors.spawn()?.pid;
    // Write leases only on files that nobody else has open; time is up after a second.
    fs::write(BREAK_TIME, "1")?;
    actors.tell(pid, &format!("lease {file} write"))?;
    actors.tell(breaker, "truncate /mnt/tmpfs/alert 4096")?;
    fires(webhook, "LeaseTimedOut", fired)?;
    fs::write(BREAK_TIME, "120")?;
    actors.tell(pid, &format!("lease {file} write"))?;
    actors.order(breaker, "truncate /mnt/tmpfs/alert 4096")?;
    fires(webhook, "LeaseBreakWaitsOnPin", fired)?;
    actors.tell(pid, &format!("lease {file} none"))?;
    actors.answer(breaker)?;
    webhook.wait_for("LeaseBreakWaitsOnPin", "resolved")?;
    // The rule that the project is about: a pin of a file on disk has to have a lease.
    let (kind, mode) = kinds(guest, true)[0];
    let on_disk = pinned(&mut actors, kind, "/mnt/ext4/alert", mode)?;
    let alert = fires(webhook, "PinWithoutLease", fired)?;
    let said = alert["annotations"]["description"].as_str().unwrap_or_default();
    ensure!(said.contains("`lspins --unleased`"), "{said}");
    ensure!(output("lspins", &["--unleased"])?.0 == 0, "and yet lspins --unleased lists nothing");
    dashboards(server)?;
    // Taking a lease resolves it.
    let lease = if mode == "ro" { "read" } else { "write" };
    actors.tell(on_disk.pid, &format!("lease {} {lease}", on_disk.file))?;
    webhook.wait_for("PinWithoutLease", "resolved")?;
    actors.tell(on_disk.pid, &format!("lease {} none", on_disk.file))?;
    webhook.wait_for("PinWithoutLease", "firing")?;
    // And so does the end of the pin.
    actors.end(on_disk.pid, true)?;
    webhook.wait_for("PinWithoutLease", "resolved")?;
    actors.end(pid, true)?;
    actors.end(breaker, true)?;
    guest.wait_until_empty()
}

/// Every query of every panel has data.
fn dashboards(server: &Server) -> Result<()> {
    for text in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(text)?;
        let panels = dashboard["panels"].as_array().context("no panels")?;
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            for target in panel["targets"].as_array().context("no targets")? {
                let expression = target["expr"].as_str().context("no query")?;
                let filled = expression
                    .replace("$job", "pinwatch")
                    .replace("$instance", ADDRESS)
                    .replace("$__rate_interval", "30s");
                eventually(SOON * 10, || {
                    let samples = server.query(&filled)?;
                    ensure!(samples.iter().any(|(_, value)| !value.is_nan()), "no data");
                    Ok(())
                })
                .with_context(|| format!("{}, {}: {filled}", dashboard["title"], panel["title"]))?;
            }
        }
    }
    Ok(())
}

/// Files without names, pins without holders, much memory.
fn pins(guest: &Guest, webhook: &Webhook, fired: &mut Vec<&'static str>) -> Result<()> {
    let mut actors = Actors::new()?;
    let Pinned { pid, .. } = pinned(&mut actors, "io_uring", "/mnt/tmpfs/deleted", "rw")?;
    fs::remove_file("/mnt/tmpfs/deleted")?;
    fires(webhook, "PinOnDeletedFile", fired)?;
    actors.end(pid, true)?;
    webhook.wait_for("PinOnDeletedFile", "resolved")?;
    let mut mkpins = Mkpins::start("rdma-mr anon --length 1M")?;
    mkpins.tell("inflight")?;
    mkpins.tell("close-anchor")?;
    fires(webhook, "UnheldPin", fired)?;
    mkpins.kill();
    webhook.wait_for("UnheldPin", "resolved")?;
    let refused = Mkpins::start("io_uring secret")?;
    ensure!(refused.refused() == Some("EFAULT"), "{}", refused.made);
    let alert = fires(webhook, "PinRefused", fired)?;
    ensure!(alert["labels"]["reason"] == "secret" && alert["labels"]["subsystem"] == "io_uring", "{alert}");
    // Pins of the same memory count each, so that it takes no more memory than there is.
    let memory = fs::read_to_string("/proc/meminfo")?;
    let total: u64 =
        (memory.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok())).context("no MemTotal")?;
    const PAGES: u64 = 16384;
    let pid = actors.spawn()?.pid;
    fs::File::create("/mnt/tmpfs/large")?.set_len(PAGES * 4096)?;
    let answer = actors.tell(pid, "open rdma-mr keep")?;
    let (anchor, with) = (answer["fd"].as_u64().context("no fd")?, answer["pd"].as_u64().context("no pd")?);
    let file = actors.number(pid, "open-file /mnt/tmpfs/large rw keep", "fd")?;
    for _ in 0..=total / 2 / (PAGES * 4) {
        actors.tell(pid, &format!("pin {anchor} rdma-mr {with} {file} {PAGES} rw"))?;
    }
    fires(webhook, "PinnedMemoryHigh", fired)?;
    actors.end(pid, true)?;
    fs::remove_file("/mnt/tmpfs/large")?;
    webhook.wait_for("PinnedMemoryHigh", "resolved")?;
    guest.wait_until_empty()
}

/// A daemon that begins late, with room for few pins, and without the BTF of RDMA's modules.
fn small(guest: &Guest, webhook: &Webhook, fired: &mut Vec<&'static str>) -> Result<()> {
    let room = SMALL_PINS.to_string();
    // 2048 small pages each.
    let older = Mkpins::pinned("io_uring memfd --length 8M --count 33")?;
    let arguments = ["--socket", SMALL_SOCKET, "--web.listen-address", SMALL, "--max-pins", &room];
    let own = Own(start_daemon(&[&["--attach", &guest.attach], &arguments[..]].concat(), "/tmp/small.log")?);
    fires(webhook, "PinsUnattributed", fired)?;
    drop(older);
    webhook.wait_for("PinsUnattributed", "resolved")?;
    let mkpins = Mkpins::start(&format!("io_uring memfd --count {}", SMALL_PINS - 2))?;
    fires(webhook, "PinwatchMapFills", fired)?;
    let more = Mkpins::start("io_uring memfd --count 4")?;
    fires(webhook, "PinwatchMapFull", fired)?;
    drop((mkpins, more));
    webhook.wait_for("PinwatchMapFills", "resolved")?;
    drop(own);
    // Once more where no BTF but the kernel's own is to be seen.
    let script = "cp /sys/kernel/btf/vmlinux /tmp/vmlinux.btf && mount -t tmpfs tmpfs /sys/kernel/btf && \
                  cp /tmp/vmlinux.btf /sys/kernel/btf/vmlinux && exec pinwatch \"$@\"";
    let log = fs::File::create("/tmp/blind.log")?;
    let child = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", "run", "--attach", &guest.attach])
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let _own = Own(child);
    fires(webhook, "PinwatchHooksMissing", fired)?;
    guest.wait_until_empty()
}

/// A daemon that stands still: it does not answer, and events find no room.
fn stopped(guest: &Guest, webhook: &Webhook, fired: &mut Vec<&'static str>) -> Result<()> {
    /// More than a ring of a megabyte has room for.
    const FLOOD: u64 = 10_000;
    let mut actors = Actors::new()?;
    let Pinned { pid, file, .. } = pinned(&mut actors, "io_uring", "/mnt/tmpfs/flood", "rw")?;
    let signal = |number| {
        // SAFETY: the daemon of these scenarios.
        unsafe { libc::kill(guest.pid() as i32, number) };
    };
    signal(libc::SIGSTOP);
    let result = (|| {
        actors.tell(pid, &format!("lease-loop {file} {FLOOD}"))?;
        fires(webhook, "PinwatchDown", fired)
    })();
    signal(libc::SIGCONT);
    result?;
    webhook.wait_for("PinwatchDown", "resolved")?;
    fires(webhook, "PinwatchEventsLost", fired)?;
    actors.end(pid, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_has_all_that_who_is_woken_needs() {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/runbooks"));
        let alerts: Vec<&str> = RULES.split("- alert: ").skip(1).collect();
        assert!(alerts.len() >= 10);
        for alert in alerts {
            let name = alert.lines().next().unwrap_or_default();
            let value = |key: &str| {
                alert.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default().trim()
            };
            assert!(matches!(value("severity:"), "critical" | "warning" | "info"), "{name}");
            assert!(value("summary:").contains("{{ $labels.instance }}"), "{name}");
            let command =
                ["lspins", "pinwatch"].iter().any(|program| alert.contains(&format!("`{program} ")));
            assert!(command, "{name} names no command to run next");
            let address = value("runbook_url:");
            assert!(
                address.starts_with("https://"),
                "{name}: {address} leads nowhere outside the repository"
            );
            let page = address.rsplit('/').next().unwrap_or_default();
            let page = fs::read_to_string(folder.join(page)).unwrap_or_default();
            assert!(page.lines().next().unwrap_or_default().contains(name), "{name} has no runbook");
            for part in ["**What it means.**", "**Look at**", "    $ ", "**Fix it.**", "**Ignore it**"] {
                assert!(page.contains(part), "{name}: the runbook has no {part}");
            }
        }
    }
}
