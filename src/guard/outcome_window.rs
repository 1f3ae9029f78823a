//! Recent outcomes of calls to one target: consecutive failures, and the failure rate over a window.
//!
//! This file decides when the breaker should trip; `breaker.rs` decides what follows.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::BreakerSettings;

/// Why the breaker tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TripReason {
    /// Only failures: the target is down.
    ConsecutiveFailures,
    /// The failure rate is too high: the target is impaired and still answers some calls.
    FailureRate,
    /// No response for much longer than usual; the target may only be slow.
    Unresponsive,
}

/// Maximum number of outcomes stored; at high rates the failure rate covers less than the whole window.
const MAX_OUTCOMES: usize = BreakerSettings::MAX_REMEMBERED as usize;

/// The fraction of the calls in flight that must have failed before failures are significant.
///
/// Failures come back faster than answers to calls sent at the same time: with many calls in flight, five
/// fast failures do not mean that all fail, and twenty do not show the failure rate. Calls in flight cost
/// nothing more, so the price of waiting is this fraction of the concurrency, and only if a target that is
/// down answers fast; if it is unresponsive, all calls are in flight before the first fails.
const IN_FLIGHT_DIVISOR: u32 = 4;

/// A streak of failures less probable than this is not chance, if calls fail at random with the previous
/// failure rate; `MIN_PRIOR_OUTCOMES` is the number of outcomes needed to know that rate, and
/// `MAX_REQUIRED_FAILURES` is the longest streak that is required.
const MAX_CHANCE_PROBABILITY: f64 = 1e-6;
const MIN_PRIOR_OUTCOMES: usize = 10;
const MAX_REQUIRED_FAILURES: u32 = 20;

/// What the failure of one call shows about other calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It may have failed all of them.
    Full,
    /// Only that there were too many calls, or it is open whether others fail: a streak then takes as many
    /// failures as there are calls in flight.
    Overload,
    /// Nothing: the target answered other calls meanwhile.
    Isolated,
}

/// Outcomes of one target since its breaker last changed its state.
#[derive(Debug, Default)]
pub(super) struct OutcomeWindow {
    /// Calls without an outcome yet.
    in_flight: u32,
    consecutive_failures: u32,
    /// How many of the consecutive failures were overload responses.
    consecutive_overloads: u32,
    /// Outcomes within the window: the instant, and whether the call failed.
    recent: VecDeque<(Instant, bool)>,
    recent_failures: usize,
}

impl OutcomeWindow {
    /// Counts a call that is being sent.
    pub(super) fn record_sent(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// Removes a call without recording an outcome.
    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Records a success.
    pub(super) fn record_success(&mut self, settings: &BreakerSettings, now: Instant) {
        self.release();
        self.consecutive_failures = 0;
        self.consecutive_overloads = 0;
        self.push(settings, now, false);
    }

    /// Records a failure.
    pub(super) fn record_failure(&mut self, settings: &BreakerSettings, evidence: Evidence, now: Instant) {
        self.release();
        self.push(settings, now, true);
        if evidence == Evidence::Isolated {
            return;
        }
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        self.consecutive_overloads =
            self.consecutive_overloads.saturating_add(u32::from(evidence == Evidence::Overload));
    }

    /// Returns whether there is a streak: at least `consecutive_failures` consecutive failures, and a
    /// quarter of the calls still in flight. A provider that is only overloaded rejects some calls and
    /// answers others, so a streak of overload responses takes as many as there are calls in flight. If
    /// calls failed before the streak, it takes as many failures as chance does not explain.
    pub(super) fn has_failure_streak(&self, settings: &BreakerSettings) -> bool {
        let are_overloads = self.consecutive_overloads == self.consecutive_failures;
        let by_in_flight = if are_overloads { self.in_flight } else { self.in_flight / IN_FLIGHT_DIVISOR };
        let configured = settings.consecutive_failures.get();
        self.consecutive_failures >= configured.max(by_in_flight).max(self.min_streak_beyond_chance())
    }

    /// Returns the length of a streak that chance does not explain, given the failure rate before it: `n`
    /// with `rate^n` below [`MAX_CHANCE_PROBABILITY`].
    fn min_streak_beyond_chance(&self) -> u32 {
        let streak = self.consecutive_failures as usize;
        let before = self.recent.len().saturating_sub(streak);
        let failed = self.recent_failures.saturating_sub(streak);
        if before < MIN_PRIOR_OUTCOMES || failed == 0 {
            return 0;
        }
        let length = MAX_CHANCE_PROBABILITY.ln() / (failed as f64 / before as f64).ln();
        // If all outcomes before the streak were failures, the length is infinite.
        let is_shorter = length.is_finite() && length < f64::from(MAX_REQUIRED_FAILURES);
        if is_shorter { length.ceil() as u32 } else { MAX_REQUIRED_FAILURES }
    }

    /// Returns whether the last call failed and a failure of all calls in flight would make a streak.
    pub(super) fn could_trip(&self, settings: &BreakerSettings) -> bool {
        let failures = self.consecutive_failures;
        failures > 0 && failures.saturating_add(self.in_flight) >= settings.consecutive_failures.get()
    }

    /// Returns why the breaker should trip, if it should.
    pub(super) fn trip_reason(&self, settings: &BreakerSettings) -> Option<TripReason> {
        if self.has_failure_streak(settings) {
            return Some(TripReason::ConsecutiveFailures);
        }
        let min_outcomes = settings.min_requests.get().max(self.in_flight / IN_FLIGHT_DIVISOR) as usize;
        let failure_rate = self.recent_failures as f64 / self.recent.len().max(1) as f64;
        let is_too_high = failure_rate >= settings.failure_rate;
        (self.recent.len() >= min_outcomes && is_too_high).then_some(TripReason::FailureRate)
    }

    fn push(&mut self, settings: &BreakerSettings, now: Instant, failed: bool) {
        self.recent.push_back((now, failed));
        self.recent_failures += usize::from(failed);
        while let Some((at, failed)) = self.recent.front().copied() {
            if self.recent.len() <= MAX_OUTCOMES && now.saturating_duration_since(at) <= settings.window {
                break;
            }
            self.recent.pop_front();
            self.recent_failures -= usize::from(failed);
        }
    }
}
