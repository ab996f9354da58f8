//! The system calls that break leases, by their numbers on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl), which never
//! change.

/// The name of one; `None` for a number that breaks nothing known.
pub fn name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 | 18 | 20 | 296 | 328 => "write",
        2 => "open",
        59 | 322 => "exec",
        76 => "truncate",
        77 => "ftruncate",
        82 | 264 | 316 => "rename",
        83 | 258 => "mkdir",
        84 => "rmdir",
        85 => "creat",
        86 | 265 => "link",
        87 | 263 => "unlink",
        88 | 266 => "symlink",
        90 | 91 | 268 | 452 => "chmod",
        92..=94 | 260 => "chown",
        132 | 235 | 261 | 280 => "utime",
        133 | 259 => "mknod",
        188..=190 | 197..=199 | 463 | 466 => "setxattr",
        257 => "openat",
        285 => "fallocate",
        304 => "open_by_handle_at",
        426 => "io_uring",
        437 => "openat2",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn numbers_are_those_of_this_machine() {
        let known = [
            (libc::SYS_open, "open"),
            (libc::SYS_openat, "openat"),
            (libc::SYS_openat2, "openat2"),
            (libc::SYS_creat, "creat"),
            (libc::SYS_truncate, "truncate"),
            (libc::SYS_unlinkat, "unlink"),
            (libc::SYS_renameat2, "rename"),
            (libc::SYS_linkat, "link"),
            (libc::SYS_fchmodat, "chmod"),
            (libc::SYS_fchownat, "chown"),
            (libc::SYS_utimensat, "utime"),
            (libc::SYS_setxattr, "setxattr"),
            (libc::SYS_fremovexattr, "setxattr"),
            (libc::SYS_fallocate, "fallocate"),
            (libc::SYS_pwritev2, "write"),
            (libc::SYS_execveat, "exec"),
            (libc::SYS_io_uring_enter, "io_uring"),
        ];
        for (number, word) in known {
            assert_eq!(name(number as i32), Some(word), "{number}");
        }
        assert_eq!((name(-1), name(0)), (None, None));
    }
}
