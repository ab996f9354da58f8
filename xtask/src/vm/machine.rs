//! One run of a guest: starts QEMU, passes the command's output on, watches the console and the clock, and says how it
//! ended.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::rundir::{RunDir, nul_separated};
use super::{Guest, Prepared, console, qemu};
use crate::cache::progress;
use crate::process::wait_counting;

/// A kernel takes 5 to 10 seconds; a busy machine many times as long.
const BOOT: Duration = Duration::from_secs(240);
/// Once in some hundred boots the emulator loses a timer of the second CPU, and the kernel waits for it for ever.
const BOOTS: u32 = 2;
const CONSOLE_LINES: usize = 40;
const LOOK_AT_CONSOLE_EVERY: Duration = Duration::from_millis(200);

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended with this status.
    Exited(i32),
    /// It was killed at the time limit; the last lines of the console.
    TimedOut(String),
    /// The kernel panicked; what the console says of it.
    Panicked(String),
}

/// Boots `guest` and runs `command`; how that ended, and the CPU time of the emulator, over all boots.
pub fn run(
    guest: &Guest,
    prepared: &Prepared,
    command: &[OsString],
    on_output: &mut dyn FnMut(&[u8]),
) -> Result<(Outcome, Duration)> {
    let limit = Instant::now() + guest.timeout;
    let mut cpu = Duration::ZERO;
    for _ in 1..BOOTS {
        if let Some(outcome) = boot(guest, prepared, command, limit, true, on_output, &mut cpu)? {
            return Ok((outcome, cpu));
        }
        progress(&format!(
            "a CPU of the guest with kernel {} stands still since before its command was started: booting it again",
            guest.kernel
        ));
    }
    let outcome = boot(guest, prepared, command, limit, false, on_output, &mut cpu)?
        .with_context(|| format!("the guest with kernel {} did not come up", guest.kernel))?;
    Ok((outcome, cpu))
}

/// One boot. Where `gives_up`, `None` is one that stands still before the command is started. Its CPU time is added to `cpu`.
fn boot(
    guest: &Guest,
    prepared: &Prepared,
    command: &[OsString],
    limit: Instant,
    gives_up: bool,
    on_output: &mut dyn FnMut(&[u8]),
    cpu: &mut Duration,
) -> Result<Option<Outcome>> {
    let run = RunDir::create(prepared)?;
    run.write("args", &nul_separated(command))?;
    if guest.share.is_some() {
        run.write("with-share", b"")?;
    }
    let console = run.console();
    fs::write(&console, "").with_context(|| format!("cannot write {}", console.display()))?;
    let terminal = qemu::Terminal::Recorded(&console);
    let mut machine = prepared
        .qemu
        .command()
        .args(qemu::arguments(guest, prepared, &run, &terminal))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start QEMU")?;
    let ended = watch(&mut machine, &run, limit, gives_up, on_output);
    // Whatever happened, no machine stays behind.
    let _ = machine.kill();
    *cpu += wait_counting(&mut machine).context("cannot wait for QEMU")?.1;
    let kept = run.keep_console(&prepared.cache, &guest.kernel);
    let text = recorded(&run);
    let seen = console::read(&text);
    let tail = console::tail(&text, CONSOLE_LINES);
    if let Some(complaint) = seen.complaint.filter(|_| !seen.panic) {
        progress(&format!("the guest's kernel complained: {complaint} (its console: {})", kept.display()));
    }
    match (ended?, seen.exit) {
        _ if seen.panic => Ok(Some(Outcome::Panicked(console::panic(&text, CONSOLE_LINES)))),
        (_, Some(status)) => Ok(Some(Outcome::Exited(status))),
        (Ended::Time, None) => Ok(Some(Outcome::TimedOut(tail))),
        (Ended::Stalled, None) => Ok(None),
        (Ended::NeverStarted, None) => bail!(
            "the guest with kernel {} did not come up within {} s; its console:\n{tail}",
            guest.kernel,
            BOOT.as_secs()
        ),
        (Ended::Itself, None) => {
            let errors = errors(&mut machine);
            let reason = seen
                .failed
                .or(errors)
                .unwrap_or_else(|| "the machine ended before its command did".to_owned());
            bail!("the guest with kernel {} failed: {reason}; its console:\n{tail}", guest.kernel)
        }
    }
}

enum Ended {
    Itself,
    Time,
    NeverStarted,
    Stalled,
}

/// Passes output on until QEMU closes it, the time is over, or the console shows a panic.
fn watch(
    machine: &mut Child,
    run: &RunDir,
    limit: Instant,
    gives_up: bool,
    on_output: &mut dyn FnMut(&[u8]),
) -> Result<Ended> {
    let mut stdout = machine.stdout.take().context("QEMU has no output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    let (mut console_length, mut started) = (0, false);
    let come_up = Instant::now() + BOOT;
    let mut panic_since: Option<Instant> = None;
    loop {
        match receiver.recv_timeout(LOOK_AT_CONSOLE_EVERY) {
            Ok(bytes) => on_output(&bytes),
            Err(RecvTimeoutError::Disconnected) => return Ok(Ended::Itself),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        if now >= limit {
            return Ok(Ended::Time);
        }
        if !started && now >= come_up {
            return Ok(Ended::NeverStarted);
        }
        // The trace that follows a panic takes a moment to come out.
        if panic_since.is_some_and(|since| now - since > Duration::from_secs(2)) {
            return Ok(Ended::Itself);
        }
        let length = fs::metadata(run.console()).map_or(0, |meta| meta.len());
        if length != console_length {
            console_length = length;
            let seen = console::read(&recorded(run));
            started |= seen.started;
            if seen.stalled && !started && gives_up {
                return Ok(Ended::Stalled);
            }
            if panic_since.is_none() && seen.panic {
                panic_since = Some(now);
            }
        }
    }
}

fn recorded(run: &RunDir) -> String {
    String::from_utf8_lossy(&fs::read(run.console()).unwrap_or_default()).into_owned()
}

/// QEMU's own last complaint.
fn errors(machine: &mut Child) -> Option<String> {
    let mut text = String::new();
    machine.stderr.take()?.read_to_string(&mut text).ok()?;
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(|line| format!("QEMU says: {line}"))
}
