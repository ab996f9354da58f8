//! Values that were counted elsewhere, put into the structures of the crate `prometheus`, which writes the text format.
//! Its registry of live counters is not used: each scrape would set all of them from the table, and a series whose labels are
//! gone would stay.

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as Classes, LabelPair, Metric, MetricFamily, MetricType,
};

use super::catalogue::{Entry, Histogram, Kind, Number};
use super::labels::Label;

/// Why there is no text: a defect.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The same metric was put into one reply twice.
    #[error("cannot write the metrics: {0} is there twice")]
    Twice(String),
    /// The text cannot be written.
    #[error("cannot write the metrics: {0}")]
    Encode(#[from] prometheus::Error),
}

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
}

impl Families {
    /// The value of a metric without labels.
    pub fn value(&mut self, metric: Number<0>, value: f64) {
        self.values(metric, [([""; 0], value)]);
    }

    /// A value for each row of label values.
    pub fn values<const N: usize, L: Into<String>>(
        &mut self,
        metric: Number<N>,
        rows: impl IntoIterator<Item = ([L; N], f64)>,
    ) {
        let entry = metric.entry();
        self.add(entry, rows, |to, value| {
            if entry.kind == Kind::Counter {
                let mut counter = Counter::default();
                counter.set_value(value);
                to.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                to.set_gauge(gauge);
            }
        });
    }

    /// A distribution for each row of label values.
    pub fn distributions<const N: usize, L: Into<String>>(
        &mut self,
        metric: Histogram<N>,
        rows: impl IntoIterator<Item = ([L; N], Distribution)>,
    ) {
        self.add(metric.entry(), rows, |to, value| {
            let mut classes = Classes::default();
            let mut count = 0;
            let mut buckets = Vec::with_capacity(value.buckets.len());
            for (bound, many) in value.buckets {
                count += many;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                buckets.push(bucket);
            }
            classes.set_bucket(buckets);
            classes.set_sample_count(count + value.larger);
            classes.set_sample_sum(value.sum);
            to.set_histogram(classes);
        });
    }

    fn add<const N: usize, L: Into<String>, V>(
        &mut self,
        entry: &Entry,
        rows: impl IntoIterator<Item = ([L; N], V)>,
        set: impl Fn(&mut Metric, V),
    ) {
        let metrics: Vec<Metric> = rows
            .into_iter()
            .map(|(values, value)| {
                let pair = |(label, value): (&Label, L)| {
                    let mut pair = LabelPair::default();
                    pair.set_name(label.name().to_owned());
                    pair.set_value(value.into());
                    pair
                };
                let mut metric = Metric::default();
                metric.set_label(entry.labels.iter().zip(values).map(pair).collect());
                set(&mut metric, value);
                metric
            })
            .collect();
        // The format has no family without a value.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(entry.name.to_owned());
        family.set_help(entry.help.to_owned());
        family.set_field_type(match entry.kind {
            Kind::Gauge => MetricType::GAUGE,
            Kind::Counter => MetricType::COUNTER,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        self.families.push(family);
    }

    /// All of it in Prometheus' text format, by name.
    ///
    /// # Errors
    /// [`MetricsError`] for a metric that is there twice.
    pub fn text(mut self) -> Result<String, MetricsError> {
        self.families.sort_by(|a, b| a.name().cmp(b.name()));
        if let Some(pair) = self.families.windows(2).find(|pair| pair[0].name() == pair[1].name()) {
            return Err(MetricsError::Twice(pair[0].name().to_owned()));
        }
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.families, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue;
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let mut families = Families::default();
        let sizes = Distribution { buckets: vec![(1.0, 2), (4.0, 3)], larger: 1, sum: 20.5 };
        families.distributions(catalogue::REGISTRATION_BYTES, [(["b"], sizes)]);
        families.value(catalogue::PASSES, 7.0);
        let text = families.text().unwrap();
        for line in [
            r#"pinwatch_registration_bytes_bucket{subsystem="b",le="1"} 2"#,
            r#"pinwatch_registration_bytes_bucket{subsystem="b",le="4"} 5"#,
            r#"pinwatch_registration_bytes_bucket{subsystem="b",le="+Inf"} 6"#,
            r#"pinwatch_registration_bytes_sum{subsystem="b"} 20.5"#,
            r#"pinwatch_registration_bytes_count{subsystem="b"} 6"#,
            "# TYPE pinwatch_passes_total counter",
            "pinwatch_passes_total 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn a_metric_twice_is_an_error() {
        let mut twice = Families::default();
        twice.value(catalogue::COMPLETE, 1.0);
        twice.value(catalogue::COMPLETE, 2.0);
        assert!(twice.text().is_err());
    }

    #[test]
    fn a_metric_without_values_is_left_out() {
        let mut families = Families::default();
        families.values(catalogue::MAP_FULL, [([""; 1], 0.0); 0]);
        assert_eq!(families.text().unwrap(), "");
    }

    #[test]
    fn hostile_values_stay_in_their_quotes() {
        let mut families = Families::default();
        families.values(catalogue::BUILD_INFO, [(["a\"} 1\nb\\"], 1.0)]);
        let text = families.text().unwrap();
        assert!(text.ends_with("{version=\"a\\\"} 1\\nb\\\\\"} 1\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
