//! One cell, a kernel and an attach mode: the scenarios in one guest. Its output with the kernel and the mode before each line, the console when
//! the guest died, and the command that repeats a failure.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::summary::{Part, Took};
use super::tally::Tally;
use crate::vm::{Guest, Outcome};

const LIMIT: Duration = Duration::from_secs(30 * 60);
const FULL_LIMIT: Duration = Duration::from_secs(40 * 60);
/// FS-DAX with ext4, FS-DAX with xfs, device DAX.
const NVDIMMS: u8 = 3;

/// What to run where.
#[derive(Debug, Clone, Copy)]
pub struct Cell<'a> {
    /// Key of the kernel.
    pub kernel: &'a str,
    /// How the daemon hooks.
    pub attach: &'a str,
    /// Only these scenarios; all when empty.
    pub only: &'a [String],
    /// Seed of what is random.
    pub seed: u64,
    /// More and longer.
    pub full: bool,
}

impl Cell<'_> {
    /// What the summary calls it.
    pub fn name(&self) -> String {
        format!("{} {}", self.kernel, self.attach)
    }

    /// Larger for a cell that takes longer: with trampolines more scenarios run, and newer kernels (`at` counts them up) boot
    /// and run slower.
    pub fn length(&self, at: usize) -> (bool, usize) {
        (self.attach == "auto", at)
    }

    /// The guest that it takes, with these binaries of ours.
    pub fn guest(&self, binaries: &[PathBuf]) -> Guest {
        Guest {
            binaries: binaries.to_vec(),
            nvdimm: NVDIMMS,
            iommu: true,
            headers: true,
            memory: 2560,
            cpus: 2,
            timeout: if self.full { FULL_LIMIT } else { LIMIT },
            ..Guest::new(self.kernel)
        }
    }

    /// Boots the guest and runs the scenarios; all that goes wrong is in the tally.
    pub fn perform(&self, binaries: &[PathBuf]) -> Part {
        let guest = self.guest(binaries);
        let started = Instant::now();
        println!("[{}] booting", self.name());
        let mut tally = Tally::default();
        let mut lines = Lines::default();
        let mut failed = Vec::new();
        let mut take = |line: &str| {
            println!("[{}] {line}", self.name());
            if tally.line(line)
                && let Some((name, _)) = tally.failed.last()
            {
                failed.push(name.clone());
            }
        };
        let ended = guest.run_counting(&self.command(), &mut |bytes| lines.feed(bytes, &mut take));
        lines.end(&mut take);
        let (outcome, cpu) = match ended {
            Ok((outcome, cpu)) => (Ok(outcome), Some(cpu)),
            Err(error) => (Err(error), None),
        };
        let (end, status) = match outcome {
            Ok(Outcome::Exited(status)) => (None, Some(status)),
            Ok(Outcome::TimedOut(console)) => {
                self.show_console(&console);
                (Some(format!("no end within {} s", guest.timeout.as_secs())), None)
            }
            Ok(Outcome::Panicked(console)) => {
                self.show_console(&console);
                (Some("the guest's kernel panicked".to_owned()), None)
            }
            Err(error) => {
                println!("[{}] {error:#}", self.name());
                (Some("the guest could not be run, see above".to_owned()), None)
            }
        };
        tally.close(end.as_deref(), status);
        for name in &failed {
            println!("[{}] repeat {name}: {}", self.name(), self.repeat(Some(name)));
        }
        if tally.failed.len() > failed.len() {
            println!("[{}] repeat the run: {}", self.name(), self.repeat(None));
        }
        let took = Took { wall: started.elapsed(), cpu };
        println!("[{}] {:.0} s", self.name(), took.wall.as_secs_f32());
        Part { took: Some(took), ..Part::new(&self.name(), tally) }
    }

    fn command(&self) -> Vec<OsString> {
        let seed = self.seed.to_string();
        let mut command = vec!["scenarios", "run", "--attach", self.attach, "--seed", &seed];
        let only = self.only.join(",");
        if !self.only.is_empty() {
            command.extend(["--only", &only]);
        }
        if self.full {
            command.push("--full");
        }
        command.into_iter().map(OsString::from).collect()
    }

    fn repeat(&self, scenario: Option<&str>) -> String {
        let mut text = format!("cargo xtask test --kernel {} --attach {}", self.kernel, self.attach);
        let only = self.only.join(",");
        // The set-up is no scenario: it fails again whatever is asked for.
        let scenario = scenario.filter(|name| !name.contains(' ') && *name != "set-up");
        if let Some(only) = scenario.or((!only.is_empty()).then_some(&only)) {
            text += &format!(" --only {only}");
        }
        text += &format!(" --seed {} --no-unit", self.seed);
        if self.full {
            text += " --full";
        }
        text
    }

    fn show_console(&self, console: &str) {
        println!("[{}] the last lines of the guest's console:", self.name());
        for line in console.lines() {
            println!("[{}]   {line}", self.name());
        }
    }
}

/// Makes lines of what comes in pieces.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], take: &mut dyn FnMut(&str)) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            take(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        }
    }

    /// What the guest left without an end of line.
    fn end(&mut self, take: &mut dyn FnMut(&str)) {
        if !self.rest.is_empty() {
            take(&String::from_utf8_lossy(&self.rest));
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in ["one\ntw", "o", "\n\nthr\u{e9}"] {
            lines.feed(piece.as_bytes(), &mut |line| seen.push(line.to_owned()));
        }
        lines.end(&mut |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two", "", "thr\u{e9}"]);
    }

    #[test]
    fn the_command_that_repeats_a_failure() {
        let only = ["a".to_owned(), "b".to_owned()];
        let run = Cell { kernel: "6.1", attach: "kprobe", only: &only, seed: 7, full: false };
        assert_eq!(
            run.repeat(Some("b")),
            "cargo xtask test --kernel 6.1 --attach kprobe --only b --seed 7 --no-unit"
        );
        assert_eq!(
            Cell { full: true, ..run }.repeat(Some("set-up")),
            "cargo xtask test --kernel 6.1 --attach kprobe --only a,b --seed 7 --no-unit --full"
        );
        assert_eq!(run.command().last(), Some(&OsString::from("a,b")));
    }
}
