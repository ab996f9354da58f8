//! What the host says of itself through procfs, sysfs and netlink, one reader for each file or family: processes, mounts,
//! file locks, symbols, devices. No pins and no tables here: those are made by the sources above, which all may ask here.
//!
//! Everything read here may be written by anybody, and changes while it is read: all of it is bounded, and what vanishes
//! meanwhile is left out.

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
