//! Plain work loops to be timed: making and undoing one pin, reading with O_DIRECT. The clock stands around the loop
//! and nothing but the work is in it.

use std::fs::OpenOptions;
use std::io::BufRead;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::anchor::{Buffer, Kind};
use crate::layout::Layout;
use crate::mapping::Mapping;
use crate::pins::{PinOptions, Pins};
use crate::report::{failure, say};
use crate::sys::{PAGE, check, cpu_ns, now_ns};

/// Which pin to make and undo, how often. Prints {"ready": true}; each line `go [N]` on stdin runs the loop and prints
/// {"iterations", "ns", "cpu_ns"}
#[derive(Debug, Args)]
pub struct InsnsOptions {
    /// The kind of pin
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Times through the loop for a `go` without a number
    #[arg(long, default_value_t = 1000)]
    pub iterations: u64,
    #[command(flatten)]
    pub pin: PinOptions,
}

/// What to read, how often. Prints {"ready": true}; each line `go [N]` on stdin runs the loop and prints {"iterations",
/// "ns", "cpu_ns"}
#[derive(Debug, Args)]
pub struct DioOptions {
    /// The file or the block device to read 4 KiB from, at offset 0
    #[arg(long)]
    pub path: PathBuf,
    /// Times through the loop for a `go` without a number
    #[arg(long, default_value_t = 1000)]
    pub iterations: u64,
}

/// What to do to a file, how often. Prints {"ready": true}; each line `go [N]` on stdin runs the loop and prints
/// {"iterations", "ns", "cpu_ns"}
#[derive(Debug, Args)]
pub struct FilesOptions {
    /// The file; it is made
    #[arg(long)]
    pub path: PathBuf,
    /// What to do
    #[arg(long, value_enum)]
    pub what: FileWork,
    /// Times through the loop for a `go` without a number
    #[arg(long, default_value_t = 1000)]
    pub iterations: u64,
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileWork {
    /// Opened for reading and writing, and closed.
    Open,
    /// Cut by its path.
    Truncate,
    /// Made and removed.
    Unlink,
    /// Given a lease, which is dropped.
    Lease,
    /// Opened for reading and closed, while a read lease is on it.
    OpenLeased,
}

/// `mkpins files`.
pub fn files(options: &FilesOptions) -> Result<i32> {
    let path = &options.path;
    let cannot = || format!("cannot open {}", path.display());
    std::fs::write(path, [0; PAGE as usize]).with_context(cannot)?;
    let kept = std::fs::File::open(path).with_context(cannot)?;
    let lease = |kind| crate::session::set_lease(kept.as_raw_fd(), kind, false);
    if options.what == FileWork::OpenLeased {
        lease(libc::F_RDLCK)?;
    }
    serve(options.iterations, |iterations| {
        for _ in 0..iterations {
            match options.what {
                FileWork::Open => drop(OpenOptions::new().read(true).write(true).open(path)?),
                FileWork::Truncate => {
                    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
                    // SAFETY: the path ends with NUL and lives across the call.
                    check("truncate", unsafe { libc::truncate(name.as_ptr(), PAGE as libc::off_t) })?;
                }
                FileWork::Unlink => {
                    let other = path.with_extension("other");
                    drop(std::fs::File::create(&other)?);
                    std::fs::remove_file(&other)?;
                }
                FileWork::Lease => {
                    lease(libc::F_WRLCK)?;
                    lease(libc::F_UNLCK)?;
                }
                FileWork::OpenLeased => drop(std::fs::File::open(path)?),
            }
        }
        Ok(())
    })
}

/// `mkpins insns`.
pub fn insns(options: &InsnsOptions) -> Result<i32> {
    let mut pins = Pins::prepare(options.kind, &options.pin)?;
    serve(options.iterations, |iterations| pins.cycle(iterations))
}

/// `mkpins dio`.
pub fn dio(options: &DioOptions) -> Result<i32> {
    let path = &options.path;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    let file = file.with_context(|| format!("cannot open {} with O_DIRECT", path.display()))?;
    let layout: Layout = "anon:1".parse().map_err(anyhow::Error::msg)?;
    let buffer = Mapping::make(&layout, false)?;
    let fd = file.as_raw_fd();
    serve(options.iterations, |iterations| {
        for _ in 0..iterations {
            // SAFETY: the mapping has a page, is aligned, and nothing refers to what is read into it.
            let got = unsafe { libc::pread(fd, buffer.address as *mut libc::c_void, PAGE as usize, 0) };
            check("pread(O_DIRECT)", got as i64)?;
        }
        Ok(())
    })
}

/// Reads a file's first page with O_DIRECT so many times, into one page of the memory after the other.
pub fn direct(path: &str, memory: Buffer, reads: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    let file = file.with_context(|| format!("cannot open {path} with O_DIRECT"))?;
    let pages = (memory.length / PAGE).max(1);
    for read in 0..reads {
        let page = memory.address / PAGE * PAGE + read % pages * PAGE;
        // SAFETY: the page is in memory that stays mapped, and nothing refers to what is read into it.
        let got = unsafe { libc::pread(file.as_raw_fd(), page as *mut libc::c_void, PAGE as usize, 0) };
        check("pread(O_DIRECT)", got as i64)?;
    }
    Ok(())
}

fn serve(default: u64, mut work: impl FnMut(u64) -> Result<()>) -> Result<i32> {
    // Once before the clock counts, so that a pin that is refused is known at once.
    work(1)?;
    say(&json!({"ready": true, "pid": std::process::id()}));
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let iterations = match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["go"] => Some(default),
            ["go", number] => number.parse().ok(),
            ["exit"] => break,
            _ => None,
        };
        let Some(iterations) = iterations else {
            say(&json!({"error": {"message": format!("`{line}` is no command: write go, go N or exit")}}));
            continue;
        };
        let (start, cpu) = (now_ns(), cpu_ns());
        let ended = work(iterations);
        // Where the kernel makes the caller wait (Linux 6.1, undoing io_uring buffers), the two differ by the wait.
        let (ns, cpu_ns) = (now_ns() - start, cpu_ns() - cpu);
        match ended {
            Ok(()) => say(&json!({"iterations": iterations, "ns": ns, "cpu_ns": cpu_ns})),
            Err(error) => say(&json!({"error": failure(&error)})),
        }
    }
    Ok(0)
}
