//! Values that were counted elsewhere, as the crate `prometheus` collects them.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};

use super::MetricsError;

/// How often something was how large.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Upper bounds, rising, and how many were at most so large but larger than the bound before.
    pub buckets: Vec<(f64, u64)>,
    /// How many were larger than all bounds.
    pub larger: u64,
    /// The sum of all.
    pub sum: f64,
}

/// Metrics at one moment.
#[derive(Default)]
pub struct Families {
    families: Vec<MetricFamily>,
    descriptions: Vec<Desc>,
    error: Option<prometheus::Error>,
}

impl Families {
    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, &[], [(Vec::new(), value)]);
    }

    /// A value for each row of labels.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (Vec<String>, f64)>,
    ) {
        self.add(name, help, MetricType::GAUGE, labels, rows, |metric, value| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        });
    }

    /// A value that only grows while the daemon runs.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, &[], [(Vec::new(), value)]);
    }

    /// A counter for each row of labels.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (Vec<String>, f64)>,
    ) {
        self.add(name, help, MetricType::COUNTER, labels, rows, |metric, value| {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        });
    }

    /// A distribution for each row of labels.
    pub fn histograms(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (Vec<String>, Distribution)>,
    ) {
        self.add(name, help, MetricType::HISTOGRAM, labels, rows, |metric, value| {
            let mut histogram = Histogram::default();
            let mut count = 0;
            let mut buckets = Vec::with_capacity(value.buckets.len());
            for (bound, many) in value.buckets {
                count += many;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                buckets.push(bucket);
            }
            histogram.set_bucket(buckets);
            histogram.set_sample_count(count + value.larger);
            histogram.set_sample_sum(value.sum);
            metric.set_histogram(histogram);
        });
    }

    fn add<V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        labels: &[&str],
        rows: impl IntoIterator<Item = (Vec<String>, V)>,
        set: impl Fn(&mut Metric, V),
    ) {
        let names = labels.iter().map(|&label| label.to_owned()).collect();
        match Desc::new(name.to_owned(), help.to_owned(), names, HashMap::new()) {
            Ok(description) => self.descriptions.push(description),
            Err(error) => {
                self.error.get_or_insert(error);
                return;
            }
        }
        let metrics = rows.into_iter().map(|(values, value)| {
            let pair = |(name, value): (&&str, String)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value);
                pair
            };
            let mut metric = Metric::default();
            metric.set_label(labels.iter().zip(values).map(pair).collect());
            set(&mut metric, value);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics.collect());
        self.families.push(family);
    }

    /// All of it in Prometheus' text format.
    ///
    /// # Errors
    /// [`MetricsError`] for a name that is none, or is there twice.
    pub fn text(mut self) -> Result<String, MetricsError> {
        if let Some(error) = self.error.take() {
            return Err(error.into());
        }
        let registry = Registry::new();
        registry.register(Box::new(self))?;
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Collector for Families {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let mut families = Families::default();
        let sizes = Distribution { buckets: vec![(1.0, 2), (4.0, 3)], larger: 1, sum: 20.5 };
        families.histograms("x_seconds", "How long.", &["a"], [(vec!["b".to_owned()], sizes)]);
        families.counter("y_total", "How many.", 7.0);
        let text = families.text().unwrap();
        for line in [
            r#"x_seconds_bucket{a="b",le="1"} 2"#,
            r#"x_seconds_bucket{a="b",le="4"} 5"#,
            r#"x_seconds_bucket{a="b",le="+Inf"} 6"#,
            r#"x_seconds_sum{a="b"} 20.5"#,
            r#"x_seconds_count{a="b"} 6"#,
            "# TYPE y_total counter",
            "y_total 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn a_name_twice_or_none_at_all_is_an_error() {
        let mut twice = Families::default();
        twice.gauge("x", "One.", 1.0);
        twice.gauge("x", "Two.", 2.0);
        assert!(twice.text().is_err());
        let mut none = Families::default();
        none.gauge("no name", "One.", 1.0);
        assert!(none.text().is_err());
    }

    #[test]
    fn hostile_values_stay_in_their_quotes() {
        let mut families = Families::default();
        let value = "a\"} 1\nb\\".to_owned();
        families.gauges("x", "One.", &["a"], [(vec![value], 1.0)]);
        let text = families.text().unwrap();
        assert!(text.ends_with("x{a=\"a\\\"} 1\\nb\\\\\"} 1\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
