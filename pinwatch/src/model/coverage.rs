//! The verdict on a pin's leases.

use serde::{Deserialize, Serialize};

/// What the leases on a pinned file are worth for the pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CoverageState {
    /// Nobody has looked: leases are not watched by this source.
    #[default]
    Unknown,
    /// There is nothing to lease: anonymous memory, devices.
    NotApplicable,
}

impl CoverageState {
    /// The word used in columns, JSON and options.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotApplicable => "n/a",
        }
    }
}

/// A pin's coverage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The verdict.
    pub state: CoverageState,
    /// How many of the holders are covered.
    pub covered: u32,
    /// How many holders were looked at.
    pub holders: u32,
    /// Processes that hold a lease on the file.
    pub lease_pids: Vec<u32>,
    /// Seconds until the kernel takes a lease that is being broken.
    pub seconds_left: Option<u64>,
}
