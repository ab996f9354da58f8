//! The kernel's own count of pinned pages, from `/proc/vmstat`.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

/// Pages pinned and unpinned since boot by `pin_user_pages` and its like (mm/gup.c), for however short a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pins {
    /// `nr_foll_pin_acquired`
    pub acquired: u64,
    /// `nr_foll_pin_released`
    pub released: u64,
}

impl Pins {
    /// What is pinned now: references to pages.
    pub fn held(self) -> i64 {
        self.acquired.wrapping_sub(self.released).cast_signed()
    }
}

/// Has every CPU add its part to the counts; says whether all have. It waits until each CPU runs a kernel worker, which one
/// with a real-time task that never sleeps may never do.
pub fn refresh() -> bool {
    // Reading does it, as writing does (`vmstat_refresh` in mm/vmstat.c).
    std::fs::read("/proc/sys/vm/stat_refresh").is_ok()
}

/// By how much the difference of the two counts may be wrong as long as the CPUs have not added their parts: each may keep 125
/// of each for each memory node (`calculate_normal_threshold` in mm/vmstat.c).
pub fn slack() -> u64 {
    let cpus = aya::util::nr_cpus().unwrap_or(1);
    let nodes = std::fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    let numbered =
        |name: &[u8]| name.strip_prefix(b"node").is_some_and(|rest| rest.iter().all(u8::is_ascii_digit));
    let nodes = nodes.filter(|entry| numbered(entry.file_name().as_bytes())).count();
    2 * 125 * (cpus as u64).max(1) * (nodes as u64).max(1)
}

/// The counts now; `None` where the kernel has none.
pub fn pins() -> Option<Pins> {
    of(&procfs::vmstat().ok()?)
}

fn of(counts: &HashMap<String, i64>) -> Option<Pins> {
    let count = |name| counts.get(name).copied().map(i64::cast_unsigned);
    Some(Pins { acquired: count("nr_foll_pin_acquired")?, released: count("nr_foll_pin_released")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counts_or_none() {
        let counts = |list: &[(&str, i64)]| list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let both = [("nr_kernel_stack", 3), ("nr_foll_pin_acquired", 12), ("nr_foll_pin_released", 7)];
        assert_eq!(of(&counts(&both)), Some(Pins { acquired: 12, released: 7 }));
        assert_eq!(Pins { acquired: 7, released: 12 }.held(), -5);
        assert_eq!(of(&counts(&both[..2])), None);
        assert_eq!(of(&counts(&both[2..])), None);
    }
}
