//! What programs are told of the kernels of `tests/fixtures/btf`, field by field, as `layout.toml` beside each has it.
//!
//! After a change of the table, `PINWATCH_BLESS=1 cargo test -p pinwatch layouts_are` writes the files anew. Look through the
//! diff: a line that changed is a program that reads something else. The offsets are those that pahole shows for Debian's amd64
//! kernels.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use super::plan;
use super::tests::{KERNELS, all, facts};

/// Section and field, and its value.
type Layout = BTreeMap<(String, String), u64>;

/// The fields of a layout, by the one way in which all of them can be had without naming any.
fn fields(section: &str, layout: &impl Debug, into: &mut Layout) {
    let mut sections = Vec::new();
    for line in format!("{layout:#?}").lines().map(str::trim) {
        if line.ends_with('{') {
            let nested = line.split_once(':').map(|(name, _)| format!(".{name}")).unwrap_or_default();
            sections.push(nested);
        } else if line.starts_with('}') {
            sections.pop();
        } else {
            let (name, value) = line.trim_end_matches(',').split_once(": ").unwrap();
            let section = format!("{section}{}", sections.concat());
            into.insert((section, name.to_owned()), value.parse().unwrap());
        }
    }
}

/// One line for each field, below its section.
fn write(layout: &Layout) -> String {
    let mut text = "# Written by `PINWATCH_BLESS=1 cargo test -p pinwatch layouts_are`.\n".to_owned();
    let mut last = "";
    for ((section, name), value) in layout {
        if section != last {
            text += &format!("\n[{section}]\n");
            last = section;
        }
        text += &format!("{name} = {value}\n");
    }
    text
}

fn read(text: &str) -> Layout {
    let mut layout = Layout::new();
    let mut section = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => name.clone_into(&mut section),
            None => {
                let (name, value) = line.split_once(" = ").unwrap();
                layout.insert((section.clone(), name.to_owned()), value.parse().unwrap());
            }
        }
    }
    layout
}

fn file(kernel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(kernel).join("layout.toml")
}

#[test]
fn layouts_are_those_of_the_kernels() {
    for kernel in KERNELS {
        let plan = plan(&facts(kernel), all());
        let mut here = Layout::new();
        fields("kernel", &plan.layout, &mut here);
        fields("module", &plan.module_layout.unwrap(), &mut here);
        if std::env::var_os("PINWATCH_BLESS").is_some() {
            fs::write(file(kernel), write(&here)).unwrap();
        }
        let known = read(&fs::read_to_string(file(kernel)).unwrap());
        for (field, value) in &here {
            assert_eq!(known.get(field), Some(value), "{kernel}: {}.{}", field.0, field.1);
        }
        let gone: Vec<_> = known.keys().filter(|field| !here.contains_key(field)).collect();
        assert!(gone.is_empty(), "{kernel}: {gone:?} are no fields any more");
    }
}

#[test]
fn a_written_layout_is_read_as_it_was() {
    let mut layout = Layout::new();
    fields("kernel", &plan(&facts("6.1"), all()).layout, &mut layout);
    assert_eq!(layout[&("kernel".to_owned(), "vma_end".to_owned())], 8);
    assert_eq!(layout[&("kernel.has".to_owned(), "extents".to_owned())], 1);
    assert_eq!(read(&write(&layout)), layout);
}
