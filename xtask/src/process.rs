//! Running other programs: every child ends with this process, and a failed one becomes one sentence that says
//! what failed and where its whole output is. What is run, and why, is decided elsewhere.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A command whose process gets `SIGTERM` when the thread that started it ends; start it from the main thread.
///
/// The administrator's folders are added to `PATH`: an ordinary user's shell leaves out `/sbin`, where
/// `modprobe` and `mksquashfs` may be. So is cargo's, where `cargo install` puts bpf-linker: with a Rust that is not
/// rustup's nothing else has put it there.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    with_death_signal(program, libc::SIGTERM)
}

/// As [`command`], but the child is killed: for a virtual machine, which has nothing to clean up.
pub fn command_killed_with_us(program: impl AsRef<OsStr>) -> Command {
    with_death_signal(program, libc::SIGKILL)
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn with_death_signal(program: impl AsRef<OsStr>, signal: libc::c_int) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path()).env("LC_ALL", "C");
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, getppid), nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the prctl; then no signal would ever come.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    command
}

fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    let cargo = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .map_or_else(|_| String::new(), |home| format!("{home}/bin"));
    format!("{own}:{cargo}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Where `program` would be found, or `None`.
pub fn find_program(program: &str) -> Option<PathBuf> {
    search_path().split(':').filter(|folder| !folder.is_empty()).find_map(|folder| {
        let candidate = Path::new(folder).join(program);
        is_executable(&candidate).then_some(candidate)
    })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs `command` to its end with its output in `log`.
///
/// # Errors
/// When it cannot be started or ends with another status than 0: a sentence with `what` and the program's own
/// last complaint.
pub fn run_logged(command: &mut Command, what: &str, log: &Path) -> Result<()> {
    let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let also = file.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(also)
        .status()
        .with_context(|| format!("cannot {what}: cannot start {}", name(command)))?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    bail!(
        "cannot {what}: {} failed ({status}): {} (all of its output: {})",
        name(command),
        complaint(&text),
        log.display()
    )
}

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
/// As [`run_logged`], with the complaint taken from standard error.
pub fn output(command: &mut Command, what: &str) -> Result<String> {
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot {what}: cannot start {}", name(command)))?;
    if !result.status.success() {
        let text = String::from_utf8_lossy(&result.stderr).into_owned();
        bail!("cannot {what}: {} failed ({}): {}", name(command), result.status, complaint(&text));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Waits until `child` has ended; its status, and the CPU time of it and of all children that it waited for.
///
/// # Errors
/// When it cannot be waited for.
pub fn wait_counting(child: &mut Child) -> io::Result<(ExitStatus, Duration)> {
    // SAFETY: an all-zero siginfo_t is a valid value of this plain structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` has room for what waitid writes; WNOWAIT leaves the child to be waited for below.
        let result =
            unsafe { libc::waitid(libc::P_PID, child.id(), &raw mut info, libc::WEXITED | libc::WNOWAIT) };
        if result == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // It is a zombie now: its times stand still, and its number is not another's.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // SAFETY: sysconf takes a number and no memory.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let ticks = u64::try_from(ticks).unwrap_or(0).max(1);
    let cpu = Duration::from_millis(cpu_ticks(&stat).unwrap_or(0) * 1000 / ticks);
    Ok((child.wait()?, cpu))
}

/// utime, stime, cutime and cstime of `/proc/PID/stat` (proc_pid_stat(5)), in clock ticks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name stands in parentheses and may have any in it. After it, utime is the twelfth word.
    let words = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    words.map(|word| word.parse::<u64>().ok()).sum()
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The line of a program's output that says most about its failure: the first that speaks of an error, else the last.
pub fn complaint(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = |line: &&str| {
        line.starts_with("E:") || line.starts_with("error") || line.contains("No space left on device")
    };
    let found = lines.clone().find(error).or_else(|| lines.next_back());
    found.unwrap_or("it printed nothing").trim_start_matches("E: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaint_prefers_the_error_over_the_last_line() {
        assert_eq!(complaint("Reading\nE: Unable to locate package x\nbye\n"), "Unable to locate package x");
        assert_eq!(complaint("one\ntwo\n\n"), "two");
        assert_eq!(complaint(""), "it printed nothing");
    }

    #[test]
    fn cpu_time_is_that_of_the_child_and_of_its_children() {
        assert_eq!(cpu_ticks("7 (a) b) Z 1 7 7 0 -1 4 9 9 9 9 10 20 300 4000 20 0 1 0\n"), Some(4330));
        assert_eq!(cpu_ticks("7 (a) Z 1"), Some(0));
        let mut child = command("sh")
            .args(["-c", "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; exit 3"])
            .spawn()
            .unwrap();
        let (status, cpu) = wait_counting(&mut child).unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(cpu > Duration::ZERO, "{cpu:?}");
    }

    #[test]
    fn a_failed_program_becomes_a_sentence() {
        let error = output(command("sh").args(["-c", "echo 'E: no luck' >&2; exit 3"]), "try").unwrap_err();
        assert_eq!(error.to_string(), "cannot try: sh failed (exit status: 3): no luck");
    }

    #[test]
    fn programs_are_found_in_the_administrators_folders_too() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-here").is_none());
    }
}
