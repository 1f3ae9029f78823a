//! A hold of a route that is in force: when its next probe is due, and whether its requests wait or fail.
//!
//! Pure: the caller passes `now` and random jitter.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Backoff;
use crate::provider::Outage;
use crate::types::{Failure, TargetName};

/// Wait between two probes if the provider names no time.
pub(super) const PROBE_BACKOFF: Backoff =
    Backoff { base: Duration::from_secs(2), max: Duration::from_secs(60) };

/// Time in a hold after which suspected requests (those that failed while others were answered) fail, if no
/// others are left. `MAX_HOLD_DIVISOR` shortens it, so that they fail before the run pauses.
pub(super) const MIN_HOLD_BEFORE_FAILING_SUSPECTED: Duration = Duration::from_secs(20);

/// Minimum number of failures during the hold before suspected requests fail.
const MIN_FAILURES_BEFORE_FAILING_SUSPECTED: u32 = 3;

/// `MIN_HOLD_BEFORE_FAILING_SUSPECTED` is at most the maximum hold time divided by this number.
const MAX_HOLD_DIVISOR: u32 = 2;

/// A hold that is in force.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hold {
    /// When it began.
    pub(super) since: Instant,
    /// The failure that caused it.
    pub(super) failure: Failure,
    /// The target, if it is the failure of a single target.
    pub(super) target: Option<TargetName>,
    /// When the next probe is due.
    pub(super) retry_at: Instant,
    /// The time before which no request can succeed, if the provider named one.
    pub(super) provider_retry_at: Option<Instant>,
    /// Whether waiting can end it.
    pub(super) is_recoverable: bool,
    /// What happens to its requests.
    pub(super) requests: HeldRequests,
    /// Probes that failed.
    failed_probes: u32,
    /// Requests that failed.
    pub(super) failures: u32,
    /// Whether a request is sent as the probe.
    pub(super) is_probing: bool,
    /// Whether the provider's state reports that an attempt is probing.
    pub(super) is_probed_by_target: bool,
    /// Whether the providers reported that no target is usable.
    is_outage: bool,
    /// The `retry_at` for which an item was already started, so that only one is.
    pub(super) item_started_for: Option<Instant>,
    /// Answers that the targets had given when it began.
    pub(super) answered_at_start: u64,
}

/// What happens to the requests of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldRequests {
    /// They wait for the next probe.
    Wait,
    /// They are not sent any more but fail.
    Fail,
    /// They fail because all of them failed while others were answered.
    FailSuspected,
}

impl Hold {
    /// Creates a hold that begins now.
    pub(super) fn new(failure: &Failure, target: Option<&TargetName>, answered: u64, now: Instant) -> Self {
        Self {
            since: now,
            failure: failure.clone(),
            target: target.cloned(),
            retry_at: now,
            provider_retry_at: None,
            is_recoverable: true,
            requests: HeldRequests::Wait,
            failed_probes: 0,
            failures: 0,
            is_probing: false,
            is_probed_by_target: false,
            is_outage: false,
            item_started_for: None,
            answered_at_start: answered,
        }
    }

    /// Returns whether the session must end: waiting does not help, or not within `max_hold`.
    pub(super) fn must_end_session(&self, max_hold: Option<Duration>, now: Instant) -> bool {
        let is_over = |max: Duration| {
            let end = self.since.checked_add(max);
            end.is_some_and(|end| now >= end || self.provider_retry_at.is_some_and(|at| at > end))
        };
        self.requests == HeldRequests::Wait && (!self.is_recoverable || max_hold.is_some_and(is_over))
    }

    /// Returns whether suspected requests may be failed: nothing was answered for a while, or waiting does not
    /// help.
    pub(super) fn may_fail_suspected(&self, max_hold: Option<Duration>, now: Instant) -> bool {
        let time = max_hold.map_or(MIN_HOLD_BEFORE_FAILING_SUSPECTED, |max| {
            MIN_HOLD_BEFORE_FAILING_SUSPECTED.min(max / MAX_HOLD_DIVISOR)
        });
        let is_long = || {
            self.failures >= MIN_FAILURES_BEFORE_FAILING_SUSPECTED
                && self.since.checked_add(time).is_some_and(|end| now >= end)
                && self.provider_retry_at.is_none_or(|at| at <= now)
        };
        self.requests == HeldRequests::Wait && (!self.is_recoverable || is_long())
    }

    /// Fails its requests, for the reason `how`. Returns whether they waited before.
    pub(super) fn fail_requests(&mut self, how: HeldRequests) -> bool {
        let waited = self.requests == HeldRequests::Wait;
        if waited {
            self.requests = how;
        }
        waited
    }

    /// Records that a request failed when a probe was due, and schedules the next probe: at once if `is_urgent`
    /// and the provider names no time.
    pub(super) fn schedule_probe(
        &mut self,
        failure: &Failure,
        is_urgent: bool,
        (now, jitter): (Instant, f64),
    ) {
        if self.retry_at > now {
            return;
        }
        self.failed_probes = self.failed_probes.saturating_add(1);
        self.provider_retry_at = failure.credible_retry_after().map(|wait| now + wait);
        let wait = if is_urgent {
            Duration::ZERO
        } else {
            PROBE_BACKOFF.wait(self.failed_probes, jitter).max(PROBE_BACKOFF.base)
        };
        self.retry_at = self.provider_retry_at.unwrap_or(now + wait);
    }

    /// Takes over what the providers report: no target is usable.
    pub(super) fn set_outage(&mut self, outage: Outage, target: Option<TargetName>) {
        self.is_outage = true;
        self.provider_retry_at = outage.retry_at.filter(|_| outage.is_retry_at_binding);
        self.is_recoverable = outage.can_recover;
        self.is_probed_by_target = outage.is_probing;
        if let Some(at) = outage.retry_at {
            self.retry_at = at;
        }
        self.failure = outage.failure;
        self.target = target;
    }

    /// Records that a target is usable. Returns whether the providers reported none before: the event for which
    /// the outage waited came early, for example a new key in its file. Then a probe is due.
    pub(super) fn end_outage(&mut self, now: Instant) -> bool {
        let was_outage = std::mem::replace(&mut self.is_outage, false);
        if was_outage {
            self.retry_at = now;
            self.provider_retry_at = None;
        }
        was_outage
    }
}
