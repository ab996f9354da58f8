//! The kernel's own count of pinned pages against what is known.

use serde::{Deserialize, Serialize};

/// References to pinned pages, as the kernel counts them: mostly one for each page, one for a folio of many where a subsystem
/// keeps no more. A page that two pins have counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCount {
    /// What the kernel counts: the least that was seen in a moment, as direct I/O pins pages too, for as long as it lasts. It
    /// can be negative: some direct I/O is counted when it ends and not when it begins (`folio_add_pin`).
    pub references: i64,
    /// Those of pins that subsystems have.
    pub attributed: u64,
    /// Those of pins that no subsystem claims.
    pub unclaimed: u64,
    /// By how much the kernel's count changed while it was looked at, and may be behind where a CPU does not add its part (250
    /// for each CPU and memory node); `None` if pins were made or released meanwhile, so that the figures do not fit together.
    pub uncertain: Option<u64>,
}

impl KernelCount {
    /// What the kernel counts and no pin explains; negative if pins explain more than it counts.
    pub fn unattributed(&self) -> i64 {
        let known = self.attributed.saturating_add(self.unclaimed);
        self.references.saturating_sub(i64::try_from(known).unwrap_or(i64::MAX))
    }

    /// What the kernel counts beyond what pins explain, if that is surely more than its own inaccuracy.
    pub fn surplus(&self) -> Option<u64> {
        let uncertain = self.uncertain?;
        u64::try_from(self.unattributed()).ok().filter(|left_over| *left_over > uncertain)
    }

    /// Whether pins surely explain more than the kernel counts: then some of them are released.
    pub fn is_short(&self) -> bool {
        let off = |off| self.unattributed() < 0 && self.unattributed().unsigned_abs() > off;
        self.uncertain.is_some_and(off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_has_a_sign() {
        let count = KernelCount { references: 10, attributed: 6, unclaimed: 3, uncertain: Some(0) };
        assert_eq!(count.unattributed(), 1);
        assert_eq!(KernelCount { references: -4, ..count }.unattributed(), -13);
        assert!(!count.is_short() && !KernelCount { references: 8, uncertain: Some(1), ..count }.is_short());
        assert!(KernelCount { references: 7, uncertain: Some(1), ..count }.is_short());
        assert!(!KernelCount { references: 7, uncertain: None, ..count }.is_short());
        assert_eq!((KernelCount { uncertain: Some(1), ..count }.surplus(), count.surplus()), (None, Some(1)));
        assert_eq!(KernelCount { uncertain: None, ..count }.surplus(), None);
        assert_eq!(KernelCount { references: 8, ..count }.surplus(), None);
        assert_eq!(KernelCount { attributed: u64::MAX, ..count }.unattributed(), 10 - i64::MAX);
    }
}
