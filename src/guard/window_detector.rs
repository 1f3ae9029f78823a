//! Detects the window of an advertised limit if its headers do not state it.
//!
//! Vendors count by the minute, and some by the day under the same header names (Groq). Gateways send one
//! set of names for a second, a minute or a day (Kong). The reset time tells them apart. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::{LimitWindow, RateLimitStatus};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const DAY_SECONDS: f64 = 86_400.0;

/// A window counts as one second after `MIN_SECOND_WINDOW_SAMPLES` matching reset times over at least this
/// span, which is longer than the last seconds of a minute last.
const MIN_SECOND_WINDOW_SPAN: Duration = Duration::from_secs(5);
const MIN_SECOND_WINDOW_SAMPLES: u32 = 3;
/// Two matching reset times that are further apart may belong to two minutes.
const MAX_SECOND_WINDOW_GAP: Duration = Duration::from_secs(50);
/// The longest reset time of a window of one second, rounded up.
const MAX_RESET_OF_A_SECOND: Duration = Duration::from_secs(2);

/// Reset times are rounded to seconds.
const RESET_ROUNDING_SECONDS: f64 = 1.0;

/// The window of a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum DetectedWindow {
    /// This window.
    Known(Duration),
    /// More than a minute: the limit is not a rate.
    OverAMinute,
    /// The headers so far are ambiguous.
    Undecided,
}

/// Reset times seen for one limit.
#[derive(Debug, Default)]
pub(super) struct WindowDetector {
    /// The limit whose reset time exceeded a minute.
    long_limit: Option<u64>,
    day_sample: Option<DaySample>,
    second_samples: Option<SecondWindowSamples>,
}

/// A response whose reset time may be that of a day.
#[derive(Debug, Clone, Copy)]
struct DaySample {
    limit: u64,
    remaining: u64,
}

/// The reset time of a response, and the times in which what is used of the limit would be refilled. In seconds.
#[derive(Debug, Clone, Copy)]
struct ResetTimes {
    reset: f64,
    refill_of_minute: f64,
    refill_of_day: f64,
}

/// Reset times that match a window of one second.
#[derive(Debug, Clone, Copy)]
struct SecondWindowSamples {
    first: Instant,
    last: Instant,
    count: u32,
}

impl SecondWindowSamples {
    fn is_conclusive(&self) -> bool {
        self.count >= MIN_SECOND_WINDOW_SAMPLES
            && self.last.saturating_duration_since(self.first) >= MIN_SECOND_WINDOW_SPAN
    }
}

impl WindowDetector {
    /// Adds the status stated at `at` and returns the window of the limit.
    pub(super) fn detect(&mut self, status: &RateLimitStatus, at: Instant) -> DetectedWindow {
        let is_unknown = match status.window {
            LimitWindow::Fixed(window) if window > LimitWindow::MAX_MINUTE => {
                return DetectedWindow::OverAMinute;
            }
            LimitWindow::Fixed(window) => return DetectedWindow::Known(window.max(Duration::from_millis(1))),
            LimitWindow::VendorDefault => false,
            LimitWindow::Unknown => true,
        };
        if status.reset.is_some_and(|reset| reset > LimitWindow::MAX_MINUTE) {
            self.long_limit = status.limit.or(self.long_limit);
            self.second_samples = None;
            return DetectedWindow::OverAMinute;
        }
        // In its last minute, a window of a day looks like a window of a minute.
        if self.long_limit.is_some() && self.long_limit == status.limit {
            return DetectedWindow::OverAMinute;
        }
        let Some((limit, reset)) = status.limit.zip(status.reset) else {
            return DetectedWindow::Known(MINUTE);
        };
        let used = limit.saturating_sub(status.remaining) as f64;
        let refill_time = |window: f64| used * window / limit.max(1) as f64;
        let times = ResetTimes {
            reset: reset.as_secs_f64(),
            refill_of_minute: refill_time(60.0),
            refill_of_day: refill_time(DAY_SECONDS),
        };
        if self.is_day_bucket(DaySample { limit, remaining: status.remaining }, times) {
            return if self.long_limit.is_some() {
                DetectedWindow::OverAMinute
            } else {
                DetectedWindow::Undecided
            };
        }
        if is_unknown { self.detect_gateway_window(times, at) } else { DetectedWindow::Known(MINUTE) }
    }

    /// Distinguishes a bucket that refills over a day from one that refills over a minute, if little of it is
    /// used. One matching response may be a coincidence; two with different `remaining` are not.
    fn is_day_bucket(&mut self, sample: DaySample, times: ResetTimes) -> bool {
        let ResetTimes { reset, refill_of_minute, refill_of_day } = times;
        let matches_day = (reset - refill_of_day).abs() <= RESET_ROUNDING_SECONDS.max(refill_of_day * 0.02);
        let exceeds_minute = reset > refill_of_minute + 2.0 * RESET_ROUNDING_SECONDS;
        if !(matches_day && exceeds_minute) {
            self.day_sample = None;
            return false;
        }
        let is_second = |first: DaySample| first.limit == sample.limit && first.remaining != sample.remaining;
        if self.day_sample.is_some_and(is_second) {
            self.long_limit = Some(sample.limit);
        }
        self.day_sample = Some(sample);
        true
    }

    /// A gateway's limit that resets sooner than a minute's bucket would is a limit per second, or one per
    /// minute whose window is about to end.
    fn detect_gateway_window(&mut self, times: ResetTimes, at: Instant) -> DetectedWindow {
        let ResetTimes { reset, refill_of_minute, .. } = times;
        if reset > MAX_RESET_OF_A_SECOND.as_secs_f64() {
            self.second_samples = None;
            return DetectedWindow::Known(MINUTE);
        }
        let is_short = reset > 0.0 && reset + RESET_ROUNDING_SECONDS < refill_of_minute;
        let recent = self
            .second_samples
            .filter(|seen| at.saturating_duration_since(seen.last) <= MAX_SECOND_WINDOW_GAP);
        if is_short {
            let seen = recent.unwrap_or(SecondWindowSamples { first: at, last: at, count: 0 });
            self.second_samples =
                Some(SecondWindowSamples { last: seen.last.max(at), count: seen.count + 1, ..seen });
        }
        match self.second_samples {
            Some(seen) if seen.is_conclusive() => DetectedWindow::Known(SECOND),
            Some(_) if is_short => DetectedWindow::Undecided,
            _ => DetectedWindow::Known(MINUTE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(limit: u64, remaining: u64, seconds: f64, window: LimitWindow) -> RateLimitStatus {
        RateLimitStatus {
            limit: Some(limit),
            remaining,
            reset: Some(Duration::from_secs_f64(seconds)),
            window,
        }
    }

    #[test]
    fn the_first_responses_of_a_daily_limit_are_not_taken_for_a_minute() {
        let mut detector = WindowDetector::default();
        let now = Instant::now();
        // 14,400 per day refill one every six seconds.
        for used in 1..=3 {
            let status = status(14_400, 14_400 - used, 6.0 * used as f64, LimitWindow::VendorDefault);
            let expected = if used == 1 { DetectedWindow::Undecided } else { DetectedWindow::OverAMinute };
            assert_eq!(detector.detect(&status, now), expected, "after {used}");
        }
        // OpenAI's 500 per minute.
        let mut detector = WindowDetector::default();
        assert_eq!(
            detector.detect(&status(500, 499, 0.12, LimitWindow::VendorDefault), now),
            DetectedWindow::Known(MINUTE)
        );
        // A fixed window of a minute that has just begun.
        assert_eq!(
            detector.detect(&status(60, 59, 59.0, LimitWindow::VendorDefault), now),
            DetectedWindow::Known(MINUTE)
        );
    }

    #[test]
    fn the_last_minute_of_a_daily_limit_is_not_taken_for_a_minute() {
        let mut detector = WindowDetector::default();
        let now = Instant::now();
        assert_eq!(
            detector.detect(&status(1_000, 3, 400.0, LimitWindow::Unknown), now),
            DetectedWindow::OverAMinute
        );
        assert_eq!(
            detector.detect(&status(1_000, 2, 30.0, LimitWindow::Unknown), now),
            DetectedWindow::OverAMinute
        );
        assert_eq!(
            detector.detect(&status(60, 2, 30.0, LimitWindow::Unknown), now),
            DetectedWindow::Known(MINUTE)
        );
    }

    #[test]
    fn a_window_of_one_second_is_distinguished_from_the_last_second_of_a_minute() {
        let mut detector = WindowDetector::default();
        let start = Instant::now();
        let kong = |remaining, reset| status(20, remaining, reset, LimitWindow::Unknown);
        for at in [0, 2, 4] {
            let now = start + Duration::from_secs(at);
            assert_eq!(detector.detect(&kong(12, 1.0), now), DetectedWindow::Undecided, "after {at} s");
        }
        assert_eq!(
            detector.detect(&kong(12, 1.0), start + Duration::from_secs(6)),
            DetectedWindow::Known(SECOND)
        );
        // Nothing is used: a second and a minute look alike.
        assert_eq!(
            detector.detect(&kong(19, 1.0), start + Duration::from_secs(7)),
            DetectedWindow::Known(SECOND)
        );
        // The reset time of a minute counts down.
        let mut detector = WindowDetector::default();
        for minute in 0..5 {
            for (second, reset) in [(57, 3.0), (58, 2.0), (59, 1.0), (60, 60.0)] {
                let now = start + Duration::from_secs(minute * 60 + second);
                assert_ne!(
                    detector.detect(&kong(5, reset), now),
                    DetectedWindow::Known(SECOND),
                    "{minute}:{second}"
                );
            }
        }
        // A call in the last second of every minute does not show a window of one second.
        let mut detector = WindowDetector::default();
        for minute in 1..10 {
            let now = start + Duration::from_secs(minute * 60 - 1);
            assert_ne!(detector.detect(&kong(5, 1.0), now), DetectedWindow::Known(SECOND));
        }
    }

    #[test]
    fn a_stated_window_is_used() {
        let mut detector = WindowDetector::default();
        let now = Instant::now();
        for (seconds, expected) in [
            (1, DetectedWindow::Known(SECOND)),
            (60, DetectedWindow::Known(MINUTE)),
            (3_600, DetectedWindow::OverAMinute),
        ] {
            let window = LimitWindow::Fixed(Duration::from_secs(seconds));
            assert_eq!(detector.detect(&status(20, 19, 1.0, window), now), expected);
        }
    }
}
