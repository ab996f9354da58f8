//! The `bpf(2)` calls that aya has no way to make: look-ups in batches, programs on the functions of modules, and how often
//! a program was skipped.

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::Pod;
use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_insn, bpf_map_info, bpf_prog_info, bpf_prog_type,
};

/// At most so many entries are asked for at once.
const BATCH: usize = 4096;

/// One `bpf(2)` call.
fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole `bpf_attr` whose pointers are valid for the command; callers see to that.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as i32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn empty_attr() -> bpf_attr {
    // SAFETY: a union of integers and arrays of integers.
    unsafe { zeroed() }
}

/// A call that gives a new file descriptor.
fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// One entry of a hash map, if it is there.
///
/// # Errors
/// What the kernel says.
pub fn entry<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::zeroed();
    let mut attr = empty_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = &raw const *key as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
        // SAFETY: written by the kernel, and any bytes are valid for a Pod.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All values of an array that has `length` of them, in one call.
///
/// # Errors
/// What the kernel says; `ErrorKind::UnexpectedEof` if there are fewer.
pub fn array<V: Pod>(map: BorrowedFd<'_>, length: usize) -> io::Result<Vec<V>> {
    let mut keys = vec![0_u32; length];
    let mut values: Vec<MaybeUninit<V>> = Vec::with_capacity(length);
    values.resize_with(length, MaybeUninit::zeroed);
    let mut next = 0_u32;
    let mut attr = empty_attr();
    attr.batch.map_fd = map.as_raw_fd() as u32;
    attr.batch.out_batch = &raw mut next as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = length as u32;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => {}
        // The end of the map.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => return Err(error),
    }
    // SAFETY: the kernel has written `count`.
    if (unsafe { attr.batch.count } as usize) < length || !keys.iter().copied().eq(0..length as u32) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: as many were written by the kernel, and any bytes are valid for a Pod.
    Ok(values.into_iter().map(|value| unsafe { value.assume_init() }).collect())
}

/// All entries of a hash map. An entry that is there from beginning to end is given exactly once; one that comes or goes
/// meanwhile may be given or not.
///
/// # Errors
/// What the kernel says; `limit` entries read without an end is `ErrorKind::InvalidData`.
pub fn entries<K: Pod, V: Pod>(map: BorrowedFd<'_>, limit: usize) -> io::Result<Vec<(K, V)>> {
    let mut all: Vec<(K, V)> = Vec::new();
    let mut room = BATCH;
    let mut keys: Vec<MaybeUninit<K>> = Vec::new();
    let mut values: Vec<MaybeUninit<V>> = Vec::new();
    let (mut position, mut next) = (0u64, 0u64);
    let mut first = true;
    loop {
        keys.resize_with(room, MaybeUninit::zeroed);
        values.resize_with(room, MaybeUninit::zeroed);
        let mut attr = empty_attr();
        attr.batch.map_fd = map.as_raw_fd() as u32;
        attr.batch.in_batch = if first { 0 } else { &raw const position as u64 };
        attr.batch.out_batch = &raw mut next as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = room as u32;
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
        let error = result.as_ref().err().and_then(io::Error::raw_os_error);
        if error == Some(libc::ENOSPC) && room < limit.max(BATCH) * 2 {
            // One bucket has more entries than there is room for.
            room *= 2;
            continue;
        }
        if result.is_err() && error != Some(libc::ENOENT) {
            return Err(result.err().unwrap_or_else(io::Error::last_os_error));
        }
        // SAFETY: the kernel has written `count`; it is never more than what was asked for.
        let count = (unsafe { attr.batch.count } as usize).min(room);
        for (key, value) in keys.iter().zip(&values).take(count) {
            // SAFETY: written by the kernel, and any bytes are valid for a Pod.
            all.push(unsafe { (key.assume_init_read(), value.assume_init_read()) });
        }
        if error == Some(libc::ENOENT) {
            return Ok(all);
        }
        if all.len() > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a map has more entries than it can have",
            ));
        }
        position = next;
        first = false;
    }
}

/// What the kernel counts about a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCounts {
    /// Calls that were skipped because the program was running on that CPU already.
    pub missed: u64,
    /// Instructions the verifier went through.
    pub verified_instructions: u32,
    /// Calls, while the kernel counted them (`kernel.bpf_stats_enabled`).
    pub runs: u64,
    /// Time that they took, nanoseconds.
    pub nanoseconds: u64,
}

/// What the kernel tells of a program or a map.
///
/// # Safety
/// `T` must be the struct that the kernel fills in for this kind of object, made of integers.
unsafe fn info<T>(object: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: a struct of integers.
    let mut info: T = unsafe { zeroed() };
    let mut attr = empty_attr();
    attr.info.bpf_fd = object.as_raw_fd() as u32;
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// How often a program ran, and was skipped.
///
/// # Errors
/// What the kernel says.
pub fn program_counts(program: BorrowedFd<'_>) -> io::Result<ProgramCounts> {
    // SAFETY: the struct of programs.
    let info: bpf_prog_info = unsafe { info(program) }?;
    Ok(ProgramCounts {
        missed: info.recursion_misses,
        verified_instructions: info.verified_insns,
        runs: info.run_cnt,
        nanoseconds: info.run_time_ns,
    })
}

/// How many entries a map has room for.
///
/// # Errors
/// What the kernel says.
pub fn map_capacity(map: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: the struct of maps.
    let info: bpf_map_info = unsafe { info(map) }?;
    Ok(info.max_entries)
}

/// Opens a kernel module's BTF.
///
/// # Errors
/// `ErrorKind::NotFound` if the module has none.
pub fn module_btf(module: &str) -> io::Result<OwnedFd> {
    let mut id = 0u32;
    loop {
        let mut attr = empty_attr();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        match bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("module {module} has no BTF")));
            }
            result => result?,
        };
        // SAFETY: written by the kernel.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let mut attr = empty_attr();
        attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
        // One that has gone meanwhile is not the one we look for.
        let Ok(btf) = bpf_fd(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr) else { continue };
        let mut name = [0u8; 64];
        // SAFETY: a struct of integers.
        let mut info: bpf_btf_info = unsafe { zeroed() };
        info.name = name.as_mut_ptr() as u64;
        info.name_len = name.len() as u32;
        let mut attr = empty_attr();
        attr.info.bpf_fd = btf.as_raw_fd() as u32;
        attr.info.info_len = size_of::<bpf_btf_info>() as u32;
        attr.info.info = &raw mut info as u64;
        if bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).is_err() || info.kernel_btf == 0 {
            continue;
        }
        if name.split(|byte| *byte == 0).next() == Some(module.as_bytes()) {
            return Ok(btf);
        }
    }
}

/// A tracing program that is to be loaded.
pub struct Tracing<'a> {
    /// Its name, cut to what the kernel keeps.
    pub name: &'a str,
    /// `BPF_TRACE_FENTRY` or `BPF_TRACE_FEXIT`.
    pub attach_type: bpf_attach_type,
    /// The instructions, maps and calls resolved.
    pub instructions: &'a [bpf_insn],
    /// The BTF that describes the program; callbacks need it.
    pub own_btf: BorrowedFd<'a>,
    /// `func_info` records and their size.
    pub functions: (&'a [u8], usize),
    /// The BTF that has the function to attach to.
    pub target_btf: BorrowedFd<'a>,
    /// The function's type id in it.
    pub target: u32,
}

impl Tracing<'_> {
    /// Loads the program.
    ///
    /// # Errors
    /// What the kernel says, with the end of the verifier's log where there is one.
    pub fn load(&self) -> io::Result<OwnedFd> {
        let mut log = Vec::new();
        let error = match self.try_load(&mut log) {
            Ok(program) => return Ok(program),
            Err(error) => error,
        };
        log.resize(1 << 20, 0u8);
        let _ = self.try_load(&mut log);
        let text =
            String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        let tail: Vec<&str> = text.trim().lines().rev().take(3).collect();
        Err(io::Error::new(
            error.kind(),
            format!("{error}: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" / ")),
        ))
    }

    fn try_load(&self, log: &mut [u8]) -> io::Result<OwnedFd> {
        let license = c"GPL";
        let mut attr = empty_attr();
        // SAFETY: the member of the union that BPF_PROG_LOAD reads.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        for (to, from) in load.prog_name.iter_mut().take(15).zip(self.name.bytes()) {
            *to = from as _;
        }
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
        load.expected_attach_type = self.attach_type as u32;
        load.insns = self.instructions.as_ptr() as u64;
        load.insn_cnt = self.instructions.len() as u32;
        load.license = license.as_ptr() as u64;
        load.prog_btf_fd = self.own_btf.as_raw_fd() as u32;
        load.func_info = self.functions.0.as_ptr() as u64;
        load.func_info_rec_size = self.functions.1 as u32;
        load.func_info_cnt = (self.functions.0.len() / self.functions.1.max(1)) as u32;
        load.attach_btf_id = self.target;
        load.__bindgen_anon_1.attach_btf_obj_fd = self.target_btf.as_raw_fd() as u32;
        if !log.is_empty() {
            load.log_level = 1;
            load.log_buf = log.as_mut_ptr() as u64;
            load.log_size = log.len() as u32;
        }
        bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
    }
}

/// Attaches a loaded tracing program to the function that it was loaded for; it stays so until the result is dropped.
///
/// # Errors
/// What the kernel says.
pub fn attach_tracing(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// Loads a program's own BTF.
///
/// # Errors
/// What the kernel says.
pub fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // SAFETY: the member of the union that BPF_BTF_LOAD reads.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = bytes.as_ptr() as u64;
    load.btf_size = bytes.len() as u32;
    bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attr)
}

/// Whether this kernel lets us load a tracing program: `Ok`, or the error it gives for the smallest one there is.
///
/// # Errors
/// `EPERM` without the capabilities or under a policy that refuses it.
pub fn probe_tracing() -> io::Result<()> {
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let mut attr = empty_attr();
    // SAFETY: the member of the union that BPF_PROG_LOAD reads.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = instructions.len() as u32;
    load.license = license.as_ptr() as u64;
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr).map(drop)
}
