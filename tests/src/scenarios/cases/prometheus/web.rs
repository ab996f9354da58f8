//! HTTP manners: what is where, and clients that are slow or greedy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{ADDRESS, curl, eventually};
use crate::Outcome;
use crate::cases::programs::output;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON, start_daemon};

/// As many connections as are served at once.
const PLACES: usize = 32;

/// `web`.
pub fn pages_and_bounds(guest: &mut Guest) -> Result<Outcome> {
    let url = |path: &str| format!("http://{ADDRESS}{path}");
    for (path, status, text) in [
        ("/", 200, "href=\"/metrics\""),
        ("/metrics", 200, "pinwatch_build_info{version="),
        ("/-/healthy", 200, "healthy"),
        ("/-/ready", 200, "ready"),
        ("/favicon.ico", 404, "/metrics"),
        ("//metrics", 404, ""),
    ] {
        let got = curl(&[&url(path)])?;
        ensure!(got.status == status && got.body.contains(text), "{path}: {} {}", got.status, got.body);
    }
    ensure!(curl(&["-X", "POST", "-d", "x", &url("/metrics")])?.status == 405, "POST is answered");
    let head = curl(&["-I", &url("/metrics")])?;
    ensure!(head.status == 200, "HEAD: {} {}", head.status, head.error);
    let plain = curl(&[&url("/metrics")])?.body;
    let packed = curl(&["--compressed", "-D", "/tmp/head", &url("/metrics")])?.body;
    let head = std::fs::read_to_string("/tmp/head")?.to_lowercase();
    ensure!(head.contains("content-encoding: gzip"), "not compressed: {head}");
    ensure!(packed.lines().count() == plain.lines().count(), "compressed it is another text");
    let long = format!("X-Long: {}", "a".repeat(20_000));
    let got = curl(&["-H", &long, &url("/metrics")])?;
    ensure!(got.status == 431, "a head of 20,000 bytes: {}", got.status);
    let mut raw = TcpStream::connect(ADDRESS)?;
    raw.set_read_timeout(Some(Duration::from_secs(10)))?;
    raw.write_all(b"\x16\x03\x01nonsense\r\n\r\n")?;
    let mut answer = String::new();
    raw.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 400"), "nonsense is answered with {answer:?}");
    let waited = slow(guest)?;
    own(guest)?;
    Ok(Outcome::Passed(Some(format!("{PLACES} silent clients were given up after {waited} s"))))
}

/// Clients that say nothing keep others out for half a minute at most, and never keep lspins from its answer.
fn slow(guest: &Guest) -> Result<u64> {
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        silent.push(TcpStream::connect(ADDRESS)?);
    }
    let turned_away = eventually(Duration::from_secs(5), || {
        let got = curl(&[&format!("http://{ADDRESS}/metrics")])?;
        ensure!(got.status == 0, "it is answered beside {PLACES} others: {}", got.status);
        Ok(())
    });
    turned_away?;
    guest.pins()?;
    let text = eventually(Duration::from_secs(60), || {
        let got = curl(&[&format!("http://{ADDRESS}/metrics")])?;
        ensure!(got.status == 200, "nobody is answered after {} s", began.elapsed().as_secs());
        Ok(got.body)
    })?;
    let counted = text.lines().find_map(|line| line.strip_prefix("pinwatch_http_turned_away_total "));
    ensure!(counted.is_some_and(|count| count != "0"), "turned away: {counted:?}");
    drop(silent);
    Ok(began.elapsed().as_secs())
}

/// A daemon of its own: several addresses, another path, sockets that are handed over, and what cannot be.
fn own(guest: &Guest) -> Result<()> {
    let (socket, log) = ("/tmp/web.sock", "/tmp/web.log");
    let first = ["--attach", &guest.attach, "--socket", socket];
    let more = ["--web.listen-address", "127.0.0.1:9800", "--web.listen-address", "[::1]:9801"];
    let path = ["--web.telemetry-path", "/pins", "--metrics.bpf"];
    let own = crate::cases::programs::Own(start_daemon(&[&first[..], &more, &path].concat(), log)?);
    for address in ["127.0.0.1:9800", "[::1]:9801"] {
        let got = curl(&["-g", &format!("http://{address}/pins")])?;
        ensure!(got.status == 200 && got.body.contains("pinwatch_pins"), "{address}: {}", got.status);
        ensure!(curl(&["-g", &format!("http://{address}/metrics")])?.status == 404, "/metrics is there too");
    }
    let mut mkpins = Mkpins::start("io_uring anon")?;
    mkpins.tell("release")?;
    let ran = |name: &str| {
        let text = curl(&["http://127.0.0.1:9800/pins"])?.body;
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("pinwatch_bpf_{name}{{program=\"io_register")));
        let sum: f64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        ensure!(sum > 0.0, "{name} of io_register: {sum}");
        Ok(())
    };
    eventually(SOON, || ran("runs_total"))?;
    eventually(SOON, || ran("run_seconds_total"))?;
    drop(own);
    let refused = |arguments: &[&str], reason: &str| -> Result<()> {
        let all = [&["60", "pinwatch", "run", "--socket", "/tmp/web2.sock"], arguments].concat();
        let (code, _, error) = output("timeout", &all)?;
        ensure!(
            code == 2 && error.contains(reason) && !error.contains("panicked"),
            "{arguments:?}: {code} {error}"
        );
        Ok(())
    };
    refused(&["--web.listen-address", ADDRESS], "--web.listen-address")?;
    refused(&["--web.listen-address", "nowhere"], "nowhere")?;
    refused(&["--web.telemetry-path", "metrics"], "/metrics")?;
    refused(&["--web.config.file", "/tmp/not-there.yml"], "not-there.yml")?;
    refused(&["--metrics.files", "1001"], "1000")?;
    // As systemd does it: descriptor 3, and two variables.
    let script =
        "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec pinwatch run --socket /tmp/web3.sock --attach \"$0\"";
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let child = std::process::Command::new("sh")
        .args(["-c", script, &guest.attach])
        .stdin(std::os::fd::OwnedFd::from(listener))
        .stdout(std::fs::File::create("/tmp/web3.log")?)
        .stderr(std::fs::File::create("/tmp/web3.err")?)
        .spawn()?;
    let _own = crate::cases::programs::Own(child);
    eventually(Duration::from_secs(60), || {
        let got = curl(&[&format!("http://{address}/-/ready")])?;
        let said = std::fs::read_to_string("/tmp/web3.err").unwrap_or_default();
        ensure!(got.status == 200, "the socket that was handed over: {} {} {said}", got.status, got.error);
        Ok(())
    })
}
