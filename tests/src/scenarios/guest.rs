//! The guest: file systems, soft-RoCE, the daemon, and questions to `lspins`.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{Outcome, Scenario, factory, schema};

/// How long a change may take to show: a second on the machine, six in a guest that is 20 times slower and shares it with
/// another one.
pub const SOON: Duration = Duration::from_secs(6);
/// The daemon has hooked modules that were loaded a moment ago by then: it looks through their BTF first.
pub const HOOKED: Duration = Duration::from_secs(30);
/// Pins of io_uring and AF_XDP are let go in a kworker, after an RCU grace period or two.
pub const EMPTY: Duration = Duration::from_secs(15);
/// Loading and verifying all programs.
const START: Duration = Duration::from_secs(120);
/// The daemon's web configuration: empty, until a scenario writes something into it.
pub const WEB_CONFIG: &str = "/tmp/pinwatch-web.yml";
/// What the daemon is started with.
const ARGUMENTS: &[&str] = &[
    "--log",
    "debug",
    "--unclaimed",
    "on",
    "--web.config.file",
    WEB_CONFIG,
    "--metrics.users",
    "2",
    "--metrics.cgroups",
    "2",
    "--metrics.files",
    "2",
];
/// Where the daemon's log goes.
const LOG: &str = "/tmp/pinwatch.log";

/// The guest, with one daemon.
pub struct Guest {
    daemon: Child,
    /// How the daemon hooks.
    pub attach: String,
    /// Seed of what is random.
    pub seed: u64,
    /// More and longer.
    pub full: bool,
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// A device-dax; where there is one there are /mnt/daxext4 and /mnt/daxxfs too.
    pub devdax: Option<String>,
}

/// Runs a shell command; its output, or what it said when it failed.
pub fn shell(command: &str) -> Result<String> {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    schema::check_command(command.split_whitespace(), &text).with_context(|| command.to_owned())?;
    Ok(text)
}

/// Asks until the answer is as wanted, or time is up: then the last reason is the error. What cannot be asked at all is an error
/// at once.
pub fn eventually<T>(patience: Duration, mut ask: impl FnMut() -> Result<Result<T>>) -> Result<T> {
    let until = Instant::now() + patience;
    loop {
        match ask()? {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

impl Guest {
    /// Sets up file systems and starts the daemon.
    pub fn set_up(attach: &str, seed: u64, full: bool) -> Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse().ok());
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        shell("mkdir -p /mnt/tmpfs /mnt/huge /mnt/ext4 /mnt/xfs && mount -t tmpfs tmpfs /mnt/tmpfs")?;
        shell("echo 24 > /proc/sys/vm/nr_hugepages && mount -t hugetlbfs none /mnt/huge")?;
        shell(
            "modprobe brd rd_nr=3 rd_size=409600 && mkfs.ext4 -q -F /dev/ram0 && mkfs.xfs -q -f /dev/ram1",
        )?;
        shell("modprobe ext4; modprobe xfs; mount /dev/ram0 /mnt/ext4 && mount /dev/ram1 /mnt/xfs")?;
        shell("rdma-up")?;
        let devdax = persistent_memory()?;
        fs::write(WEB_CONFIG, "")?;
        let daemon = start_daemon(&[&["--attach", attach], ARGUMENTS].concat(), LOG)?;
        let guest = Self { daemon, attach: attach.to_owned(), seed, full, kernel, devdax };
        guest.wait_until_empty()?;
        Ok(guest)
    }

    /// Runs a scenario; nothing may be pinned after it.
    pub fn perform(&mut self, scenario: &Scenario) -> Result<Outcome> {
        let result = (scenario.run)(self);
        factory::end_all();
        let outcome = result?;
        self.wait_until_empty()?;
        Ok(outcome)
    }

    /// Whether the kernel is at least this version.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.kernel >= (major, minor)
    }

    /// What `lspins -J` says.
    pub fn table(&self) -> Result<Value> {
        let output = Command::new("lspins").arg("-J").stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code().is_some_and(|code| code < 2),
            "lspins -J failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let table: Value =
            serde_json::from_str(&text).with_context(|| format!("lspins -J said {text:.300}"))?;
        schema::check_value(schema::What::Document, &table)?;
        ensure!(
            !table["watching_since"].is_null(),
            "lspins did not ask the daemon: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        // Nobody gives it any: what says so has taken something else for an anchor.
        let itself = |holder: &Value| holder["pid"] == self.pid();
        let pins = table["pins"].as_array().into_iter().flatten();
        let held = pins.filter(|pin| pin["holders"].as_array().is_some_and(|all| all.iter().any(itself)));
        ensure!(held.count() == 0, "the daemon is said to keep pins of others: {table}");
        Ok(table)
    }

    /// The same, which must not take long.
    pub fn table_at_once(&self) -> Result<Value> {
        let asked = Instant::now();
        let table = self.table()?;
        ensure!(asked.elapsed() < SOON, "an answer takes {:.1} s", asked.elapsed().as_secs_f32());
        Ok(table)
    }

    /// The pins.
    pub fn pins(&self) -> Result<Vec<Value>> {
        Ok(self.table()?["pins"].as_array().cloned().unwrap_or_default())
    }

    /// Asks until the answer is as wanted, or time is up; then the last reason is the error.
    pub fn wait_for<T>(&self, patience: Duration, ask: impl Fn(&[Value]) -> Result<T>) -> Result<T> {
        eventually(patience, || Ok(ask(&self.pins()?)))
    }

    /// Waits until nothing is pinned any more.
    pub fn wait_until_empty(&self) -> Result<()> {
        self.wait_until_empty_for(EMPTY)
    }

    /// The same, for so long.
    pub fn wait_until_empty_for(&self, patience: Duration) -> Result<()> {
        self.wait_for(patience, |pins| {
            ensure!(pins.is_empty(), "{} pins are still listed, the first is {}", pins.len(), pins[0]);
            Ok(())
        })
    }

    /// Starts a new daemon if the one that serves the scenarios is gone; says how it ended.
    pub fn revive(&mut self) -> Result<Option<String>> {
        let Some(status) = self.daemon.try_wait()? else { return Ok(None) };
        let tail = self.log_tail();
        self.daemon = start_daemon(&[&["--attach", &self.attach], ARGUMENTS].concat(), LOG)?;
        Ok(Some(format!("the daemon had ended ({status}); its log ended with:\n{tail}")))
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// The daemon's log.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(LOG).with_context(|| LOG.to_owned())
    }

    /// The end of the daemon's log.
    pub fn log_tail(&self) -> String {
        let text = self.log().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Makes /mnt/daxext4, /mnt/daxxfs and a device-dax, whose name it returns; `None` on a machine without NVDIMMs.
fn persistent_memory() -> Result<Option<String>> {
    shell("modprobe nfit; modprobe nd_pmem; true")?;
    if fs::read_dir("/sys/bus/nd/devices").map_or(0, Iterator::count) == 0 {
        return Ok(None);
    }
    shell("pmem-up && mkfs.ext4 -q -F -b 4096 /dev/pmem0 && mkfs.xfs -q -f -m reflink=0 /dev/pmem1")?;
    shell("mkdir -p /mnt/daxext4 /mnt/daxxfs && mount -o dax=always /dev/pmem0 /mnt/daxext4")?;
    shell("mount -o dax=always /dev/pmem1 /mnt/daxxfs")?;
    let list = shell("ls /dev/dax*")?;
    Ok(Some(list.split_whitespace().next().context("pmem-up made no /dev/dax")?.to_owned()))
}

/// Starts a daemon and waits until it watches.
pub fn start_daemon(arguments: &[&str], log: &str) -> Result<Child> {
    start_daemon_through(&[], arguments, log)
}

/// The same through another program that becomes it, such as setpriv.
pub fn start_daemon_through(wrapper: &[&str], arguments: &[&str], log: &str) -> Result<Child> {
    let file = File::create(log)?;
    // Who does not ask for it gets a daemon without the unclaimed pins: verifying those programs takes a guest seconds.
    let unclaimed: &[&str] = if arguments.contains(&"--unclaimed") { &[] } else { &["--unclaimed", "off"] };
    let words = [wrapper, &["pinwatch", "run"], arguments, unclaimed].concat();
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("cannot start pinwatch")?;
    let until = Instant::now() + START;
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        if text.contains("INFO pinwatch::daemon: watching") {
            ensure!(!text.contains("cannot attach a hook"), "a hook is missing: {text}");
            return Ok(child);
        }
        if let Some(status) = child.try_wait()? {
            bail!("pinwatch ended ({status}): {text}");
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            bail!("pinwatch does not watch after {} s: {text}", START.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
