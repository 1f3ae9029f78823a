//! Schedule by which the output tokens of a response are charged to the account.
//!
//! Tokens are generated at a constant rate between two instants. Pure: the caller passes `now`.

use std::time::Duration;

use tokio::time::Instant;

/// Output tokens that are being generated.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenStream {
    tokens: u64,
    charged: u64,
    start: Instant,
    duration: Duration,
}

impl TokenStream {
    /// Creates a stream without tokens.
    pub(super) fn empty(now: Instant) -> Self {
        Self::new(0, now, Duration::ZERO)
    }

    /// Creates a stream of `tokens` that are generated within `duration` after `start`.
    pub(super) fn new(tokens: u64, start: Instant, duration: Duration) -> Self {
        Self { tokens, charged: 0, start, duration }
    }

    /// Returns the tokens generated until `now` that were not returned before.
    pub(super) fn take_until(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_secs_f64();
        let fraction =
            if self.duration.is_zero() { 1.0 } else { (elapsed / self.duration.as_secs_f64()).min(1.0) };
        self.charge((self.tokens as f64 * fraction) as u64)
    }

    /// Returns all tokens that were not returned before.
    pub(super) fn take_rest(&mut self) -> u64 {
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
    fn every_token_is_charged_once_and_on_schedule() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut token_stream = TokenStream::new(100, at(1_000), Duration::from_secs(2));
        let charged = [0, 1_000, 1_500, 1_500, 2_500].map(|millis| token_stream.take_until(at(millis)));
        assert_eq!(charged, [0, 0, 25, 0, 50]);
        assert_eq!(
            (token_stream.take_rest(), token_stream.take_rest(), token_stream.take_until(at(9_000))),
            (25, 0, 0)
        );
    }

    #[test]
    fn a_response_without_latency_is_charged_at_once() {
        let start = Instant::now();
        assert_eq!(TokenStream::new(7, start, Duration::ZERO).take_until(start), 7);
        assert_eq!(TokenStream::empty(start).take_until(start), 0);
    }
}
