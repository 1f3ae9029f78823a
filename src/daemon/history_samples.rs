//! What the daemon did in the last hour, as charts show it: one sample every ten seconds.
//!
//! A sample is the difference of two readings of the metrics, which only grow. Pure: the caller takes the readings.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::telemetry::{Samples, table};

/// How many samples are kept: those of an hour.
const MAX_SAMPLES: usize = 360;

/// Two readings at a shorter distance would give a rate of chance.
const MIN_DISTANCE: Duration = Duration::from_secs(1);

/// What happened between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HistorySample {
    /// When it ends, in milliseconds since 1970.
    pub at: i64,
    /// Finished items per second.
    pub items_per_second: f64,
    /// Ended requests per second.
    pub requests_per_second: f64,
    /// Median of the durations of the ended attempts, in seconds; null if none has ended. Estimated from a histogram, as the
    /// next one.
    pub p50_seconds: Option<f64>,
    /// The 95th percentile.
    pub p95_seconds: Option<f64>,
}

/// The sums of the metrics at one instant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) at: Instant,
    items: u64,
    requests: u64,
    /// The upper bound of each bucket, in seconds, and how many attempts ended in it.
    attempts: Vec<(f64, u64)>,
}

/// The samples of the last hour.
#[derive(Debug, Default)]
pub(super) struct HistorySamples(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Reading>,
    samples: VecDeque<HistorySample>,
}

impl Reading {
    /// Reads the metrics.
    pub(super) fn of(samples: &Samples, at: Instant) -> Self {
        let items = samples.counters(&table::ITEMS);
        // A reject is not an item.
        let items = items.filter(|(labels, _)| labels.last().is_none_or(|status| status != "rejected"));
        let attempts = samples.histogram_sum(&table::ATTEMPT_SECONDS);
        Self {
            at,
            items: items.map(|(_, count)| count).sum(),
            requests: samples.counters(&table::REQUESTS).map(|(_, count)| count).sum(),
            attempts: attempts.map(|histogram| histogram.buckets).unwrap_or_default(),
        }
    }

    /// Returns what happened since an earlier reading. A count may be lower than before: the provider or the pipeline that
    /// counted is gone.
    fn since(&self, earlier: &Self, at: i64) -> HistorySample {
        let seconds = self.at.saturating_duration_since(earlier.at).as_secs_f64().max(0.001);
        let before = |index: usize| earlier.attempts.get(index).map_or(0, |(_, count)| *count);
        let attempts = self.attempts.iter().enumerate();
        let attempts: Vec<(f64, u64)> =
            attempts.map(|(index, (bound, count))| (*bound, count.saturating_sub(before(index)))).collect();
        HistorySample {
            at,
            items_per_second: self.items.saturating_sub(earlier.items) as f64 / seconds,
            requests_per_second: self.requests.saturating_sub(earlier.requests) as f64 / seconds,
            p50_seconds: quantile(&attempts, 0.5),
            p95_seconds: quantile(&attempts, 0.95),
        }
    }
}

impl HistorySamples {
    /// Adds the sample between the last reading and this one. `at` is the present time in milliseconds since 1970.
    pub(super) fn record(&self, reading: Reading, at: i64) {
        let mut state = self.lock();
        if let Some(last) = &state.last {
            if reading.at.saturating_duration_since(last.at) < MIN_DISTANCE {
                return;
            }
            let sample = reading.since(last, at);
            if state.samples.len() == MAX_SAMPLES {
                state.samples.pop_front();
            }
            state.samples.push_back(sample);
        }
        state.last = Some(reading);
    }

    /// Returns the samples, the oldest first.
    pub(super) fn all(&self) -> Vec<HistorySample> {
        self.lock().samples.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a quantile of what is in the buckets, with linear interpolation within one; `None` if they are empty. In the last
/// bucket, which has no upper bound, it is the lower bound.
fn quantile(buckets: &[(f64, u64)], part: f64) -> Option<f64> {
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return None;
    }
    let rank = part * total as f64;
    let mut lower = 0.0;
    let mut below = 0.0;
    for (bound, count) in buckets {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            let width = if bound.is_finite() { bound - lower } else { 0.0 };
            return Some(lower + width * ((rank - below) / count).clamp(0.0, 1.0));
        }
        below += count;
        lower = *bound;
    }
    Some(lower).filter(|lower| lower.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, items: u64, requests: u64, attempts: &[(f64, u64)]) -> Reading {
        Reading { at, items, requests, attempts: attempts.to_vec() }
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = [(1.0, 10), (2.0, 10), (f64::INFINITY, 0)];
        assert_eq!(quantile(&buckets, 0.5), Some(1.0));
        assert_eq!(quantile(&buckets, 0.75), Some(1.5));
        assert_eq!(quantile(&[(1.0, 0), (2.0, 4)], 0.5), Some(1.5));
        assert_eq!(quantile(&[(1.0, 1), (f64::INFINITY, 9)], 0.95), Some(1.0));
        assert_eq!(quantile(&[(1.0, 0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_sample_is_what_happened_since_the_reading_before() {
        let start = Instant::now();
        let samples = HistorySamples::default();
        samples.record(reading(start, 100, 50, &[(1.0, 5), (2.0, 5)]), 0);
        assert!(samples.all().is_empty());
        let later = start + Duration::from_secs(10);
        samples.record(reading(later, 120, 60, &[(1.0, 5), (2.0, 9)]), 10_000);
        // Too early: it does not count as the reading before.
        samples.record(reading(later, 130, 60, &[(1.0, 5), (2.0, 9)]), 10_001);
        let all = samples.all();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].at, all[0].items_per_second, all[0].requests_per_second), (10_000, 2.0, 1.0));
        assert_eq!(all[0].p50_seconds, Some(1.5));
        // A provider was removed, and its counts with it.
        samples.record(reading(later + Duration::from_secs(10), 7, 0, &[]), 20_000);
        let last = samples.all()[1];
        assert_eq!((last.items_per_second, last.requests_per_second, last.p95_seconds), (0.0, 0.0, None));
    }

    #[test]
    fn the_samples_of_an_hour_are_kept() {
        let start = Instant::now();
        let samples = HistorySamples::default();
        for number in 0..(MAX_SAMPLES as u64 + 11) {
            let at = start + Duration::from_secs(10 * number);
            samples.record(reading(at, number, 0, &[]), number as i64);
        }
        let all = samples.all();
        assert_eq!((all.len(), all[0].at), (MAX_SAMPLES, 11));
    }
}
