//! How many items of a run may fail for their own reasons before it pauses.
//!
//! Pure.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Items that may fail in a row, with none completed between them, where nothing else is set.
const IN_A_ROW: u64 = 50;

/// Items that have to settle before a share of them says something.
const MIN_SETTLED: u64 = 50;

/// How many items may fail in a session before it pauses: written `100`, `"5%"` or `"none"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MaxFailures {
    /// 50 items in a row, with none completed between them.
    #[default]
    InARow,
    /// This many.
    Count(u64),
    /// More than this share of those that settled, in millionths; judged from the 50th item on.
    Share(u32),
    /// Any number.
    Unlimited,
}

impl FromStr for MaxFailures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                r#"expected a number of items such as 100, a share such as "5%", or "none", not {text:?}"#
            )
        };
        let text = text.trim();
        if text == "none" {
            return Ok(Self::Unlimited);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
            let is_share = percent > 0.0 && percent < 100.0;
            return if is_share { Ok(Self::Share((percent * 1e4).round() as u32)) } else { Err(wrong()) };
        }
        match text.parse() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(count) => Ok(Self::Count(count)),
        }
    }
}

impl fmt::Display for MaxFailures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InARow => write!(out, "{IN_A_ROW} in a row"),
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
        from.deserialize_any(EitherForm)
    }
}

struct EitherForm;

impl Visitor<'_> for EitherForm {
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

/// Counts the items of a session that fail.
#[derive(Debug, Default)]
pub(super) struct FailureLimit {
    max: MaxFailures,
    failed: u64,
    settled: u64,
    /// Those that failed since the last one completed.
    in_a_row: u64,
}

impl FailureLimit {
    pub(super) fn new(max: MaxFailures) -> Self {
        Self { max, ..Self::default() }
    }

    /// Counts an item that has settled: completed, failed, or neither. Returns what is too much, in words.
    pub(super) fn count(&mut self, failed: bool, completed: bool) -> Option<String> {
        self.settled += 1;
        self.failed += u64::from(failed);
        self.in_a_row = if completed { 0 } else { self.in_a_row + u64::from(failed) };
        let Self { failed: count, settled, in_a_row, .. } = *self;
        let is_too_much = failed
            && match self.max {
                MaxFailures::InARow => in_a_row >= IN_A_ROW,
                MaxFailures::Count(most) => count >= most,
                MaxFailures::Share(millionths) => {
                    settled >= MIN_SETTLED && count as f64 * 1e6 > settled as f64 * f64::from(millionths)
                }
                MaxFailures::Unlimited => false,
            };
        is_too_much.then(|| match self.max {
            MaxFailures::InARow if in_a_row == settled => {
                format!("{count} items failed and none has completed")
            }
            MaxFailures::InARow => format!("{in_a_row} items failed in a row"),
            MaxFailures::Count(_) | MaxFailures::Share(_) | MaxFailures::Unlimited => {
                format!("{count} of {settled} items failed, and max_failures is {}", self.max)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns after how many items a session pauses of which every `nth` completes.
    fn pauses_after(max: &str, nth: u64) -> Option<u64> {
        let max = if max.is_empty() { MaxFailures::InARow } else { max.parse().unwrap() };
        let mut limit = FailureLimit::new(max);
        (1..=10_000).find(|item| limit.count(item % nth != 0, item % nth == 0).is_some())
    }

    #[test]
    fn a_session_in_which_nothing_completes_pauses_at_the_fiftieth_failure() {
        assert_eq!(pauses_after("", u64::MAX), Some(50));
        assert_eq!(pauses_after("", 40), None);
        assert_eq!(pauses_after("", 50), None);
        assert_eq!(pauses_after("", 51), Some(50));
        assert_eq!(pauses_after("none", u64::MAX), None);
    }

    #[test]
    fn fifty_failures_in_a_row_pause_a_session_however_many_items_completed_before() {
        let mut limit = FailureLimit::new(MaxFailures::default());
        for _ in 0..3 {
            (0..100).for_each(|_| assert!(limit.count(false, true).is_none()));
            (0..49).for_each(|_| assert!(limit.count(true, false).is_none()));
        }
        // One that is skipped is neither.
        assert!(limit.count(false, false).is_none());
        assert_eq!(limit.count(true, false).unwrap(), "50 items failed in a row");
    }

    #[test]
    fn a_number_and_a_share_pause_it_when_they_are_exceeded() {
        assert_eq!(pauses_after("100", 2), Some(199));
        assert_eq!(pauses_after("60%", 2), None);
        assert_eq!(pauses_after("40%", 2), Some(51));
        assert_eq!(pauses_after("0.5%", 2), Some(51));
    }

    #[test]
    fn what_is_no_limit_is_refused_and_what_is_one_reads_back() {
        for wrong in ["0", "-1", "0%", "100%", "many", "5 %5", ""] {
            assert!(wrong.parse::<MaxFailures>().is_err(), "{wrong}");
        }
        for right in ["100", "5%", "0.25%", "none"] {
            assert_eq!(right.parse::<MaxFailures>().unwrap().to_string(), right);
        }
    }
}
