//! Event rate over the last ten seconds, counted in slots of one second.
//!
//! The caller passes `now`.

use tokio::time::Instant;

/// Length of the window in seconds.
const WINDOW_SECONDS: u64 = 10;

/// One slot more than the window has seconds: the current second has its own slot.
const SLOTS: usize = WINDOW_SECONDS as usize + 1;

/// Counts over the last ten seconds.
#[derive(Debug)]
pub struct Meter {
    origin: Instant,
    /// For each slot, the second it was last used for and its count.
    slots: [(u64, u64); SLOTS],
}

impl Meter {
    /// Creates an empty meter.
    pub fn new(now: Instant) -> Self {
        Self { origin: now, slots: [(0, 0); SLOTS] }
    }

    /// Counts `amount` at `now`.
    pub fn add(&mut self, amount: u64, now: Instant) {
        let second = self.second(now);
        let slot = &mut self.slots[(second % SLOTS as u64) as usize];
        if slot.0 == second {
            slot.1 = slot.1.saturating_add(amount);
        } else {
            *slot = (second, amount);
        }
    }

    /// Returns the mean count per second over the ten seconds before `now`, or since the start if that is
    /// shorter. The current second is excluded because it is incomplete.
    pub fn per_second(&self, now: Instant) -> f64 {
        let second = self.second(now);
        let seen = self.slots.iter().filter(|(at, _)| *at < second && second - at <= WINDOW_SECONDS);
        let sum: u64 = seen.map(|(_, count)| count).sum();
        let over = (second - 1).clamp(1, WINDOW_SECONDS);
        sum as f64 / over as f64
    }

    fn second(&self, now: Instant) -> u64 {
        // Seconds count from 1, so that an unused slot never matches the current second.
        now.saturating_duration_since(self.origin).as_secs() + 1
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
