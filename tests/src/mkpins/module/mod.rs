//! `mkpins module`: a driver that pinwatch does not know, pintest. It is built in the guest, against the headers of the
//! guest's kernel, when it is loaded for the first time.

pub mod ioctl;

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use serde_json::json;

use crate::report::say;
use crate::sys::check;
use ioctl::Slot;

/// Its sources, with the names that they are built under.
const SOURCES: [(&str, &str); 2] =
    [("Kbuild", include_str!("Kbuild")), ("pintest.c", include_str!("pintest.c"))];
/// Where it is built.
const FOLDER: &str = "/run/pintest";
/// What it is built as.
const MODULE: &str = "/run/pintest/pintest.ko";
const NAME: &CStr = c"pintest";

/// What to do with it.
#[derive(Subcommand)]
pub enum ModuleCommand {
    /// Build it, if that has not been done, and load it
    Load,
    /// Unload it; what it has pinned stays pinned
    Unload,
    /// Tell what it has pinned: a list of slots
    Slots,
    /// Have it take over what it had pinned before it was unloaded
    Adopt {
        /// Number of the slot
        slot: u32,
        /// By which function it was pinned: the number that `slots` told
        how: u32,
        /// The kernel's address of its array
        array: u64,
        /// How many pages or folios are in there
        number: u64,
    },
    /// Let go of all that it has pinned
    Release,
}

/// Does it.
pub fn run(command: &ModuleCommand) -> Result<i32> {
    let mut done = json!({"done": "module"});
    match *command {
        ModuleCommand::Load => {
            if !Path::new(MODULE).exists() {
                build()?;
            }
            load()?;
        }
        ModuleCommand::Unload => {
            // SAFETY: the name is a C string that lives across the call.
            let answer = unsafe { libc::syscall(libc::SYS_delete_module, NAME.as_ptr(), libc::O_NONBLOCK) };
            check("delete_module", answer)?;
        }
        ModuleCommand::Slots => {
            let slots = ioctl::slots()?;
            let slots = slots.iter().map(|slot| json!([slot.slot, slot.how, slot.array, slot.number]));
            done["slots"] = slots.collect();
        }
        ModuleCommand::Adopt { slot, how, array, number } => {
            ioctl::adopt(Slot { slot, how, array, number })?;
        }
        ModuleCommand::Release => {
            for slot in ioctl::slots()? {
                ioctl::release(slot.slot, 0)?;
            }
        }
    }
    say(&done);
    Ok(0)
}

fn build() -> Result<()> {
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}"))?;
    for (name, text) in SOURCES {
        let path = Path::new(FOLDER).join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // The guest's own command: see `xtask/src/vm/guest`.
    let output = Command::new("module-build").arg(FOLDER).output().context("cannot start module-build")?;
    ensure!(
        output.status.success(),
        "cannot build the module pintest: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn load() -> Result<()> {
    let file = File::open(MODULE).with_context(|| format!("cannot open {MODULE}"))?;
    // SAFETY: the parameters are a C string that lives across the call.
    let answer = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    check("finit_module", answer)?;
    Ok(())
}
