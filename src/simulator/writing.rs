//! An answer's tokens on their way to the account: how many have been written by when.
//!
//! They are written evenly between two instants. It never reads a clock; its owner passes `now`.

use std::time::Duration;

use tokio::time::Instant;

/// Tokens that are being written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing {
    tokens: u64,
    charged: u64,
    from: Instant,
    over: Duration,
}

impl Writing {
    /// Makes an answer that costs nothing, or nothing more.
    pub(super) fn nothing(now: Instant) -> Self {
        Self::new(0, now, Duration::ZERO)
    }

    /// Makes an answer of so many tokens.
    pub(super) fn new(tokens: u64, from: Instant, over: Duration) -> Self {
        Self { tokens, charged: 0, from, over }
    }

    /// Returns the tokens written since it was asked last.
    pub(super) fn until(&mut self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.from).as_secs_f64();
        let share = if self.over.is_zero() { 1.0 } else { (passed / self.over.as_secs_f64()).min(1.0) };
        self.charge((self.tokens as f64 * share) as u64)
    }

    /// Returns the tokens that were not asked for yet.
    pub(super) fn rest(&mut self) -> u64 {
        self.charge(self.tokens)
    }

    fn charge(&mut self, written: u64) -> u64 {
        let new = written.saturating_sub(self.charged);
        self.charged += new;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_charged_once_and_in_its_time() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut writing = Writing::new(100, at(1_000), Duration::from_secs(2));
        let charged = [0, 1_000, 1_500, 1_500, 2_500].map(|millis| writing.until(at(millis)));
        assert_eq!(charged, [0, 0, 25, 0, 50]);
        assert_eq!((writing.rest(), writing.rest(), writing.until(at(9_000))), (25, 0, 0));
    }

    #[test]
    fn an_answer_that_takes_no_time_is_written_at_once() {
        let start = Instant::now();
        assert_eq!(Writing::new(7, start, Duration::ZERO).until(start), 7);
        assert_eq!(Writing::nothing(start).until(start), 0);
    }
}
