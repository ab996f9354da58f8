//! Cuts a kernel's BTF down to what pinwatch asks of it (the table of subsystems and their rooms): a few kilobytes that tests
//! can decide by. A crate of its own, as xtask has to be there before pinwatch can be built; `cargo xtask cut-btf` gets the BTF
//! from guests and runs it.
//!
//!     cut-btf VMLINUX.btf TO.btf
//!     cut-btf --base VMLINUX.btf MODULE.btf TO.btf
//!     cut-btf --modules
//!
//! Names, offsets, sizes, anonymous members and duplicate structs are kept, other members and types are not; the ids
//! are new. A module's result stands alone: it is read without its base.

// The tests of pinwatch's reader write BTF in the same way.
#[path = "../../../pinwatch/src/kernel/btf/writer.rs"]
mod writer;

use std::{collections::HashMap, env, fs, process::ExitCode, sync::Arc};

use pinwatch::kernel::btf::{Btf, Field, Function, Type};
use pinwatch::subsystem;
use pinwatch_common::{KernelLayout, ModuleLayout};
use writer::{NewField, Writer};

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["--base", base, from, to] => cut(Some(base), from, to),
        [from, to] => cut(None, from, to),
        ["--modules"] => {
            subsystem::wanted().modules.iter().for_each(|module| println!("{module}"));
            Ok(())
        }
        _ => Err("usage: cut-btf [--base VMLINUX.btf] FROM.btf TO.btf, or cut-btf --modules".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cut-btf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cut(base: Option<&str>, from: &str, to: &str) -> Result<(), Error> {
    let btf = match base {
        Some(base) => Btf::parse_split(fs::read(from)?, &Arc::new(Btf::parse(fs::read(base)?)?))?,
        None => Btf::parse(fs::read(from)?)?,
    };
    let paths: Vec<&str> = match base {
        Some(_) => {
            let members = ModuleLayout::MEMBERS.iter().flat_map(|member| member.paths).copied();
            members.chain(ModuleLayout::ASSUMED.iter().map(|assumed| assumed.name)).collect()
        }
        None => {
            let members = KernelLayout::MEMBERS.iter().flat_map(|member| member.paths).copied();
            members.chain(KernelLayout::ASSUMED.iter().map(|assumed| assumed.name)).collect()
        }
    };
    let mut cutter = Cutter { btf: &btf, writer: Writer::new(1, 0), pointers: HashMap::new() };
    let mut names: Vec<_> =
        paths.iter().filter_map(|path| path.split_once('.')).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let members: Vec<Vec<&str>> = paths
            .iter()
            .filter_map(|path| path.split_once('.'))
            .filter(|path| path.0 == name)
            .map(|path| path.1.split('.').collect())
            .collect();
        // Two are enough to see that duplicates are dealt with.
        for id in btf.structs(name).into_iter().take(2) {
            cutter.structure(id, &members);
        }
    }
    let wanted = subsystem::wanted();
    for function in &wanted.functions {
        if let Some(found) = btf.function(function.symbol) {
            cutter.function(function.symbol, &found);
        }
    }
    let names: Vec<&str> = match base {
        Some(_) => ModuleLayout::VALUES.iter().map(|value| value.name).collect(),
        None => {
            let values = KernelLayout::VALUES.iter().map(|value| value.name);
            values.chain(wanted.enumerators.iter().copied()).collect()
        }
    };
    let values: Vec<_> = names.into_iter().filter_map(|name| Some((name, btf.enum_value(name)?))).collect();
    cutter.writer.enumeration(4, &values);
    fs::write(to, cutter.writer.finish())?;
    Ok(())
}

struct Cutter<'a> {
    btf: &'a Btf,
    writer: Writer,
    pointers: HashMap<String, u32>,
}

impl Cutter<'_> {
    /// The struct with nothing but the members on one of the paths; `None` if there are none.
    fn structure(&mut self, id: u32, paths: &[Vec<&str>]) -> Option<u32> {
        let Type::Struct { name, size, fields, union } = self.btf.resolved(id)? else { return None };
        let mut kept = Vec::new();
        for Field { name, type_id, bit_offset, .. } in fields {
            let type_id = if name.is_empty() {
                self.structure(type_id, paths)
            } else {
                let inner = paths.iter().filter(|path| path.first() == Some(&name.as_str()));
                let inner: Vec<Vec<&str>> =
                    inner.map(|path| path.iter().skip(1).copied().collect()).collect();
                match inner.as_slice() {
                    [] => None,
                    [path, ..] if path.is_empty() => Some(self.leaf(type_id)),
                    _ => self.structure(type_id, &inner),
                }
            };
            kept.extend(type_id.map(|type_id| NewField { name, type_id, bit_offset }));
        }
        (!kept.is_empty()).then(|| self.writer.structure(&name, union, size, &kept))
    }

    /// A type of the same size, of which nothing else is known.
    fn leaf(&mut self, id: u32) -> u32 {
        match self.btf.resolved(id) {
            Some(Type::Int { size }) => self.writer.int(size),
            Some(Type::Enum { size }) => self.writer.enumeration(size, &[]),
            Some(Type::Pointer(_)) => self.writer.pointer(0),
            Some(Type::Array { element, count }) => {
                let element = self.leaf(element);
                self.writer.array(element, count)
            }
            Some(Type::Struct { name, size, union, .. }) => self.writer.structure(&name, union, size, &[]),
            _ => 0,
        }
    }

    fn function(&mut self, name: &str, function: &Function) {
        let returns = self.shape(&function.returns);
        let params: Vec<_> =
            function.params.iter().map(|param| (param.name.as_str(), self.shape(&param.shape))).collect();
        self.writer.function(name, returns, &params);
    }

    /// A type that reads as `shape` again.
    fn shape(&mut self, shape: &str) -> u32 {
        if let Some(id) = self.pointers.get(shape) {
            return *id;
        }
        let id = match shape.strip_suffix('*') {
            Some(to) => {
                let to = self.shape(to.trim_end());
                self.writer.pointer(to)
            }
            None if shape == "void" => 0,
            None if shape == "int" => self.writer.int(4),
            None => self.writer.forward(shape),
        };
        self.pointers.insert(shape.to_owned(), id);
        id
    }
}
