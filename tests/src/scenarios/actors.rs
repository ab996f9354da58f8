//! Processes without a will of their own, `mkpins actor`: each has a connection over which it gets its orders.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const SOCKET: &str = "/tmp/actors.sock";
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections by pid, and the processes that were started here: those that they fork are not our children.
pub struct Actors {
    listener: UnixListener,
    connections: BTreeMap<u32, BufReader<UnixStream>>,
    children: BTreeMap<u32, Child>,
}

/// What a process says of itself first.
pub struct Hello {
    pub pid: u32,
    pub address: u64,
    pub ino: u64,
}

impl Actors {
    pub fn new() -> Result<Self> {
        let _ = std::fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).with_context(|| format!("cannot listen on {SOCKET}"))?;
        // Also for those of another user.
        std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener, connections: BTreeMap::new(), children: BTreeMap::new() })
    }

    /// Starts a process.
    pub fn spawn(&mut self) -> Result<Hello> {
        self.start(Command::new("mkpins").args(["actor", SOCKET]))
    }

    /// Starts one through setpriv, which becomes it.
    pub fn spawn_as(&mut self, setpriv: &[&str]) -> Result<Hello> {
        self.start(Command::new("setpriv").args(setpriv).args(["mkpins", "actor", SOCKET]))
    }

    fn start(&mut self, command: &mut Command) -> Result<Hello> {
        let child = command.stdin(Stdio::null()).spawn()?;
        let pid = child.id();
        self.children.insert(pid, child);
        self.welcome(pid)
    }

    /// Takes the connection that this process makes: the next, as there is only one order at a time.
    pub fn welcome(&mut self, pid: u32) -> Result<Hello> {
        let mut ready = libc::pollfd { fd: self.listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd that lives across the call.
        let connecting = unsafe { libc::poll(&mut ready, 1, PATIENCE.as_millis() as i32) } > 0;
        ensure!(connecting, "process {pid} does not connect");
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let hello = answer(&mut stream)?;
        let number = |name: &str| hello[name].as_u64().with_context(|| format!("no {name} in {hello}"));
        ensure!(number("pid")? == u64::from(pid), "expected process {pid}, and there came {hello}");
        self.connections.insert(pid, stream);
        Ok(Hello { pid, address: number("address")?, ino: number("ino")? })
    }

    /// Gives an order and waits for its answer, which must not be an error.
    pub fn tell(&mut self, pid: u32, order: &str) -> Result<Value> {
        self.order(pid, order)?;
        self.answer(pid).with_context(|| format!("process {pid}: {order}"))
    }

    /// Gives an order whose answer comes later, or never.
    pub fn order(&mut self, pid: u32, order: &str) -> Result<()> {
        let stream = self.connections.get_mut(&pid).context("no such process")?;
        writeln!(stream.get_mut(), "{order}").with_context(|| format!("process {pid} did not take {order:?}"))
    }

    pub fn answer(&mut self, pid: u32) -> Result<Value> {
        let answer = answer(self.connections.get_mut(&pid).context("no such process")?)?;
        if !answer["error"].is_null() {
            bail!("{answer}");
        }
        Ok(answer)
    }

    /// A number in an answer.
    pub fn number(&mut self, pid: u32, order: &str, name: &str) -> Result<u64> {
        let answer = self.tell(pid, order)?;
        answer[name].as_u64().with_context(|| format!("{order}: no {name} in {answer}"))
    }

    /// Ends a process, by its own will or not, and waits until it is gone.
    pub fn end(&mut self, pid: u32, by_force: bool) -> Result<()> {
        if by_force {
            // SAFETY: one of these processes, which nobody else ends.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        } else {
            self.order(pid, "exit")?;
        }
        let mut stream = self.connections.remove(&pid).context("no such process")?;
        let mut rest = String::new();
        stream.read_line(&mut rest).with_context(|| format!("process {pid} does not end"))?;
        ensure!(rest.is_empty(), "process {pid} ended with {rest:?}");
        if let Some(mut child) = self.children.remove(&pid) {
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        for pid in self.connections.keys() {
            // SAFETY: one of these processes that still has its connection.
            unsafe { libc::kill(*pid as i32, libc::SIGKILL) };
        }
        for child in self.children.values_mut() {
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(SOCKET);
    }
}

fn answer(stream: &mut BufReader<UnixStream>) -> Result<Value> {
    let mut line = String::new();
    stream.read_line(&mut line).context("no answer")?;
    ensure!(!line.is_empty(), "the process has ended");
    serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
}
