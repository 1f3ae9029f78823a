//! Running statistics: a moving average, quantiles of recent latencies, and the percentile of recent sizes.
//!
//! Each keeps a bounded number of samples and reads no clock.

use std::collections::VecDeque;
use std::time::Duration;

pub(in crate::provider) use crate::guard::Ewma;

/// Number of latencies kept.
const MAX_LATENCIES: usize = 128;

/// Minimum number of latencies for a quantile.
const MIN_LATENCIES: usize = 20;

/// A cancelled call counts only if it lasted longer than this quantile.
const OUTLIER_QUANTILE: f64 = 0.95;

/// Number of sizes kept.
const MAX_SIZES: usize = 200;

/// Up to this many samples, the percentile is recomputed after each one.
const MAX_EXACT_SIZES: usize = 48;

/// With more samples, the percentile is recomputed after this many.
const RECOMPUTE_INTERVAL: usize = 8;

/// The latencies of a target's most recent calls, from sending to the end.
#[derive(Debug, Default)]
pub(in crate::provider) struct LatencyWindow(VecDeque<Duration>);

impl LatencyWindow {
    /// Records the latency of an answered call.
    pub(in crate::provider) fn record(&mut self, latency: Duration) {
        if self.0.len() == MAX_LATENCIES {
            self.0.pop_front();
        }
        self.0.push_back(latency);
    }

    /// Records a cancelled call. A call that lasted longer than most others counts with the time until its
    /// cancellation: else slow calls would never be recorded, and ever shorter latencies would count as long.
    pub(in crate::provider) fn record_cancelled(&mut self, after: Duration) {
        if self.quantile(OUTLIER_QUANTILE).is_some_and(|outlier| after >= outlier) {
            self.record(after);
        }
    }

    /// Returns this quantile of the latencies; `None` with too few samples.
    pub(in crate::provider) fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.0.len() < MIN_LATENCIES {
            return None;
        }
        let mut latencies: Vec<Duration> = self.0.iter().copied().collect();
        latencies.sort_unstable();
        let last = latencies.len() - 1;
        latencies
            .get(((latencies.len() as f64 * quantile).ceil() as usize).saturating_sub(1).min(last))
            .copied()
    }
}

/// The most recent sizes, in tokens.
#[derive(Debug, Default)]
pub(in crate::provider) struct PercentileWindow {
    sizes: Vec<u32>,
    /// The index that the next sample replaces.
    oldest: usize,
    sum: u64,
    p95: u32,
}

impl PercentileWindow {
    pub(in crate::provider) fn len(&self) -> usize {
        self.sizes.len()
    }

    pub(in crate::provider) fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    pub(in crate::provider) fn add(&mut self, size: u64) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        if self.sizes.len() < MAX_SIZES {
            self.sizes.push(size);
        } else {
            let replaced = std::mem::replace(&mut self.sizes[self.oldest], size);
            self.sum -= u64::from(replaced);
            self.oldest = (self.oldest + 1) % MAX_SIZES;
        }
        self.sum += u64::from(size);
        let count = self.sizes.len() + self.oldest;
        if self.sizes.len() <= MAX_EXACT_SIZES || count.is_multiple_of(RECOMPUTE_INTERVAL) {
            self.p95 = p95(&self.sizes);
        }
    }

    /// Returns the size that 95 of 100 samples do not exceed; 0 without samples.
    pub(in crate::provider) fn p95(&self) -> u64 {
        u64::from(self.p95)
    }

    /// Returns the largest size; 0 without samples.
    pub(in crate::provider) fn max(&self) -> u64 {
        self.sizes.iter().copied().max().map_or(0, u64::from)
    }

    /// Returns the mean, rounded up; 0 without samples.
    pub(in crate::provider) fn mean(&self) -> u64 {
        self.sum.div_ceil(self.sizes.len().max(1) as u64)
    }
}

fn p95(sizes: &[u32]) -> u32 {
    let mut sizes = sizes.to_vec();
    let rank = (sizes.len() * 95).div_ceil(100).saturating_sub(1);
    if rank < sizes.len() { *sizes.select_nth_unstable(rank).1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn latencies(milliseconds: impl IntoIterator<Item = u64>) -> LatencyWindow {
        let mut latencies = LatencyWindow::default();
        milliseconds.into_iter().for_each(|latency| latencies.record(Duration::from_millis(latency)));
        latencies
    }

    #[test]
    fn a_quantile_needs_twenty_samples() {
        assert_eq!(latencies(1..=19).quantile(0.95), None);
        assert_eq!(latencies(1..=20).quantile(0.95), Some(Duration::from_millis(19)));
        assert_eq!(latencies((1..=100).rev()).quantile(0.5), Some(Duration::from_millis(50)));
    }

    #[test]
    fn only_the_most_recent_calls_count() {
        let latencies = latencies((0..1_000).map(|_| 9_000).chain((0..128).map(|_| 7)));
        assert_eq!(
            (latencies.quantile(1.0), latencies.0.len()),
            (Some(Duration::from_millis(7)), MAX_LATENCIES)
        );
    }

    #[test]
    fn a_call_that_is_cancelled_late_counts_and_one_cancelled_early_does_not() {
        let mut latencies = latencies((0..40).map(|_| 100));
        (0..40).for_each(|_| latencies.record_cancelled(Duration::from_millis(99)));
        assert_eq!(latencies.0.len(), 40);
        latencies.record_cancelled(Duration::from_millis(500));
        assert_eq!(latencies.quantile(1.0), Some(Duration::from_millis(500)));
    }

    #[test]
    fn nineteen_of_twenty_samples_are_within_the_percentile() {
        let mut window = PercentileWindow::default();
        (1..=20).rev().for_each(|size| window.add(size * 10));
        assert_eq!((window.p95(), window.mean()), (190, 105));
    }

    #[test]
    fn only_the_most_recent_samples_count() {
        let mut window = PercentileWindow::default();
        (0..1_000).for_each(|_| window.add(9_000));
        (0..MAX_SIZES).for_each(|_| window.add(7));
        assert_eq!((window.p95(), window.mean(), window.len()), (7, 7, MAX_SIZES));
    }

    proptest! {
        #[test]
        fn percentile_and_mean_stay_within_the_samples(
            sizes in proptest::collection::vec(0u64..100_000, 1..600),
        ) {
            let mut window = PercentileWindow::default();
            for size in &sizes {
                window.add(*size);
            }
            let min = *sizes.iter().min().unwrap();
            let max = *sizes.iter().max().unwrap();
            prop_assert!((min..=max).contains(&window.p95()), "{window:?}");
            prop_assert!((min..=max).contains(&window.mean()), "{window:?}");
            // At most RECOMPUTE_INTERVAL of the latest samples are not included yet.
            let latest = &sizes[sizes.len().saturating_sub(MAX_SIZES)..];
            let above = latest.iter().filter(|size| **size > window.p95()).count();
            prop_assert!(above <= latest.len() / 20 + RECOMPUTE_INTERVAL, "{above} above");
        }
    }
}
