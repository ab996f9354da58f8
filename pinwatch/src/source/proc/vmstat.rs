//! The kernel's own count of pinned pages, from `/proc/vmstat`.

/// Pages pinned and unpinned since boot by `pin_user_pages` and its like (mm/gup.c), for however short a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pins {
    /// `nr_foll_pin_acquired`
    pub acquired: u64,
    /// `nr_foll_pin_released`
    pub released: u64,
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
        assert_eq!(parse("nr_foll_pin_acquired 12\n"), None);
        assert_eq!(parse("nr_foll_pin_acquired x\nnr_foll_pin_released 7\n"), None);
    }
}
