//! The kernel that this runs on: what it is like (`facts`), what follows from that (`plan`), and how that is told
//! (`check`).
//!
//! The three are kept apart: `facts` looks and decides nothing, `plan` decides and looks at nothing, so that it is
//! tested without a kernel. All unsafe code of this crate is in this room, and none of it in these three.

pub mod bpf;
pub mod btf;
pub mod check;
pub mod facts;
pub mod feature;
mod kernel_calls;
pub mod lists;
pub mod missing;
mod module_program;
mod overlay;
pub mod plan;
pub mod raw;
pub mod sys;
mod undisturbed;
pub mod wanted;
