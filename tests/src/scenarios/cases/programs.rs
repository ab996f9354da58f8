//! The programs themselves: full maps, other users, a second daemon, foreign sockets, missing rights, modules that go.

use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::gaps;
use crate::guest::{Guest, HOOKED, SOON, eventually, shell, start_daemon, start_daemon_through};
use crate::schema;

/// A daemon of a scenario's own, ended with it.
pub(super) struct Own(pub(super) Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program: its exit status (-1: a signal), standard output and standard error. JSON of lspins is held against its schema.
pub(super) fn output(program: &str, arguments: &[&str]) -> Result<(i32, String, String)> {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let stdout = text(stdout);
    let words = std::iter::once(program).chain(arguments.iter().copied());
    schema::check_command(words, &stdout).with_context(|| format!("{program} {}", arguments.join(" ")))?;
    Ok((status.code().unwrap_or(-1), stdout, text(stderr)))
}

pub(super) fn no_panic(text: &str) -> Result<()> {
    ensure!(!text.contains("panicked"), "it panicked: {text}");
    Ok(())
}

/// What `lspins -J` says of the daemon at another socket.
pub(super) fn table_at(socket: &str) -> Result<Value> {
    let (code, json, error) = output("lspins", &["--socket", socket, "-J"])?;
    serde_json::from_str(&json)
        .with_context(|| format!("lspins -J ends with {code} and says {json:.300}{error}"))
}

/// A full map is counted and said.
pub fn map_full(guest: &mut Guest) -> Result<Outcome> {
    let socket = "/tmp/full.sock";
    let _own = Own(start_daemon(
        &["--attach", &guest.attach, "--socket", socket, "--max-pins", "4"],
        "/tmp/full.log",
    )?);
    let mut mkpins = Mkpins::pinned("io_uring memfd --count 6")?;
    let table = table_at(socket)?;
    let pins = table["pins"].as_array().map_or(0, Vec::len);
    ensure!(pins == 4 && table["complete"] == false, "{pins} pins, complete {}", table["complete"]);
    let (full, others) = (gaps::count(&table, "pins_full"), gaps::count(&table, "calls_full"));
    ensure!(full == 2 && others == 0, "the gaps are {}", table["gaps"]);
    ensure!(
        table["complete_since"].is_null(),
        "pins are missing, and it is complete since {}",
        table["complete_since"]
    );
    let (code, ..) = output("lspins", &["--socket", socket, "--strict"])?;
    ensure!(code == 3, "lspins --strict ends with {code}, not 3");
    // The daemon beside it has room for all of them: nothing is missing there but what may be older.
    let roomy = guest.table()?;
    ensure!(
        !gaps::is_open(&roomy, "pins_full") && roomy["pins"].as_array().map_or(0, Vec::len) == 6,
        "{roomy}"
    );
    let none_open = roomy["gaps"].as_array().is_some_and(Vec::is_empty);
    ensure!(roomy["complete"] == none_open, "complete {} with {}", roomy["complete"], roomy["gaps"]);
    mkpins.tell("release")?;
    Ok(Outcome::Passed(None))
}

pub fn second_daemon(_guest: &mut Guest) -> Result<Outcome> {
    let (code, _, error) = output("timeout", &["60", "pinwatch", "run"])?;
    no_panic(&error)?;
    ensure!(
        code == 2 && error.contains("another pinwatch (pid ") && error.contains("is running"),
        "{code}: {error}"
    );
    shell("lspins -v")
        .or_else(
            |error| {
                if error.to_string().contains("no long-term pins") { Ok(String::new()) } else { Err(error) }
            },
        )
        .context("the first daemon")?;
    Ok(Outcome::Passed(None))
}

/// What a daemon that was killed leaves behind stops neither lspins nor the next daemon.
pub fn stale_socket(guest: &mut Guest) -> Result<Outcome> {
    let socket = "/tmp/stale.sock";
    let mut first = Own(start_daemon(&["--attach", &guest.attach, "--socket", socket], "/tmp/stale.log")?);
    first.0.kill()?;
    first.0.wait()?;
    ensure!(std::path::Path::new(socket).exists(), "the socket is gone");
    let (code, _, error) = output("lspins", &["--socket", socket])?;
    no_panic(&error)?;
    ensure!(code == 2 && error.contains(socket), "lspins ends with {code}: {error}");
    let _second = Own(start_daemon(&["--attach", &guest.attach, "--socket", socket], "/tmp/stale2.log")?);
    let (code, _, error) = output("lspins", &["--socket", socket])?;
    ensure!(code == 1, "with the second daemon lspins ends with {code}: {error}");
    Ok(Outcome::Passed(None))
}

/// Somebody else's socket.
pub fn not_a_pinwatch(_guest: &mut Guest) -> Result<Outcome> {
    let socket = "/tmp/foreign.sock";
    let listener = UnixListener::bind(socket)?;
    std::thread::spawn(move || {
        use std::io::Write;
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let (code, _, error) = output("timeout", &["30", "lspins", "--socket", socket])?;
    no_panic(&error)?;
    std::fs::remove_file(socket)?;
    ensure!(code == 2 && error.contains("lspins:") && error.lines().count() == 1, "{code}: {error}");
    let file = "/tmp/no.sock";
    std::fs::write(file, "")?;
    let (code, _, error) = output("timeout", &["60", "pinwatch", "run", "--socket", file])?;
    ensure!(code == 2 && error.contains("no socket"), "pinwatch over a file ends with {code}: {error}");
    Ok(Outcome::Passed(None))
}

/// Without capabilities both say so, in a sentence.
pub fn no_capability(_guest: &mut Guest) -> Result<Outcome> {
    let without = [
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
        "--reuid",
        "1234",
        "--regid",
        "1234",
        "--clear-groups",
    ];
    let run = |arguments: &[&str]| output("setpriv", &[&without[..], arguments].concat());
    let (code, _, error) = run(&["timeout", "60", "pinwatch", "run", "--socket", "/tmp/nocap.sock"])?;
    no_panic(&error)?;
    ensure!(code == 2 && error.contains("CAP_BPF"), "pinwatch run ends with {code}: {error}");
    let (code, text, error) = run(&["timeout", "60", "pinwatch", "check"])?;
    no_panic(&error)?;
    ensure!(code == 2 && text.contains("CAP_BPF"), "pinwatch check ends with {code}: {text}{error}");
    Ok(Outcome::Passed(None))
}

/// The capabilities that the Kubernetes manifest and the systemd unit name are enough, and both name the same.
pub fn capabilities(guest: &mut Guest) -> Result<Outcome> {
    const MANIFEST: &str = include_str!("../../../../deploy/kubernetes.yaml");
    const UNIT: &str = include_str!("../../../../deploy/pinwatch.service");
    let list = MANIFEST.lines().find_map(|line| line.trim().strip_prefix("add: [")?.strip_suffix(']'));
    let named: Vec<&str> = list.context("no capabilities in the manifest")?.split(", ").collect();
    let unit = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let of_unit: Vec<&str> =
        unit.context("none in the unit")?.split(' ').filter_map(|word| word.strip_prefix("CAP_")).collect();
    ensure!(named == of_unit, "the manifest has {named:?}, the unit {of_unit:?}");
    let wanted: Vec<String> = named.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
    let bounding = format!("-all,{}", wanted.join(","));
    let with = ["--bounding-set", &bounding, "--inh-caps", "-all", "--no-new-privs"];
    let (code, text, error) =
        output("setpriv", &[&with[..], &["pinwatch", "check", "--attach", &guest.attach]].concat())?;
    ensure!(code == 0, "pinwatch check with {bounding} ends with {code}: {text}{error}");
    let socket = "/tmp/capabilities.sock";
    let wrapper = [&["setpriv"], &with[..]].concat();
    let run = ["--socket", socket, "--attach", &guest.attach, "--web.listen-address", ""];
    let _own = Own(start_daemon_through(&wrapper, &run, "/tmp/capabilities.log")?);
    for kind in ["rdma-mr", "io_uring", "xdp"] {
        let mut mkpins = Mkpins::start(&format!("{kind} memfd"))?;
        let table = table_at(socket)?;
        let pins = table["pins"].as_array().context("no pins")?;
        compare::exactly(&mkpins.made.clone(), pins).with_context(|| kind.to_owned())?;
        ensure!(pins[0]["holders"][0]["pid"] == mkpins.pid(), "{kind}: holders {}", pins[0]["holders"]);
        mkpins.tell("release")?;
        mkpins.end();
        guest.wait_until_empty()?;
    }
    Ok(Outcome::Passed(None))
}

/// bpffs is not needed.
pub fn no_bpffs(guest: &mut Guest) -> Result<Outcome> {
    shell("umount /sys/fs/bpf")?;
    let result =
        start_daemon(&["--attach", &guest.attach, "--socket", "/tmp/nobpffs.sock"], "/tmp/nobpffs.log")
            .map(Own);
    shell("mount -t bpf bpf /sys/fs/bpf")?;
    result?;
    Ok(Outcome::Passed(None))
}

/// Without BTF both say so, in a sentence.
pub fn no_btf(_guest: &mut Guest) -> Result<Outcome> {
    let run = |command: &str| {
        let hidden = format!("mount -t tmpfs none /sys/kernel/btf && timeout 60 {command}");
        output("unshare", &["--mount", "sh", "-c", &hidden])
    };
    refuses(run, "/sys/kernel/btf/vmlinux")
}

/// Under lockdown neither a new daemon nor `check` gets anywhere, and says why; what was attached before goes on.
pub fn lockdown(guest: &mut Guest) -> Result<Outcome> {
    let switch = "/sys/kernel/security/lockdown";
    if !std::path::Path::new(switch).exists() {
        shell("mount -t securityfs securityfs /sys/kernel/security")?;
    }
    std::fs::write(switch, "confidentiality").with_context(|| format!("cannot write {switch}"))?;
    let run = |command: &str| output("sh", &["-c", &format!("timeout 60 {command}")]);
    refuses(run, "lockdown")?;
    let mut mkpins = Mkpins::start("io_uring memfd")?;
    let made = mkpins.made.clone();
    guest.wait_for(SOON, |pins| compare::exactly(&made, pins)).context("the daemon of before")?;
    let (code, text, error) = output("lspins", &["--no-daemon", "-o", "pid"])?;
    ensure!(
        code == 0 && text.contains(&made["pid"].to_string()),
        "procfs shows {text:?}, status {code}: {error}"
    );
    mkpins.tell("release")?;
    Ok(Outcome::Passed(None))
}

/// `pinwatch run` and `pinwatch check` end with status 2 and the reason.
fn refuses(run: impl Fn(&str) -> Result<(i32, String, String)>, reason: &str) -> Result<Outcome> {
    let (code, _, error) = run("pinwatch run --socket /tmp/refused.sock")?;
    no_panic(&error)?;
    ensure!(
        code == 2 && error.contains(reason) && error.trim_end().lines().count() == 1,
        "pinwatch run ends with {code}: {error}"
    );
    let (code, text, error) = run("pinwatch check")?;
    no_panic(&error)?;
    ensure!(code == 2 && text.contains(reason), "pinwatch check ends with {code}: {text}{error}");
    Ok(Outcome::Passed(None))
}

/// `pinwatch check`, for people and for machines.
pub fn check(guest: &mut Guest) -> Result<Outcome> {
    let (code, text, error) = output("pinwatch", &["check", "--attach", &guest.attach])?;
    ensure!(code == 0, "it ends with {code}: {text}{error}");
    let word = if guest.attach == "kprobe" { "kretprobe" } else { "fexit" };
    ensure!(text.contains("io_sqe_buffer_register") && text.contains(word), "it says {text}");
    let (code, json, _) = output("pinwatch", &["check", "-J", "--attach", &guest.attach])?;
    serde_json::from_str::<Value>(&json).context("pinwatch check -J")?;
    ensure!(code == 0, "with -J it ends with {code}");
    Ok(Outcome::Passed(None))
}

/// procfs and netlink alone.
pub fn no_daemon(guest: &mut Guest) -> Result<Outcome> {
    let programs = ["rdma-mr memfd", "io_uring memfd", "xdp memfd"].map(Mkpins::start);
    let (code, json, error) = output("lspins", &["--no-daemon", "-J"])?;
    ensure!(code == 0, "lspins ends with {code}: {error}");
    let table: Value = serde_json::from_str(&json)?;
    let pins = table["pins"].as_array().context("no pins")?;
    for code in ["procfs_subsystems", "procfs_mapped_files", "rdma_regions_only"] {
        ensure!(gaps::is_open(&table, code), "{code} is not among the gaps {}", table["gaps"]);
    }
    ensure!(!gaps::is_open(&table, "processes_denied"), "root was refused: {}", table["gaps"]);
    for mkpins in programs {
        let mkpins = mkpins?;
        let kind = mkpins.made["kind"].as_str().unwrap_or("?");
        if kind == "xdp" && shell("modprobe xsk_diag").is_err() {
            ensure!(
                gaps::is_open(&table, "xdp_not_listed"),
                "it does not say that umems are missing: {}",
                table["gaps"]
            );
            continue;
        }
        let theirs = |pin: &&Value| pin["type"] == kind && pin["creator"]["pid"] == mkpins.made["pid"];
        let Some(pin) = pins.iter().find(theirs) else { bail!("{kind} is not listed: {json}") };
        ensure!(pin["bytes"] == mkpins.made["length"] && pin["origin"] == "proc", "{kind}: {pin}");
        if kind == "io_uring" {
            ensure!(pin["file"]["ino"] == mkpins.made["parts"][0]["ino"], "io_uring: {pin}");
        }
    }
    let _ = guest;
    Ok(Outcome::Passed(None))
}

/// The RDMA modules are removed and inserted again; the next memory region is seen.
/// The modules of RDMA go and come back, twice. Until the daemon has hooked the new ones, nobody knows of a memory region; who
/// makes one in that moment finds it as an unclaimed pin.
pub fn modules_reload(guest: &mut Guest) -> Result<Outcome> {
    let mut early = 0;
    for round in 1..=2 {
        shell(
            "rdma link del rxe0; for i in 1 2 3 4 5 6; do for m in $(lsmod | awk '/^(rdma|ib_|iw_|rpcrdma|mlx|siw|svcrdma|xprt)/{print $1}'); do rmmod $m 2>/dev/null; done; sleep 1; done; ! lsmod | grep -E '^(ib_core|ib_uverbs|rdma_rxe) '",
        )?;
        shell("rdma-up")?;
        if in_the_gap(guest).with_context(|| format!("at once after reload {round}"))? {
            early += 1;
        }
        let mut mkpins = Mkpins::pinned("rdma-mr memfd --count 2")?;
        let made = mkpins.made.clone();
        guest
            .wait_for(SOON, |pins| compare::exactly(&made, pins))
            .with_context(|| format!("after reload {round}"))?;
        mkpins.tell("release")?;
        guest.wait_until_empty()?;
    }
    Ok(Outcome::Passed(
        (early > 0).then(|| format!("{early} memory regions were made before the new modules were hooked")),
    ))
}

/// Makes a memory region at once, and waits until the modules that are loaded are hooked. Says whether it was too early: then
/// the table says that such are missing, and the pin is listed as one that nobody claims.
fn in_the_gap(guest: &Guest) -> Result<bool> {
    let mut mkpins = Mkpins::pinned("rdma-mr memfd")?;
    let made = mkpins.made.clone();
    let mut nobodys = made.clone();
    nobodys["kind"] = "unclaimed".into();
    for object in nobodys["objects"].as_array_mut().into_iter().flatten() {
        object.as_object_mut().map(|object| object.remove("lkey"));
    }
    let early = eventually(HOOKED, || {
        let table = guest.table()?;
        let pins = table["pins"].as_array().context("no pins")?;
        let Err(error) = compare::exactly(&made, pins) else { return Ok(Ok(false)) };
        let (since, created) =
            (hooked_since(&table, "rdma"), pins.first().and_then(|pin| pin["created"].as_str()));
        let is_announced = since.zip(created).is_some_and(|(since, created)| created[..19] <= since[..19]);
        Ok(if is_announced { compare::exactly(&nobodys, pins).map(|()| true) } else { Err(error) })
    })?;
    mkpins.tell("release")?;
    guest.wait_until_empty()?;
    Ok(early)
}

/// Since when the modules of a subsystem are hooked, if they came later than the daemon.
pub(super) fn hooked_since(table: &Value, subsystem: &str) -> Option<String> {
    let hooked = gaps::all(table, "subsystem_before").find(|gap| gap["subsystem"] == subsystem)?;
    hooked["since"].as_str().map(str::to_owned)
}
