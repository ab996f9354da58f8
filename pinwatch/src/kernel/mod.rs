//! The kernel that this runs on: what it is like (`facts`), what follows from that (`plan`), and how that is told
//! (`check`).
//!
//! The three are kept apart: `facts` looks and decides nothing, `plan` decides and looks at nothing, so that it is
//! tested without a kernel. All unsafe code of this crate is in this room, and none of it in these three.

pub mod bpf;
pub mod bpf_syscall;
pub mod btf;
pub mod check;
pub mod facts;
pub mod feature;
pub mod feature_name;
mod kfuncs;
pub mod lists;
pub mod missing;
mod module_fentry;
mod overlay;
pub mod plan;
mod rt_guard;
pub mod sys;
pub mod wanted;
