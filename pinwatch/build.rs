//! Builds the BPF programs for the BPF target and puts the object where `kernel::bpf` includes it from.
//!
//! A nightly toolchain with rust-src is the ordinary aya way and is taken where there is one. Else the active toolchain
//! builds `core` too, if its own sources are there; `cargo xtask setup` sees to one or the other.

use std::path::Path;
use std::process::Command;

use aya_build::{Package, Toolchain};

fn main() {
    println!("cargo::rerun-if-env-changed=PINWATCH_BPF_TOOLCHAIN");
    println!("cargo::rerun-if-changed=../pinwatch-common");
    if let Err(error) = build() {
        let linker = Command::new("bpf-linker").arg("--version").output();
        if linker.is_ok_and(|output| output.status.success()) {
            println!("cargo::error=the BPF programs do not build: {error:#}");
        } else {
            println!("cargo::error=bpf-linker is missing or does not run: run `cargo xtask setup`");
        }
        std::process::exit(1);
    }
}

fn build() -> aya_build::Result<()> {
    find_bpf_linker();
    // Its progress would reach the user as warnings; what is wrong is said all the same.
    // SAFETY: a build script of one thread; nobody reads the environment meanwhile.
    unsafe { std::env::set_var("CARGO_TERM_QUIET", "true") };
    let package = Package {
        name: "pinwatch-ebpf",
        root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../pinwatch-ebpf"),
        ..Package::default()
    };
    let chosen = std::env::var("PINWATCH_BPF_TOOLCHAIN").ok();
    if chosen.as_deref() == Some("nightly") || (chosen.is_none() && has_core_source(Some("nightly"))) {
        return aya_build::build_ebpf([package], Toolchain::Nightly);
    }
    let active = chosen.unwrap_or_else(active_toolchain);
    if !has_core_source(Some(&active)) && !has_core_source(None) {
        println!(
            "cargo::error=no source of `core` for toolchain {active}: run `cargo xtask setup`, or \
             `rustup toolchain install nightly --component rust-src`"
        );
        std::process::exit(1);
    }
    // SAFETY: a build script of one thread; nobody reads the environment meanwhile.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    aya_build::build_ebpf([package], Toolchain::Custom(&active))
}

/// Lets the linker be found where `cargo install` has put it, also if that folder is not in `PATH`: nothing puts it there
/// where Rust is not rustup's.
fn find_bpf_linker() {
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    if let Ok(home) = home {
        let path = std::env::var("PATH").unwrap_or_default();
        // SAFETY: a build script of one thread; nobody reads the environment meanwhile.
        unsafe { std::env::set_var("PATH", format!("{path}:{home}/bin")) };
    }
}

/// The toolchain that cargo runs this with.
fn active_toolchain() -> String {
    std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned())
}

/// Whether a toolchain has the sources that `-Z build-std` needs.
fn has_core_source(toolchain: Option<&str>) -> bool {
    let mut command = match toolchain {
        Some(toolchain) => {
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "rustc"]);
            command
        }
        None => Command::new("rustc"),
    };
    command.args(["--print", "sysroot"]).output().is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout);
        output.status.success()
            && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    })
}
