//! Why a target can answer no request now: the reason for which a run holds.
//!
//! Read-only.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{BreakerState, TripReason};
use crate::types::{Cause, Class, Failure, ModelName};

use crate::provider::admission::scheduler::Scheduler;
use crate::provider::target::{ASSUMED_TOKEN_COST, Target};

/// Why a target can answer no request now.
#[derive(Debug, Clone, PartialEq)]
pub struct Outage {
    /// The failure that is the reason.
    pub failure: Failure,
    /// When to try again; `None` if that is now, or if a probe is in flight.
    pub retry_at: Option<Instant>,
    /// Whether a probe is in flight.
    pub is_probing: bool,
    /// Whether the provider or a limit named that time: before it no attempt can succeed.
    pub is_retry_at_binding: bool,
    /// Whether waiting can help. A refused key that does not come from a file stays refused.
    pub can_recover: bool,
    /// Whether the failure of a single request is all that shows it: another request may be answered.
    pub is_shown_by_one_request: bool,
}

impl Scheduler {
    /// Returns why `model` can answer no request within `max_wait`; `None` if it may answer some.
    pub(in crate::provider) fn outage(
        &self,
        model: &ModelName,
        max_wait: Duration,
        now: Instant,
    ) -> Option<Outage> {
        if let Some(failure) = self.out_of_service(model) {
            return Some(Outage {
                failure,
                retry_at: None,
                // No request is sent as a probe: only an operator or a reload ends it.
                is_probing: true,
                is_retry_at_binding: false,
                can_recover: true,
                is_shown_by_one_request: false,
            });
        }
        let target = self.targets.get(model)?;
        self.no_usable_key(model, now)
            .or_else(|| self.unreachable(target, now))
            .or_else(|| self.held_by_limits(target, max_wait, now))
    }

    fn no_usable_key(&self, model: &ModelName, now: Instant) -> Option<Outage> {
        let (until, failure) = self.keys.cooldown_of_all(model, now)?;
        let is_retry_at_binding = failure.retry_after.is_some();
        let has_answered = self.targets.values().any(|target| target.counts.answered > 0);
        let can_recover = failure.class != Class::Auth || has_answered && self.keys.any_has_file();
        let is_shown_by_one_request = self.keys.any_is_refused_by_one_request(model, now);
        Some(Outage {
            failure: failure.clone(),
            retry_at: Some(until),
            is_probing: false,
            is_retry_at_binding,
            can_recover,
            is_shown_by_one_request,
        })
    }

    fn unreachable(&self, target: &Target, now: Instant) -> Option<Outage> {
        let is_down = |breaker: &crate::guard::Breaker| {
            let trouble = breaker.trip_reason().filter(|trouble| *trouble != TripReason::FailureRate);
            trouble.is_some() && breaker.state(now) != BreakerState::Closed
        };
        let (breaker, last) = if is_down(&self.endpoint_breaker) {
            (&self.endpoint_breaker, self.last_connect_error.as_ref())
        } else if is_down(&target.breaker) {
            (&target.breaker, target.last_failure.as_ref())
        } else {
            return None;
        };
        let unresponsive =
            || Failure::new(Class::Timeout, "the provider accepts requests and does not answer");
        let failure = last.cloned().unwrap_or_else(unresponsive);
        // An address that has only ever sent responses that no API sends does not recover by waiting, nor does
        // a model that does not exist.
        let is_misconfigured =
            failure.cause.is_some_and(Cause::is_not_an_api) || failure.class == Class::NotFound;
        let can_recover = !is_misconfigured || target.counts.answered > 0;
        let retry_at = breaker.open_until(now);
        let is_probing = breaker.is_probing();
        Some(Outage {
            failure,
            retry_at,
            is_probing,
            is_retry_at_binding: false,
            can_recover,
            is_shown_by_one_request: false,
        })
    }

    fn held_by_limits(&self, target: &Target, max_wait: Duration, now: Instant) -> Option<Outage> {
        let need = target.mean_token_cost().unwrap_or(ASSUMED_TOKEN_COST);
        let expected = self.limits.expected_at(0, need, now).max(target.limits.expected_at(0, need, now));
        if expected.saturating_duration_since(now) <= max_wait {
            return None;
        }
        let failure = if self.held_for(target, now) > max_wait {
            let throttled = || Failure::new(Class::RateLimit, "the provider asked to wait");
            target.hold_failure.clone().unwrap_or_else(throttled)
        } else {
            let message = "its configured limits (requests_per_day) admit no request";
            Failure::new(Class::Quota, message).with_cause(Cause::ConfiguredLimit)
        };
        Some(Outage {
            failure,
            retry_at: Some(expected),
            is_probing: false,
            is_retry_at_binding: true,
            can_recover: true,
            is_shown_by_one_request: false,
        })
    }
}
