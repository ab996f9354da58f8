//! Makes a layout real: segments mapped back to back into one reserved range. Knows the truth of what lies under each
//! page afterwards.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Context, Result, bail};

use crate::backing::{self, Backing};
use crate::layout::{Layout, Segment, Source, Writes};
use crate::report::{FilePart, Part};
use crate::sys::{HUGE, PAGE, Refused, check, round_up};

/// Set in a pagemap entry of a page that is mapped from a file (or shared memory) and not anonymous.
const PAGEMAP_FILE: u64 = 1 << 61;
const PAGEMAP_PRESENT: u64 = 1 << 63;

/// One mapped segment and the backing it comes from, by index.
struct Mapped {
    address: u64,
    segment: Segment,
    backing: Option<usize>,
}

/// The mapped range.
pub struct Mapping {
    /// First byte, 2 MiB-aligned.
    pub address: u64,
    /// Bytes mapped: the layout's length, rounded up to whole (huge) pages.
    pub length: u64,
    mapped: Vec<Mapped>,
    backings: Vec<Backing>,
    present: bool,
}

impl Mapping {
    /// Creates, fills and maps everything. `read_only` leaves PROT_READ once the pages asked for are written.
    pub fn make(layout: &Layout, read_only: bool) -> Result<Self> {
        let mut backings: Vec<Backing> = Vec::new();
        let mut plan = Vec::new();
        let mut at = 0;
        for segment in &layout.0 {
            let mut segment = segment.clone();
            let backing = backing::open(&mut backings, &segment, read_only)?;
            let align = backing.map_or(PAGE, |index| backings[index].align);
            if at % align != 0 {
                bail!(
                    "a segment of huge pages begins {at} bytes into the range, which is no multiple of {align}"
                );
            }
            segment.length = round_up(segment.length, align);
            plan.push((at, segment, backing));
            at = plan.last().map_or(0, |(at, segment, _)| at + segment.length);
        }
        let address = reserve(at)?;
        let mut mapping = Self { address, length: at, mapped: Vec::new(), backings, present: true };
        for (at, segment, backing) in plan {
            let mapped = Mapped { address: address + at, segment, backing };
            mapping.map(&mapped, read_only)?;
            mapping.mapped.push(mapped);
        }
        Ok(mapping)
    }

    fn map(&self, mapped: &Mapped, read_only: bool) -> Result<()> {
        let Mapped { address, segment, backing } = mapped;
        let (start, length) = (*address as *mut libc::c_void, segment.length as usize);
        let private = matches!(segment.source, Source::Anon { .. } | Source::File { private: true, .. });
        let fd = match backing {
            Some(index) => self.backings[*index].file.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            None => -1,
        };
        let anonymous = if fd < 0 { libc::MAP_ANONYMOUS } else { 0 };
        let sharing = if private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
        // A private page can be written first and protected afterwards; a shared one may come from a read-only file.
        let write_first = private && segment.writes != Writes::None;
        let writable = if read_only && !write_first { 0 } else { libc::PROT_WRITE };
        let flags = sharing | anonymous | libc::MAP_FIXED;
        // SAFETY: MAP_FIXED replaces part of the range that `reserve` took for this mapping and nothing else.
        let got = unsafe {
            libc::mmap(start, length, libc::PROT_READ | writable, flags, fd, segment.offset as libc::off_t)
        };
        if got == libc::MAP_FAILED {
            return Err(Refused::last("mmap").into());
        }
        if segment.source == (Source::Anon { thp: true }) {
            // SAFETY: the range was just mapped.
            check("madvise(MADV_HUGEPAGE)", unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) })?;
        }
        let step = match segment.writes {
            Writes::None => None,
            Writes::Every2 => Some(2 * PAGE),
            Writes::All => Some(PAGE),
        };
        if let Some(step) = step.filter(|_| writable != 0) {
            for page in (*address..*address + segment.length).step_by(step as usize) {
                // SAFETY: the page was just mapped writable, and nothing else refers to it.
                unsafe { (page as *mut u8).write_volatile(0x5a) };
            }
        }
        if read_only && writable != 0 {
            // SAFETY: the range was just mapped.
            check("mprotect", unsafe { libc::mprotect(start, length, libc::PROT_READ) })?;
        }
        Ok(())
    }

    /// Takes the range out of the address space.
    pub fn unmap(&mut self) -> Result<(), Refused> {
        // SAFETY: the range is this mapping's own, and no reference into it exists.
        check("munmap", unsafe { libc::munmap(self.address as *mut libc::c_void, self.length as usize) })?;
        self.present = false;
        Ok(())
    }

    /// Closes the descriptors of the files.
    pub fn close(&mut self) {
        for backing in &mut self.backings {
            backing.file = None;
        }
    }

    /// The descriptors still open.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.backings.iter().filter_map(|backing| backing.file.as_ref().map(AsRawFd::as_raw_fd)).collect()
    }

    /// Removes the names of the files.
    pub fn unlink(&self) -> Result<()> {
        for path in self.backings.iter().filter_map(|backing| backing.path.as_ref()) {
            std::fs::remove_file(path).with_context(|| format!("cannot unlink {}", path.display()))?;
        }
        Ok(())
    }

    /// The file number `index` (in the order of the layout), open for writing: its own descriptor if that can write,
    /// else its path opened anew, which breaks a lease on it.
    pub fn writable(&self, index: usize) -> Result<File> {
        let backing = self.backings.get(index).with_context(|| format!("there is no file {index}"))?;
        if let Some(file) = &backing.file {
            // SAFETY: takes numbers only.
            let flags = check("fcntl(F_GETFL)", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })?;
            if flags & libc::O_ACCMODE != libc::O_RDONLY {
                return Ok(file.try_clone()?);
            }
        }
        let path = backing.path.as_ref().context("the file has neither a name nor an open descriptor")?;
        let file = OpenOptions::new().write(true).open(path);
        let file = file.with_context(|| format!("cannot open {} again", path.display()))?;
        if file.metadata()?.ino() != backing.identity.ino {
            bail!("{} is another file by now", path.display());
        }
        Ok(file)
    }

    /// What lies under the pages of `[address, address + length)` now. Private pages are looked up in pagemap, which
    /// alone knows which of them have become anonymous.
    pub fn parts(&self, address: u64, length: u64) -> Result<Vec<Part>> {
        let (from, to) = (address / PAGE * PAGE, round_up(address + length, PAGE));
        let mut parts: Vec<Part> = Vec::new();
        for mapped in &self.mapped {
            let start = mapped.address.max(from);
            let end = (mapped.address + mapped.segment.length).min(to);
            if start >= end {
                continue;
            }
            let Some(backing) = mapped.backing.map(|index| &self.backings[index]) else {
                parts.push(anon(start, end, true));
                continue;
            };
            let file_part = |start: u64, end: u64, private| {
                let offset = mapped.segment.offset + (start - mapped.address);
                let file = Some(FilePart { offset, ..backing.identity.clone() });
                Part { backing: backing.name, address: start, length: end - start, private, file }
            };
            let Source::File { private: true, .. } = mapped.segment.source else {
                parts.push(file_part(start, end, false));
                continue;
            };
            let pages = if self.present { pagemap(start, end)? } else { Vec::new() };
            let mut run = 0;
            for run_of in pages.chunk_by(|a, b| is_anon(*a) == is_anon(*b)) {
                let (first, last) = (start + run * PAGE, start + (run + run_of.len() as u64) * PAGE);
                parts.push(if is_anon(run_of[0]) {
                    anon(first, last, true)
                } else {
                    file_part(first, last, true)
                });
                run += run_of.len() as u64;
            }
        }
        Ok(joined(parts))
    }
}

/// Joins neighbours that go on where the other ends: the same file at the next offset, or both anonymous.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        if let Some(last) = joined.last_mut() {
            let goes_on = match (&last.file, &part.file) {
                (None, None) => true,
                (Some(before), Some(after)) => {
                    *after == FilePart { offset: before.offset + last.length, ..before.clone() }
                }
                _ => false,
            };
            if goes_on && last.private == part.private && last.address + last.length == part.address {
                last.length += part.length;
                continue;
            }
        }
        joined.push(part);
    }
    joined
}

fn anon(start: u64, end: u64, private: bool) -> Part {
    Part { backing: "anon", address: start, length: end - start, private, file: None }
}

fn is_anon(entry: u64) -> bool {
    entry & PAGEMAP_PRESENT != 0 && entry & PAGEMAP_FILE == 0
}

fn pagemap(start: u64, end: u64) -> Result<Vec<u64>> {
    let mut bytes = vec![0; ((end - start) / PAGE * 8) as usize];
    let file = File::open("/proc/self/pagemap").context("cannot open /proc/self/pagemap")?;
    file.read_exact_at(&mut bytes, start / PAGE * 8).context("cannot read /proc/self/pagemap")?;
    let (entries, _) = bytes.as_chunks::<8>();
    Ok(entries.iter().map(|entry| u64::from_ne_bytes(*entry)).collect())
}

/// Takes `length` bytes of address space, 2 MiB-aligned, that nothing else will be mapped into.
fn reserve(length: u64) -> Result<u64> {
    let whole = (length + HUGE) as usize;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses a free range.
    let got = unsafe { libc::mmap(std::ptr::null_mut(), whole, libc::PROT_NONE, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        return Err(Refused::last("mmap").into());
    }
    let start = got as u64;
    let aligned = round_up(start, HUGE);
    for (from, to) in [(start, aligned), (aligned + length, start + whole as u64)] {
        if from < to {
            // SAFETY: both ends lie in the range just taken, outside of the part that is kept.
            check("munmap", unsafe { libc::munmap(from as *mut libc::c_void, (to - from) as usize) })?;
        }
    }
    Ok(aligned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the parts of a layout of memfds and anonymous memory come to, in pages.
    fn parts_of(layout: &str, skew: u64, length: u64) -> Vec<(&'static str, u64, Option<u64>)> {
        let mapping = Mapping::make(&layout.parse().unwrap(), false).unwrap();
        let parts = mapping.parts(mapping.address + skew, length).unwrap();
        let offset = |part: &Part| part.file.as_ref().map(|file| file.offset / PAGE);
        parts.iter().map(|part| (part.backing, part.length / PAGE, offset(part))).collect()
    }

    #[test]
    fn parts_follow_the_layout() {
        let layout = "memfd:0x3000:4,anon:1,anon:1,memfd:0:2";
        assert_eq!(
            parts_of(layout, 0, 8 * PAGE),
            [("shmem", 4, Some(3)), ("anon", 2, None), ("shmem", 2, Some(0))]
        );
        assert_eq!(parts_of("memfd:0:1,anon:1,same:0x5000:1", 0, 3 * PAGE)[2], ("shmem", 1, Some(5)));
        // One byte of a page pins the page.
        assert_eq!(parts_of(layout, 3 * PAGE + 100, PAGE), [("shmem", 1, Some(6)), ("anon", 1, None)]);
    }

    #[test]
    fn written_private_pages_are_anonymous() {
        let path = std::env::temp_dir().join(format!("mkpins-test-{}", std::process::id()));
        let layout = format!("private-file:{}:0:3:every2", path.display());
        let parts = parts_of(&layout, 0, 3 * PAGE);
        std::fs::remove_file(&path).unwrap();
        let summary: Vec<_> = parts.iter().map(|part| (part.0 == "anon", part.1, part.2)).collect();
        assert_eq!(summary, [(true, 1, None), (false, 1, Some(1)), (true, 1, None)]);
    }
}
