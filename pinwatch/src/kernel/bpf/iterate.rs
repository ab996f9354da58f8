//! Asking the kernel who keeps anchors, by iterators over all processes.

use rustc_hash::FxHashSet as HashSet;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Btf;
use aya::maps::{HashMap, MapData};
use aya::programs::{Iter, RawTracePoint, RawTracePointRunOptions, TestRun as _};
use pinwatch_common::{FileKey, HolderRecord, LeaseRecord, OverlayQuery, PinRecord, ShareKey, counter};

use super::{BelowError, BpfError, Cause, Programs};
use crate::kernel::overlay::Overlay;
use crate::kernel::rt_guard::RealtimeGuard;

/// The iterators: program, and what it goes over.
const ITERATORS: [(&str, &str); 3] =
    [("holders_files", "task_file"), ("holders_mappings", "task_vma"), ("holders_rings", "task")];
/// A bound for reading: 10 million ways to hold an anchor.
const LIMIT: u64 = 10_000_000 * size_of::<HolderRecord>() as u64;

/// A ring of our own, for a moment.
fn ring() -> io::Result<OwnedFd> {
    /// Bytes of `struct io_uring_params`.
    const PARAMS: usize = 120;
    let mut params = [0_u64; PARAMS / 8];
    // SAFETY: the parameters are a zeroed block of the size and alignment that the kernel reads and writes.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    match i32::try_from(fd) {
        // SAFETY: the call just handed out this descriptor, so nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What one pass over all processes found.
#[derive(Default)]
pub struct Pass {
    /// Who keeps the anchors that were asked for, and the files that leases are of: these by the lease's address.
    pub holders: Vec<HolderRecord>,
    /// The leases on all files that came by.
    pub leases: Vec<(u64, LeaseRecord)>,
}

impl Programs {
    /// All ways in which processes keep these anchors, and all leases on the files they have, at this moment, as far as one
    /// pass over all processes is a moment.
    ///
    /// # Errors
    /// [`BpfError::Iterate`] if the kernel cannot do it, [`BpfError::Map`] if there are too many anchors.
    pub fn pass(&mut self, anchors: &HashSet<u64>) -> Result<Pass, BpfError> {
        self.ask_for(anchors)?;
        self.lease_round += 1;
        let round = self.lease_round;
        self.set_only("LEASE_ROUND", &round)?;
        let mut found = Vec::new();
        self.learn_rings()?;
        for (name, over) in ITERATORS {
            let bytes = self.iterate(name, over).map_err(|cause| BpfError::Iterate { over, cause })?;
            let records = bytes.chunks_exact(size_of::<HolderRecord>());
            // SAFETY: as long as a record, and any bytes are one.
            found.extend(
                records.map(|bytes| unsafe { bytes.as_ptr().cast::<HolderRecord>().read_unaligned() }),
            );
        }
        Ok(Pass { holders: found, leases: self.leases()? })
    }

    /// The leases of this round; those that were not seen again are forgotten.
    fn leases(&mut self) -> Result<Vec<(u64, LeaseRecord)>, BpfError> {
        let mut leases: Vec<(u64, LeaseRecord)> = self.entries("LEASES")?;
        let round = self.lease_round;
        let old: Vec<u64> =
            leases.extract_if(.., |(_, record)| record.round != round).map(|(lease, _)| lease).collect();
        self.remove::<u64, LeaseRecord>("LEASES", &old)?;
        Ok(leases)
    }

    /// How many ticks of `jiffies` there are in a second: counted once, which takes a tenth of one.
    ///
    /// # Errors
    /// [`BpfError::Iterate`]
    pub fn ticks_per_second(&mut self) -> Result<u64, BpfError> {
        /// What a kernel can be built with (CONFIG_HZ).
        const CHOICES: [u64; 4] = [100, 250, 300, 1000];
        const LONG_ENOUGH: Duration = Duration::from_millis(100);
        if let Some(known) = self.ticks_per_second {
            return Ok(known);
        }
        let sample = |programs: &mut Self| Ok((Instant::now(), programs.ask("jiffies", [0; 3])?));
        let first = sample(self)?;
        std::thread::sleep(LONG_ENOUGH);
        let second = sample(self)?;
        let ticks = u128::from(second.1.wrapping_sub(first.1));
        let rate = ticks * 1_000_000 / second.0.duration_since(first.0).as_micros().max(1);
        let nearest =
            CHOICES.into_iter().min_by_key(|choice| u128::from(*choice).abs_diff(rate)).unwrap_or(CHOICES[1]);
        self.ticks_per_second = Some(nearest);
        Ok(nearest)
    }

    /// The files below one of overlayfs that has a lease: what is pinned are theirs.
    ///
    /// # Errors
    /// [`BelowError`]
    pub fn below(&mut self, lease: &LeaseRecord) -> Result<Vec<FileKey>, BelowError> {
        let overlay =
            self.overlay.get_or_insert_with(|| Overlay::read(Path::new("/")).map_err(Arc::new)).clone()?;
        let Overlay { through, vfs_inode, upper, dentry_inode } = overlay;
        let (file, inode, below) = (lease.file, lease.inode, Default::default());
        let query = OverlayQuery { file, inode, through, vfs_inode, upper, dentry_inode, below };
        self.set_only("OVERLAY", &query)?;
        if self.ask("overlay_below", [0; 3])? == 0 {
            return Err(BelowError::Closed);
        }
        let answer: OverlayQuery = self.only("OVERLAY")?;
        Ok(answer.below.into_iter().filter(|key| *key != FileKey::default()).collect())
    }

    /// Shows the programs a ring, once, so that they know others. A kernel that lets nobody make rings has none; on one that
    /// has stopped to, files that older rings have registered are not looked at.
    fn learn_rings(&mut self) -> Result<(), BpfError> {
        if self.knows_rings || self.offsets.io_ctx_files == 0 {
            return Ok(());
        }
        if let Ok(ring) = ring() {
            self.knows_rings =
                self.ask("learn_rings", [u64::try_from(ring.as_raw_fd()).unwrap_or(0), 0, 0])? != 0;
        }
        Ok(())
    }

    fn iterate(&mut self, name: &str, over: &str) -> Result<Vec<u8>, Cause> {
        let btf = match &mut self.btf {
            Some(btf) => btf,
            none => none.insert(Btf::from_sys_fs()?),
        };
        let program = self.ebpf.program_mut(name).ok_or_else(|| Cause::NoProgram(name.to_owned()))?;
        let program: &mut Iter = program.try_into()?;
        if program.fd().is_err() {
            program.load(over, btf)?;
        }
        let link = program.attach()?;
        let link = program.take_link(link)?;
        let file = link.into_file()?;
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Buffers, and rings that they were cloned into at some time; what no longer has a pin is forgotten.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn shares(&self) -> Result<Vec<ShareKey>, BpfError> {
        if self.counter(counter::CLONES)? == 0 {
            return Ok(Vec::new());
        }
        let all: Vec<(ShareKey, u32)> = self.entries("SHARES")?;
        Ok(all.into_iter().map(|(key, _)| key).collect())
    }

    /// Forgets those shares whose pins are gone, also from the map: what was made since the caller looked stays.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn forget_shares(&mut self, unknown: &[ShareKey]) -> Result<(), BpfError> {
        if unknown.is_empty() {
            return Ok(());
        }
        let objects: HashSet<u64> = unknown.iter().map(|share| share.object).collect();
        let objects: Vec<u64> = objects.into_iter().collect();
        let pins: Vec<(u64, PinRecord)> = self.some("PINS", &objects)?;
        let there: HashSet<u64> = pins.into_iter().map(|(object, _)| object).collect();
        let gone: Vec<ShareKey> =
            unknown.iter().filter(|share| !there.contains(&share.object)).copied().collect();
        self.remove::<ShareKey, u32>("SHARES", &gone)
    }

    /// Whether a ring, which must be one that some process holds, has a buffer in its table.
    ///
    /// # Errors
    /// [`BpfError::Iterate`]
    pub fn ring_has(&mut self, ring: u64, buffer: u64) -> Result<bool, BpfError> {
        Ok(self.ask("ring_has", [ring, buffer, 0])? != 0)
    }

    /// Forgets pins of subsystems that are released though nobody saw it; how many they were. What cannot be told stays.
    ///
    /// # Errors
    /// [`BpfError::Iterate`]
    pub fn sweep(&mut self) -> Result<u32, BpfError> {
        self.ask("sweep", [0; 3])
    }

    /// Forgets a pin that is gone, by its object and its sequence number: the object's address may be another's by now.
    ///
    /// # Errors
    /// [`BpfError::Iterate`]
    pub fn forget(&mut self, object: u64, sequence: u64) -> Result<(), BpfError> {
        self.ask("forget", [object, sequence, 0]).map(drop)
    }

    /// Runs a program that looks at the kernel and answers.
    pub(super) fn ask(&mut self, name: &'static str, arguments: [u64; 3]) -> Result<u32, BpfError> {
        self.run(name, arguments).map_err(|cause| BpfError::Iterate { over: name, cause })
    }

    fn run(&mut self, name: &str, arguments: [u64; 3]) -> Result<u32, Cause> {
        let program = self.ebpf.program_mut(name).ok_or_else(|| Cause::NoProgram(name.to_owned()))?;
        let program: &mut RawTracePoint = program.try_into()?;
        if program.fd().is_err() {
            program.load()?;
        }
        let mut options = RawTracePointRunOptions::new();
        options.args[..3].copy_from_slice(&arguments);
        let result = program.test_run(options)?;
        Ok(result.return_value)
    }

    /// Puts the anchors, and no others, where the iterators look.
    fn ask_for(&mut self, anchors: &HashSet<u64>) -> Result<(), BpfError> {
        self.set_anchors(anchors).map_err(|cause| BpfError::Map { map: "ANCHORS", cause })
    }

    fn set_anchors(&mut self, anchors: &HashSet<u64>) -> Result<(), Cause> {
        let _guard = RealtimeGuard::begin();
        let map = self.ebpf.map_mut("ANCHORS").ok_or(Cause::NoMap)?;
        let mut map: HashMap<&mut MapData, u64, u32> = HashMap::try_from(map)?;
        for old in self.anchors.extract_if(|old| !anchors.contains(old)) {
            // An entry that stays costs a few records that nobody looks at.
            let _ = map.remove(&old);
        }
        for anchor in anchors {
            if !self.anchors.contains(anchor) {
                map.insert(anchor, 1, 0)?;
                self.anchors.insert(*anchor);
            }
        }
        Ok(())
    }
}
