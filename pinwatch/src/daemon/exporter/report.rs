//! The metrics of what the daemon counts and knows of itself, at the moment of a scrape.
//!
//! The daemon hands it all over by value in a [`Report`]; nothing is read from the kernel's maps here. What a pass over all
//! pins found is in `overview`.

use pinwatch_common::{SMALLEST_SIZE, Totals};

use super::catalogue;
use super::families::{Distribution, Families};
use super::labels::{METHODS, REFERENCES, feature_word};
use crate::daemon::breaks::Breaks;
use crate::kernel::bpf::Missed;
use crate::kernel::bpf_syscall::ProgramCounts;
use crate::kernel::feature::Feature;
use crate::kernel::plan::Method;
use crate::model::{Outcome, Subsystem};
use crate::source::host::vmstat;

/// Pins are classed by size up to 16 GiB.
const BOUNDS: usize = 12;

/// What the daemon counts and knows of itself.
pub struct Report<'a> {
    /// The tracing features and their states.
    pub features: &'a [Feature],
    /// The hooks of the plan, and how each is attached.
    pub hooks: Vec<(&'static str, Option<Method>)>,
    /// What each subsystem has made and released; `None` if the map cannot be read.
    pub totals: Option<Vec<(Subsystem, Totals)>>,
    /// What was missed; `None` if the map cannot be read.
    pub missed: Option<Missed>,
    /// Calls that the kernel skipped and that no pass made up for; `None` as for `missed`.
    pub unseen: Option<u64>,
    /// Pins that a pass found released although no hook saw it.
    pub reaped: u64,
    /// How often and how long each BPF program ran, while the kernel counted it.
    pub runs: Vec<(String, ProgramCounts)>,
    /// How many entries maps have room for.
    pub capacities: Vec<(&'static str, u32)>,
    /// Events from the ring buffer.
    pub received: u64,
    /// How waits for leases have ended.
    pub breaks: &'a Breaks,
    /// How many pins were refused, by subsystem and reason.
    pub refused: Vec<(Subsystem, &'static str, u64)>,
}

/// References to pages at one moment: what pins explain, and the kernel's own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct References {
    /// Of pins that subsystems have.
    pub attributed: u64,
    /// Of pins that none claims.
    pub unclaimed: u64,
    /// By the kernel's count; `None` where it has none.
    pub held: Option<i64>,
}

/// Sizes of registrations.
fn sizes(of: &Totals) -> Distribution {
    let buckets = of.sizes.iter().take(BOUNDS).enumerate();
    Distribution {
        buckets: buckets
            .map(|(at, many)| ((1_u64 << (SMALLEST_SIZE as usize + 2 * at)) as f64, *many))
            .collect(),
        larger: of.sizes.iter().skip(BOUNDS).sum(),
        sum: of.bytes as f64,
    }
}

/// How long waits for leases took, in seconds.
fn waits(of: &Breaks) -> Distribution {
    Distribution {
        buckets: of.classes().map(|(bound, many)| (bound as f64 / 1e9, many)).collect(),
        larger: of.longer(),
        sum: of.nanoseconds() as f64 / 1e9,
    }
}

fn method_word(method: Option<Method>) -> &'static str {
    let [fentry, kprobe, none] = METHODS;
    match method {
        Some(Method::Trampoline | Method::ModuleTrampoline) => fentry,
        Some(Method::Kprobe) => kprobe,
        None => none,
    }
}

impl Report<'_> {
    /// The metrics of it.
    pub fn emit(&self, families: &mut Families) {
        self.emit_totals(families);
        self.emit_hooks(families);
        self.emit_missed(families);
    }

    fn emit_totals(&self, families: &mut Families) {
        let totals = self.totals.as_deref().unwrap_or_default();
        let rows = |of: fn(&Totals) -> u64| {
            totals.iter().map(move |(subsystem, totals)| ([subsystem.word()], of(totals) as f64))
        };
        families.values(catalogue::PINS_MADE, rows(|totals| totals.made));
        families.values(catalogue::PINS_RELEASED, rows(|totals| totals.released));
        families.distributions(
            catalogue::REGISTRATION_BYTES,
            totals.iter().map(|(subsystem, totals)| ([subsystem.word()], sizes(totals))),
        );
        families.values(
            catalogue::REFUSED,
            self.refused.iter().map(|(subsystem, reason, count)| ([subsystem.word(), reason], *count as f64)),
        );
        let outcomes = Outcome::ALL.iter().zip(self.breaks.outcomes);
        families.values(catalogue::LEASE_BREAKS, outcomes.map(|(how, many)| ([how.word()], many as f64)));
        families.distributions(catalogue::LEASE_WAIT_SECONDS, [([""; 0], waits(self.breaks))]);
    }

    fn emit_hooks(&self, families: &mut Families) {
        families.values(
            catalogue::FEATURE,
            self.features
                .iter()
                .map(|feature| ([feature_word(feature.name), feature.state.long_word().to_owned()], 1.0)),
        );
        families.values(
            catalogue::HOOK_ATTACHED,
            self.hooks
                .iter()
                .map(|(hook, method)| ([hook, method_word(*method)], f64::from(u8::from(method.is_some())))),
        );
        // The kernel counts only while somebody has it do so, since that costs time.
        if self.runs.iter().any(|(_, counts)| counts.runs > 0) {
            let rows = |of: fn(&ProgramCounts) -> f64| {
                self.runs.iter().map(move |(program, counts)| ([program.as_str()], of(counts)))
            };
            families.values(catalogue::BPF_RUNS, rows(|counts| counts.runs as f64));
            families.values(catalogue::BPF_RUN_SECONDS, rows(|counts| counts.nanoseconds as f64 / 1e9));
        }
    }

    fn emit_missed(&self, families: &mut Families) {
        if let Some(unseen) = self.unseen {
            families.value(catalogue::UNSEEN_CALLS, unseen as f64);
        }
        if let Some(missed) = &self.missed {
            families.value(catalogue::MISSED_RETURNS, missed.no_kretprobe as f64);
            families.value(catalogue::EVENTS_LOST, missed.events as f64);
            let rows = missed.map_full.by_map().into_iter();
            families.values(catalogue::MAP_FULL, rows.map(|(map, times)| ([map], times as f64)));
        }
        families.value(catalogue::EVENTS_RECEIVED, self.received as f64);
        families.value(catalogue::REAPED_PINS, self.reaped as f64);
        let capacities = self.capacities.iter();
        families.values(
            catalogue::MAP_CAPACITY,
            capacities.map(|(map, capacity)| ([*map], f64::from(*capacity))),
        );
    }
}

impl References {
    /// The metrics of it.
    pub fn emit(&self, families: &mut Families) {
        let Some(held) = self.held else { return };
        let (attributed, unclaimed) = (self.attributed as f64, self.unclaimed as f64);
        let values = [attributed, unclaimed, held as f64 - attributed - unclaimed];
        let rows = REFERENCES.into_iter().zip(values).map(|(by, value)| ([by], value));
        families.values(catalogue::KERNEL_PIN_REFERENCES, rows);
    }
}

/// The metrics of the machine, `counts` being the kernel's own.
pub fn emit_machine(counts: Option<vmstat::Pins>, families: &mut Families) {
    if let Some(counts) = counts {
        families.value(catalogue::KERNEL_PAGES_PINNED, counts.acquired as f64);
        families.value(catalogue::KERNEL_PAGES_UNPINNED, counts.released as f64);
    }
    let memory = rustix::system::sysinfo();
    families.value(catalogue::MEMORY_BYTES, memory.totalram as f64 * f64::from(memory.mem_unit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_classed_up_to_16_gib() {
        let mut totals = Totals { made: 7, bytes: 1 << 40, ..Totals::default() };
        totals.sizes[0] = 4;
        totals.sizes[11] = 1;
        totals.sizes[15] = 2;
        let sizes = sizes(&totals);
        assert_eq!(sizes.buckets.first(), Some(&(4096.0, 4)));
        assert_eq!(sizes.buckets.last(), Some(&((16_u64 << 30) as f64, 1)));
        assert_eq!((sizes.buckets.len(), sizes.larger), (12, 2));
    }

    #[test]
    fn what_no_pin_explains_is_the_rest() {
        let text = |references: References| {
            let mut families = Families::default();
            references.emit(&mut families);
            families.text().unwrap()
        };
        let of = References { attributed: 7, unclaimed: 2, held: Some(10) };
        assert!(text(of).contains("pinwatch_kernel_pin_references{by=\"unattributed\"} 1\n"), "{}", text(of));
        assert_eq!(text(References { held: None, ..of }), "");
    }
}
