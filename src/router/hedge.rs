//! Whether the same question may go to a second lane while the first still works on it, and when.
//!
//! Such calls are paid for and mostly thrown away, so they are a small share of all calls and never sent
//! once everything is stopping. Picks no lane and calls nobody.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::duration;

use super::lane::LaneHandle;

/// The share of a lane's calls that end within what [`HedgeAfter::P95`] waits for.
const P95: f64 = 0.95;

/// Calls whose share may be saved up: a lane that falls silent is mostly met by many asks at once.
const REMEMBERED: f64 = 1_000.0;

/// How long a call is out before another lane is asked beside it. Written `"off"`, `"p95"` or as a duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HedgeAfter {
    /// No other lane is.
    #[default]
    Off,
    /// Longer than nineteen in twenty of the lane's latest calls took; never while too few are known.
    P95,
    /// So long.
    Time(Duration),
}

impl HedgeAfter {
    /// Returns how long to wait for a call to `lane`; `None` when for as long as it takes.
    pub(super) fn wait(self, lane: &LaneHandle) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::P95 => lane.provider.usual_time(&lane.name.model, P95),
            Self::Time(time) => Some(time),
        }
    }
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => out.write_str("off"),
            Self::P95 => out.write_str("p95"),
            Self::Time(time) => out.write_str(&duration::show(time)),
        }
    }
}

impl FromStr for HedgeAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "p95" => Ok(Self::P95),
            text => duration::parse(text).map(Self::Time).map_err(|_| {
                format!(r#"{text:?} is no time to wait; write "p95", "off", or a time such as "4s""#)
            }),
        }
    }
}

impl Serialize for HedgeAfter {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HedgeAfter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OffOrTime)
    }
}

struct OffOrTime;

impl Visitor<'_> for OffOrTime {
    type Value = HedgeAfter;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#""off", "p95", or a time such as "4s""#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HedgeAfter, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<HedgeAfter, E> {
        let time = format!("{}s", number.max(1));
        Err(E::custom(format!(r#"{number} has no unit; write hedge_after = {time:?}, "p95" or "off""#)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<HedgeAfter, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<HedgeAfter, E> {
        let word = if on { "p95" } else { "off" };
        Err(E::custom(format!(r#"`{on}` is no time; write hedge_after = {word:?}, or a time such as "4s""#)))
    }
}

/// What all asks of a router share about hedging.
#[derive(Debug)]
pub(super) struct Hedges {
    budget: Mutex<Budget>,
    draining: Arc<AtomicBool>,
}

impl Hedges {
    /// Allows this share of the calls, and none once `draining` is set.
    pub(super) fn new(share: f64, draining: Arc<AtomicBool>) -> Self {
        Self { budget: Mutex::new(Budget::new(share)), draining }
    }

    /// Counts a call that another might be sent beside.
    pub(super) fn called(&self) {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).called();
    }

    /// Returns whether everything is stopping.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Returns whether one more may be sent, and takes it.
    pub(super) fn take(&self) -> bool {
        !self.is_draining() && self.budget.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How many calls may still be sent beside others: a share of the latest calls, none before there were any.
#[derive(Debug)]
struct Budget {
    share: f64,
    left: f64,
}

impl Budget {
    fn new(share: f64) -> Self {
        Self { share, left: 0.0 }
    }

    fn called(&mut self) {
        let most = (self.share * REMEMBERED).max(1.0);
        self.left = (self.left + self.share).min(most);
    }

    fn take(&mut self) -> bool {
        // A twentieth added twenty times is a little less than one.
        let enough = self.left > 1.0 - 1e-6;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_is_allowed_once_its_share_of_calls_was_made() {
        let mut budget = Budget::new(0.05);
        let allowed: Vec<usize> = (1..=60)
            .filter(|_| {
                budget.called();
                budget.take()
            })
            .collect();
        assert_eq!(allowed, [20, 40, 60]);
    }

    #[test]
    fn what_is_saved_up_is_the_share_of_the_last_thousand_calls() {
        let mut budget = Budget::new(0.05);
        (0..1_000_000).for_each(|_| budget.called());
        assert_eq!((0..100).filter(|_| budget.take()).count(), 50);
    }

    #[test]
    fn none_is_sent_once_everything_is_stopping() {
        let draining = Arc::new(AtomicBool::new(false));
        let hedges = Hedges::new(1.0, draining.clone());
        (0..3).for_each(|_| hedges.called());
        assert!(hedges.take());
        draining.store(true, Relaxed);
        assert!(!hedges.take());
    }

    #[test]
    fn it_is_written_as_people_say_it() {
        for (text, after) in [
            ("off", HedgeAfter::Off),
            ("p95", HedgeAfter::P95),
            ("4s", HedgeAfter::Time(Duration::from_secs(4))),
        ] {
            assert_eq!((text.parse(), after.to_string()), (Ok(after), text.to_owned()));
        }
        let error = "p50".parse::<HedgeAfter>().unwrap_err();
        assert!(error.ends_with("; write \"p95\", \"off\", or a time such as \"4s\""), "{error}");
        let read = |written: &str| serde_json::from_str::<HedgeAfter>(written).unwrap_err().to_string();
        assert!(read("4").contains("write hedge_after = \"4s\""));
        assert!(read("false").contains("write hedge_after = \"off\""));
    }

    proptest! {
        #[test]
        fn never_more_than_the_share_of_all_calls(share in 0.001_f64..=1.0, takes in prop::collection::vec(any::<bool>(), 0..3_000)) {
            let mut budget = Budget::new(share);
            let mut taken = 0;
            for (calls, take) in takes.into_iter().enumerate() {
                budget.called();
                taken += usize::from(take && budget.take());
                prop_assert!(taken as f64 <= share * (calls + 1) as f64 + 1e-3, "{taken} of {}", calls + 1);
            }
        }
    }
}
