//! `--refused`: pins that the kernel refused.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::errno::Errno;
use serde_json::json;

use super::grid::Grid;
use super::render::RenderOptions;
use super::select::Selection;
use super::{escape, json, path, path_or_number, size};
use crate::model::{Counter, Reason, Refusal};

/// Those on the files, of the processes, users, commands and types that are selected.
pub fn selected<'a>(all: &'a [Refusal], selection: &Selection) -> Vec<&'a Refusal> {
    let wanted = |refusal: &&Refusal| {
        let is_one = |empty: bool, found: bool| empty || found;
        selection.has_file(refusal.file.as_ref())
            && is_one(selection.pids.is_empty(), selection.pids.contains(&refusal.who.pid))
            && is_one(
                selection.uids.is_empty(),
                refusal.who.uid.is_some_and(|uid| selection.uids.contains(&uid)),
            )
            && is_one(
                selection.commands.is_empty(),
                selection.commands.iter().any(|begin| refusal.who.comm.as_bytes().starts_with(begin)),
            )
            && is_one(
                selection.types.is_empty(),
                selection.types.iter().any(|word| word.starts_with(refusal.subsystem.word())),
            )
            && refusal.bytes >= selection.min_size
    };
    all.iter().filter(wanted).collect()
}

/// An errno's name; the number of one that the C library does not know: the kernel has some of its own.
pub fn errno(number: i32) -> String {
    match Errno::from_raw(number) {
        Errno::UnknownErrno => number.to_string(),
        known => format!("{known:?}"),
    }
}

/// The reason in words, and what can be done.
pub fn sentence(reason: &Reason) -> String {
    match reason {
        Reason::DirtyTracking => "from Linux 6.5 on no device may write into pages of a file system that tracks every \
                                  write; pin for reading only, or use tmpfs, a memfd or huge pages"
            .to_owned(),
        Reason::FsDax => "pages of a file on FS-DAX cannot be pinned for long: the file system may move them; use device DAX".to_owned(),
        Reason::ReadOnly => "the memory is mapped read-only, and a writable pin was asked for".to_owned(),
        Reason::Memlock { counter, used, limit } => {
            let (what, seen) = match counter {
                Counter::Pinned => ("pinned by the process", " (VmPin)"),
                Counter::Locked => ("locked by the process", " (VmLck)"),
                Counter::User => ("locked by all processes of the user", ""),
            };
            format!(
                "RLIMIT_MEMLOCK: {} of {} are {what}{seen} already; raise the limit, or give CAP_IPC_LOCK",
                size::long(*used),
                size::long(*limit)
            )
        }
        Reason::Secret => "secret memory (memfd_secret) cannot be pinned".to_owned(),
        Reason::Unmapped { at } => format!("nothing is mapped at {at:#x}"),
        Reason::Device => "the memory is a device's, or a mapping without pages".to_owned(),
        Reason::NoFiles => "io_uring of this kernel registers no pages of files other than tmpfs, memfds and huge pages".to_owned(),
        Reason::Seals => "a memfd needs F_SEAL_SHRINK, must not have F_SEAL_WRITE, and is used in whole pages"
            .to_owned(),
        Reason::NoMemfd => "only memfds and other files in memory can be used".to_owned(),
        Reason::NoMemory => "the kernel has no memory for its own records, or cannot move the pages out of CMA or a movable \
                             zone: something else holds them, or there is no free memory elsewhere"
            .to_owned(),
        Reason::Interrupted => "interrupted by a signal, or the pages were in use".to_owned(),
        Reason::Unknown => "unknown".to_owned(),
    }
}

/// For people: a line for each, the oldest first.
pub fn text(refusals: &[&Refusal], options: RenderOptions, bytes: bool, zone: &TimeZone) -> String {
    if refusals.is_empty() {
        return String::new();
    }
    let mut grid = Grid::default();
    if options.header {
        grid.push(["TIME", "COMMAND", "PID", "UID", "TYPE", "SIZE", "ERROR", "REASON"]);
    }
    for refusal in refusals {
        let time = Timestamp::from_nanosecond(i128::from(refusal.time)).unwrap_or_default();
        let kind = match &refusal.module {
            Some(module) => format!("{} ({})", refusal.subsystem.word(), escape::name(module.as_bytes())),
            None => refusal.subsystem.word().to_owned(),
        };
        let name = match &refusal.file {
            Some(file) if !file.path.as_bytes().is_empty() => format!(" [{}]", path(file)),
            Some(file) => format!(" {}", path_or_number(file)),
            None => String::new(),
        };
        grid.push([
            time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
            escape::name(refusal.who.comm.as_bytes()),
            refusal.who.pid.to_string(),
            refusal.who.uid.map_or_else(|| "?".to_owned(), |uid| uid.to_string()),
            kind,
            if bytes { refusal.bytes.to_string() } else { size::short(refusal.bytes) },
            errno(refusal.errno),
            format!("{}{name}", sentence(&refusal.reason)),
        ]);
    }
    grid.draw()
}

/// Writes one as a line of JSON.
pub fn json(out: &mut impl Write, refusal: &Refusal) -> io::Result<()> {
    let mut fields = json!({
        "time": json::time(refusal.time),
        "subsystem": refusal.subsystem.word(),
        "module": refusal.module,
        "process": json::who(&refusal.who),
        "address": refusal.address,
        "bytes": refusal.bytes,
        "errno": refusal.errno,
        "error": errno(refusal.errno),
        "reason": refusal.reason.word(),
        "sentence": sentence(&refusal.reason),
        "file": refusal.file.as_ref().map(json::File::new),
    });
    if let Reason::Memlock { counter, used, limit } = refusal.reason {
        fields["memlock"] = json!({"counter": counter.word(), "used": used, "limit": limit});
    }
    writeln!(out, "{fields}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_have_the_names_of_the_manual() {
        let names = [libc::EFAULT, libc::EOPNOTSUPP, libc::EAGAIN, libc::EBADFD, libc::EACCES].map(errno);
        assert_eq!(names, ["EFAULT", "EOPNOTSUPP", "EAGAIN", "EBADFD", "EACCES"]);
        // 0, ENOTSUPP and ERESTARTSYS (include/linux/errno.h).
        assert_eq!([0, 524, 512, -1, i32::MIN].map(errno), ["0", "524", "512", "-1", "-2147483648"]);
    }
}
