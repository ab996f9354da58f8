//! Compiles the kernel module that mkpins loads (`src/mkpins/module/pintest.c`). It needs a C compiler and no headers.

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

/// As x86 kernels are compiled: no floating point, no red zone, addresses in the top 2 GB, frame pointers for the unwinder.
const FLAGS: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Werror",
    "-ffreestanding",
    "-fno-pic",
    "-fno-pie",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-mno-sse",
    "-mno-mmx",
    "-msoft-float",
    "-fno-stack-protector",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-asynchronous-unwind-tables",
    "-fno-jump-tables",
    "-fcf-protection=branch",
    "-fno-common",
];

fn main() {
    const SOURCE: &str = "src/mkpins/module/pintest.c";
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CC");
    let object = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("pintest.o");
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler).args(FLAGS).args(["-c", SOURCE, "-o"]).arg(&object).status();
    if !status.as_ref().is_ok_and(|status| status.success()) {
        eprintln!(
            "cannot compile {SOURCE} with {}: {status:?}; a C compiler (gcc or clang) has to be there",
            compiler.display()
        );
        exit(1);
    }
}
