//! State of one rate limit at the provider, reconstructed from response headers.
//!
//! A response header states what remained when the provider counted the call, which is about when the call
//! was sent. It includes neither the calls sent later nor the refill since then. Each call keeps a
//! [`SendMark`], so that the calls sent after it can be subtracted. Some providers count a call when they
//! answer it; their headers include both. While calls flow, the later calls and the refill cancel out, so
//! both kinds of provider are handled alike. Pure.

use tokio::time::Instant;

use super::window_detector::{DetectedWindow, WindowDetector};
use crate::types::RateLimitStatus;

/// Total consumption when a call was sent, that call included.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub(super) struct SendMark(f64);

/// One limit as the provider advertises it.
#[derive(Debug, Default)]
pub(super) struct AdvertisedLimit {
    /// Typical consumption of all calls sent so far.
    consumed: f64,
    /// Largest `remaining` ever advertised: a lower bound of the capacity of the provider's bucket.
    max_remaining: f64,
    remaining: Option<Remaining>,
    /// Mark of the latest call whose headers were applied: responses can overtake one another.
    latest_mark: SendMark,
    per_minute: Option<u64>,
    window: WindowDetector,
}

/// What remains of a limit.
#[derive(Debug, Clone, Copy)]
struct Remaining {
    /// The advertised number, less what was sent since.
    permits: f64,
    /// The instant for which it was advertised.
    as_of: Instant,
}

impl AdvertisedLimit {
    /// Counts a call that is being sent.
    pub(super) fn record_sent(&mut self, amount: u64) -> SendMark {
        self.consumed += amount as f64;
        if let Some(remaining) = &mut self.remaining {
            remaining.permits -= amount as f64;
        }
        SendMark(self.consumed)
    }

    /// Undoes [`Self::record_sent`] for a call that was not sent.
    pub(super) fn rollback(&mut self, amount: u64) {
        self.consumed -= amount as f64;
        if let Some(remaining) = &mut self.remaining {
            remaining.permits += amount as f64;
        }
    }

    /// Applies the headers of the response to the call with `mark`, which was sent at `sent_at`.
    pub(super) fn apply_headers(&mut self, status: &RateLimitStatus, mark: SendMark, sent_at: Instant) {
        // Some providers send a limit of 0 where they have no limit.
        if status.limit == Some(0) {
            return;
        }
        let minutes = match self.window.detect(status, sent_at) {
            DetectedWindow::OverAMinute => {
                // A limit over more than a minute is not a rate, and its remainder is for a day.
                self.per_minute = None;
                self.remaining = None;
                return;
            }
            DetectedWindow::Undecided => return,
            DetectedWindow::Known(window) => 60.0 / window.as_secs_f64(),
        };
        let per_minute = |limit: u64| ((limit as f64 * minutes) as u64).max(1);
        self.per_minute = status.limit.map(per_minute).or(self.per_minute);
        if mark < self.latest_mark {
            return;
        }
        self.latest_mark = mark;
        // `remaining` is capped by the limit: otherwise a burst could grow beyond it.
        let max = status.limit.or(self.per_minute).unwrap_or(u64::MAX);
        let remaining = status.remaining.min(max) as f64;
        self.max_remaining = self.max_remaining.max(remaining);
        self.remaining = Some(Remaining { permits: remaining - (self.consumed - mark.0), as_of: sent_at });
    }

    /// Returns the advertised limit per minute.
    pub(super) fn per_minute(&self) -> Option<u64> {
        self.per_minute
    }

    /// Returns the largest `remaining` ever advertised.
    pub(super) fn max_remaining(&self) -> f64 {
        self.max_remaining
    }

    /// Returns what remains at `now` if `per_minute` are refilled; below zero if more was sent than the
    /// limit allows. `None` before the provider has sent headers.
    pub(super) fn remaining(&self, per_minute: f64, now: Instant) -> Option<f64> {
        let Remaining { permits, as_of } = self.remaining?;
        let refilled = now.saturating_duration_since(as_of).as_secs_f64() * per_minute / 60.0;
        Some((permits + refilled).min(self.max_remaining))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::LimitWindow;

    fn status(remaining: u64) -> RateLimitStatus {
        RateLimitStatus { limit: Some(600), remaining, reset: None, window: LimitWindow::VendorDefault }
    }

    #[test]
    fn calls_sent_later_are_subtracted() {
        let mut advertised = AdvertisedLimit::default();
        let now = Instant::now();
        let first = advertised.record_sent(1);
        assert_eq!(advertised.remaining(600.0, now), None);
        advertised.record_sent(1);
        advertised.record_sent(1);
        advertised.apply_headers(&status(99), first, now);
        assert_eq!(advertised.remaining(600.0, now), Some(97.0));
        advertised.record_sent(5);
        assert_eq!(advertised.remaining(600.0, now), Some(92.0));
        assert_eq!(advertised.remaining(600.0, now + Duration::from_millis(300)), Some(95.0));
        assert_eq!(
            advertised.remaining(600.0, now + Duration::from_secs(60)),
            Some(99.0),
            "never more than was advertised"
        );
    }

    #[test]
    fn headers_of_an_overtaken_response_are_ignored() {
        let mut advertised = AdvertisedLimit::default();
        let now = Instant::now();
        let first = advertised.record_sent(1);
        let second = advertised.record_sent(1);
        advertised.apply_headers(&status(40), second, now);
        advertised.apply_headers(&status(50), first, now);
        assert_eq!(advertised.remaining(600.0, now), Some(40.0));
    }

    #[test]
    fn remaining_is_capped_by_the_limit_and_a_limit_of_zero_is_ignored() {
        let mut advertised = AdvertisedLimit::default();
        let now = Instant::now();
        let mark = advertised.record_sent(1);
        advertised.apply_headers(
            &RateLimitStatus {
                limit: Some(0),
                remaining: 0,
                reset: None,
                window: LimitWindow::VendorDefault,
            },
            mark,
            now,
        );
        assert_eq!((advertised.per_minute(), advertised.remaining(600.0, now)), (None, None));
        advertised.apply_headers(&status(u64::MAX), mark, now);
        assert_eq!((advertised.remaining(600.0, now), advertised.max_remaining()), (Some(600.0), 600.0));
    }

    #[test]
    fn a_limit_per_day_is_not_a_rate() {
        let mut advertised = AdvertisedLimit::default();
        let mark = advertised.record_sent(1);
        let by_day = RateLimitStatus {
            limit: Some(14_400),
            remaining: 14_370,
            reset: Some(Duration::from_secs(180)),
            window: LimitWindow::VendorDefault,
        };
        advertised.apply_headers(&by_day, mark, Instant::now());
        assert_eq!(advertised.per_minute(), None);
        advertised.apply_headers(&status(1), mark, Instant::now());
        assert_eq!(advertised.per_minute(), Some(600));
    }
}
