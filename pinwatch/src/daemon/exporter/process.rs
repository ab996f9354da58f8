//! The metrics of the daemon's own process, under the names that all exporters use.

use super::catalogue;
use super::families::Families;
use crate::source::clocks::Clocks;

/// Puts them into `families`, as far as procfs has them.
pub fn emit(families: &mut Families) {
    let Ok(own) = procfs::process::Process::myself() else { return };
    if let Ok(stat) = own.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        families.value(catalogue::PROCESS_CPU_SECONDS, (stat.utime + stat.stime) as f64 / ticks);
        families.value(catalogue::PROCESS_RESIDENT_BYTES, stat.rss as f64 * procfs::page_size() as f64);
        families.value(catalogue::PROCESS_VIRTUAL_BYTES, stat.vsize as f64);
        let clocks = Clocks::now();
        let started = (clocks.realtime - clocks.boottime) as f64 / 1e9 + stat.starttime as f64 / ticks;
        families.value(catalogue::PROCESS_START_SECONDS, (started * 100.0).round() / 100.0);
    }
    if let Ok(count) = own.fd_count() {
        families.value(catalogue::PROCESS_OPEN_FDS, count as f64);
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        families.value(catalogue::PROCESS_MAX_FDS, most as f64);
    }
}

/// Which version this is.
pub fn build_info(families: &mut Families) {
    families.values(catalogue::BUILD_INFO, [([env!("CARGO_PKG_VERSION")], 1.0)]);
}
