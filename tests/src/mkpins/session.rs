//! Obeys the commands on stdin: what happens to the memory, the anchor and their holders after the pin was made.

use std::io::BufRead;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::commands::{Command, Passed};
use crate::loops;
use crate::passing;
use crate::pins::Pins;
use crate::report::{failure, say};
use crate::sys::{Refused, check, close_raw, thread_id};

/// Seconds that a forked child, or the `sleep` that mkpins becomes, lives at most when nobody ends it.
const CHILD_SECONDS: u32 = 900;
const F_SETDELEG: libc::c_int = 1024 + 16;

/// The state that commands change.
pub struct Session {
    pins: Option<Pins>,
    children: Vec<libc::pid_t>,
    received: Vec<OwnedFd>,
    flying: Vec<(UnixStream, UnixStream)>,
    readers: Vec<JoinHandle<Result<()>>>,
}

impl Session {
    /// Over the pins, or over nothing: a process that only receives what others pass on.
    pub fn new(pins: Option<Pins>) -> Self {
        Self { pins, children: Vec::new(), received: Vec::new(), flying: Vec::new(), readers: Vec::new() }
    }

    /// Obeys until `exit` or the end of stdin; answers the exit code.
    pub fn obey(mut self) -> i32 {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let word = line.split_whitespace().next().unwrap_or_default();
            if word.is_empty() {
                continue;
            }
            let answer = match Command::parse(&line).map_err(anyhow::Error::msg) {
                Ok(Command::Exit(code)) => return code,
                Ok(command) => self.act(command),
                Err(error) => Err(error),
            };
            match answer {
                // `register` answers in the words of the start.
                Ok(Value::Object(made)) if made.contains_key("kind") => say(&made),
                Ok(Value::Object(mut more)) => {
                    more.insert("done".into(), word.into());
                    say(&more);
                }
                Ok(_) => say(&json!({"done": word})),
                Err(error) => say(&json!({"command": word, "error": failure(&error)})),
            }
        }
        0
    }

    fn pins(&mut self) -> Result<&mut Pins> {
        self.pins.as_mut().context("this process has no pins of its own")
    }

    fn anchor_fd(&mut self) -> Result<RawFd> {
        self.pins()?.anchor.fd().context("the anchor is closed")
    }

    fn act(&mut self, command: Command) -> Result<Value> {
        let mut more = Value::Null;
        match command {
            Command::Munmap => self.pins()?.mapping.unmap()?,
            Command::Close => self.pins()?.mapping.close(),
            Command::Unlink => self.pins()?.mapping.unlink()?,
            Command::Truncate { length, file } => {
                self.pins()?.mapping.writable(file)?.set_len(length).context("cannot truncate")?;
            }
            Command::Punch { offset, length, file } => {
                let file = self.pins()?.mapping.writable(file)?;
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let (offset, length) = (offset as libc::off_t, length as libc::off_t);
                // SAFETY: takes numbers only.
                check("fallocate(PUNCH_HOLE)", unsafe {
                    libc::fallocate(file.as_raw_fd(), mode, offset, length)
                })?;
            }
            Command::Lease { kind, delegation } => {
                let fds = self.pins()?.mapping.descriptors();
                let fd = *fds.first().context("no file is open")?;
                set_lease(fd, kind, delegation)?;
                more = json!({"fd": fd});
            }
            Command::Fork { all } => more = json!({"pid": self.fork(all)?}),
            Command::KillChild(pid) => more = json!({"pid": self.kill_child(pid)?}),
            Command::Send { socket, what } => {
                let fd = match what {
                    Passed::Anchor => self.anchor_fd()?,
                    Passed::Second => self.pins()?.anchor.second_fd().context("there is no second anchor")?,
                    Passed::File => *self.pins()?.mapping.descriptors().first().context("no file is open")?,
                };
                passing::send(&socket, fd)?;
            }
            Command::Recv { socket } => {
                let fd = passing::receive(&socket)?;
                more = json!({"fd": fd.as_raw_fd()});
                self.received.push(fd);
            }
            Command::CloseReceived => self.received.clear(),
            Command::Inflight => {
                let pair = passing::inflight(self.anchor_fd()?)?;
                more = json!({"fd": pair.1.as_raw_fd()});
                self.flying.push(pair);
            }
            Command::Release => self.pins()?.anchor.release()?,
            Command::Register => more = serde_json::to_value(self.pins()?.register()?)?,
            Command::CloseAnchor => self.pins()?.anchor.close()?,
            Command::CloseSecond => self.pins()?.anchor.close_second()?,
            Command::Update { slot, fill } => self.pins()?.update(slot, fill)?,
            Command::Direct { path, reads } => {
                let memory = self.pins()?.buffer;
                self.readers.push(std::thread::spawn(move || loops::direct(&path, memory, reads)));
            }
            Command::DirectWait => {
                for reader in self.readers.drain(..) {
                    reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
                }
            }
            Command::LetGo => self.pins()?.held = None,
            Command::ExecSleep { keep } => return Err(self.exec_sleep(keep)),
            Command::Hello => more = json!({"pid": std::process::id(), "tid": thread_id()}),
            // The caller's business: it ends the loop.
            Command::Exit(_) => {}
        }
        Ok(more)
    }

    /// Every descriptor that keeps a pin, our own or received.
    fn anchors(&self) -> Vec<RawFd> {
        let own = self.pins.iter().flat_map(|pins| pins.anchor.fds());
        own.chain(self.received.iter().map(AsRawFd::as_raw_fd)).collect()
    }

    fn fork(&mut self, all: bool) -> Result<libc::pid_t> {
        // SAFETY: no other thread holds a lock: the only one that there can be has made its pin and sleeps for good.
        let pid = check("fork", unsafe { libc::fork() })?;
        if pid == 0 {
            self.live_as_child(all);
        }
        self.children.push(pid);
        Ok(pid)
    }

    fn live_as_child(&mut self, all: bool) -> ! {
        // SAFETY: takes a number only; SIGALRM's default action ends the process.
        unsafe { libc::alarm(CHILD_SECONDS) };
        // The pipes to the scenario must end with the parent.
        if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
            for standard in 0..3 {
                // SAFETY: replaces a standard stream that this child uses no more.
                unsafe { libc::dup2(null.as_raw_fd(), standard) };
            }
        }
        if !all {
            if let Some(pins) = &mut self.pins {
                let _ = pins.mapping.unmap();
            }
            let kept = self.anchors();
            // SAFETY: takes a number only.
            let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(3, 65536) as RawFd;
            for fd in (3..limit).filter(|fd| !kept.contains(fd)) {
                let _ = close_raw(fd);
            }
        }
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }

    fn kill_child(&mut self, pid: Option<libc::pid_t>) -> Result<libc::pid_t> {
        let at = match pid {
            None => self.children.len().checked_sub(1),
            Some(pid) => self.children.iter().position(|child| *child == pid),
        };
        let Some(at) = at else { bail!("there is no such child") };
        let pid = self.children.remove(at);
        // SAFETY: the child is ours and not yet reaped, so the number is still its own.
        check("kill", unsafe { libc::kill(pid, libc::SIGKILL) })?;
        let mut status = 0;
        // SAFETY: the status lives across the call.
        check("waitpid", unsafe { libc::waitpid(pid, &mut status, 0) })?;
        Ok(pid)
    }

    /// Comes back only with the error. The answer goes out before: there is nobody to give it afterwards.
    fn exec_sleep(&mut self, keep: bool) -> anyhow::Error {
        for fd in self.anchors().into_iter().filter(|_| keep) {
            // SAFETY: takes numbers only.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
                return Refused::last("fcntl(F_SETFD)").into();
            }
        }
        say(&json!({"done": "exec-sleep"}));
        let error = std::process::Command::new("sleep").arg(CHILD_SECONDS.to_string()).exec();
        anyhow::Error::new(error).context("cannot become sleep")
    }
}

/// Takes or drops a lease or a delegation.
pub fn set_lease(fd: RawFd, kind: i32, delegation: bool) -> Result<(), Refused> {
    // A broken lease signals SIGIO, which would end the process. It is the tool that is to notice.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    if delegation {
        // `struct delegation`: flags of 32 bits, the kind in 16, and padding.
        let wanted = [0_u16, 0, kind as u16, 0];
        // SAFETY: the array has the struct's size and lives across the call.
        check("fcntl(F_SETDELEG)", unsafe { libc::fcntl(fd, F_SETDELEG, wanted.as_ptr()) })?;
    } else {
        // SAFETY: takes numbers only.
        check("fcntl(F_SETLEASE)", unsafe { libc::fcntl(fd, libc::F_SETLEASE, kind) })?;
    }
    Ok(())
}
