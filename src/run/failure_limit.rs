//! Limits how many items of a run may fail before it pauses, not counting failures of providers, limits
//! and accounts. Pure.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Consecutive failed items, with none completed between them, after which the run pauses by default.
const DEFAULT_MAX_CONSECUTIVE_FAILURES: u64 = 50;

/// Finished items before a share is evaluated.
const MIN_ITEMS_FOR_SHARE: u64 = 50;

/// How many items may fail in a session before it pauses. Written as `100`, `"5%"` or `"none"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxFailures {
    /// 50 consecutive items, with none completed between them.
    #[default]
    InARow,
    /// This many.
    Count(u64),
    /// More than this share of the finished items, in millionths; evaluated from the 50th item on.
    Share(u32),
    /// Any number.
    Unlimited,
}

impl FromStr for MaxFailures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                r#"expected a number of items such as 100, a share such as "5%", or "none", not {text:?}"#
            )
        };
        let text = text.trim();
        if text == "none" {
            return Ok(Self::Unlimited);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| invalid())?;
            let is_share = percent > 0.0 && percent < 100.0;
            return if is_share { Ok(Self::Share((percent * 1e4).round() as u32)) } else { Err(invalid()) };
        }
        match text.parse() {
            Ok(0) | Err(_) => Err(invalid()),
            Ok(count) => Ok(Self::Count(count)),
        }
    }
}

impl fmt::Display for MaxFailures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InARow => write!(out, "{DEFAULT_MAX_CONSECUTIVE_FAILURES} in a row"),
            Self::Count(count) => write!(out, "{count}"),
            Self::Share(millionths) => write!(out, "{}%", f64::from(*millionths) / 1e4),
            Self::Unlimited => out.write_str("none"),
        }
    }
}

impl Serialize for MaxFailures {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => to.serialize_u64(*count),
            Self::InARow | Self::Share(_) | Self::Unlimited => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for MaxFailures {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NumberOrText)
    }
}

struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = MaxFailures;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#"a number of items such as 100, a share such as "5%", or "none""#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<MaxFailures, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<MaxFailures, E> {
        count.to_string().parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<MaxFailures, E> {
        count.to_string().parse().map_err(E::custom)
    }
}

/// Counts the failed items of a session.
#[derive(Debug, Default)]
pub(super) struct FailureLimit {
    max: MaxFailures,
    failed: u64,
    finished: u64,
    /// Items that failed since the last one completed.
    consecutive: u64,
    /// The most items that failed without a completed one between them.
    max_consecutive: u64,
    has_completed: bool,
}

impl FailureLimit {
    pub(super) fn new(max: MaxFailures) -> Self {
        Self { max, ..Self::default() }
    }

    /// Counts a finished item: completed, failed, or neither. Returns a message if too many have failed.
    pub(super) fn count(&mut self, failed: bool, completed: bool) -> Option<String> {
        self.finished += 1;
        self.failed += u64::from(failed);
        self.consecutive = if completed { 0 } else { self.consecutive + u64::from(failed) };
        self.max_consecutive = self.max_consecutive.max(self.consecutive);
        self.has_completed |= completed;
        let Self { failed: count, finished, consecutive, .. } = *self;
        let is_exceeded = failed
            && match self.max {
                MaxFailures::InARow => consecutive >= DEFAULT_MAX_CONSECUTIVE_FAILURES,
                MaxFailures::Count(max) => count >= max,
                MaxFailures::Share(millionths) => {
                    finished >= MIN_ITEMS_FOR_SHARE
                        && count as f64 * 1e6 > finished as f64 * f64::from(millionths)
                }
                MaxFailures::Unlimited => false,
            };
        is_exceeded.then(|| self.message())
    }

    /// Returns how many items have failed by now, as far as the limit counts them. Items in flight may fail after
    /// the limit was reached.
    pub(super) fn message(&self) -> String {
        let Self { failed, finished, max_consecutive, .. } = self;
        match self.max {
            MaxFailures::InARow if !self.has_completed => {
                format!("{failed} items failed and none has completed")
            }
            MaxFailures::InARow => format!("{max_consecutive} items failed in a row"),
            MaxFailures::Count(_) | MaxFailures::Share(_) | MaxFailures::Unlimited => {
                format!("{failed} of {finished} items failed, and max_failures is {}", self.max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of items after which a session pauses if every `nth` item completes.
    fn pauses_after(max: &str, nth: u64) -> Option<u64> {
        let max = if max.is_empty() { MaxFailures::InARow } else { max.parse().unwrap() };
        let mut limit = FailureLimit::new(max);
        (1..=10_000).find(|item| limit.count(item % nth != 0, item % nth == 0).is_some())
    }

    #[test]
    fn a_session_without_completed_items_pauses_at_the_fiftieth_failure() {
        assert_eq!(pauses_after("", u64::MAX), Some(50));
        assert_eq!(pauses_after("", 40), None);
        assert_eq!(pauses_after("", 50), None);
        assert_eq!(pauses_after("", 51), Some(50));
        assert_eq!(pauses_after("none", u64::MAX), None);
    }

    #[test]
    fn fifty_consecutive_failures_pause_a_session_however_many_items_completed_before() {
        let mut limit = FailureLimit::new(MaxFailures::default());
        for _ in 0..3 {
            (0..100).for_each(|_| assert!(limit.count(false, true).is_none()));
            (0..49).for_each(|_| assert!(limit.count(true, false).is_none()));
        }
        // A skipped item is neither.
        assert!(limit.count(false, false).is_none());
        assert_eq!(limit.count(true, false).unwrap(), "50 items failed in a row");
    }

    #[test]
    fn the_message_counts_items_that_fail_after_the_limit_was_reached() {
        let mut limit = FailureLimit::new(MaxFailures::default());
        (0..50).for_each(|_| drop(limit.count(true, false)));
        assert_eq!(limit.message(), "50 items failed and none has completed");
        (0..3).for_each(|_| drop(limit.count(true, false)));
        assert_eq!(limit.message(), "53 items failed and none has completed");
        limit.count(false, true);
        assert_eq!(limit.message(), "53 items failed in a row");
        let mut limit = FailureLimit::new(MaxFailures::Count(2));
        (0..3).for_each(|_| drop(limit.count(true, false)));
        assert_eq!(limit.message(), "3 of 3 items failed, and max_failures is 2");
    }

    #[test]
    fn a_count_and_a_share_pause_a_session_when_they_are_exceeded() {
        assert_eq!(pauses_after("100", 2), Some(199));
        assert_eq!(pauses_after("60%", 2), None);
        assert_eq!(pauses_after("40%", 2), Some(51));
        assert_eq!(pauses_after("0.5%", 2), Some(51));
    }

    #[test]
    fn invalid_limits_are_refused_and_valid_ones_are_displayed_as_written() {
        for invalid in ["0", "-1", "0%", "100%", "many", "5 %5", ""] {
            assert!(invalid.parse::<MaxFailures>().is_err(), "{invalid}");
        }
        for valid in ["100", "5%", "0.25%", "none"] {
            assert_eq!(valid.parse::<MaxFailures>().unwrap().to_string(), valid);
        }
    }
}
