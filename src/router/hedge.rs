//! Hedging of slow calls: when a second call is sent to another target, and how many such calls are allowed.
//!
//! Hedges are charged, and most of their results are discarded. So they are limited to a ratio of all calls, and
//! none is sent while the program stops. This module selects no target and sends nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::duration;

/// The budget holds at most the hedge ratio times this many hedges. A target that becomes unresponsive usually
/// affects many requests at once.
const MAX_CREDITED_CALLS: f64 = 1_000.0;

/// The time in flight after which a call is hedged. Written `"off"`, `"p95"` or as a duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HedgeAfter {
    /// Calls are not hedged.
    #[default]
    Off,
    /// The 95th percentile of the latencies of the target's latest calls. No hedge while too few calls are known.
    P95,
    /// This time.
    Time(Duration),
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => out.write_str("off"),
            Self::P95 => out.write_str("p95"),
            Self::Time(time) => out.write_str(&duration::format(time)),
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
                format!(r#"{text:?} is not a duration; write "p95", "off", or a time such as "4s""#)
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
        from.deserialize_any(HedgeAfterVisitor)
    }
}

struct HedgeAfterVisitor;

impl Visitor<'_> for HedgeAfterVisitor {
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
        Err(E::custom(format!(
            r#"`{on}` is not a duration; write hedge_after = {word:?}, or a time such as "4s""#
        )))
    }
}

/// Limits the hedges of all requests of a router.
#[derive(Debug)]
pub(super) struct HedgeLimiter {
    budget: Mutex<HedgeBudget>,
    draining: Arc<AtomicBool>,
}

impl HedgeLimiter {
    /// Allows hedges for this ratio of the calls, and none as soon as `draining` is set.
    pub(super) fn new(ratio: f64, draining: Arc<AtomicBool>) -> Self {
        Self { budget: Mutex::new(HedgeBudget::new(ratio)), draining }
    }

    /// Sets the ratio of hedges to calls.
    pub(super) fn set_ratio(&self, ratio: f64) {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).ratio = ratio;
    }

    /// Counts a call that may be hedged.
    pub(super) fn record_call(&self) {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).record_call();
    }

    /// Returns whether the program stops.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Takes one hedge from the budget. Returns `false` if none is available.
    pub(super) fn try_take(&self) -> bool {
        !self.is_draining() && self.budget.lock().unwrap_or_else(PoisonError::into_inner).try_take()
    }
}

/// The number of hedges that may be sent: a ratio of the latest calls, initially zero.
#[derive(Debug)]
struct HedgeBudget {
    ratio: f64,
    available: f64,
}

impl HedgeBudget {
    fn new(ratio: f64) -> Self {
        Self { ratio, available: 0.0 }
    }

    fn record_call(&mut self) {
        let max = (self.ratio * MAX_CREDITED_CALLS).max(1.0);
        self.available = (self.available + self.ratio).min(max);
    }

    fn try_take(&mut self) -> bool {
        // 0.05 added 20 times is slightly less than 1.
        let is_available = self.available > 1.0 - 1e-6;
        if is_available {
            self.available -= 1.0;
        }
        is_available
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_hedge_is_allowed_per_twenty_calls_at_a_ratio_of_a_twentieth() {
        let mut budget = HedgeBudget::new(0.05);
        let allowed: Vec<usize> = (1..=60)
            .filter(|_| {
                budget.record_call();
                budget.try_take()
            })
            .collect();
        assert_eq!(allowed, [20, 40, 60]);
    }

    #[test]
    fn the_budget_accumulates_the_ratio_of_at_most_a_thousand_calls() {
        let mut budget = HedgeBudget::new(0.05);
        (0..1_000_000).for_each(|_| budget.record_call());
        assert_eq!((0..100).filter(|_| budget.try_take()).count(), 50);
    }

    #[test]
    fn no_hedge_is_sent_while_draining() {
        let draining = Arc::new(AtomicBool::new(false));
        let hedges = HedgeLimiter::new(1.0, draining.clone());
        (0..3).for_each(|_| hedges.record_call());
        assert!(hedges.try_take());
        draining.store(true, Relaxed);
        assert!(!hedges.try_take());
    }

    #[test]
    fn hedge_after_is_parsed_and_displayed_as_a_keyword_or_a_duration() {
        for (text, after) in [
            ("off", HedgeAfter::Off),
            ("p95", HedgeAfter::P95),
            ("4s", HedgeAfter::Time(Duration::from_secs(4))),
        ] {
            assert_eq!((text.parse(), after.to_string()), (Ok(after), text.to_owned()));
        }
        let error = "p50".parse::<HedgeAfter>().unwrap_err();
        assert!(error.ends_with("; write \"p95\", \"off\", or a time such as \"4s\""), "{error}");
        let error_of = |json: &str| serde_json::from_str::<HedgeAfter>(json).unwrap_err().to_string();
        assert!(error_of("4").contains("write hedge_after = \"4s\""));
        assert!(error_of("false").contains("write hedge_after = \"off\""));
    }

    proptest! {
        #[test]
        fn hedges_never_exceed_the_ratio_of_all_calls(
            ratio in 0.001_f64..=1.0,
            takes in prop::collection::vec(any::<bool>(), 0..3_000),
        ) {
            let mut budget = HedgeBudget::new(ratio);
            let mut taken = 0;
            for (calls, take) in takes.into_iter().enumerate() {
                budget.record_call();
                taken += usize::from(take && budget.try_take());
                prop_assert!(taken as f64 <= ratio * (calls + 1) as f64 + 1e-3, "{taken} of {}", calls + 1);
            }
        }
    }
}
