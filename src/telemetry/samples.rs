//! The values of metrics at one instant.

use std::collections::BTreeMap;

use super::histogram::HistogramSnapshot;
use super::metric::{Kind, Metric};

/// The values of all metrics at one instant, by metric and by the values of its labels.
///
/// Values with the same labels are added, so that parts of a program can report without knowing each other.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    pub(super) by_metric: BTreeMap<&'static str, Family>,
}

/// The values of one metric.
#[derive(Debug, Clone)]
pub(super) struct Family {
    pub(super) metric: &'static Metric,
    pub(super) values: BTreeMap<Vec<String>, Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Counter(u64),
    /// A counter of money or of time, whose unit has parts.
    RealCounter(f64),
    Gauge(f64),
    Histogram(HistogramSnapshot),
}

impl Samples {
    /// Adds to a counter. The labels are the values of the metric's labels, in its order.
    pub fn counter(&mut self, metric: &'static Metric, labels: &[&str], count: u64) {
        self.add(metric, labels, Value::Counter(count));
    }

    /// Adds to a counter whose unit has parts, such as dollars.
    pub fn real_counter(&mut self, metric: &'static Metric, labels: &[&str], amount: f64) {
        self.add(metric, labels, Value::RealCounter(amount));
    }

    /// Adds to a gauge.
    pub fn gauge(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.add(metric, labels, Value::Gauge(value));
    }

    /// Adds to a histogram.
    pub fn histogram(&mut self, metric: &'static Metric, labels: &[&str], snapshot: HistogramSnapshot) {
        self.add(metric, labels, Value::Histogram(snapshot));
    }

    /// Returns the counts of a counter, each with the values of the metric's labels.
    pub fn counters(&self, metric: &Metric) -> impl Iterator<Item = (&[String], u64)> {
        let values = self.by_metric.get(metric.name).into_iter().flat_map(|family| &family.values);
        values.filter_map(|(labels, value)| match value {
            Value::Counter(count) => Some((labels.as_slice(), *count)),
            Value::RealCounter(_) | Value::Gauge(_) | Value::Histogram(_) => None,
        })
    }

    /// Returns the sum of a gauge over all labels.
    pub fn gauge_sum(&self, metric: &Metric) -> f64 {
        let values = self.by_metric.get(metric.name).into_iter().flat_map(|family| family.values.values());
        let gauges = values.map(|value| match value {
            Value::Gauge(value) => *value,
            Value::Counter(_) | Value::RealCounter(_) | Value::Histogram(_) => 0.0,
        });
        gauges.sum()
    }

    /// Returns the sum of a histogram over all labels; `None` without one.
    pub fn histogram_sum(&self, metric: &Metric) -> Option<HistogramSnapshot> {
        let values = self.by_metric.get(metric.name).into_iter().flat_map(|family| family.values.values());
        let histograms = values.filter_map(|value| match value {
            Value::Histogram(histogram) => Some(histogram.clone()),
            Value::Counter(_) | Value::RealCounter(_) | Value::Gauge(_) => None,
        });
        histograms.reduce(|mut sum, more| {
            sum.add(&more);
            sum
        })
    }

    fn add(&mut self, metric: &'static Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "labels of {}: {labels:?}", metric.name);
        debug_assert_eq!(value.kind(), metric.kind, "kind of {}", metric.name);
        let new = || Family { metric, values: BTreeMap::new() };
        let family = self.by_metric.entry(metric.name).or_insert_with(new);
        let labels: Vec<String> = labels.iter().copied().map(str::to_owned).collect();
        match family.values.get_mut(&labels) {
            Some(sum) => sum.add(value),
            None => {
                family.values.insert(labels, value);
            }
        }
    }
}

impl Value {
    fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) | Self::RealCounter(_) => Kind::Counter,
            Self::Gauge(_) => Kind::Gauge,
            Self::Histogram(_) => Kind::Histogram,
        }
    }

    fn add(&mut self, more: Self) {
        match (self, more) {
            (Self::Counter(sum), Self::Counter(more)) => *sum = sum.saturating_add(more),
            (Self::RealCounter(sum), Self::RealCounter(more)) | (Self::Gauge(sum), Self::Gauge(more)) => {
                *sum += more;
            }
            (Self::Histogram(sum), Self::Histogram(more)) => sum.add(&more),
            (Self::Counter(_) | Self::RealCounter(_) | Self::Gauge(_) | Self::Histogram(_), _) => {
                debug_assert!(false, "values of two kinds with the same labels");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::table;
    use crate::telemetry::{Bounds, Histogram};

    /// Returns the value of a metric with labels.
    fn value<'a>(samples: &'a Samples, metric: &Metric, labels: &[&str]) -> Option<&'a Value> {
        let labels: Vec<String> = labels.iter().copied().map(str::to_owned).collect();
        samples.by_metric.get(metric.name)?.values.get(&labels)
    }

    fn snapshot_of(durations: &[Duration]) -> HistogramSnapshot {
        let histogram = Histogram::new(Bounds::SHORT_SECONDS);
        durations.iter().for_each(|duration| histogram.record(*duration));
        histogram.snapshot()
    }

    #[test]
    fn values_with_the_same_labels_are_added() {
        let mut samples = Samples::default();
        samples.counter(&table::TOKENS, &["acme", "small", "input"], 2);
        samples.counter(&table::TOKENS, &["acme", "small", "input"], 3);
        samples.real_counter(&table::COST_USD, &["acme", "small"], 0.25);
        samples.real_counter(&table::COST_USD, &["acme", "small"], 0.5);
        samples.gauge(&table::QUEUED, &["acme", "small"], 4.0);
        samples.gauge(&table::QUEUED, &["acme", "small"], 1.0);
        let short = Duration::from_micros(10);
        let long = Duration::from_secs(20);
        samples.histogram(&table::COMMIT_SECONDS, &[], snapshot_of(&[short]));
        samples.histogram(&table::COMMIT_SECONDS, &[], snapshot_of(&[short, long]));

        let tokens = value(&samples, &table::TOKENS, &["acme", "small", "input"]);
        assert_eq!(tokens, Some(&Value::Counter(5)));
        let cost = value(&samples, &table::COST_USD, &["acme", "small"]);
        assert_eq!(cost, Some(&Value::RealCounter(0.75)));
        let queued = value(&samples, &table::QUEUED, &["acme", "small"]);
        assert_eq!(queued, Some(&Value::Gauge(5.0)));
        samples.gauge(&table::QUEUED, &["acme", "large"], 2.0);
        assert_eq!((samples.gauge_sum(&table::QUEUED), samples.gauge_sum(&table::COST_USD)), (7.0, 0.0));
        let Some(Value::Histogram(commits)) = value(&samples, &table::COMMIT_SECONDS, &[]) else {
            panic!("no histogram")
        };
        assert_eq!(commits.buckets, snapshot_of(&[short, short, long]).buckets);
        assert!((commits.sum - 20.00002).abs() < 1e-9, "{}", commits.sum);
    }

    #[test]
    fn values_with_different_labels_are_separate() {
        let mut samples = Samples::default();
        samples.counter(&table::TOKENS, &["acme", "small", "input"], 2);
        samples.counter(&table::TOKENS, &["acme", "small", "output"], 3);
        samples.counter(&table::TOKENS, &["small", "acme", "input"], 4);
        let counts = samples.by_metric[table::TOKENS.name].values.values();
        assert_eq!(counts.collect::<Vec<_>>(), [2, 3, 4].map(Value::Counter).each_ref());
    }

    #[test]
    fn values_are_read_by_labels_and_over_all_labels() {
        let mut samples = Samples::default();
        samples.counter(&table::TOKENS, &["acme", "small", "input"], 2);
        samples.counter(&table::TOKENS, &["acme", "large", "input"], 3);
        samples.real_counter(&table::COST_USD, &["acme", "small"], 0.25);
        samples.histogram(
            &table::ATTEMPT_SECONDS,
            &["acme", "small"],
            snapshot_of(&[Duration::from_secs(1)]),
        );
        samples.histogram(
            &table::ATTEMPT_SECONDS,
            &["acme", "large"],
            snapshot_of(&[Duration::from_secs(1)]),
        );
        let counts: Vec<_> =
            samples.counters(&table::TOKENS).map(|(labels, count)| (&*labels[1], count)).collect();
        assert_eq!(counts, [("large", 3), ("small", 2)]);
        assert_eq!(samples.counters(&table::COST_USD).count(), 0);
        assert_eq!(samples.histogram_sum(&table::ATTEMPT_SECONDS).map(|sum| sum.count()), Some(2));
        assert!(samples.histogram_sum(&table::STEP_SECONDS).is_none());
    }

    #[test]
    fn a_counter_does_not_overflow() {
        let mut samples = Samples::default();
        samples.counter(&table::HEDGES, &[], u64::MAX);
        samples.counter(&table::HEDGES, &[], 1);
        assert_eq!(value(&samples, &table::HEDGES, &[]), Some(&Value::Counter(u64::MAX)));
    }

    #[cfg(debug_assertions)]
    mod mistakes {
        use super::*;

        #[test]
        #[should_panic(expected = "labels of pointsman_tokens")]
        fn too_few_labels_panic() {
            Samples::default().counter(&table::TOKENS, &["acme", "small"], 1);
        }

        #[test]
        #[should_panic(expected = "labels of pointsman_hedges")]
        fn too_many_labels_panic() {
            Samples::default().counter(&table::HEDGES, &["acme"], 1);
        }

        #[test]
        #[should_panic(expected = "kind of pointsman_hedges")]
        fn a_gauge_of_a_counter_panics() {
            Samples::default().gauge(&table::HEDGES, &[], 1.0);
        }

        #[test]
        #[should_panic(expected = "values of two kinds")]
        fn a_whole_and_a_real_counter_with_the_same_labels_panic() {
            let mut samples = Samples::default();
            samples.counter(&table::COST_USD, &["acme", "small"], 1);
            samples.real_counter(&table::COST_USD, &["acme", "small"], 1.0);
        }

        #[test]
        #[should_panic(expected = "histograms with different bounds")]
        fn histograms_with_different_bounds_panic() {
            let mut samples = Samples::default();
            samples.histogram(&table::COMMIT_SECONDS, &[], snapshot_of(&[]));
            let other = Histogram::new(Bounds::SECONDS).snapshot();
            samples.histogram(&table::COMMIT_SECONDS, &[], other);
        }
    }

    proptest! {
        #[test]
        fn counters_are_the_sums_by_labels(
            reports in proptest::collection::vec((0..3usize, 0u64..1_000), 0..40),
        ) {
            let kinds = ["input", "cached", "output"];
            let mut samples = Samples::default();
            let mut sums = BTreeMap::<usize, u64>::new();
            for (kind, count) in reports {
                samples.counter(&table::TOKENS, &["acme", "small", kinds[kind]], count);
                *sums.entry(kind).or_default() += count;
            }
            for (kind, name) in kinds.iter().enumerate() {
                let expected = sums.get(&kind).map(|sum| Value::Counter(*sum));
                prop_assert_eq!(value(&samples, &table::TOKENS, &["acme", "small", name]), expected.as_ref());
            }
        }
    }
}
