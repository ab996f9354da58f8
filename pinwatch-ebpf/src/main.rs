//! The BPF programs of pinwatch, in layers, each of which knows only those before it:
//!
//! * `base`: reading the kernel at offsets that user space resolved, maps, scratch memory, one shape for a hooked call.
//! * `file`: from pages and address ranges to files and their names.
//! * `pin`: records of pins, events, refusals; `subsystem`: the hooks, one room for each subsystem.
//! * `holders`: who keeps what, and leases.
//!
//! A hook is a line of the table in `pinwatch-common/src/subsystems.rs` and one `exit_hook!` or `entry_hook!` in its subsystem's
//! room, which makes its programs: NAME (fentry or fexit), NAME_backup (a second one behind it, see `base::hook`), NAME_kprobe
//! and, for hooks on a return, NAME_kretprobe. User space attaches what the kernel can do.

#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod base;
mod file;
mod holders;
mod pin;
mod subsystem;

/// The helpers that read kernel memory are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
