//! What the host says of itself through procfs, sysfs and netlink, one reader for each file or family: processes, mounts,
//! file locks, symbols, devices. No pins and no tables here: those are made by the sources above, which all may ask here.
//!
//! Everything read here may be written by anybody, and changes while it is read: all of it is bounded, and what vanishes
//! meanwhile is left out.
//!
//! The crate procfs reads what only the kernel and pinwatch itself write: /proc/vmstat, and the daemon's own figures. What
//! others can write is read by hand here and in `proc`, a line at a time and as bytes, because procfs 0.18
//! - gives up on all of maps, mountinfo, status or cgroup for one line that is no UTF-8, so that any process could hide its
//!   mappings behind the name of one file, and any user with a namespace all mounts behind one of his;
//! - reads without a bound, and loses the bytes of names that are no UTF-8 where it does not give up (stat), though JSON
//!   promises them exactly; the kernel's escapes in mountinfo it leaves as they are;
//! - has no reader for a single line: /proc/locks is read with the code for `lock:` in fdinfo, maps for a name alone first;
//! - has no addresses of modules, no /proc/kallsyms, no `UserBufs` in fdinfo; a release such as 7.3-rc1 is no version to it,
//!   nor to aya.

pub mod bounded;
pub mod char_devices;
pub mod locks;
pub mod mounts;
pub mod netlink;
pub mod open_file;
pub mod process;
pub mod rdma;
pub mod symbols;
pub mod vmstat;
