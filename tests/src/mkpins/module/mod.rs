//! `mkpins module`: loads and unloads a driver that pinwatch does not know, pintest.
//!
//! It is compiled when mkpins is, without any kernel's headers. What depends on the kernel is filled in here: the running
//! kernel tells it by its BTF.

mod elf;
mod kernel;

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;

use crate::report::say;
use crate::sys::{check, check_fd};
use elf::Object;
use kernel::Kernel;

/// The compiled module.
static PINTEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pintest.o"));

/// `MODULE_INIT_IGNORE_MODVERSIONS` and `MODULE_INIT_IGNORE_VERMAGIC` (include/uapi/linux/module.h)
const WHATEVER_THE_VERSION: libc::c_int = 1 | 2;

/// What to do with it.
#[derive(Subcommand)]
pub enum ModuleCommand {
    /// Load it
    Load,
    /// Unload it; what it has pinned stays pinned
    Unload,
}

/// Loads or unloads the module.
pub fn run(command: &ModuleCommand) -> Result<i32> {
    match command {
        ModuleCommand::Load => load()?,
        ModuleCommand::Unload => {
            // SAFETY: the name is a C string that lives across the call.
            let answer =
                unsafe { libc::syscall(libc::SYS_delete_module, c"pintest".as_ptr(), libc::O_NONBLOCK) };
            check("delete_module", answer)?;
        }
    }
    say(&json!({"done": "module"}));
    Ok(0)
}

fn load() -> Result<()> {
    let kernel = Kernel::read()?;
    let image = patched(&kernel).context("cannot fit the module to this kernel")?;
    let parameters = format!("mmap_lock={} longterm={}", kernel.mmap_lock, kernel.long_term);
    let parameters = CString::new(parameters).context("parameters")?;
    // SAFETY: the name is a C string that lives across the call.
    let file =
        check_fd("memfd_create", unsafe { libc::memfd_create(c"pintest".as_ptr(), libc::MFD_CLOEXEC) })?;
    let mut file = File::from(file);
    file.write_all(&image)?;
    // SAFETY: the parameters are a C string that lives across the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), WHATEVER_THE_VERSION)
    };
    check("finit_module", answer)?;
    Ok(())
}

/// The module as this kernel wants it.
fn patched(kernel: &Kernel) -> Result<Vec<u8>> {
    let mut object = Object::new(PINTEST)?;
    let this = ".gnu.linkonce.this_module";
    object.resize(this, kernel.module_size)?;
    object.write(this, kernel.module_name, b"pintest\0")?;
    object.move_relocations(this, &[(0, kernel.module_init), (8, kernel.module_exit)])?;
    Ok(object.bytes)
}
