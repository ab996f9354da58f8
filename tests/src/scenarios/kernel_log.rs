//! What the guest's kernel complains of while a scenario runs.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};

/// Levels up to this are complaints (`KERN_WARNING`, include/linux/kern_levels.h).
const WARNING: u32 = 4;
/// So many complaints are told.
const MOST: usize = 6;

/// The kernel's log from a moment on.
pub struct KernelLog {
    log: File,
    complaints: Vec<String>,
}

impl KernelLog {
    /// From now on.
    pub fn from_now() -> Result<Self> {
        let mut log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        log.seek(SeekFrom::End(0)).context("/dev/kmsg")?;
        Ok(Self { log, complaints: Vec::new() })
    }

    /// Whether a CPU did nothing for so long that RCU noticed (kernel/rcu/tree_stall.h, tree_exp.h), since this was last asked.
    pub fn stalled(&mut self) -> Result<bool> {
        let before = self.complaints.len();
        self.read()?;
        Ok(self.complaints[before..].iter().any(|line| is_stall(line)))
    }

    /// What it complained of, on one line.
    pub fn complaints(&mut self) -> Result<String> {
        self.read()?;
        Ok(match self.complaints.len() {
            0 => "nothing".to_owned(),
            length => self.complaints[length.saturating_sub(MOST)..].join(" | "),
        })
    }

    fn read(&mut self) -> Result<()> {
        // One record for each read (Documentation/ABI/testing/dev-kmsg); it is never longer than 8 KiB.
        let mut record = [0; 8192];
        loop {
            match self.log.read(&mut record) {
                Ok(0) => return Ok(()),
                Ok(length) => self.complaints.extend(complaint(&String::from_utf8_lossy(&record[..length]))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Overwritten meanwhile: the next one is there.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }
}

fn is_stall(line: &str) -> bool {
    ["detected stalls on", "detected expedited stalls on", "self-detected stall on"]
        .iter()
        .any(|words| line.contains(words))
}

/// The text of a record, "level and facility,number,time,flags;text", if it is a complaint.
fn complaint(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let level = head.split(',').next()?.parse::<u32>().ok()? & 7;
    (level <= WARNING).then(|| text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_a_complaint() {
        let stall =
            complaint("3,812,54287552,-;rcu: INFO: rcu_preempt self-detected stall on CPU\n SUBSYSTEM=x\n")
                .unwrap();
        assert_eq!(stall, "rcu: INFO: rcu_preempt self-detected stall on CPU");
        assert!(is_stall(&stall));
        assert!(is_stall("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.... }"));
        assert!(!is_stall(&complaint("4,1,1,-;brd: module loaded").unwrap()));
        // The second is of level 6 and of facility 1: a program wrote it.
        assert_eq!(
            [complaint("6,1,1,-;x"), complaint("14,1,1,-;x"), complaint("nonsense")],
            [None, None, None]
        );
    }
}
