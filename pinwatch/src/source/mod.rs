//! The ways to know about pins.
//!
//! Each source ([`trace`], [`proc`]) gives observations of one shape (`observation`), of which `assemble` makes the table. The
//! walk and the page scan will be two more, with a folder and an origin each. What more than one source needs stands beside
//! them here, and none of them imports another. [`host`] reads procfs, sysfs and netlink, and is below all.

mod assemble;
pub mod blocking;
pub mod clocks;
mod coverage;
pub mod file_records;
pub mod files;
mod holders;
pub mod host;
pub mod leases;
pub mod lookup;
pub mod naming;
mod observation;
pub mod proc;
pub mod process_contexts;
pub mod stacks;
mod syscalls;
pub mod trace;
