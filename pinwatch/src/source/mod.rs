//! The ways to know about pins.
//!
//! Each source ([`trace`], [`proc`]) gives observations of one shape; what they need of each other's kind stands beside
//! them here, and none of them imports another. [`host`] reads procfs, sysfs and netlink, and is below all.

pub mod blocking;
pub mod clocks;
mod coverage;
pub mod file_records;
pub mod files;
mod holders;
pub mod host;
pub mod leases;
pub mod lookup;
pub mod proc;
pub mod process_contexts;
pub mod stacks;
mod syscalls;
pub mod trace;
