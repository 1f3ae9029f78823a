//! Mean interval between the ends of requests, for the expected wait of a request that is refused.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The expected wait while nothing is known.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// Upper bound of the expected wait: a pause without requests says nothing about the next one.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The weight of a sample is 1/16.
const WEIGHT_DIVISOR: i128 = 16;

/// Mean interval between the ends of requests. Concurrent updates may lose a sample, which the mean tolerates.
#[derive(Debug)]
pub(super) struct CompletionInterval {
    origin: Instant,
    /// When the last request ended, in nanoseconds since the origin; zero before the first.
    last_end: AtomicU64,
    /// The mean in nanoseconds; zero before the second end.
    mean: AtomicU64,
}

impl CompletionInterval {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, last_end: AtomicU64::new(0), mean: AtomicU64::new(0) }
    }

    /// Records the end of a request.
    pub(super) fn record_end(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.origin).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        let last = self.last_end.swap(nanos, Relaxed);
        if last == 0 {
            return;
        }
        let sample = i128::from(nanos.saturating_sub(last));
        let mean = i128::from(self.mean.load(Relaxed));
        let next = if mean == 0 { sample } else { mean + (sample - mean) / WEIGHT_DIVISOR };
        self.mean.store(u64::try_from(next).unwrap_or(u64::MAX).max(1), Relaxed);
    }

    /// Returns how long it is expected to take until the next request ends.
    pub(super) fn expected_wait(&self) -> Duration {
        match self.mean.load(Relaxed) {
            0 => DEFAULT_WAIT,
            mean => Duration::from_nanos(mean).min(MAX_WAIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_wait_is_the_mean_interval_and_bounded() {
        let start = Instant::now();
        let interval = CompletionInterval::new(start);
        interval.record_end(start);
        assert_eq!(interval.expected_wait(), DEFAULT_WAIT);
        for number in 1..=100 {
            interval.record_end(start + Duration::from_millis(20) * number);
        }
        let wait = interval.expected_wait().as_micros();
        assert!((19_990..=20_010).contains(&wait), "{wait}");
        interval.record_end(start + Duration::from_hours(9));
        assert_eq!(interval.expected_wait(), MAX_WAIT);
    }
}
