//! The kernel's own count of pinned pages, from `/proc/vmstat`.

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

/// Has every CPU add its part to the counts, if this process may.
pub fn refresh() {
    // Reading does it, as writing does (`vmstat_refresh` in mm/vmstat.c).
    let _ = std::fs::read("/proc/sys/vm/stat_refresh");
}

/// The counts now; `None` where the kernel has none.
pub fn pins() -> Option<Pins> {
    parse(&std::fs::read_to_string("/proc/vmstat").ok()?)
}

fn parse(text: &str) -> Option<Pins> {
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    Some(Pins { acquired: value("nr_foll_pin_acquired")?, released: value("nr_foll_pin_released")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counts_or_none() {
        let text = "nr_kernel_stack 3\nnr_foll_pin_acquired 12\nnr_foll_pin_released 7\n";
        assert_eq!(parse(text), Some(Pins { acquired: 12, released: 7 }));
        assert_eq!(Pins { acquired: 7, released: 12 }.held(), -5);
        assert_eq!(parse("nr_foll_pin_acquired 12\n"), None);
        assert_eq!(parse("nr_foll_pin_acquired x\nnr_foll_pin_released 7\n"), None);
    }
}
