//! Prometheus metrics: the totals of the table, and what the daemon knows of itself.
//!
//! What belongs here: which metrics there are (`catalogue`), their text (`families`), what is kept between scrapes and when a
//! scrape needs a new pass (`scrape`). What does not: reading maps, making a pass, HTTP. The daemon hands over what is to be
//! exported by value.
//!
//! No path, process or address is among the labels, unless the administrator asks for the largest of them.

mod catalogue;
mod families;
mod groups;
mod labels;
mod overview;
mod process;
mod reference;
mod report;
mod scrape;

pub use families::{Families, MetricsError};
pub use groups::Limits;
pub use labels::Label;
pub use overview::{Overview, text};
pub use reference::text as reference;
pub use report::{References, Report};
pub use scrape::{Activity, Exporter, HttpCounts, PASS_REST, Pass};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;
    use crate::model::{CoverageState, Gap, GapCode, LeasePolicy, Table};

    #[test]
    fn totals_are_those_of_the_table_and_no_name_gets_out() {
        let mut table = sample::table();
        table.pins.iter_mut().skip(1).for_each(|pin| pin.coverage.state = CoverageState::None);
        let text = text(&table, LeasePolicy::Persistent, sample::CREATED + 5_000_000_000).unwrap();
        let value = |line: &str| text.lines().find_map(|l| l.strip_prefix(line)).map(str::trim);
        let rdma = r#"{subsystem="rdma",backing="file",coverage="none"}"#;
        assert_eq!(value(&format!("pinwatch_pins{rdma}")), Some("1"), "{text}");
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
        table.leases = Some(Vec::new());
        let pin = table.pins[1].clone();
        let series = |table: &Table| {
            let text = text(table, LeasePolicy::All, 0).unwrap();
            text.lines().filter(|line| !line.starts_with('#')).count()
        };
        table.pins = vec![pin.clone()];
        let one = series(&table);
        table.pins = vec![pin; 10_000];
        assert_eq!(series(&table), one);
        // One for each code, and few others.
        assert!(one < 40 + GapCode::ALL.len(), "{one}");
    }

    #[test]
    fn each_gap_that_a_daemon_can_have_has_a_series_from_the_start() {
        let mut table = sample::table();
        table.gaps = vec![Gap::SkippedHooks { calls: 7 }, Gap::ProcfsSubsystems];
        let text = text(&table, LeasePolicy::All, 0).unwrap();
        let value = |code: &str| {
            text.lines().find_map(|l| l.strip_prefix(&format!("pinwatch_gaps{{code=\"{code}\"}} ")))
        };
        assert_eq!((value("skipped_hooks"), value("procfs_subsystems")), (Some("1"), Some("1")), "{text}");
        assert_eq!((value("before"), value("pins_full")), (Some("0"), Some("0")));
        // Without a daemon only, and not open.
        assert_eq!(value("rings_busy"), None);
    }

    #[test]
    fn an_empty_table_has_metrics_too() {
        let text = text(&Table::default(), LeasePolicy::Persistent, 0).unwrap();
        assert!(text.contains("pinwatch_unleased_pins 0\n") && !text.contains("pinwatch_leases"), "{text}");
    }
}
