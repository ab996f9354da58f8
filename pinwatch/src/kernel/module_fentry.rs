//! fentry and fexit programs on the functions of modules.
//!
//! aya finds the function to attach to in vmlinux's BTF only. So the same object is parsed once more, its maps are bound to
//! those that aya has made, and each program is loaded with the module's BTF. Nothing else differs: a probe on the same
//! function costs some 1,500 instructions more a call.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use aya_obj::generated::bpf_attach_type;
use aya_obj::{Object, Program};

use super::bpf_syscall;

/// The BPF object, ready for its programs to be loaded one by one.
pub struct ModulePrograms {
    object: Object,
    own_btf: OwnedFd,
}

/// A loaded and attached program.
#[derive(Debug)]
pub struct ModuleLink {
    program: OwnedFd,
    _link: OwnedFd,
}

impl ModuleLink {
    /// The program, for its counters.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

impl ModulePrograms {
    /// Parses the object. `globals` are those that the first copy was loaded with, `map_fd` finds the maps it made.
    ///
    /// # Errors
    /// What is wrong with the object, or what the kernel says of its BTF.
    pub fn new(
        bytes: &[u8],
        globals: &[(&str, &[u8])],
        map_fd: impl Fn(&str) -> Option<RawFd>,
    ) -> io::Result<Self> {
        let invalid =
            |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let mut object = Object::parse(bytes).map_err(|error| invalid(&error))?;
        object
            .patch_map_data(globals.iter().map(|(name, value)| (*name, (*value, true))).collect())
            .map_err(|error| invalid(&error))?;
        let features = aya::features();
        let btf_features = features.btf().ok_or_else(|| invalid(&"the kernel takes no BTF from programs"))?;
        let btf = object
            .fixup_and_sanitize_btf(btf_features)
            .map_err(|error| invalid(&error))?
            .ok_or_else(|| invalid(&"the BPF object has no BTF"))?
            .clone();
        let own_btf = bpf_syscall::load_btf(&btf.to_bytes())?;
        let text_sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let maps: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
        let mut bound = Vec::with_capacity(maps.len());
        for (name, map) in &maps {
            // Without it what belongs to it would be bound to another map of the same section.
            let fd = map_fd(name).ok_or_else(|| invalid(&format!("map {name} has no descriptor")))?;
            bound.push((name.as_str(), fd, map));
        }
        object.relocate_maps(bound.into_iter(), &text_sections).map_err(|error| invalid(&error))?;
        object.relocate_calls(&text_sections).map_err(|error| invalid(&error))?;
        object.sanitize_functions(features);
        Ok(Self { object, own_btf })
    }

    /// Loads and attaches program `name` to function `function` (its type id) of `module`.
    ///
    /// # Errors
    /// What the kernel says, with the end of the verifier's log.
    pub fn attach(&self, name: &str, exit: bool, module: &str, function: u32) -> io::Result<ModuleLink> {
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("the BPF object has no program {name}"));
        let program: &Program = self.object.programs.get(name).ok_or_else(missing)?;
        let code = self.object.functions.get(&program.function_key()).ok_or_else(missing)?;
        let module_btf = bpf_syscall::module_btf(module)?;
        let functions = code.func_info.func_info_bytes();
        let program = bpf_syscall::Tracing {
            name,
            attach_type: if exit {
                bpf_attach_type::BPF_TRACE_FEXIT
            } else {
                bpf_attach_type::BPF_TRACE_FENTRY
            },
            instructions: &code.instructions,
            own_btf: self.own_btf.as_fd(),
            functions: (&functions, code.func_info_rec_size),
            target_btf: module_btf.as_fd(),
            target: function,
        }
        .load()?;
        let link = bpf_syscall::attach_tracing(program.as_fd())?;
        Ok(ModuleLink { program, _link: link })
    }
}

/// The descriptor of one of aya's maps.
pub fn fd_of(map: &aya::maps::Map) -> Option<BorrowedFd<'_>> {
    use aya::maps::Map;
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}
