//! How the pins of one subsystem are found in procfs, netlink and the like. The rooms of the subsystems, which lie above, say
//! which readers there are.

use super::collector::Collector;
use super::scan::Scan;

/// Finds the pins of one subsystem.
pub trait Reader {
    /// Asks the kernel for objects before processes are looked into. Gives the inode numbers of sockets whose holders the scan
    /// is to find.
    fn sockets(&mut self, _: &mut Collector) -> Vec<u64> {
        Vec::new()
    }

    /// Adds the pins.
    fn collect(&mut self, scan: &Scan, cx: &mut Collector);
}
