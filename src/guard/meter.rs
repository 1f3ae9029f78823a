//! Event rate over the last ten seconds, counted in slots of one second.
//!
//! The caller passes `now`.

use tokio::time::Instant;

use super::second_slots::SecondSlots;

/// Length of the window in seconds.
const WINDOW_SECONDS: u64 = 10;

/// One slot more than the window has seconds: the current second has its own slot.
const SLOTS: usize = WINDOW_SECONDS as usize + 1;

/// Counts over the last ten seconds.
#[derive(Debug)]
pub struct Meter {
    counts: SecondSlots<u64, SLOTS>,
}

impl Meter {
    /// Creates an empty meter.
    pub fn new(now: Instant) -> Self {
        Self { counts: SecondSlots::new(now) }
    }

    /// Counts `amount` at `now`.
    pub fn add(&mut self, amount: u64, now: Instant) {
        let count = self.counts.value_mut(now);
        *count = count.saturating_add(amount);
    }

    /// Returns the mean count per second over the ten seconds before `now`, or since the start if that is
    /// shorter. The current second is excluded because it is incomplete.
    pub fn per_second(&self, now: Instant) -> f64 {
        let second = self.counts.second(now);
        let sum: u64 = self.counts.values(second.saturating_sub(WINDOW_SECONDS)..second).sum();
        let over = (second - 1).clamp(1, WINDOW_SECONDS);
        sum as f64 / over as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_seconds_before_the_start_are_not_counted() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for second in 0..3 {
            meter.add(5, start + Duration::from_secs(second));
        }
        assert_eq!(meter.per_second(start + Duration::from_secs(3)), 5.0);
    }

    #[test]
    fn counts_older_than_ten_seconds_expire() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for second in 0..30 {
            meter.add(7, start + Duration::from_secs(second));
        }
        let end = start + Duration::from_secs(30);
        assert_eq!(meter.per_second(end), 7.0);
        assert_eq!(meter.per_second(end + Duration::from_secs(11)), 0.0);
    }
}
