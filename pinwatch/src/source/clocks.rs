//! The kernel counts from boot, people from the epoch.

/// The clocks at one moment, to turn the kernel's time since boot into time of day.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// CLOCK_REALTIME, nanoseconds since the epoch.
    pub realtime: i64,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub boottime: i64,
}

impl Clocks {
    /// Both clocks now.
    pub fn now() -> Self {
        let read = |id| {
            let time = rustix::time::clock_gettime(id);
            time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
        };
        Self {
            realtime: read(rustix::time::ClockId::Realtime),
            boottime: read(rustix::time::ClockId::Boottime),
        }
    }

    /// Time of day of a moment since boot.
    pub fn of(self, boottime: u64) -> i64 {
        self.realtime - self.boottime + i64::try_from(boottime).unwrap_or(i64::MAX / 2)
    }
}
