//! The BPF programs of pinwatch.
//!
//! One file for each subsystem's hooks; under them `registry` (the maps and what is written into them), `backing` (address
//! range to extents; `by_pages` where mappings cannot be looked at), `path` (a file's name), `call` (one shape for arguments
//! and results, however a hook is attached), `thread` (what a thread carries from one program to the next) and `kernel` (reads
//! at offsets that user space resolved).
//!
//! Every hook exists three times: `NAME` (fentry or fexit), `NAME_twin` (a second instance behind it, see `call`), and
//! `NAME_kprobe` with, for hooks on a return, `NAME_kretprobe`. User space attaches what the kernel can do.

#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod backing;
mod by_pages;
mod call;
mod generic;
mod holders;
mod io_uring;
mod kernel;
mod lease_events;
mod leases;
mod modules;
mod overlay;
mod pages;
mod path;
mod rdma;
mod refused;
mod regions;
mod registry;
mod ring_files;
mod shares;
mod thread;
mod udmabuf;
mod undisturbed;
mod v4l2;
mod verify;
mod vfio;
mod witness;
mod xdp;

/// The helpers that read kernel memory are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
