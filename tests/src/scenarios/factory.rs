//! `mkpins` as a child: what it made, and commands to it.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The longest time that one answer may take: a guest is 20 times slower than the machine.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    /// Children that may still live: a scenario that fails leaves them behind.
    static STARTED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// A running `mkpins`.
pub struct Mkpins {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Its first line.
    pub made: Value,
}

impl Mkpins {
    /// Starts it; arguments are separated by blanks.
    pub fn start(arguments: &str) -> Result<Self> {
        Self::start_through(&[], arguments)
    }

    /// Starts it; an error if the pin is refused.
    pub fn pinned(arguments: &str) -> Result<Self> {
        let mkpins = Self::start(arguments)?;
        ensure!(mkpins.refused().is_none(), "{arguments}: {}", mkpins.made);
        Ok(mkpins)
    }

    /// Starts it through another program, such as `unshare -m`.
    pub fn start_through(wrapper: &[&str], arguments: &str) -> Result<Self> {
        let mut words: Vec<&str> = wrapper.to_vec();
        words.push("mkpins");
        words.extend(arguments.split_ascii_whitespace());
        Self::spawn(Command::new(words[0]).args(&words[1..]), arguments)
    }

    /// Starts a command that ends in `mkpins`.
    pub fn spawn(command: &mut Command, what: &str) -> Result<Self> {
        Self::spawn_patiently(command, what, PATIENCE)
    }

    /// The same where the first line may take longer.
    pub fn spawn_patiently(command: &mut Command, what: &str, patience: Duration) -> Result<Self> {
        let mut mkpins = Self::launch(command, what)?;
        mkpins.made = mkpins.answer(patience).with_context(|| format!("mkpins {what}"))?;
        Ok(mkpins)
    }

    /// Starts so many at a time; an error if a pin of one is refused.
    pub fn crowd(arguments: &str, number: usize) -> Result<Vec<Self>> {
        let words = arguments.split_ascii_whitespace();
        let launch = |_| Self::launch(Command::new("mkpins").args(words.clone()), arguments);
        let mut crowd = (0..number).map(launch).collect::<Result<Vec<Self>>>()?;
        for mkpins in &mut crowd {
            mkpins.made = mkpins.answer(PATIENCE).with_context(|| format!("mkpins {arguments}"))?;
            ensure!(mkpins.refused().is_none(), "{arguments}: {}", mkpins.made);
        }
        Ok(crowd)
    }

    /// Starts it without waiting for what it says.
    fn launch(command: &mut Command, what: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start mkpins {what}"))?;
        STARTED.with_borrow_mut(|started| started.push(child.id()));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("mkpins has no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, lines, made: Value::Null })
    }

    /// The errno's name, if the pin was refused.
    pub fn refused(&self) -> Option<&str> {
        self.made["error"]["name"].as_str()
    }

    /// The next line.
    pub fn answer(&mut self, patience: Duration) -> Result<Value> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line).with_context(|| format!("mkpins said {line:?}")),
            Err(RecvTimeoutError::Timeout) => bail!("mkpins gave no answer for {} s", patience.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("mkpins ended without an answer"),
        }
    }

    /// Gives a command whose answer comes later, or never.
    pub fn order(&mut self, command: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("mkpins is ending")?;
        writeln!(stdin, "{command}").with_context(|| format!("mkpins did not take {command:?}"))
    }

    /// Gives a command and waits for its answer, which must not be an error.
    pub fn tell(&mut self, command: &str) -> Result<Value> {
        self.order(command)?;
        let answer = self.answer(PATIENCE).with_context(|| format!("after {command:?}"))?;
        if !answer["error"].is_null() {
            bail!("mkpins could not {command}: {answer}");
        }
        Ok(answer)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.made["pid"].as_u64().map_or(self.child.id(), |pid| pid as u32)
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it end by itself.
    pub fn end(mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// Kills what is left of all that was started.
pub fn end_all() {
    for pid in STARTED.with_borrow_mut(std::mem::take) {
        // SAFETY: a child of ours; if it has been waited for, the pid is at worst that of another of our children.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    }
}

impl Drop for Mkpins {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
        STARTED.with_borrow_mut(|started| started.retain(|pid| *pid != self.child.id()));
    }
}
