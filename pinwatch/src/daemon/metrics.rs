//! From a table to Prometheus metrics: totals by closed sets of words, and nothing that a user could choose. No path, process
//! or address is among the labels.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::model::{Backing, CoverageState, HeldState, LeaseKind, LeaseState, Pin, Policy, Subsystem, Table};

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the metrics: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// The metrics of a table in the text format. `now` in nanoseconds since the Unix epoch.
///
/// # Errors
/// [`MetricsError`], which nothing in a table leads to.
pub fn text(table: &Table, policy: Policy, now: i64) -> Result<String, MetricsError> {
    let registry = Registry::new();
    registry.register(Box::new(Pins::of(table, policy, now)?))?;
    let mut out = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut out)?;
    String::from_utf8(out).map_err(|error| MetricsError(prometheus::Error::Msg(error.to_string())))
}

/// The gauges that a table fills in.
struct Pins {
    gauges: Vec<Gauge>,
}

enum Gauge {
    One(IntGauge),
    Many(IntGaugeVec),
}

impl Gauge {
    fn collector(&self) -> &dyn Collector {
        match self {
            Self::One(gauge) => gauge,
            Self::Many(gauges) => gauges,
        }
    }
}

impl Collector for Pins {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(|gauge| gauge.collector().desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauges.iter().flat_map(|gauge| gauge.collector().collect()).collect()
    }
}

/// Pins and their bytes.
#[derive(Clone, Copy, Default)]
struct Total {
    pins: i64,
    bytes: i64,
}

impl Total {
    fn add(&mut self, bytes: u64) {
        self.pins += 1;
        self.bytes = self.bytes.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Pins {
    fn of(table: &Table, policy: Policy, now: i64) -> Result<Self, MetricsError> {
        let mut all = Self { gauges: Vec::new() };
        all.kinds(table)?;
        all.conditions(table, policy, now)?;
        all.leases(table)?;
        let complete = i64::from(table.complete());
        all.one(
            "pinwatch_complete",
            "Whether every pin that exists is counted: 1, or 0 if some may be missing.",
            complete,
        )?;
        if let Some(since) = table.watching_since {
            let help = "Since when pins are watched, in seconds since the Unix epoch.";
            all.one("pinwatch_watching_since_timestamp_seconds", help, since / 1_000_000_000)?;
        }
        let version = all.many("pinwatch_build_info", "The version of pinwatch; always 1.", &["version"])?;
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(all)
    }

    fn one(&mut self, name: &str, help: &str, value: i64) -> Result<(), MetricsError> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value);
        self.gauges.push(Gauge::One(gauge));
        Ok(())
    }

    fn many(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricsError> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.gauges.push(Gauge::Many(gauges.clone()));
        Ok(gauges)
    }

    /// By subsystem, backing and verdict. A pin on several files counts where its largest part is.
    fn kinds(&mut self, table: &Table) -> Result<(), MetricsError> {
        let mut totals: BTreeMap<(Subsystem, Backing, CoverageState), Total> = BTreeMap::new();
        for pin in &table.pins {
            let backing =
                pin.parts.iter().max_by_key(|part| part.bytes).map_or(Backing::Unknown, |part| part.backing);
            totals.entry((pin.id.subsystem, backing, pin.coverage.state)).or_default().add(pin.bytes);
        }
        let labels = ["subsystem", "backing", "coverage"];
        let pins = self.many(
            "pinwatch_pins",
            "Long-term pins: kernel objects that keep pages where they are.",
            &labels,
        )?;
        let bytes =
            self.many("pinwatch_pinned_bytes", "Bytes of memory that long-term pins keep.", &labels)?;
        for ((subsystem, backing, coverage), total) in totals {
            let values = [subsystem.word(), backing.word(), coverage.word()];
            pins.with_label_values(&values).set(total.pins);
            bytes.with_label_values(&values).set(total.bytes);
        }
        Ok(())
    }

    /// What somebody has to look at.
    fn conditions(&mut self, table: &Table, policy: Policy, now: i64) -> Result<(), MetricsError> {
        let (mut unleased, mut unheld, mut deleted) = (Total::default(), Total::default(), Total::default());
        let mut oldest = 0;
        let is_deleted = |pin: &Pin| {
            pin.parts.iter().filter_map(|part| table.file(part.file?)).any(|file| file.deleted == Some(true))
        };
        for pin in &table.pins {
            if table.is_unleased(pin, policy) {
                unleased.add(pin.bytes);
                oldest = oldest.max(pin.created.map_or(0, |created| (now - created) / 1_000_000_000));
            }
            if matches!(table.held_state(pin), HeldState::Unheld | HeldState::InFlight) {
                unheld.add(pin.bytes);
            }
            if is_deleted(pin) {
                deleted.add(pin.bytes);
            }
        }
        for (name, what, total) in [
            ("unleased", "that are to have a lease and have none", unleased),
            ("unheld", "that no process holds", unheld),
            ("deleted_file", "on files whose name is gone", deleted),
        ] {
            self.one(&format!("pinwatch_{name}_pins"), &format!("Long-term pins {what}."), total.pins)?;
            self.one(
                &format!("pinwatch_{name}_bytes"),
                &format!("Bytes of long-term pins {what}."),
                total.bytes,
            )?;
        }
        let help = "Age of the oldest pin that is to have a lease and has none; 0 if there is none.";
        self.one("pinwatch_unleased_oldest_seconds", help, oldest)
    }

    fn leases(&mut self, table: &Table) -> Result<(), MetricsError> {
        let Some(leases) = &table.leases else { return Ok(()) };
        let gauges = self.many("pinwatch_leases", "Leases on files.", &["kind", "state"])?;
        let active = LeaseState::Active;
        let states = [active, LeaseState::Breaking { seconds_left: None }, LeaseState::Expired];
        for kind in [LeaseKind::Lease, LeaseKind::Delegation, LeaseKind::Layout] {
            for state in states {
                let is_it =
                    |lease: &&crate::model::Lease| lease.kind == kind && lease.state.word() == state.word();
                let count = i64::try_from(leases.iter().filter(is_it).count()).unwrap_or(i64::MAX);
                gauges.with_label_values(&[kind.word(), state.word()]).set(count);
            }
        }
        // Who waits does so for all leases of a file.
        let waiting =
            |lease: &crate::model::Lease| lease.waiters.iter().map(|w| w.breaker.who.pid).collect::<Vec<_>>();
        let mut waiters: Vec<u32> = leases.iter().flat_map(waiting).collect();
        waiters.sort_unstable();
        waiters.dedup();
        let help = "Processes that wait for leases to go.";
        self.one("pinwatch_lease_waiters", help, i64::try_from(waiters.len()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;

    #[test]
    fn totals_are_those_of_the_table_and_no_name_gets_out() {
        let mut table = sample::table();
        table.pins.iter_mut().skip(1).for_each(|pin| pin.coverage.state = CoverageState::None);
        let text = text(&table, Policy::Persistent, sample::CREATED + 5_000_000_000).unwrap();
        let value = |line: &str| text.lines().find_map(|l| l.strip_prefix(line)).map(str::trim);
        let rdma = r#"{backing="file",coverage="none",subsystem="rdma"}"#;
        assert_eq!(value(&format!("pinwatch_pins{rdma}")), Some("1"));
        assert_eq!(value(&format!("pinwatch_pinned_bytes{rdma}")), Some("67108864"));
        let sum: u64 = (text.lines())
            .filter(|line| line.starts_with("pinwatch_pinned_bytes{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(sum, table.pins.iter().map(|pin| pin.bytes).sum::<u64>());
        assert_eq!(value("pinwatch_unleased_pins"), Some("2"));
        assert_eq!(value("pinwatch_unleased_oldest_seconds"), Some("5"));
        assert_eq!(value("pinwatch_unheld_pins"), Some("1"));
        assert_eq!(value("pinwatch_deleted_file_bytes"), Some("16785408"));
        assert_eq!(value("pinwatch_complete"), Some("1"));
        for name in ["srv", "ib_server", "user2", "812"] {
            assert!(!text.contains(name), "{name} in {text}");
        }
        // Each name has its help, and none is there twice.
        let helps: Vec<&str> = text.lines().filter(|line| line.starts_with("# HELP")).collect();
        let names = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(helps.len(), names);
    }

    #[test]
    fn many_pins_are_few_series() {
        let mut table = sample::table();
        let pin = table.pins[1].clone();
        table.pins = vec![pin; 10_000];
        table.leases = Some(Vec::new());
        let text = text(&table, Policy::All, 0).unwrap();
        assert!(text.lines().filter(|line| !line.starts_with('#')).count() < 40, "{text}");
    }

    #[test]
    fn an_empty_table_has_metrics_too() {
        let text = text(&Table::default(), Policy::Persistent, 0).unwrap();
        assert!(text.contains("pinwatch_unleased_pins 0\n") && !text.contains("pinwatch_leases"), "{text}");
    }
}
