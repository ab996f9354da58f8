//! Loading the BPF programs, attaching them as the plan says, and taking them off again.

mod error;
mod iterate;
mod maps;
mod unclaimed;

pub use error::{BelowError, BpfError, Cause};

use rustc_hash::FxHashSet as HashSet;
use std::collections::{BTreeMap, HashMap as Table};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use aya::maps::Map;
use aya::programs::fentry::FEntryLink;
use aya::programs::fexit::FExitLink;
use aya::programs::kprobe::KProbeLink;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{FEntry, FExit, KProbe, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader};
use pinwatch_common::{
    KFUNCS, KernelLayout, counter,
    subsystems::{HookId, HookPoint},
};

use super::bpf_syscall::{self, ProgramCounts};
use super::kfuncs::KfuncObject;
use super::module_fentry::{ModuleLink, ModulePrograms, fd_of};
use super::overlay::{Overlay, OverlayError};
use super::plan::{Hook, Method};

/// The object, aligned as its parser wants it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pinwatch-ebpf"));

/// The programs that see breaks, and the tracepoints that they are on. Ends come before beginnings: no wait is recorded
/// whose end could be missed.
const BREAKS: [(&str, &str); 4] = [
    ("timed_out", "time_out_leases"),
    ("break_done", "break_lease_unblock"),
    ("break_refused", "break_lease_noblock"),
    ("break_waits", "break_lease_block"),
];

/// How the programs are to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Room for so many pins.
    pub max_pins: u32,
    /// Whether the programs log what they do.
    pub log: bool,
    /// See [`super::plan::Plan::kfuncs`].
    pub kfuncs: Option<[u32; KFUNCS.len()]>,
}

enum Link {
    Entry(#[expect(dead_code, reason = "detaches when dropped")] FEntryLink),
    Exit(#[expect(dead_code, reason = "detaches when dropped")] FExitLink),
    Probe(#[expect(dead_code, reason = "detaches when dropped")] KProbeLink),
    Module(ModuleLink),
}

/// How a hook is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The kernel function.
    pub symbol: &'static str,
    /// The module it is in.
    pub module: Option<String>,
    /// How.
    pub method: Method,
    /// Why it is not attached the way that was planned, if so.
    pub instead: Option<String>,
}

/// What the programs missed, as far as the kernel and they themselves can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// At most so many calls found every program of their hook running already.
    pub skipped: u64,
    /// Returns without a kretprobe instance.
    pub no_kretprobe: u64,
    /// What found no room in a map.
    pub map_full: MapFull,
    /// Records whose object's address was used again.
    pub replaced: u64,
    /// Events; no pin is lost by these.
    pub events: u64,
}

/// How often something found no room, by map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapFull {
    /// Pins.
    pub pins: u64,
    /// Second and later extents.
    pub extents: u64,
    /// Files.
    pub files: u64,
    /// Calls under way.
    pub calls: u64,
    /// Rings that a buffer was cloned into.
    pub shares: u64,
    /// Leases.
    pub leases: u64,
    /// Threads that wait for a lease.
    pub waiters: u64,
}

impl MapFull {
    /// All of them, with the maps' names.
    pub fn by_map(self) -> [(&'static str, u64); 7] {
        let Self { pins, extents, files, calls, shares, leases, waiters } = self;
        [
            ("pins", pins),
            ("extents", extents),
            ("files", files),
            ("calls", calls),
            ("shares", shares),
            ("leases", leases),
            ("waiters", waiters),
        ]
    }
}

/// The programs in the kernel.
pub struct Programs {
    ebpf: Ebpf,
    /// Descriptors of all maps, also of those that were taken out of `ebpf`.
    maps: Table<String, OwnedFd>,
    offsets: KernelLayout,
    log_level: u8,
    btf: Option<Btf>,
    module_programs: Option<ModulePrograms>,
    /// See [`LoadOptions::kfuncs`]; for `module_programs`, whose copy of the object, megabytes, is made when it is needed.
    kfuncs: Option<[u32; KFUNCS.len()]>,
    links: BTreeMap<&'static str, Vec<Link>>,
    attached: BTreeMap<&'static str, Attached>,
    tracepoints: Vec<RawTracePointLink>,
    /// Misses of programs that were loaded for a module and are gone with it.
    past_misses: BTreeMap<String, (u64, u64)>,
    /// What is in the map ANCHORS.
    anchors: HashSet<u64>,
    /// Whether the programs know a ring when they see one.
    knows_rings: bool,
    /// How often leases were looked for.
    lease_round: u64,
    /// The rate of `jiffies`, once it was needed.
    ticks_per_second: Option<u64>,
    /// Where overlayfs has the files below its own, once that was needed.
    overlay: Option<Result<Overlay, Arc<OverlayError>>>,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Level(u8);
// SAFETY: a byte.
unsafe impl aya::Pod for Level {}

impl Programs {
    /// Loads the object with its offsets; attaches nothing yet but the watch on modules.
    ///
    /// # Errors
    /// [`BpfError::Load`] with the kernel's reason.
    pub fn load(offsets: &KernelLayout, options: LoadOptions) -> Result<Self, BpfError> {
        let log_level = Level(if options.log { 4 } else { 0 });
        let offsets = KernelLayout { history: u64::from(options.log), ..*offsets };
        let object = KfuncObject::put_into(OBJECT, options.kfuncs.as_ref());
        let ebpf = EbpfLoader::new()
            .override_global("KERNEL_LAYOUT", &offsets, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .map_max_entries("PINS", options.max_pins)
            .load(object.bytes())
            .map_err(|error| BpfError::Load(error.into()))?;
        let duplicate =
            |(name, map): (&str, &Map)| Some((name.to_owned(), fd_of(map)?.try_clone_to_owned().ok()?));
        let maps = ebpf.maps().filter_map(duplicate).collect();
        let mut programs = Self {
            ebpf,
            maps,
            offsets,
            log_level: log_level.0,
            btf: None,
            module_programs: None,
            kfuncs: options.kfuncs,
            links: BTreeMap::new(),
            attached: BTreeMap::new(),
            tracepoints: Vec::new(),
            past_misses: BTreeMap::new(),
            anchors: HashSet::default(),
            knows_rings: false,
            lease_round: 0,
            ticks_per_second: None,
            overlay: None,
        };
        for name in ["module_load", "module_free"] {
            programs.attach_tracepoint(name, name).map_err(BpfError::Load)?;
        }
        Ok(programs)
    }

    /// Has the programs see who breaks leases.
    ///
    /// # Errors
    /// [`BpfError::Attach`]
    pub fn watch_breaks(&mut self) -> Result<(), BpfError> {
        for (name, symbol) in BREAKS {
            self.attach_tracepoint(name, symbol).map_err(|cause| BpfError::Attach { symbol, cause })?;
        }
        Ok(())
    }

    fn attach_tracepoint(&mut self, name: &str, tracepoint: &str) -> Result<(), Cause> {
        let program = self.ebpf.program_mut(name).ok_or_else(|| Cause::NoProgram(name.to_string()))?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        let link = program.attach(tracepoint)?;
        self.tracepoints.push(program.take_link(link)?);
        Ok(())
    }

    /// The loaded object, for the log's reader.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Drops the kernel's BTF, tens of megabytes that only attaching and the first pass take. It is read again if need be.
    pub fn forget_btf(&mut self) {
        self.btf = None;
    }

    /// What is attached, by hook.
    pub fn attached(&self) -> &BTreeMap<&'static str, Attached> {
        &self.attached
    }

    /// Attaches a hook as planned; where a trampoline is refused, by probes.
    ///
    /// # Errors
    /// [`BpfError::Attach`] if the function cannot be hooked at all.
    pub fn attach(&mut self, hook: &Hook) -> Result<(), BpfError> {
        let planned = match hook.method {
            Method::Trampoline => self.attach_trampoline(hook),
            Method::ModuleTrampoline => self.attach_to_module(hook),
            Method::Kprobe => self.attach_probes(hook),
        };
        let (links, method, instead) = match planned {
            Ok(links) => (links, hook.method, None),
            Err(cause) if hook.method != Method::Kprobe && hook.fallback => {
                let links = self
                    .attach_probes(hook)
                    .map_err(|cause| BpfError::Attach { symbol: hook.symbol, cause })?;
                (links, Method::Kprobe, Some(cause.to_string()))
            }
            Err(cause) => return Err(BpfError::Attach { symbol: hook.symbol, cause }),
        };
        // What was there goes only now: while both are attached, what one records the other leaves alone.
        self.detach(hook.name());
        self.links.insert(hook.name(), links);
        let attached = Attached { symbol: hook.symbol, module: hook.module.clone(), method, instead };
        self.attached.insert(hook.name(), attached);
        Ok(())
    }

    /// Attaches a hook by probes, whatever was planned: they are verified already, so that it takes no time. Trampolines
    /// may take over later.
    ///
    /// # Errors
    /// [`BpfError::Attach`]
    pub fn attach_at_once(&mut self, hook: &Hook) -> Result<(), BpfError> {
        self.attach(&Hook { method: Method::Kprobe, ..hook.clone() })
    }

    /// Has the kernel verify the probes of hooks that may have to be attached at once.
    pub fn prepare_probes(&mut self, hooks: &[&str]) {
        for (name, program) in self.ebpf.programs_mut() {
            if hooks.iter().any(|hook| name.strip_prefix(hook).is_some_and(|rest| rest.ends_with("probe")))
                && let Ok(program) = <&mut KProbe>::try_from(program)
                && program.fd().is_err()
            {
                // If it does not load, attaching it says why.
                let _ = program.load();
            }
        }
    }

    /// Takes a hook off.
    pub fn detach(&mut self, name: &str) {
        if let Some(links) = self.links.remove(name) {
            // Programs on a module's function go with their links; aya's own stay, and keep their counts.
            if links.iter().any(|link| matches!(link, Link::Module(_))) {
                let (primary, backup) = misses_of(&self.counts_with(name, &links), name);
                let past = self.past_misses.entry(name.to_owned()).or_default();
                *past = (past.0 + primary, past.1 + backup);
            }
        }
        self.attached.remove(name);
    }

    fn attach_trampoline(&mut self, hook: &Hook) -> Result<Vec<Link>, Cause> {
        let btf = match &mut self.btf {
            Some(btf) => btf,
            none => none.insert(Btf::from_sys_fs()?),
        };
        let mut links = Vec::new();
        for name in hook.programs(hook.method, self.offsets.backups != 0) {
            let program = self.ebpf.program_mut(&name).ok_or_else(|| Cause::NoProgram(name.to_string()))?;
            if hook.id.point() == HookPoint::Exit {
                let program: &mut FExit = program.try_into()?;
                if program.fd().is_err() {
                    program.load(hook.symbol, btf)?;
                }
                let id = program.attach()?;
                links.push(Link::Exit(program.take_link(id)?));
            } else {
                let program: &mut FEntry = program.try_into()?;
                if program.fd().is_err() {
                    program.load(hook.symbol, btf)?;
                }
                let id = program.attach()?;
                links.push(Link::Entry(program.take_link(id)?));
            }
        }
        Ok(links)
    }

    fn attach_to_module(&mut self, hook: &Hook) -> Result<Vec<Link>, Cause> {
        let programs = match &mut self.module_programs {
            Some(programs) => programs,
            none => {
                // SAFETY: `KernelLayout` is `repr(C)` and made of u64 only.
                let offsets = unsafe {
                    std::slice::from_raw_parts(
                        (&raw const self.offsets).cast::<u8>(),
                        size_of::<KernelLayout>(),
                    )
                };
                let globals =
                    [("KERNEL_LAYOUT", offsets), ("AYA_LOG_LEVEL", std::slice::from_ref(&self.log_level))];
                let map = |name: &str| self.maps.get(name).map(|fd| fd.as_raw_fd());
                let object = KfuncObject::put_into(OBJECT, self.kfuncs.as_ref());
                none.insert(ModulePrograms::new(object.bytes(), &globals, map)?)
            }
        };
        let module = hook.module.as_deref().ok_or(Cause::NotInModuleBtf)?;
        let function = hook.btf_id.ok_or(Cause::NotInModuleBtf)?;
        let mut links = Vec::new();
        for name in hook.programs(hook.method, self.offsets.backups != 0) {
            let link = programs.attach(&name, hook.id.point() == HookPoint::Exit, module, function)?;
            links.push(Link::Module(link));
        }
        Ok(links)
    }

    fn attach_probes(&mut self, hook: &Hook) -> Result<Vec<Link>, Cause> {
        let mut links = Vec::new();
        for name in hook.programs(Method::Kprobe, false) {
            let program = self.ebpf.program_mut(&name).ok_or_else(|| Cause::NoProgram(name.to_string()))?;
            let program: &mut KProbe = program.try_into()?;
            if program.fd().is_err() {
                program.load()?;
            }
            let id = program.attach(hook.symbol, 0)?;
            links.push(Link::Probe(program.take_link(id)?));
        }
        Ok(links)
    }

    /// How many calls at most no program of a hook has seen: those that the primary missed, less those that the backup saw in
    /// its place, and never more than the backup missed.
    fn skipped_calls(&self, counts: &Counts, recovered: impl Fn(u32) -> u64) -> u64 {
        let unmarked = recovered(counter::UNMARKED);
        HookId::ALL
            .into_iter()
            .map(|id| {
                let hook = id.name();
                let (mut primary, mut backup) = self.past_misses.get(hook).copied().unwrap_or_default();
                let now = if self.links.contains_key(hook) { misses_of(counts, hook) } else { (0, 0) };
                primary += now.0;
                backup += now.1;
                let seen = recovered(id.recovered()).saturating_sub(unmarked);
                let trampolines = primary.saturating_sub(seen);
                let lost = if self.offsets.backups == 0 { trampolines } else { trampolines.min(backup) };
                lost + counts.missed(&format!("{hook}_kprobe")) + counts.missed(&format!("{hook}_kretprobe"))
            })
            .sum()
    }

    /// What the kernel counts of each program that is loaded: a call for each.
    pub fn counts(&self) -> Counts {
        let own = self.ebpf.programs().filter_map(|(name, program)| {
            Some((name.to_owned(), bpf_syscall::program_counts(program.fd().ok()?.as_fd()).ok()?))
        });
        let mut counts = Counts { own: own.collect(), modules: BTreeMap::new() };
        for (hook, links) in &self.links {
            counts.add(hook, links);
        }
        counts
    }

    /// The same of a hook whose links are `links`.
    fn counts_with(&self, hook: &str, links: &[Link]) -> Counts {
        let mut counts = self.counts();
        counts.add(hook, links);
        counts
    }
}

/// What the kernel counts of programs.
pub struct Counts {
    /// aya's own, by name.
    own: BTreeMap<String, ProgramCounts>,
    /// Those on functions of modules, by hook, in the order in which they were attached.
    modules: BTreeMap<String, Vec<ProgramCounts>>,
}

impl Counts {
    fn add(&mut self, hook: &str, links: &[Link]) {
        let counts = links.iter().filter_map(|link| match link {
            Link::Module(link) => Some(bpf_syscall::program_counts(link.program()).unwrap_or_default()),
            Link::Entry(_) | Link::Exit(_) | Link::Probe(_) => None,
        });
        let counts: Vec<ProgramCounts> = counts.collect();
        if !counts.is_empty() {
            self.modules.insert(hook.to_owned(), counts);
        }
    }

    /// How often the kernel skipped one of aya's programs.
    fn missed(&self, program: &str) -> u64 {
        self.own.get(program).map_or(0, |counts| counts.missed)
    }

    /// How often and how long programs ran, by name; those on functions of a module under their hook's.
    pub fn runs(self) -> Vec<(String, ProgramCounts)> {
        let mut all = self.own;
        for (hook, counts) in self.modules {
            let sum = all.entry(hook).or_default();
            for counts in counts {
                sum.runs += counts.runs;
                sum.nanoseconds += counts.nanoseconds;
            }
        }
        all.into_iter().collect()
    }
}

/// How often the kernel skipped the primary and the backup of a hook's trampoline programs. The backup is attached first, see
/// `Hook::programs`.
fn misses_of(counts: &Counts, hook: &str) -> (u64, u64) {
    let modules = counts.modules.get(hook).map(Vec::as_slice).unwrap_or_default();
    let primary = modules.last().map_or(0, |counts| counts.missed);
    let backup = if modules.len() > 1 { modules[0].missed } else { 0 };
    (counts.missed(hook) + primary, counts.missed(&format!("{hook}_backup")) + backup)
}
