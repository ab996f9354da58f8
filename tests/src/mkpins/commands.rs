//! The commands that mkpins obeys on stdin once its pin is made. Pure: what a line says, not what it does.

use crate::sys::parse_size;

/// The commands, as `--help` prints them.
pub const COMMANDS: &str = "\
COMMANDS on stdin, one a line, each answered by {\"done\": COMMAND, ...} or {\"command\", \"error\"}:
  munmap | close             drop the mapping | the descriptors of the files under it
  unlink                     remove the names of the files
  truncate BYTES [FILE]      cut the file (0 is the first of the layout)
  punch OFFSET BYTES [FILE]  punch a hole into it
  lease read|write|none      take or drop a lease on the first file (read wants --read-only)
  deleg read|write|none      the same with a delegation (F_SETDELEG, Linux 6.19 and later)
  fork [all]                 a child that keeps the anchor only [everything], 15 minutes at most
  kill-child [PID]           kill and reap the newest child [that one]
  send SOCKET [WHICH]        connect and pass anchor (default), second or file on by SCM_RIGHTS
  recv SOCKET                listen, accept and take a descriptor; close-received drops all taken
  inflight                   put the anchor into a socket pair of our own and leave it there
  release | register         undo the pins by asking the kernel | make them again
  close-anchor | close-ring2 close the anchor with the pins on it | the second ring or socket
  update SLOT | clear SLOT   fill | empty a slot of a sparse table
  direct PATH READS          read PATH with O_DIRECT into the pinned memory, page after page, in a thread
  direct-wait                until all such threads have ended
  let-go                     of what --held holds
  exec-sleep [drop]          become `sleep 900` with the anchor still open [closed]
  hello                      answers pid and tid
  exit [CODE]                end; so does the end of stdin
Exit codes: 0 done, 1 not set up, 2 usage, 3 the pin was refused.";

/// What to pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The anchor's descriptor.
    Anchor,
    /// The second ring or socket.
    Second,
    /// The first file's own descriptor.
    File,
}

/// One line of stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Munmap,
    Close,
    Unlink,
    Truncate { length: u64, file: usize },
    Punch { offset: u64, length: u64, file: usize },
    Lease { kind: i32, delegation: bool },
    Fork { all: bool },
    KillChild(Option<i32>),
    Send { socket: String, what: Passed },
    Recv { socket: String },
    CloseReceived,
    Inflight,
    Release,
    Register,
    CloseAnchor,
    CloseSecond,
    Update { slot: u32, fill: bool },
    Direct { path: String, reads: u64 },
    DirectWait,
    LetGo,
    ExecSleep { keep: bool },
    Hello,
    Exit(i32),
}

/// The kind of a lease by its word.
pub fn lease_kind(word: &str) -> Result<i32, String> {
    match word {
        "read" => Ok(libc::F_RDLCK),
        "write" => Ok(libc::F_WRLCK),
        "none" => Ok(libc::F_UNLCK),
        other => Err(format!("`{other}` is none of read, write, none")),
    }
}

impl Command {
    /// Reads a line.
    pub fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let size = |word: &str| parse_size(word);
        let number = |word: &str| {
            word.parse::<u32>().map_err(|_| format!("`{word}` is no number in `{}`", line.trim()))
        };
        Ok(match words.as_slice() {
            ["munmap"] => Self::Munmap,
            ["close"] => Self::Close,
            ["unlink"] => Self::Unlink,
            ["truncate", length] => Self::Truncate { length: size(length)?, file: 0 },
            ["truncate", length, file] => {
                Self::Truncate { length: size(length)?, file: number(file)? as usize }
            }
            ["punch", offset, length] => {
                Self::Punch { offset: size(offset)?, length: size(length)?, file: 0 }
            }
            ["punch", offset, length, file] => {
                Self::Punch { offset: size(offset)?, length: size(length)?, file: number(file)? as usize }
            }
            [what @ ("lease" | "deleg"), kind] => {
                Self::Lease { kind: lease_kind(kind)?, delegation: *what == "deleg" }
            }
            ["fork"] => Self::Fork { all: false },
            ["fork", "all"] => Self::Fork { all: true },
            ["kill-child"] => Self::KillChild(None),
            ["kill-child", pid] => Self::KillChild(Some(number(pid)? as i32)),
            ["send", socket] => Self::Send { socket: (*socket).to_owned(), what: Passed::Anchor },
            ["send", socket, what] => {
                let what = match *what {
                    "anchor" => Passed::Anchor,
                    "second" => Passed::Second,
                    "file" => Passed::File,
                    other => return Err(format!("`{other}` is none of anchor, second, file")),
                };
                Self::Send { socket: (*socket).to_owned(), what }
            }
            ["recv", socket] => Self::Recv { socket: (*socket).to_owned() },
            ["close-received"] => Self::CloseReceived,
            ["inflight"] => Self::Inflight,
            ["release"] => Self::Release,
            ["register"] => Self::Register,
            ["close-anchor"] => Self::CloseAnchor,
            ["close-ring2"] => Self::CloseSecond,
            ["update", slot] => Self::Update { slot: number(slot)?, fill: true },
            ["clear", slot] => Self::Update { slot: number(slot)?, fill: false },
            ["direct", path, reads] => {
                Self::Direct { path: (*path).to_owned(), reads: u64::from(number(reads)?) }
            }
            ["let-go"] => Self::LetGo,
            ["direct-wait"] => Self::DirectWait,
            ["exec-sleep"] => Self::ExecSleep { keep: true },
            ["exec-sleep", "drop"] => Self::ExecSleep { keep: false },
            ["hello"] => Self::Hello,
            ["exit"] => Self::Exit(0),
            ["exit", code] => Self::Exit(number(code)? as i32),
            _ => return Err(format!("`{}` is no command; mkpins --help lists them", line.trim())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(Command::parse("munmap\n"), Ok(Command::Munmap));
        assert_eq!(Command::parse("truncate 4K"), Ok(Command::Truncate { length: 4096, file: 0 }));
        assert_eq!(
            Command::parse("punch 0x1000 4096 2"),
            Ok(Command::Punch { offset: 4096, length: 4096, file: 2 })
        );
        assert_eq!(Command::parse("exit 7"), Ok(Command::Exit(7)));
        assert_eq!(Command::parse("clear 3"), Ok(Command::Update { slot: 3, fill: false }));
        assert_eq!(
            Command::parse("send /tmp/s file"),
            Ok(Command::Send { socket: "/tmp/s".into(), what: Passed::File })
        );
    }

    #[test]
    fn refused_lines() {
        for line in ["", "munmap now", "truncate", "truncate x", "lease", "send", "send /s me", "exit no"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
