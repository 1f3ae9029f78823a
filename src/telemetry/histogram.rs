//! A histogram with fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of the buckets, ascending, without the last one, which is infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds(&'static [f64]);

impl Bounds {
    /// Durations of attempts, steps and items, in seconds: from 10 ms to an hour.
    pub const SECONDS: Self =
        Self(&[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0]);
    /// Short durations, such as commits and what is added to a request, in seconds: from 10 µs to 10 s.
    pub const SHORT_SECONDS: Self = Self(&[
        0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1,
        1.0, 10.0,
    ]);
}

/// The greatest number of buckets.
const MAX_BUCKETS: usize = 15;

/// Counts durations by bucket. Any thread may record.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    counts: [AtomicU64; MAX_BUCKETS],
    sum_nanos: AtomicU64,
}

/// A histogram at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// The sum of what was recorded, in seconds.
    pub sum: f64,
    /// The upper bound of each bucket, in seconds, and what is in it and in no lower one; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Creates a histogram without records.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, counts: Default::default(), sum_nanos: AtomicU64::new(0) }
    }

    /// Records a duration. The sum wraps after 584 years of recorded time, which Prometheus takes for a restart.
    pub fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.0.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    /// Moves what another histogram with the same bounds has recorded to this one.
    pub fn take_from(&self, other: &Self) {
        debug_assert!(self.bounds == other.bounds, "histograms with different bounds");
        for (count, other) in self.counts.iter().zip(&other.counts) {
            count.fetch_add(other.swap(0, Relaxed), Relaxed);
        }
        self.sum_nanos.fetch_add(other.sum_nanos.swap(0, Relaxed), Relaxed);
    }

    /// Returns what was recorded so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let bounds = self.bounds.0.iter().copied().chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Relaxed));
        HistogramSnapshot {
            sum: self.sum_nanos.load(Relaxed) as f64 / 1e9,
            buckets: bounds.zip(counts).collect(),
        }
    }
}

impl HistogramSnapshot {
    /// Returns the number of records.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Adds the records of another histogram with the same bounds.
    pub(super) fn add(&mut self, more: &Self) {
        let has_same_bounds = self.bounds().eq(more.bounds());
        debug_assert!(has_same_bounds, "histograms with different bounds: {self:?} and {more:?}");
        if has_same_bounds {
            self.sum += more.sum;
            for ((_, sum), (_, count)) in self.buckets.iter_mut().zip(&more.buckets) {
                *sum = sum.saturating_add(*count);
            }
        }
    }

    fn bounds(&self) -> impl Iterator<Item = f64> {
        self.buckets.iter().map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const ALL_BOUNDS: [Bounds; 2] = [Bounds::SECONDS, Bounds::SHORT_SECONDS];

    /// Returns a bound in nanoseconds.
    fn nanos(bound: f64) -> u64 {
        (bound * 1e9).round() as u64
    }

    /// Returns the bounds of the buckets that are not empty.
    fn used_buckets(snapshot: &HistogramSnapshot) -> Vec<f64> {
        snapshot.buckets.iter().filter(|(_, count)| *count > 0).map(|(bound, _)| *bound).collect()
    }

    #[test]
    fn bounds_ascend_and_fit() {
        for bounds in ALL_BOUNDS {
            assert!(bounds.0.is_sorted_by(|lower, upper| lower < upper), "{bounds:?}");
            assert!(bounds.0.iter().all(|bound| bound.is_finite() && *bound > 0.0), "{bounds:?}");
            assert!(bounds.0.len() < MAX_BUCKETS, "{bounds:?}");
        }
    }

    #[test]
    fn a_new_histogram_has_its_buckets_and_no_records() {
        for bounds in ALL_BOUNDS {
            let snapshot = Histogram::new(bounds).snapshot();
            let expected = bounds.0.iter().copied().chain([f64::INFINITY]);
            assert_eq!(snapshot.buckets, expected.map(|bound| (bound, 0)).collect::<Vec<_>>());
            assert_eq!((snapshot.sum, snapshot.count()), (0.0, 0));
        }
    }

    #[test]
    fn a_duration_equal_to_a_bound_is_in_its_bucket_and_a_longer_one_in_the_next() {
        for bounds in ALL_BOUNDS {
            let next = bounds.0.iter().copied().skip(1).chain([f64::INFINITY]);
            for (bound, next) in bounds.0.iter().copied().zip(next) {
                let equal = Histogram::new(bounds);
                equal.record(Duration::from_nanos(nanos(bound)));
                assert_eq!(used_buckets(&equal.snapshot()), [bound]);
                let longer = Histogram::new(bounds);
                longer.record(Duration::from_nanos(nanos(bound) + 1));
                assert_eq!(used_buckets(&longer.snapshot()), [next]);
            }
        }
    }

    #[test]
    fn zero_is_in_the_first_bucket_and_the_longest_duration_in_the_last() {
        let histogram = Histogram::new(Bounds::SECONDS);
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets.first(), Some(&(0.01, 1)));
        assert_eq!(snapshot.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(snapshot.count(), 2);
    }

    #[test]
    fn records_of_many_threads_are_all_counted() {
        let histogram = Histogram::new(Bounds::SHORT_SECONDS);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for micros in 0..1_000 {
                        histogram.record(Duration::from_micros(micros));
                    }
                });
            }
        });
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count(), 4_000);
        assert_eq!(snapshot.sum, 1.998);
    }

    /// Durations of all magnitudes, many of them at a bound.
    fn durations() -> impl Strategy<Value = Vec<u64>> {
        let bounds: Vec<u64> =
            ALL_BOUNDS.iter().flat_map(|bounds| bounds.0).map(|bound| nanos(*bound)).collect();
        let at_bound = (proptest::sample::select(bounds), 0u64..3).prop_map(|(bound, more)| bound - 1 + more);
        let any = (0u32..43, any::<u64>()).prop_map(|(bits, nanos)| nanos & ((1u64 << bits) - 1));
        proptest::collection::vec(prop_oneof![at_bound, any], 0..200)
    }

    proptest! {
        #[test]
        fn a_snapshot_is_that_of_a_plain_list(durations in durations()) {
            for bounds in ALL_BOUNDS {
                let histogram = Histogram::new(bounds);
                for duration in &durations {
                    histogram.record(Duration::from_nanos(*duration));
                }
                let snapshot = histogram.snapshot();
                prop_assert_eq!(snapshot.count(), durations.len() as u64);
                prop_assert_eq!(snapshot.sum, durations.iter().sum::<u64>() as f64 / 1e9);
                let mut cumulative = 0;
                for (bound, count) in &snapshot.buckets {
                    cumulative += count;
                    let is_within = |duration: &&u64| bound.is_infinite() || **duration <= nanos(*bound);
                    prop_assert_eq!(cumulative, durations.iter().filter(is_within).count() as u64, "{}", bound);
                }
            }
        }

        #[test]
        fn two_snapshots_add_up_to_that_of_all_records(first in durations(), second in durations()) {
            let of = |durations: &[u64]| {
                let histogram = Histogram::new(Bounds::SECONDS);
                durations.iter().for_each(|duration| histogram.record(Duration::from_nanos(*duration)));
                histogram.snapshot()
            };
            let mut sum = of(&first);
            sum.add(&of(&second));
            let all = of(&[first, second].concat());
            prop_assert_eq!(&sum.buckets, &all.buckets);
            prop_assert!((sum.sum - all.sum).abs() <= 1e-6, "{} and {}", sum.sum, all.sum);
        }
    }
}
