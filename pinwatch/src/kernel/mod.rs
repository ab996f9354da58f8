//! The kernel that this runs on: what it is like (`facts`), what follows from that (`plan`), and how that is told
//! (`check`).
//!
//! The three are kept apart: `facts` looks and decides nothing, `plan` decides and looks at nothing, so that it is
//! tested without a kernel. Talking to bpf(2) is the only place for unsafe code, and is not in these three.

pub mod bpf;
pub mod btf;
pub mod check;
pub mod facts;
pub mod feature;
mod kernel_calls;
mod module_program;
mod overlay;
pub mod plan;
pub mod raw;
pub mod table;
mod undisturbed;
