//! What user space does with the maps. Every call is made [`RealtimeGuard`].

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _};
use pinwatch_common::{
    AGAIN, BETWEEN_TICKS, FileKey, FileRecord, LongPath, ModuleLayout, Totals, WaiterRecord, counter, left,
    subsystems::Subsystem,
};

use super::{BpfError, Cause, Counts, MapFull, Missed, Programs};
use crate::kernel::bpf_syscall;
use crate::kernel::rt_guard::RealtimeGuard;

/// More than any map holds: a bound for reading.
const LIMIT: usize = 1 << 22;
/// Up to so many keys are looked up one by one; for more, the whole map is read.
const FEW: usize = 256;

impl Programs {
    /// Tells the programs where things are in the RDMA modules.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn set_module_offsets(&mut self, offsets: &ModuleLayout) -> Result<(), BpfError> {
        self.set_only("MODULE_LAYOUT", offsets)
    }

    /// Sets the only value of an array.
    pub(super) fn set_only<V: Pod>(&mut self, map: &'static str, value: &V) -> Result<(), BpfError> {
        let _guard = RealtimeGuard::begin();
        let failed = |cause: Cause| BpfError::Map { map, cause };
        let found = self.ebpf.map_mut(map).ok_or_else(|| failed(Cause::NoMap))?;
        let mut array: Array<&mut MapData, V> =
            Array::try_from(found).map_err(|error| failed(error.into()))?;
        array.set(0, value, 0).map_err(|error| failed(error.into()))
    }

    /// The only value of an array.
    pub(super) fn only<V: Pod>(&self, map: &'static str) -> Result<V, BpfError> {
        self.element(map, 0)
    }

    /// A value of an array.
    fn element<V: Pod>(&self, map: &'static str, at: u32) -> Result<V, BpfError> {
        let _guard = RealtimeGuard::begin();
        let failed = |cause: Cause| BpfError::Map { map, cause };
        let found = self.ebpf.map(map).ok_or_else(|| failed(Cause::NoMap))?;
        let array: Array<&MapData, V> = Array::try_from(found).map_err(|error| failed(error.into()))?;
        array.get(&at, 0).map_err(|error| failed(error.into()))
    }

    /// All values of an array, in one call: each has its price (see [`RealtimeGuard`]), and a scrape reads many.
    fn array<V: Pod>(&self, map: &'static str, length: u32) -> Result<Vec<V>, BpfError> {
        let failed = |error: io::Error| BpfError::Map { map, cause: error.into() };
        let fd = self.maps.get(map).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let _guard = RealtimeGuard::begin();
        bpf_syscall::array(fd.as_fd(), length as usize).map_err(failed)
    }

    /// All entries of a hash map.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn entries<K: Pod, V: Pod>(&self, map: &'static str) -> Result<Vec<(K, V)>, BpfError> {
        let fd = self.hash_map(map)?;
        let _guard = RealtimeGuard::begin();
        bpf_syscall::entries(fd, LIMIT).map_err(|error| BpfError::Map { map, cause: error.into() })
    }

    /// Those of the keys that are in a hash map, and perhaps others. The kernel goes through every bucket to read a whole
    /// map, and there are as many as it has room for: a few keys are found sooner one by one.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn some<K: Pod, V: Pod>(&self, map: &'static str, keys: &[K]) -> Result<Vec<(K, V)>, BpfError> {
        if keys.len() > FEW {
            return self.entries(map);
        }
        let fd = self.hash_map(map)?;
        let _guard = RealtimeGuard::begin();
        let failed = |error: io::Error| BpfError::Map { map, cause: error.into() };
        keys.iter()
            .filter_map(|key| {
                Some(bpf_syscall::entry(fd, key).map_err(failed).transpose()?.map(|value| (*key, value)))
            })
            .collect()
    }

    fn hash_map(&self, map: &'static str) -> Result<BorrowedFd<'_>, BpfError> {
        match self.ebpf.map(map) {
            Some(Map::HashMap(data)) => Ok(data.fd().as_fd()),
            _ => Err(BpfError::Map { map, cause: Cause::NoMap }),
        }
    }

    /// Forgets the names of files.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn remove_files(&mut self, keys: &[FileKey]) -> Result<(), BpfError> {
        self.remove::<FileKey, FileRecord>("FILES", keys)?;
        self.remove::<FileKey, LongPath>("LONG_PATHS", keys)
    }

    /// Removes entries of a hash map; those that are not there are no error.
    pub(super) fn remove<K: Pod, V: Pod>(&mut self, name: &'static str, keys: &[K]) -> Result<(), BpfError> {
        let _guard = RealtimeGuard::begin();
        let failed = |cause: Cause| BpfError::Map { map: name, cause };
        let map = self.ebpf.map_mut(name).ok_or_else(|| failed(Cause::NoMap))?;
        let mut map: HashMap<&mut MapData, K, V> =
            HashMap::try_from(map).map_err(|error| failed(error.into()))?;
        for key in keys {
            let _ = map.remove(key);
        }
        Ok(())
    }

    /// One of the counters.
    pub(super) fn counter(&self, which: u32) -> Result<u64, BpfError> {
        self.element("COUNTERS", which)
    }

    /// Has the kernel read the path of a file's dentry once more; `None` if it cannot. The dentry may be gone: whoever
    /// asks has to see whether the file is there.
    pub fn look_again(&mut self, file: &FileRecord) -> Option<(FileRecord, Option<LongPath>)> {
        let program: &mut RawTracePoint = self.ebpf.program_mut("look_again")?.try_into().ok()?;
        if program.fd().is_err() {
            program.load().ok()?;
        }
        let _guard = RealtimeGuard::begin();
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = file.dentry;
        options.args[1] = file.mount;
        program.test_run(options).ok()?;
        let files: HashMap<&MapData, FileKey, FileRecord> =
            HashMap::try_from(self.ebpf.map("FILES")?).ok()?;
        let record = files.get(&AGAIN, 0).ok()?;
        let paths: HashMap<&MapData, FileKey, LongPath> =
            HashMap::try_from(self.ebpf.map("LONG_PATHS")?).ok()?;
        let long = paths.get(&AGAIN, 0).ok();
        let _ = self.remove_files(&[AGAIN]);
        Some((record, long))
    }

    /// Whether pins that are made and released are told of.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn follow_pins(&mut self, followed: bool) -> Result<(), BpfError> {
        self.set_only("FOLLOWED", &u64::from(followed))
    }

    /// The threads that wait for leases to go.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn waiters(&mut self) -> Result<Vec<WaiterRecord>, BpfError> {
        const LONG_AGO: u64 = 10_000_000_000;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned();
        let mut all: Vec<(u64, WaiterRecord)> = self.entries("WAITERS")?;
        let is_old = |waiter: &WaiterRecord| waiter.ended != 0 && now.saturating_sub(waiter.ended) > LONG_AGO;
        let old: Vec<u64> =
            all.iter().filter(|(_, waiter)| is_old(waiter)).map(|(thread, _)| *thread).collect();
        self.remove::<u64, WaiterRecord>("WAITERS", &old)?;
        let goes_on = |waiter: &WaiterRecord| {
            waiter.left == left::LEASE && now.saturating_sub(waiter.ended) < BETWEEN_TICKS
        };
        all.retain(|(_, waiter)| waiter.ended == 0 || goes_on(waiter));
        Ok(all.into_iter().map(|(_, waiter)| waiter).collect())
    }

    /// When a thread has stopped waiting, CLOCK_BOOTTIME in nanoseconds; `None` if it waits, or stopped so shortly before `now`
    /// that what there is to tell of it may still be under way.
    pub fn wait_ended(&self, thread: u64, now: u64) -> Option<u64> {
        const UNDER_WAY: u64 = 1_000_000_000;
        let found: Vec<(u64, WaiterRecord)> = self.some("WAITERS", &[thread]).ok()?;
        // One that found no room there is not known to have ended.
        let ended = found.first()?.1.ended;
        (ended != 0 && ended + UNDER_WAY < now).then_some(ended)
    }

    /// The ring buffer of events.
    pub fn take_events(&mut self) -> Option<RingBuf<MapData>> {
        RingBuf::try_from(self.ebpf.take_map("EVENTS")?).ok()
    }

    /// Events that were lost so far.
    pub fn events_lost(&self) -> u64 {
        self.counter(counter::EVENTS_LOST).unwrap_or(0)
    }

    /// What each subsystem has registered since it is watched, in the order of [`Subsystem::ALL`].
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn totals(&self) -> Result<Vec<Totals>, BpfError> {
        self.array("TOTALS", Subsystem::ALL.len() as u32)
    }

    /// How many entries a map has room for.
    pub fn capacity(&self, map: &str) -> Option<u32> {
        bpf_syscall::map_capacity(self.maps.get(map)?.as_fd()).ok()
    }

    /// What was missed so far.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn missed(&self) -> Result<Missed, BpfError> {
        self.missed_by(&self.counts())
    }

    /// The same where the kernel's counts have been read already.
    ///
    /// # Errors
    /// [`BpfError::Map`]
    pub fn missed_by(&self, counts: &Counts) -> Result<Missed, BpfError> {
        let counters: Vec<u64> = self.array("COUNTERS", counter::COUNT)?;
        let counter = |which: u32| counters[which as usize];
        Ok(Missed {
            skipped: self.skipped_calls(counts, counter),
            no_kretprobe: counter(counter::RETURNS_MISSED),
            map_full: MapFull {
                pins: counter(counter::PINS_FULL),
                extents: counter(counter::EXTENTS_FULL),
                files: counter(counter::FILES_FULL),
                calls: counter(counter::CALLS_FULL),
                shares: counter(counter::SHARES_FULL),
                leases: counter(counter::LEASES_FULL),
                waiters: counter(counter::WAITERS_FULL),
            },
            replaced: counter(counter::REPLACED),
            events: counter(counter::EVENTS_LOST),
        })
    }
}
