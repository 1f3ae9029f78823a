//! Estimate of a rate limit that neither the configuration nor a header states, from 429 responses alone.
//!
//! A 429 response means that the provider's bucket or window was empty when the call arrived. So the limit
//! is the amount accepted between two 429 responses, divided by the time between them. This holds for a
//! token bucket of any size and for a fixed window, unless the bucket was full for a part of the time, and
//! then the limit is higher. The limit lies between this *measured rate* and the rate at which calls were
//! sent when one was rejected. The estimate is `measured + trust * (sent - measured)`. `trust` falls when
//! the estimate proves too high (a 429 response before it was reached again) or when the provider counts by
//! windows, and rises when it proves too low.
//!
//! Between 429 responses the rate is increased as CUBIC does (RFC 9438, section 4.2), an algorithm that
//! finds an unknown capacity from losses alone, stays near it, and rarely probes beyond it:
//!
//! ```text
//! rate(x) = estimate * (1 - REDUCTION_DEPTH * (1 - x)^3)   x < 1
//! rate(x) = estimate * (1 + GROWTH_STEEPNESS * (x - 1)^3)   x >= 1
//! ```
//!
//! `x` counts accepted calls instead of RFC 9438's seconds: it grows by 1 in 25 calls or in one minute of
//! calls, whichever are more. Hence at most one probe in about 50 calls at low rates, none in an unused
//! minute, and a provider's minute passes before the estimate is exceeded. The first 429 response starts a
//! search from what the last minute accepted, and the rate grows with every call (slow start, RFC 5681)
//! until the next one.
//!
//! Not every 429 response is caused by a limit. One that comes after many accepted calls is tolerated
//! (`tolerance.rs`). One that comes after ten or more lowers the estimate only by the share of rejected
//! calls. Below the estimate the rate drifts upward by [`DRIFT_PER_CALL`] with each accepted call, so that
//! few rejections at random never add up. If 429 responses have lowered the estimate much and then cease
//! for a plateau, the search restarts, because the 429 responses came from an incident or the limit has
//! risen.
//!
//! The resource is what the 429 responses name: requests or tokens; requests if they name nothing. Pure.

mod send_record;
mod tolerance;
mod tracked_limit;

use std::time::Duration;

use tokio::time::Instant;

use crate::types::RateLimitResource;

pub(super) use send_record::SendRecord;
use send_record::{Amount, LastMinute};
use tolerance::Tolerance;
use tracked_limit::{MAX_SEARCH_THROTTLES, Phase, Throttle, TrackedLimit};

/// Accepted calls, and the time at the present rate, from a 429 response until the estimate is reached
/// again.
const PLATEAU_CALLS: f64 = 25.0;
const PLATEAU_SECONDS: f64 = 60.0;

/// Growth of the rate in the search: with each accepted call, and per second (natural logarithms).
const SEARCH_PER_CALL: f64 = 0.35;
const SEARCH_PER_SECOND: f64 = 0.4;

/// Growth of the estimate with each accepted call before it is reached: rejections of one call in a hundred
/// that do not depend on the rate must not lower it permanently.
const DRIFT_PER_CALL: f64 = 0.0002;

/// Number of 429 responses that are stored to measure between.
const MAX_THROTTLES: usize = 4;

/// The pause after a 429 response that names no wait: in calls at the present rate, bounded, and as a share
/// of the time since the provider last accepted a call.
const PAUSE_CALLS: f64 = 1.0;
const PAUSE_CALLS_AFTER_WINDOW: f64 = 2.0;

/// The pause after the wait that a 429 response names, in calls. At that time a bucket has permits for just
/// one call: every rate that is only slightly too high would be rejected again.
const PAUSE_CALLS_AFTER_NAMED_WAIT: f64 = 0.5;
const MAX_PAUSE_BY_CALLS_SECONDS: f64 = 10.0;
const PAUSE_SHARE_OF_THROTTLED_TIME: f64 = 0.25;
const MIN_PAUSE_SECONDS: f64 = 0.25;
const MAX_PAUSE_SECONDS: f64 = 60.0;

/// The estimate of the limit of one account or model.
#[derive(Debug)]
pub(super) struct RateEstimate {
    resource: RateLimitResource,
    sent: Amount,
    throttled: Amount,
    last_minute: LastMinute,
    last_sent_at: Option<Instant>,
    /// `None` before 429 responses showed a limit.
    tracked: Option<TrackedLimit>,
    tolerance: Tolerance,
}

/// A limit as it is estimated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct EstimatedLimit {
    pub(super) resource: RateLimitResource,
    pub(super) per_minute: f64,
}

impl RateEstimate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            resource: RateLimitResource::Requests,
            sent: Amount::default(),
            throttled: Amount::default(),
            last_minute: LastMinute::new(now),
            last_sent_at: None,
            tracked: None,
            tolerance: Tolerance::default(),
        }
    }

    /// Returns the estimated limit; `None` before the first 429 response.
    pub(super) fn limit(&self) -> Option<EstimatedLimit> {
        let tracked = self.tracked.as_ref()?;
        Some(EstimatedLimit { resource: self.resource, per_minute: tracked.rate() * 60.0 })
    }

    /// Returns whether the rate is only a guess: no call may be rejected because of it.
    pub(super) fn is_searching(&self) -> bool {
        self.tracked.as_ref().is_some_and(|tracked| matches!(tracked.phase, Phase::Search { .. }))
    }

    /// Discards the estimate: a limit is known now.
    pub(super) fn reset(&mut self) {
        self.tracked = None;
    }

    /// Counts a call that is being sent and typically uses this many tokens.
    pub(super) fn record_sent(&mut self, tokens: u64, now: Instant) -> SendRecord {
        let amount = Amount::call(tokens);
        self.sent += amount;
        self.last_minute.add(amount, now);
        let interval = self.last_sent_at.map(|last| now.saturating_duration_since(last).as_secs_f64());
        self.last_sent_at = Some(now);
        let expected = self.tracked.as_ref().map(|tracked| self.per_call() / tracked.rate());
        // The acceptance of a call shows nothing about a rate that is not used.
        let in_use = interval.zip(expected).is_some_and(|(interval, expected)| interval <= expected * 1.5);
        SendRecord { sent_at: now, amount, total_sent: self.sent, in_use }
    }

    /// Undoes [`Self::record_sent`] for a call that was not sent.
    pub(super) fn rollback(&mut self, call: &SendRecord) {
        self.sent -= call.amount;
        self.last_minute.remove(call);
    }

    /// Records that the provider accepted a call. `is_rate_limited` is whether the limit held calls back
    /// when it was sent.
    pub(super) fn record_accepted(&mut self, call: &SendRecord, is_rate_limited: bool) {
        let per_call = self.per_call();
        let Some(tracked) = &mut self.tracked else { return };
        tracked.empty_throttles = 0;
        if !is_rate_limited || !call.in_use || call.sent_at <= tracked.throttled_at {
            return;
        }
        let calls_per_second = tracked.rate() / per_call;
        match &mut tracked.phase {
            Phase::Search { throttles_left, growth } => {
                let damping = 0.5_f64.powi(MAX_SEARCH_THROTTLES.saturating_sub(*throttles_left) as i32);
                *growth *= (SEARCH_PER_CALL.min(SEARCH_PER_SECOND / calls_per_second) * damping).exp();
            }
            Phase::Track { progress } => {
                if *progress < 1.0 && !tracked.is_window {
                    tracked.estimate *= 1.0 + DRIFT_PER_CALL;
                }
                *progress += 1.0 / PLATEAU_CALLS.max(PLATEAU_SECONDS * calls_per_second);
                tracked.search_after_fall();
            }
        }
    }

    /// Records a 429 response. `resource` and `named_wait` are as stated in it. Returns how long to wait,
    /// counted from the end of the named wait if there is one; `None` for the first that shows a limit.
    pub(super) fn record_throttled(
        &mut self,
        call: &SendRecord,
        resource: Option<RateLimitResource>,
        named_wait: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        self.set_resource(resource.unwrap_or(self.resource));
        self.throttled += call.amount;
        self.last_minute.remove(call);
        // Calls sent later have not arrived yet and may be rejected too.
        let accepted = call.total_sent - self.throttled;
        let is_new = self.tracked.as_ref().is_none_or(|tracked| call.sent_at > tracked.throttled_at);
        let is_expected = self.tracked.as_ref().is_some_and(TrackedLimit::has_reached_estimate);
        if is_new && self.tolerance.tolerates(accepted) && !is_expected {
            return Some(Duration::ZERO);
        }
        let per_call = self.per_call();
        let resource = self.resource;
        let throttle = Throttle { at: now, sent: self.sent, accepted: self.sent - self.throttled };
        let Some(tracked) = &mut self.tracked else {
            let mut tracked = TrackedLimit::new(throttle);
            tracked.start(self.last_minute.per_second(now, resource), per_call, named_wait, now);
            self.tracked = Some(tracked);
            return None;
        };
        if call.sent_at <= tracked.throttled_at {
            tracked.correct_accepted(call);
            if tracked.throttles.len() == 1 && tracked.empty_throttles == 0 {
                tracked.start(self.last_minute.per_second(now, resource), per_call, named_wait, now);
            }
            return self.pause(named_wait, now);
        }
        tracked.throttled_at = now;
        let last = tracked.throttles.back().map(|last| last.accepted).unwrap_or_default();
        if (accepted - last).calls < 0.5 {
            tracked.record_empty_throttle(per_call, now);
            return self.pause(named_wait, now);
        }
        tracked.record_throttle(resource, per_call, accepted, call.sent_at, now, named_wait);
        tracked.throttles.push_back(throttle);
        if tracked.throttles.len() > MAX_THROTTLES {
            tracked.throttles.pop_front();
        }
        self.pause(named_wait, now)
    }

    /// Returns how long to wait after a 429 response, or after the wait that it names.
    fn pause(&self, named_wait: Option<Duration>, now: Instant) -> Option<Duration> {
        let tracked = self.tracked.as_ref()?;
        if named_wait.is_some() {
            let calls = if tracked.is_window { 0.0 } else { PAUSE_CALLS_AFTER_NAMED_WAIT };
            let pause = calls * self.per_call() / tracked.rate();
            return Some(Duration::from_secs_f64(pause.min(MAX_PAUSE_BY_CALLS_SECONDS)));
        }
        let calls = if tracked.is_window { PAUSE_CALLS_AFTER_WINDOW } else { PAUSE_CALLS };
        let by_calls = (calls * self.per_call() / tracked.rate()).min(MAX_PAUSE_BY_CALLS_SECONDS);
        let throttled_for = now.saturating_duration_since(tracked.throttled_since).as_secs_f64();
        let by_time =
            if tracked.empty_throttles > 0 { throttled_for * PAUSE_SHARE_OF_THROTTLED_TIME } else { 0.0 };
        let pause = by_calls.max(by_time).clamp(MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS);
        Some(Duration::from_secs_f64(pause))
    }

    /// Changes the resource and converts the estimate to it.
    fn set_resource(&mut self, resource: RateLimitResource) {
        if resource == self.resource {
            return;
        }
        let before = self.per_call();
        self.resource = resource;
        let factor = self.per_call() / before;
        if let Some(tracked) = &mut self.tracked {
            tracked.estimate *= factor;
        }
    }

    /// Returns how many units a call takes on average.
    fn per_call(&self) -> f64 {
        (self.sent.of(self.resource) / self.sent.calls.max(1.0)).max(1.0)
    }
}

#[cfg(test)]
mod tests;
