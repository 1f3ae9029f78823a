//! Finds out over which time an advertised limit counts, where its headers do not say so.
//!
//! Vendors count by the minute, and some by the day under the same names (Groq). Gateways send one set of names for a
//! second, a minute or a day (Kong). What tells them apart is when the limit is whole again. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::LimitWindow;

use super::standing::Standing;

/// A limit that is whole again later than this is not counted by the minute.
const MINUTE_AT_MOST: Duration = Duration::from_secs(70);

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const DAY_SECONDS: f64 = 86_400.0;

/// How long, and how often, a reset time must be that of a second's window until it is one: longer than the
/// last seconds of a minute last.
const SECONDS_FOR: Duration = Duration::from_secs(5);
const SECONDS_TIMES: u32 = 3;
/// Two such reset times that are further apart may be of two minutes.
const SECONDS_APART: Duration = Duration::from_secs(50);
/// The longest reset time of a second's window, rounded up.
const SECONDS_RESET: Duration = Duration::from_secs(2);

/// Reset times are rounded to seconds.
const ROUNDED: f64 = 1.0;

/// Over which time a limit counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Counted {
    /// This time.
    Over(Duration),
    /// More than a minute: it is no pace.
    ForLong,
    /// What was said so far does not tell.
    Unclear,
}

/// What one limit's reset times have shown.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// The limit that was whole again only after more than a minute.
    long: Option<u64>,
    /// A limit whose reset time may be that of a day's, and the one that came with it.
    day: Option<(u64, u64)>,
    seconds: Option<Seconds>,
}

/// Reset times of a second's window.
#[derive(Debug, Clone, Copy)]
struct Seconds {
    since: Instant,
    last: Instant,
    times: u32,
}

impl Seconds {
    fn is_sure(&self) -> bool {
        self.times >= SECONDS_TIMES && self.last.saturating_duration_since(self.since) >= SECONDS_FOR
    }
}

impl Windows {
    /// Learns from what was said at `at`, and returns over which time the limit counts.
    pub(super) fn of(&mut self, standing: &Standing, at: Instant) -> Counted {
        let unknown = match standing.window {
            LimitWindow::Is(window) if window > MINUTE_AT_MOST => return Counted::ForLong,
            LimitWindow::Is(window) => return Counted::Over(window.max(Duration::from_millis(1))),
            LimitWindow::OfVendor => false,
            LimitWindow::Unknown => true,
        };
        if standing.reset.is_some_and(|reset| reset > MINUTE_AT_MOST) {
            self.long = standing.limit.or(self.long);
            self.seconds = None;
            return Counted::ForLong;
        }
        // In its last minute a day looks like a minute.
        if self.long.is_some() && self.long == standing.limit {
            return Counted::ForLong;
        }
        let Some((limit, reset)) = standing.limit.zip(standing.reset) else { return Counted::Over(MINUTE) };
        let missing = limit.saturating_sub(standing.remaining) as f64;
        let reset = reset.as_secs_f64();
        let of_bucket = |seconds: f64| missing * seconds / limit.max(1) as f64;
        if self.is_of_a_day(standing, limit, (reset, of_bucket(60.0), of_bucket(DAY_SECONDS))) {
            return if self.long.is_some() { Counted::ForLong } else { Counted::Unclear };
        }
        if unknown { self.of_gateway((reset, of_bucket(60.0)), at) } else { Counted::Over(MINUTE) }
    }

    /// Tells a bucket that is filled over a day from one of a minute, where little of it is used. One reply may be a
    /// coincidence; two that differ are not.
    fn is_of_a_day(
        &mut self,
        standing: &Standing,
        limit: u64,
        (reset, of_minute, of_day): (f64, f64, f64),
    ) -> bool {
        let is_like =
            (reset - of_day).abs() <= ROUNDED.max(of_day * 0.02) && reset > of_minute + 2.0 * ROUNDED;
        if !is_like {
            self.day = None;
            return false;
        }
        if self.day.is_some_and(|(same, remaining)| same == limit && remaining != standing.remaining) {
            self.long = Some(limit);
        }
        self.day = Some((limit, standing.remaining));
        true
    }

    /// A gateway's limit that is whole again sooner than a minute's bucket would be is a second's, or a minute's that
    /// is about to end.
    fn of_gateway(&mut self, (reset, of_minute): (f64, f64), at: Instant) -> Counted {
        if reset > SECONDS_RESET.as_secs_f64() {
            self.seconds = None;
            return Counted::Over(MINUTE);
        }
        let is_short = reset > 0.0 && reset + ROUNDED < of_minute;
        let recent = self.seconds.filter(|seen| at.saturating_duration_since(seen.last) <= SECONDS_APART);
        if is_short {
            let seen = recent.unwrap_or(Seconds { since: at, last: at, times: 0 });
            self.seconds = Some(Seconds { last: seen.last.max(at), times: seen.times + 1, ..seen });
        }
        match self.seconds {
            Some(seen) if seen.is_sure() => Counted::Over(SECOND),
            Some(_) if is_short => Counted::Unclear,
            _ => Counted::Over(MINUTE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(limit: u64, remaining: u64, seconds: f64, window: LimitWindow) -> Standing {
        Standing { limit: Some(limit), remaining, reset: Some(Duration::from_secs_f64(seconds)), window }
    }

    #[test]
    fn the_first_replies_of_a_day_are_not_a_minutes() {
        let (mut windows, now) = (Windows::default(), Instant::now());
        // 14,400 a day come back one each six seconds.
        for used in 1..=3 {
            let standing = said(14_400, 14_400 - used, 6.0 * used as f64, LimitWindow::OfVendor);
            let is = if used == 1 { Counted::Unclear } else { Counted::ForLong };
            assert_eq!(windows.of(&standing, now), is, "after {used}");
        }
        // OpenAI's 500 a minute.
        let mut windows = Windows::default();
        assert_eq!(windows.of(&said(500, 499, 0.12, LimitWindow::OfVendor), now), Counted::Over(MINUTE));
        // A fixed minute that has just begun.
        assert_eq!(windows.of(&said(60, 59, 59.0, LimitWindow::OfVendor), now), Counted::Over(MINUTE));
    }

    #[test]
    fn the_last_minute_of_a_day_is_not_a_minutes_limit() {
        let (mut windows, now) = (Windows::default(), Instant::now());
        assert_eq!(windows.of(&said(1_000, 3, 400.0, LimitWindow::Unknown), now), Counted::ForLong);
        assert_eq!(windows.of(&said(1_000, 2, 30.0, LimitWindow::Unknown), now), Counted::ForLong);
        assert_eq!(windows.of(&said(60, 2, 30.0, LimitWindow::Unknown), now), Counted::Over(MINUTE));
    }

    #[test]
    fn a_gateways_second_is_told_from_the_last_second_of_its_minute() {
        let (mut windows, start) = (Windows::default(), Instant::now());
        let kong = |remaining, reset| said(20, remaining, reset, LimitWindow::Unknown);
        for at in [0, 2, 4] {
            let now = start + Duration::from_secs(at);
            assert_eq!(windows.of(&kong(12, 1.0), now), Counted::Unclear, "after {at} s");
        }
        assert_eq!(windows.of(&kong(12, 1.0), start + Duration::from_secs(6)), Counted::Over(SECOND));
        // Nothing used: either would be so.
        assert_eq!(windows.of(&kong(19, 1.0), start + Duration::from_secs(7)), Counted::Over(SECOND));
        // A minute's counts down.
        let mut windows = Windows::default();
        for minute in 0..5 {
            for (second, reset) in [(57, 3.0), (58, 2.0), (59, 1.0), (60, 60.0)] {
                let now = start + Duration::from_secs(minute * 60 + second);
                assert_ne!(windows.of(&kong(5, reset), now), Counted::Over(SECOND), "{minute}:{second}");
            }
        }
        // A call in the last second of every minute does not make it a second's.
        let mut windows = Windows::default();
        for minute in 1..10 {
            let now = start + Duration::from_secs(minute * 60 - 1);
            assert_ne!(windows.of(&kong(5, 1.0), now), Counted::Over(SECOND));
        }
    }

    #[test]
    fn a_window_that_is_named_is_believed() {
        let (mut windows, now) = (Windows::default(), Instant::now());
        for (seconds, is) in
            [(1, Counted::Over(SECOND)), (60, Counted::Over(MINUTE)), (3_600, Counted::ForLong)]
        {
            let window = LimitWindow::Is(Duration::from_secs(seconds));
            assert_eq!(windows.of(&said(20, 19, 1.0, window), now), is);
        }
    }
}
