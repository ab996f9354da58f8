//! docs/metrics.md, made from the tables of metrics and labels.
//!
//! A test compares the file with what is made here; `PINWATCH_WRITE_DOCS=1 cargo test -p pinwatch metrics_reference` writes
//! it anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::catalogue::{Entry, SECTIONS};
use super::labels::{Label, Values};

const HEAD: &str = "\
# Metrics

pinwatch serves these at `127.0.0.1:9746/metrics`; `pinwatch metrics` prints the first two groups without a daemon, as far as
procfs knows them. Counters begin at 0 when the daemon starts.

<!-- Made from pinwatch/src/daemon/exporter/catalogue.rs: change that, then run
     PINWATCH_WRITE_DOCS=1 cargo test -p pinwatch metrics_reference -->
";

/// The text of docs/metrics.md.
pub fn text() -> String {
    let mut text = HEAD.to_owned();
    let mut labels: BTreeSet<Label> = BTreeSet::new();
    for section in SECTIONS {
        let _ = write!(text, "\n## {}\n\n", section.title);
        if !section.note.is_empty() {
            let _ = write!(text, "{}\n\n", section.note);
        }
        text.push_str("| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n");
        for metric in section.metrics {
            let _ = writeln!(text, "{}", row(metric));
            labels.extend(metric.labels);
        }
    }
    text.push_str("\n## Labels\n\n| label | meaning | values |\n|---|---|---|\n");
    for label in labels {
        let values = match label.values() {
            Values::OneOf(words) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            Values::Other(phrase) => phrase.to_owned(),
        };
        let _ = writeln!(text, "| `{}` | {} | {values} |", label.name(), label.meaning());
    }
    text
}

fn row(metric: &Entry) -> String {
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{}`", label.name())).collect();
    let (name, kind, labels) = (metric.name, metric.kind.word(), labels.join(", "));
    format!("| `{name}` | {kind} | {labels} | {} | {} |", metric.unit, metric.help)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn metrics_reference_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("PINWATCH_WRITE_DOCS").is_some() {
            std::fs::write(&path, text()).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text(),
            "docs/metrics.md is out of date; run PINWATCH_WRITE_DOCS=1 cargo test -p pinwatch metrics_reference"
        );
    }
}
