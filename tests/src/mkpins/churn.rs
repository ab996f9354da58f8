//! Worker processes that make and undo pins without pause, some killed in the middle of it, and a few pins left at the
//! end: nothing may be lost, nothing may stay. This file is the coordinator; `worker` has what one process does.

mod worker;

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::anchor::{AnchorOptions, Kind};
use crate::layout::Layout;
use crate::report::{refusal, say};
use crate::sys::{Dice, Refused, check, check_fd, fork_tied};

/// The kind of pins, how many, and how often a worker is killed
#[derive(Debug, Args)]
pub struct ChurnOptions {
    /// The kind of pin
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Pins to make over all workers
    #[arg(long, default_value_t = 1000)]
    pub iterations: u64,
    /// Workers
    #[arg(long, default_value_t = 4)]
    pub processes: usize,
    /// A worker is killed and replaced each time that so many pins were made; 0 for never
    #[arg(long, default_value_t = 200)]
    pub kill_every: u64,
    /// Workers that keep pins at the end
    #[arg(long, default_value_t = 3)]
    pub keep: usize,
    /// Seed of all choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The file under the pins; anonymous memory without it
    #[arg(long, conflicts_with = "layout")]
    pub path: Option<PathBuf>,
    /// The mappings under the pins, in the grammar of the single pins
    #[arg(long)]
    pub layout: Option<Layout>,
    /// Pages of the file or of the anonymous memory
    #[arg(long, default_value_t = 64)]
    pub pages: u64,
    /// Seconds after which the workers stop, done or not
    #[arg(long, default_value_t = 300)]
    pub seconds: u64,
    #[command(flatten)]
    pub anchor: AnchorOptions,
}

/// What the coordinator and its workers share: one page that survives a worker's death.
#[repr(C)]
struct Shared {
    /// Pins still to be made; below zero when all are claimed.
    remaining: AtomicI64,
    /// No worker claims while fewer than so many remain: the kills must keep up with fast workers.
    floor: AtomicI64,
    /// Pins that a worker knows it made. One killed between the call's return and the count is missing here.
    registrations: AtomicU64,
    /// Pins undone by a worker: by asking, or by closing their anchor.
    releases: AtomicU64,
    /// 1 once nobody is killed any more.
    finish: AtomicU32,
    /// The error number of the first pin that was refused.
    refused: AtomicI32,
}

/// The workers of a run, killed and reaped however the run ends.
struct Crew(Vec<libc::pid_t>);

impl Crew {
    fn kill(&mut self, index: usize) {
        let pid = std::mem::replace(&mut self.0[index], 0);
        if pid > 0 {
            // SAFETY: the worker is our child and not yet reaped, so the number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            // SAFETY: no status is asked for.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        }
    }

    /// Whether the worker is gone, without waiting.
    fn gone(&mut self, index: usize) -> bool {
        let pid = self.0[index];
        // SAFETY: no status is asked for.
        if pid > 0 && unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) } == pid {
            self.0[index] = 0;
        }
        self.0[index] == 0
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        (0..self.0.len()).for_each(|index| self.kill(index));
    }
}

/// `mkpins churn`.
pub fn run(options: &ChurnOptions) -> Result<i32> {
    if options.processes == 0 {
        bail!("there is nothing to do: --processes is at least 1");
    }
    let shared = share()?;
    shared.remaining.store(options.iterations as i64, Ordering::Relaxed);
    let (reader, writer) = pipe()?;
    let keep = options.keep.min(options.processes);
    let mut dice = Dice::new(options.seed);
    let start = |index: usize, seed: u64| -> Result<libc::pid_t> {
        // A coordinator that dies must not leave pins behind.
        let pid = fork_tied()?;
        if pid == 0 {
            worker::run(options, shared, seed, (index < keep).then_some(writer.as_raw_fd()));
        }
        Ok(pid)
    };
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let mut killed = 0;
    let mut next_kill = options.kill_every;
    let lead = |next_kill: u64| match options.kill_every {
        0 => i64::MIN,
        every => options.iterations as i64 - (next_kill + every) as i64,
    };
    shared.floor.store(lead(next_kill), Ordering::Relaxed);
    let mut crew = Crew(Vec::new());
    for index in 0..options.processes {
        crew.0.push(start(index, dice.below(u64::MAX))?);
    }
    let refused = |shared: &Shared| shared.refused.load(Ordering::Relaxed) != 0;
    while shared.remaining.load(Ordering::Relaxed) > 0 && Instant::now() < deadline && !refused(shared) {
        std::thread::sleep(Duration::from_micros(200));
        if options.kill_every > 0 && shared.registrations.load(Ordering::Relaxed) >= next_kill {
            next_kill += options.kill_every;
            shared.floor.store(lead(next_kill), Ordering::Relaxed);
            let index = dice.below(options.processes as u64) as usize;
            crew.kill(index);
            killed += 1;
            crew.0[index] = start(index, dice.below(u64::MAX))?;
        } else if (0..options.processes).any(|index| crew.gone(index)) && !refused(shared) {
            bail!("a worker ended by itself; what it said is on stderr");
        }
    }
    let complete = shared.remaining.load(Ordering::Relaxed) <= 0;
    shared.remaining.store(0, Ordering::Relaxed);
    shared.finish.store(1, Ordering::Release);
    if refused(shared) {
        let error = Refused { call: "register", errno: shared.refused.load(Ordering::Relaxed) };
        say(&json!({"kind": options.kind.name(), "error": refusal(&error)}));
        return Ok(crate::EXIT_REFUSED);
    }
    let alive = last_words(reader, keep)?;
    let patience = Instant::now() + Duration::from_secs(30);
    for index in keep..options.processes {
        while !crew.gone(index) {
            if Instant::now() > patience {
                bail!("a worker does not end");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    say(&json!({
        "kind": options.kind.name(), "pid": std::process::id(), "complete": complete,
        "registrations": shared.registrations.load(Ordering::Relaxed),
        "releases": shared.releases.load(Ordering::Relaxed), "killed": killed, "alive": alive,
    }));
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    Ok(0)
}

/// The made lines of the workers that keep pins, one element for each pin.
fn last_words(reader: OwnedFd, keep: usize) -> Result<Vec<Value>> {
    let mut ready = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut lines = BufReader::new(std::fs::File::from(reader));
    let mut alive = Vec::new();
    for _ in 0..keep {
        // SAFETY: one pollfd that lives across the call.
        if lines.buffer().is_empty() && check("poll", unsafe { libc::poll(&mut ready, 1, 60_000) })? == 0 {
            bail!("a worker that was to keep pins made none in 60 seconds");
        }
        let mut line = String::new();
        lines.read_line(&mut line).context("cannot read what a worker made")?;
        let pins: Vec<Value> = serde_json::from_str(&line).context("a worker made no pin at the end")?;
        alive.extend(pins);
    }
    Ok(alive)
}

fn share() -> Result<&'static Shared> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses a free range.
    let got = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Shared>(), protection, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        return Err(Refused::last("mmap").into());
    }
    // SAFETY: the page is zeroed, which is a valid state of all members, aligned, and never unmapped.
    Ok(unsafe { &*got.cast::<Shared>() })
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array takes the two descriptors.
    check("pipe2", unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((check_fd("pipe2", ends[0])?, check_fd("pipe2", ends[1])?))
}
