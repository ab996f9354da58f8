//! What this host is like. Facts only: nothing is decided here. `None` always means "could not be found out", never "no".

use std::{
    collections::BTreeMap,
    fs,
    io::{BufReader, Read},
    path::Path,
    sync::Arc,
};

use pinwatch_common::{KernelLayout, ModuleLayout};

use super::{
    btf::{self, Btf, Function, Member},
    lists,
    wanted::Wanted,
};

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What is needed to attach. The lists of symbols are read only if a module has no BTF: they take longer than all else.
    Quick,
    /// Everything that `pinwatch check` can tell.
    Thorough,
}

/// Whether there is BTF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BtfState {
    /// It was read.
    Read,
    /// There is none (CONFIG_DEBUG_INFO_BTF, CONFIG_DEBUG_INFO_BTF_MODULES).
    Absent,
    /// There is, but it could not be read: why.
    Unusable(String),
}

/// A loaded module out of [`Wanted::modules`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFact {
    /// Its name.
    pub name: String,
    /// Without BTF its functions can be hooked by kprobe only, and its structs are opaque.
    pub btf: BtfState,
}

/// A function out of [`Wanted::functions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionFact {
    /// The module that it was found in; `None`: in the kernel proper, or nowhere.
    pub module: Option<String>,
    /// How it is called, if it was found in BTF. Only then can a trampoline be attached.
    pub btf: Option<Function>,
    /// Whether /proc/kallsyms has it: only then can a kprobe be attached.
    pub symbol: Option<bool>,
    /// Whether ftrace lists it. Kernel code may be marked notrace, or be inlined everywhere.
    pub traceable: Option<bool>,
}

/// All that is known of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// As `uname -r`. Shown, never decided by: distributions backport.
    pub release: String,
    /// As Rust spells it: `x86_64`. The registers of a system call depend on it.
    pub arch: String,
    /// log2 of the base page size.
    pub page_shift: u32,
    /// Without it no offset is known, and nothing can be traced.
    pub btf: BtfState,
    /// Which of the modules are loaded. Those built into the kernel are not among them.
    pub modules: Vec<ModuleFact>,
    /// `none`, `integrity` or `confidentiality`; the last forbids BPF programs to read kernel memory.
    pub lockdown: Option<String>,
    /// Every function that was looked for.
    pub functions: BTreeMap<&'static str, FunctionFact>,
    /// Every struct member that was looked for.
    pub members: BTreeMap<&'static str, Option<Member>>,
    /// Sizes of structs in bytes.
    pub sizes: BTreeMap<&'static str, Option<u32>>,
    /// Values of enumerators.
    pub enums: BTreeMap<&'static str, Option<i64>>,
    /// Whether the kernel preempts itself: then it may do so inside of a BPF program, and skips the next run of that
    /// program on the same CPU.
    pub preemptible: Option<bool>,
    /// The effective capabilities, a bit for each.
    pub capabilities: Option<u64>,
    /// Whether there are kprobes.
    pub kprobes: Option<bool>,
    /// What loading an empty tracing program came to: 0 or an errno. `None` until it was tried, which is not done here.
    pub bpf_tracing: Option<i32>,
}

impl Facts {
    /// Looks at the host below `root`, which is `/` except in tests. Never fails: what cannot be read is `None`.
    pub fn read(root: &Path, depth: Depth, wanted: &Wanted) -> Self {
        let sys = root.join("sys");
        let proc = root.join("proc");
        let (btf, vmlinux) = read_btf(&sys.join("kernel/btf/vmlinux"), Btf::parse);
        let vmlinux = vmlinux.map(Arc::new);
        let modules = loaded_modules(&proc, wanted).into_iter().map(|name| {
            let path = sys.join("kernel/btf").join(&name);
            let (state, btf) = match &vmlinux {
                Some(base) => read_btf(&path, |bytes| Btf::parse_split(bytes, base)),
                None => (BtfState::Absent, None),
            };
            (ModuleFact { name, btf: state }, btf)
        });
        let modules: Vec<_> = modules.collect();
        let mut facts = Self {
            release: text(&proc.join("sys/kernel/osrelease")).unwrap_or_default(),
            arch: std::env::consts::ARCH.to_owned(),
            page_shift: rustix::param::page_size().trailing_zeros(),
            lockdown: text(&sys.join("kernel/security/lockdown")).and_then(|text| chosen(&text, '[', ']')),
            preemptible: preemptible(&sys, &proc),
            capabilities: text(&proc.join("self/status")).and_then(|status| effective_capabilities(&status)),
            kprobes: kprobes(&sys),
            ..Self::empty()
        };
        facts.btf = btf;
        facts.look_up(wanted, vmlinux.as_deref(), &modules);
        if depth == Depth::Thorough || facts.modules.iter().any(|module| module.btf != BtfState::Read) {
            facts.read_symbols(&proc.join("kallsyms"));
        }
        if depth == Depth::Thorough {
            facts.read_traceable(&sys.join("kernel"));
        }
        facts
    }

    /// Facts of a kernel of which only the BTF is at hand; the rest is as on an ordinary host. `None`: the module is
    /// loaded, but has no BTF.
    pub fn from_btf(
        release: &str,
        vmlinux: &Btf,
        modules: Vec<(&str, Option<Btf>)>,
        wanted: &Wanted,
    ) -> Self {
        let modules: Vec<_> = modules
            .into_iter()
            .map(|(name, btf)| {
                let state = if btf.is_some() { BtfState::Read } else { BtfState::Absent };
                (ModuleFact { name: name.to_owned(), btf: state }, btf)
            })
            .collect();
        let mut facts = Self { release: release.to_owned(), ..Self::empty() };
        facts.look_up(wanted, Some(vmlinux), &modules);
        facts
    }

    fn empty() -> Self {
        Self {
            release: String::new(),
            arch: "x86_64".to_owned(),
            page_shift: 12,
            btf: BtfState::Read,
            modules: Vec::new(),
            lockdown: None,
            functions: BTreeMap::new(),
            members: BTreeMap::new(),
            sizes: BTreeMap::new(),
            enums: BTreeMap::new(),
            preemptible: None,
            capabilities: None,
            kprobes: None,
            bpf_tracing: None,
        }
    }

    /// Asks BTF for all that is wanted, and for all that the table of subsystems has. The kernel is asked first: there the modules may be built in.
    fn look_up(&mut self, wanted: &Wanted, vmlinux: Option<&Btf>, modules: &[(ModuleFact, Option<Btf>)]) {
        let kernel = vmlinux.map(|btf| (None, btf));
        let loaded = modules.iter().filter_map(|(module, btf)| Some((Some(&module.name), btf.as_ref()?)));
        let all: Vec<(Option<&String>, &Btf)> = kernel.into_iter().chain(loaded).collect();
        for function in &wanted.functions {
            let found = all.iter().find_map(|(module, btf)| Some((*module, btf.function(function.symbol)?)));
            let fact = match found {
                Some((module, function)) => {
                    FunctionFact { module: module.cloned(), btf: Some(function), ..FunctionFact::default() }
                }
                None => FunctionFact::default(),
            };
            self.functions.insert(function.symbol, fact);
        }
        let of_kernel = KernelLayout::MEMBERS.iter().flat_map(|member| member.paths);
        let of_modules = ModuleLayout::MEMBERS.iter().flat_map(|member| member.paths);
        let assumed = KernelLayout::ASSUMED.iter().chain(ModuleLayout::ASSUMED).map(|assumed| &assumed.name);
        for path in of_kernel.chain(of_modules).chain(assumed) {
            self.members.insert(path, all.iter().find_map(|(_, btf)| btf.member(path)));
        }
        let sizes = KernelLayout::SIZES.iter().map(|size| size.name);
        let sizes = sizes.chain(ModuleLayout::SIZES.iter().map(|size| size.name));
        let assumed = KernelLayout::ASSUMED_SIZES.iter().chain(ModuleLayout::ASSUMED_SIZES);
        let assumed = assumed.map(|assumed| assumed.name);
        for name in sizes.chain(assumed).chain(wanted.structs.iter().copied()) {
            self.sizes.insert(name, all.iter().find_map(|(_, btf)| btf.struct_size(name)));
        }
        let values = KernelLayout::VALUES.iter().map(|value| value.name);
        let values = values.chain(ModuleLayout::VALUES.iter().map(|value| value.name));
        for name in values.chain(wanted.enumerators.iter().copied()) {
            self.enums.insert(name, all.iter().find_map(|(_, btf)| btf.enum_value(name)));
        }
        self.modules = modules.iter().map(|(module, _)| module.clone()).collect();
    }

    /// Fills in `symbol`, and the module of functions that no BTF has.
    fn read_symbols(&mut self, path: &Path) {
        let Ok(file) = fs::File::open(path) else { return };
        self.functions.values_mut().for_each(|fact| fact.symbol = Some(false));
        lists::for_each_symbol(BufReader::with_capacity(1 << 16, file), |symbol| {
            let Some(fact) = symbol.name().and_then(|name| self.functions.get_mut(name)) else { return };
            fact.symbol = Some(true);
            if fact.btf.is_none() {
                fact.module = symbol.module().map(str::to_owned);
            }
        });
    }

    fn read_traceable(&mut self, kernel: &Path) {
        let found = ["tracing", "debug/tracing"]
            .into_iter()
            .find_map(|folder| fs::File::open(kernel.join(folder).join("available_filter_functions")).ok());
        let Some(file) = found else { return };
        self.functions.values_mut().for_each(|fact| fact.traceable = Some(false));
        lists::for_each_line(BufReader::with_capacity(1 << 16, file), |line| {
            let name = line.split_ascii_whitespace().next();
            if let Some(fact) = name.and_then(|name| self.functions.get_mut(name)) {
                fact.traceable = Some(true);
            }
        });
    }
}

fn read_btf(
    path: &Path,
    parse: impl FnOnce(Vec<u8>) -> Result<Btf, btf::BtfError>,
) -> (BtfState, Option<Btf>) {
    let read = fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::with_capacity(
            file.metadata().map_or(0, |data| data.len().min(btf::MAX_BYTES as u64)) as usize,
        );
        file.take(btf::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    match read {
        Ok(bytes) => match parse(bytes) {
            Ok(btf) => (BtfState::Read, Some(btf)),
            Err(error) => (BtfState::Unusable(error.to_string()), None),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (BtfState::Absent, None),
        Err(error) => (BtfState::Unusable(format!("cannot read {}: {error}", path.display())), None),
    }
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end().to_owned())
}

/// Only modules that are up: one that is being loaded or removed has no functions to hook.
fn loaded_modules(proc: &Path, wanted: &Wanted) -> Vec<String> {
    let text = lists::modules_text(proc);
    let live: Vec<&str> =
        lists::modules(&text).filter(|module| module.live).map(|module| module.name).collect();
    let wanted = wanted.modules.iter().filter(|name| live.contains(name));
    wanted.map(|name| (*name).to_owned()).collect()
}

/// The marked word of "none [integrity] confidentiality".
fn chosen(text: &str, open: char, close: char) -> Option<String> {
    let (_, rest) = text.split_once(open)?;
    Some(rest.split_once(close)?.0.to_owned())
}

/// debugfs tells for kernels where that can be chosen at boot; for others the version string does.
fn preemptible(sys: &Path, proc: &Path) -> Option<bool> {
    if let Some(mode) = text(&sys.join("kernel/debug/sched/preempt")).and_then(|text| chosen(&text, '(', ')'))
    {
        return match mode.as_str() {
            "none" | "voluntary" => Some(false),
            "full" | "lazy" => Some(true),
            _ => None,
        };
    }
    let version = text(&proc.join("sys/kernel/version"))?;
    match version.contains("PREEMPT_DYNAMIC") {
        true => None,
        false => Some(version.contains("PREEMPT")),
    }
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn kprobes(sys: &Path) -> Option<bool> {
    let sources = sys.join("bus/event_source/devices");
    match sources.join("kprobe/type").exists() {
        true => Some(true),
        false => fs::read_dir(sources).is_ok().then_some(false),
    }
}

#[cfg(test)]
mod tests;
