//! The files under a mapping: created and filled where they are missing, and known by what identifies them.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::layout::{Segment, Source};
use crate::report::FilePart;
use crate::sys::{HUGE, PAGE, Refused, check, check_fd, descriptor_path, round_up};

const TMPFS_MAGIC: i64 = 0x0102_1994;
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
const FS_IOC_GETVERSION: libc::c_ulong = 0x8008_7601;

/// A file under the mapping, whose identity outlives its descriptor.
pub struct Backing {
    /// None after `close`.
    pub file: Option<File>,
    /// None for a memfd.
    pub path: Option<PathBuf>,
    /// `file`, `shmem`, `hugetlb` or `devdax`.
    pub name: &'static str,
    /// With offset 0.
    pub identity: FilePart,
    /// Mappings of this file must begin and end on a multiple of this many bytes.
    pub align: u64,
}

/// Opens what the segment is mapped from and makes it long enough. One descriptor serves all segments of a path, so
/// that a file in several segments looks as it does in a real program.
pub fn open(known: &mut Vec<Backing>, segment: &Segment, read_only: bool) -> Result<Option<usize>> {
    let end = segment.offset + segment.length;
    let backing = match &segment.source {
        Source::Anon { .. } => return Ok(None),
        Source::Memfd { huge } => {
            let sealable = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
            let flags = sealable | if *huge { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
            // SAFETY: the name is a C string that lives across the call.
            let fd = check("memfd_create", unsafe { libc::memfd_create(c"mkpins".as_ptr(), flags) })?;
            // SAFETY: the call just handed out this descriptor, so nothing else owns it.
            let file = unsafe { File::from_raw_fd(fd) };
            file.set_len(round_up(end, if *huge { HUGE } else { PAGE })).context("cannot size a memfd")?;
            identify(file, None)?
        }
        Source::Secret => {
            // SAFETY: takes a number only.
            let fd =
                check_fd("memfd_secret", unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) })?;
            let file = File::from(fd);
            file.set_len(round_up(end, PAGE)).context("cannot size secret memory")?;
            identify(file, None)?
        }
        Source::Same => {
            let last = known.last().context("a segment `same` needs a file in the layout before it")?;
            match (&last.path, &last.file) {
                (Some(path), _) if last.name != "devdax" => fill(path, end)?,
                (None, Some(file)) if file.metadata()?.len() < end => {
                    file.set_len(round_up(end, last.align))?
                }
                _ => {}
            }
            return Ok(Some(known.len() - 1));
        }
        Source::File { path, .. } => {
            let path = std::path::absolute(path)?;
            let device = std::fs::metadata(&path).is_ok_and(|now| now.file_type().is_char_device());
            if !device {
                fill(&path, end).with_context(|| format!("cannot make {} ready", path.display()))?;
            }
            let same = known.iter().position(|backing| backing.path.as_deref() == Some(path.as_path()));
            if same.is_some() {
                return Ok(same);
            }
            let file = OpenOptions::new().read(true).write(!read_only).open(&path);
            identify(file.with_context(|| format!("cannot open {}", path.display()))?, Some(path))?
        }
    };
    known.push(backing);
    Ok(Some(known.len() - 1))
}

/// Makes sure that the file exists and is at least `end` bytes long, written and not sparse.
pub fn fill(path: &Path, end: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let size = file.metadata()?.len();
    if size >= end {
        return Ok(());
    }
    let (magic, block) = file_system(file.as_raw_fd())?;
    if magic == HUGETLBFS_MAGIC {
        // hugetlbfs has no write(); the pages come when the mapping is pinned.
        file.set_len(round_up(end, block))?;
        return Ok(());
    }
    let text = b"pinned by mkpins ".repeat(1 << 14);
    let mut at = size;
    while at < end {
        let chunk = &text[..(end - at).min(text.len() as u64) as usize];
        file.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    // Written back now, so that no dirty page is in the way of what the test does next.
    file.sync_all()?;
    Ok(())
}

fn file_system(fd: RawFd) -> Result<(i64, u64), Refused> {
    // SAFETY: an all-zero statfs is valid, it is only written to.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the struct lives across the call.
    check("fstatfs", unsafe { libc::fstatfs(fd, &mut stat) })?;
    Ok((stat.f_type, stat.f_bsize as u64))
}

fn identify(file: File, path: Option<PathBuf>) -> Result<Backing> {
    let meta = file.metadata().context("cannot stat the backing file")?;
    let (magic, block) = file_system(file.as_raw_fd())?;
    let device = meta.file_type().is_char_device();
    let (name, align) = match magic {
        _ if device => ("devdax", HUGE),
        HUGETLBFS_MAGIC => ("hugetlb", block),
        TMPFS_MAGIC => ("shmem", PAGE),
        _ => ("file", PAGE),
    };
    let mut generation: libc::c_long = 0;
    // SAFETY: the ioctl writes an int, or a long as its number says, into a long.
    let told = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETVERSION, &mut generation) };
    let shown = match &path {
        Some(path) => path.to_string_lossy().into_owned(),
        None => descriptor_path(file.as_raw_fd()).unwrap_or_default(),
    };
    let identity = FilePart {
        dev: device_number(meta.dev()),
        ino: meta.ino(),
        offset: 0,
        path: shown,
        generation: (told == 0 && !device).then_some(generation as u32),
        rdev: device.then(|| device_number(meta.rdev())),
    };
    Ok(Backing { file: Some(file), path, name, identity, align })
}

fn device_number(dev: u64) -> String {
    format!("{}:{}", libc::major(dev), libc::minor(dev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_filled_and_kept() {
        let path = std::env::temp_dir().join(format!("mkpins-fill-{}", std::process::id()));
        fill(&path, 10_000).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 10_000);
        fill(&path, 100).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 10_000);
        std::fs::remove_file(&path).unwrap();
    }
}
