//! For the tests of `lspins`: real io_uring buffers, and running the program.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// An io_uring without its rings mapped: enough to register buffers.
pub struct Ring(pub OwnedFd);

impl Ring {
    pub fn new() -> Self {
        let mut params = [0u8; 120];
        // SAFETY: params has the size of struct io_uring_params and outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) };
        assert!(fd >= 0, "io_uring_setup: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just given us this descriptor.
        Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Registers buffers: address and length of each.
    pub fn register(&self, buffers: &[(u64, usize)]) {
        let iov: Vec<[u64; 2]> = buffers.iter().map(|&(address, length)| [address, length as u64]).collect();
        // SAFETY: iov is an array of struct iovec and outlives the call; the kernel checks the addresses in it.
        let result = unsafe {
            libc::syscall(libc::SYS_io_uring_register, self.0.as_raw_fd(), 0, iov.as_ptr(), iov.len())
        };
        assert_eq!(result, 0, "io_uring_register: {}", std::io::Error::last_os_error());
    }
}

/// Memory of its own or of a file.
pub struct Map {
    pub address: u64,
    pub length: usize,
}

impl Map {
    pub fn anonymous(length: usize) -> Self {
        Self::new(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    pub fn shared(fd: &impl AsRawFd, length: usize, offset: i64) -> Self {
        Self::new(length, libc::MAP_SHARED, fd.as_raw_fd(), offset)
    }

    pub fn private(fd: &impl AsRawFd, length: usize) -> Self {
        Self::new(length, libc::MAP_PRIVATE, fd.as_raw_fd(), 0)
    }

    fn new(length: usize, flags: i32, fd: i32, offset: i64) -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, fd, offset) };
        assert_ne!(address, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Self { address: address as u64, length }
    }

    pub fn buffer(&self) -> (u64, usize) {
        (self.address, self.length)
    }

    pub fn unmap(self) {
        // SAFETY: our own mapping, which nothing refers to by pointer.
        unsafe { libc::munmap(self.address as *mut _, self.length) };
    }
}

pub fn memfd(name: &str, length: u64) -> std::fs::File {
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = std::fs::File::from(fd);
    file.set_len(length).unwrap();
    file
}

/// A directory on tmpfs, whose pages io_uring can pin.
pub fn tmpfs_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

pub fn lspins() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lspins"));
    command.env_remove("PINWATCH_SOCKET").env_remove("NO_COLOR").env_remove("COLUMNS");
    command
}

pub fn run(args: &[&str]) -> Output {
    lspins().args(args).output().unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The pins of this process, from procfs.
pub fn own_pins() -> Value {
    let output = run(&["--no-daemon", "-J", "-p", &std::process::id().to_string()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The codes of a document's gaps.
pub fn gaps(document: &Value) -> Vec<&str> {
    document["gaps"].as_array().unwrap().iter().filter_map(|gap| gap["code"].as_str()).collect()
}

/// The pins at an address in a document.
pub fn at(document: &Value, address: u64) -> Vec<&Value> {
    document["pins"].as_array().unwrap().iter().filter(|p| p["address"] == address).collect()
}

/// Inode number of a file.
pub fn inode(file: &std::fs::File) -> u64 {
    use std::os::unix::fs::MetadataExt;
    file.metadata().unwrap().ino()
}

/// Path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
