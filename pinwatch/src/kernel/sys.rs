//! System calls for which no crate that we use has a safe function, each behind a safe one.
//!
//! Nothing is decided here: these functions pass on numbers and give back what the kernel says. `bpf(2)` is not here but in
//! [`super::bpf_syscall`]; what rustix or aya offer safely is called where it is needed.

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya::Pod;

/// A file as `name_to_handle_at` would name it: `struct file_handle`, with room for the longest that is used here.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHandle {
    bytes: u32,
    kind: i32,
    words: [u32; Self::WORDS],
}

impl FileHandle {
    const WORDS: usize = 4;

    /// A handle of this type (`FILEID_*`, include/linux/exportfs.h); `None` if there are more words than there is room for.
    pub fn new(kind: i32, words: &[u32]) -> Option<Self> {
        let mut handle =
            Self { bytes: u32::try_from(size_of_val(words)).ok()?, kind, words: [0; Self::WORDS] };
        handle.words.get_mut(..words.len())?.copy_from_slice(words);
        Some(handle)
    }
}

/// Opens a file by its handle, as `O_PATH`. `mount` is any directory of its file system.
///
/// # Errors
/// The system's: ESTALE if the file is gone, EPERM without CAP_DAC_READ_SEARCH.
pub fn open_by_handle(mount: impl AsFd, mut handle: FileHandle) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: a whole `struct file_handle` with as many bytes behind its head as it says: `new` bounds them.
    let fd = unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_fd().as_raw_fd(), &raw mut handle, flags)
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a descriptor that the kernel has just given us, and nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives free memory back to the kernel. By itself glibc gives back only what lies above the last block in use.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes a write lease on an open file.
///
/// # Errors
/// The system's: EAGAIN if others have it open, EINVAL if its file system has no leases.
pub fn take_write_lease(file: impl AsFd) -> io::Result<()> {
    // SAFETY: takes numbers only; the lease goes with the open file.
    let answer = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `KCMP_FILE` of include/uapi/linux/kcmp.h.
const KCMP_FILE: libc::c_long = 0;

/// Compares two descriptors of any two processes by the kernel's own order of open files, which means nothing but stays the
/// same; `None` where the kernel refuses (seccomp, other users' processes) or one of them is gone.
pub fn compare_open_files(a: (u32, u32), b: (u32, u32)) -> Option<Ordering> {
    let ((pid_a, fd_a), (pid_b, fd_b)) = (a, b);
    let number = libc::c_long::from;
    // SAFETY: kcmp(2) takes five numbers and touches no memory of this process.
    let result = unsafe {
        libc::syscall(libc::SYS_kcmp, number(pid_a), number(pid_b), KCMP_FILE, number(fd_a), number(fd_b))
    };
    match result {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    }
}

/// A record at the beginning of bytes that a BPF program wrote; `None` if they are too short.
pub fn read_record<T: Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: long enough, and any bytes are a valid `Pod`.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_has_room_for_four_words() {
        let handle = FileHandle::new(0x81, &[7, 8, 9]).unwrap();
        assert_eq!((handle.bytes, handle.kind, handle.words), (12, 0x81, [7, 8, 9, 0]));
        assert_eq!(FileHandle::new(1, &[0; 5]), None);
    }

    #[test]
    fn descriptors_of_one_open_file_are_equal() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let (again, other) = (file.try_clone().unwrap(), std::fs::File::open("/proc/self/stat").unwrap());
        let name = |file: &std::fs::File| (std::process::id(), file.as_raw_fd().cast_unsigned());
        // Where kcmp is forbidden there is no answer, and never a wrong one.
        assert!(compare_open_files(name(&file), name(&again)).is_none_or(|order| order == Ordering::Equal));
        assert!(compare_open_files(name(&file), name(&other)).is_none_or(|order| order != Ordering::Equal));
    }

    #[test]
    fn a_lease_is_refused_on_what_has_none() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(take_write_lease(socket).is_err());
    }

    #[test]
    fn short_bytes_are_no_record() {
        assert_eq!(read_record::<u32>(&[1, 0, 0]), None);
        assert_eq!(read_record::<u32>(&[1, 0, 0, 0, 9]), Some(1));
    }
}
