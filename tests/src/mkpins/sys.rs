//! The thin floor: system calls that refuse become a [`Refused`] naming the call, and errno gets its name.
//! Nothing here knows about pins.

use std::fmt;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Bytes in a base page. The project's kernels are x86-64.
pub const PAGE: u64 = 4096;
/// Bytes in a huge page of the default size, also the alignment that transparent huge pages and device DAX want.
pub const HUGE: u64 = 2 << 20;

/// A call that the kernel (or libibverbs for it) refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The call as a person would look it up, with the operation where one call has many.
    pub call: &'static str,
    /// The error number, positive.
    pub errno: i32,
}

impl Refused {
    /// The refusal that errno describes right now.
    pub fn last(call: &'static str) -> Self {
        Self { call, errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }
}

impl Refused {
    /// The refusal that an error of the standard library stands for.
    pub fn of(call: &'static str, error: &std::io::Error) -> Self {
        Self { call, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.errno);
        write!(f, "{} failed with {}: {text}", self.call, errno_name(self.errno))
    }
}

impl std::error::Error for Refused {}

/// The result of a call that answers -1 and errno.
pub fn check<T: Into<i64> + Copy>(call: &'static str, answer: T) -> Result<T, Refused> {
    if answer.into() < 0 { Err(Refused::last(call)) } else { Ok(answer) }
}

/// As [`check`], for a call that answers with a new file descriptor.
pub fn check_fd<T: Into<i64> + Copy>(call: &'static str, answer: T) -> Result<OwnedFd, Refused> {
    let fd = check(call, answer)?.into() as RawFd;
    // SAFETY: the call just handed out this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a file or a device for reading and writing.
pub fn open(path: impl AsRef<Path>, call: &'static str) -> Result<File, Refused> {
    let file = File::options().read(true).write(true).open(path);
    file.map_err(|error| Refused::of(call, &error))
}

/// The symbolic name of an error number: those that pins and file calls can answer, else `E` and the number.
pub fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::E2BIG => "E2BIG",
        libc::EBADF => "EBADF",
        libc::ECHILD => "ECHILD",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::ENOBUFS => "ENOBUFS",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOTTY => "ENOTTY",
        libc::ETXTBSY => "ETXTBSY",
        libc::EFBIG => "EFBIG",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::EPIPE => "EPIPE",
        libc::EBADFD => "EBADFD",
        libc::ERANGE => "ERANGE",
        libc::ENOSYS => "ENOSYS",
        libc::EOVERFLOW => "EOVERFLOW",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::ENETDOWN => "ENETDOWN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EREMOTEIO => "EREMOTEIO",
        _ => return format!("E{errno}"),
    };
    name.to_owned()
}

/// Lifts the locked-memory limit, so that what limits a pin is the kernel's rules and not the shell's. Not being
/// allowed to is no error: the pins of an ordinary user are then small.
pub fn lift_memlock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is a plain struct that lives across the call.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) };
}

/// Raises the limit of open files to `wanted`.
pub fn raise_open_files(wanted: u64) -> Result<(), Refused> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a plain struct that lives across the call.
    check("getrlimit", unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_cur.max(wanted);
    limit.rlim_max = limit.rlim_max.max(wanted);
    // SAFETY: as above.
    check("setrlimit(RLIMIT_NOFILE)", unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(())
}

/// Forks a child that is killed when this process ends; 0 in the child. Only from a process with one thread.
pub fn fork_tied() -> Result<libc::pid_t, Refused> {
    let parent = std::process::id();
    // SAFETY: the caller has one thread, so the child finds every lock free.
    let pid = check("fork", unsafe { libc::fork() })?;
    if pid == 0 {
        // SAFETY: takes numbers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // Who asks too late is not told.
        if std::os::unix::process::parent_id() != parent {
            // SAFETY: ends the process at once; what the parent's copy of the runtime would do at exit is not ours.
            unsafe { libc::_exit(0) };
        }
    }
    Ok(pid)
}

/// The id of the calling thread.
pub fn thread_id() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// The path that procfs shows for one of our descriptors, as it stands, `(deleted)` and all.
pub fn descriptor_path(fd: RawFd) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// Closes a descriptor that something else (libibverbs, a kernel table) counts as its own.
pub fn close_raw(fd: RawFd) -> Result<(), Refused> {
    // SAFETY: closing a number touches no memory; callers give descriptors that they opened and use no more.
    check("close", unsafe { libc::close(fd) })?;
    Ok(())
}

/// Nanoseconds of CLOCK_MONOTONIC_RAW, which nothing steers: under `-icount` one is one guest instruction.
pub fn now_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC_RAW)
}

/// Nanoseconds that this process was on a CPU.
pub fn cpu_ns() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives across the call, and these clocks are there on every kernel that the project knows.
    unsafe { libc::clock_gettime(id, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Rounds up to a multiple of `unit`.
pub fn round_up(value: u64, unit: u64) -> u64 {
    value.div_ceil(unit) * unit
}

/// Reads a size or an offset: decimal or `0x` hexadecimal, with an optional `K`, `M` or `G` (powers of 1024).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size: write 4096, 0x1000, 64K, 2M or 1G");
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).map_err(|_| bad());
    }
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(bad)
}

/// A small deterministic generator (xorshift64*), so that a run is repeated by its seed.
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed; neighbouring seeds give unrelated runs.
    pub fn new(seed: u64) -> Self {
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd134_2543_de82_ef95) | 1)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

/// A mapping of this process.
pub struct Behind {
    /// As map_files names it.
    range: String,
    /// Its end.
    pub end: u64,
    /// Where in its file the address is that was asked for.
    pub offset: u64,
}

impl Behind {
    /// Its file.
    pub fn open(&self) -> Result<File, Refused> {
        open(format!("/proc/self/map_files/{}", self.range), "open map_files")
    }
}

/// The mapping that an address is in.
pub fn behind(address: u64) -> Option<Behind> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let range = words.next()?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        let found = || Behind { range: range.to_owned(), end, offset: offset + (address - start) };
        (start..end).contains(&address).then(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("0x3000"), Ok(0x3000));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("2M"), Ok(HUGE));
        for bad in ["", "K", "12Q", "0xg", "-1", "99999999999G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_are_named() {
        let refused = Refused { call: "ibv_reg_mr", errno: libc::EFAULT };
        assert!(refused.to_string().starts_with("ibv_reg_mr failed with EFAULT: "));
        assert_eq!(errno_name(9999), "E9999");
    }

    #[test]
    fn dice_repeat() {
        let roll = |seed| {
            let mut dice = Dice::new(seed);
            (0..8).map(|_| dice.below(100)).collect::<Vec<_>>()
        };
        assert_eq!(roll(1), roll(1));
        assert_ne!(roll(1), roll(2));
    }
}
