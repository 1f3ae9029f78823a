//! Decides when a run holds: all targets of a route are unusable for reasons other than the requests
//! themselves.
//!
//! A hold begins when requests fail for such a reason and no other request in flight could still show that a
//! target is usable, or when the providers report that none is usable. During a hold, requests of the route
//! wait, and one at a time is sent as a probe. The hold ends with the first answer.
//!
//! A request that is itself the cause of its failures must not be the probe every time. Probes are chosen in
//! this order: requests that have not failed (those in the router's queue, or one of an item that has not
//! started), then those that failed least often and longest ago. A request that failed while others were
//! answered is suspected and counts as if it had failed [`SUSPECTED_RETURNS`] more times. After a hold, failed
//! requests are sent again a few at a time, and more with each one that is answered. Pure: the caller passes
//! `now` and the providers' counts.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::hold::{HeldRequests, Hold};
use crate::provider::Outage;
use crate::types::{FailedAttempt, Failure, TargetName};

/// How long to wait for a request that has not failed to become the probe, before one that has failed is sent.
const FRESH_REQUEST_HEAD_START: Duration = Duration::from_secs(1);

/// How often to check whether a probe chosen by the provider's state has finished.
const TARGET_PROBE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Consecutive failed requests, with no answer between them, after which a hold begins.
const FAILURES_TO_HOLD: u32 = 3;

/// The same while attempts are pending that were sent before the first of these failures: their answers would
/// show that the targets work.
const FAILURES_TO_HOLD_WITH_PENDING_ATTEMPTS: u32 = 12;

/// Additional failures that a suspected request counts with when it is queued: a few of them would otherwise fail
/// every probe of a hold while a request that would succeed waits. Bounded, so that no request waits for ever.
const SUSPECTED_RETURNS: u32 = 8;

/// One resent request may be in flight per this many requests that have not failed.
const IN_FLIGHT_PER_RESEND: usize = 8;

/// Failed attempts that are remembered, so that requests that share one count as one failure. The requests of a joined
/// call fail together.
const MAX_REPORTED_ATTEMPTS: usize = 256;

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResendDecision {
    /// Send it.
    Send,
    /// Send it as the probe.
    Probe,
    /// Not before this time.
    WaitUntil(Instant),
    /// Not until the state changes.
    WaitForChange,
    /// Never: fail it.
    Fail,
}

/// The order in which requests are sent again: those first that failed least often and longest ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ResendPosition {
    returns: u32,
    number: u64,
}

/// State of one request of a route.
#[derive(Debug, Default)]
pub(super) struct RequestState {
    has_failed: bool,
    /// Whether it failed while others were answered.
    is_suspected: bool,
    /// The streak in which it is counted.
    streak: u64,
}

impl RequestState {
    /// Returns whether it failed while others were answered.
    pub(super) fn is_suspected(&self) -> bool {
        self.is_suspected
    }
}

/// Consecutive failed requests with no answer between them.
#[derive(Debug, Default)]
struct FailureStreak {
    number: u64,
    failures: u32,
    /// When the first of them failed, and the number of answers of the targets by then.
    since: Option<(Instant, u64)>,
}

impl FailureStreak {
    /// Counts a failed request, at most once. An answer since the first failure begins a new streak.
    fn count(&mut self, request: &mut RequestState, answered: u64, now: Instant) {
        if self.since.is_none_or(|(_, before)| answered > before) {
            *self = Self { number: self.number + 1, failures: 0, since: Some((now, answered)) };
        }
        if std::mem::replace(&mut request.streak, self.number) != self.number {
            self.failures += 1;
        }
    }

    /// Returns how many failed requests begin a hold. `oldest_pending` is when the oldest attempt was sent that has
    /// had no response yet.
    fn failures_to_hold(&self, oldest_pending: Option<Instant>) -> u32 {
        let attempts_pending =
            oldest_pending.zip(self.since).is_some_and(|(oldest, (since, _))| oldest <= since);
        if attempts_pending { FAILURES_TO_HOLD_WITH_PENDING_ATTEMPTS } else { FAILURES_TO_HOLD }
    }
}

/// A failed request, and the state of the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailureReport<'a> {
    pub(super) failure: &'a Failure,
    pub(super) target: Option<&'a TargetName>,
    /// Its first failed attempt. Requests for embeddings that were joined share it.
    pub(super) attempt: Option<&'a FailedAttempt>,
    /// Whether waiting does not help if every request fails like this.
    pub(super) is_lasting: bool,
    /// Number of answers of the targets by now.
    pub(super) answered: u64,
    /// When the oldest attempt was sent that has had no response yet.
    pub(super) oldest_pending: Option<Instant>,
    /// Whether the run has items that have not started.
    pub(super) can_start_items: bool,
}

/// Hold state of one route of a run.
#[derive(Debug, Default)]
pub(super) struct RouteHold {
    /// Requests that have no final result yet, including those that wait.
    open: usize,
    /// Open requests that have failed.
    returned: usize,
    /// Open requests that failed while others were answered.
    suspected: usize,
    /// Failed requests that are to be sent again as soon as possible.
    waiting: BTreeSet<ResendPosition>,
    /// Number of the last request that was queued.
    last: u64,
    /// Resent requests that are in flight.
    resent_in_flight: usize,
    /// Maximum of these.
    resend_limit: usize,
    streak: FailureStreak,
    /// The failed attempts that were counted last, the latest at the end.
    reported: VecDeque<FailedAttempt>,
    hold: Option<Hold>,
}

impl RouteHold {
    /// Returns the hold in force.
    pub(super) fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// Adds a request that is about to be sent.
    pub(super) fn open_request(&mut self) -> RequestState {
        self.open += 1;
        RequestState::default()
    }

    /// Removes a request that has its final result.
    pub(super) fn close_request(&mut self, request: &RequestState) {
        self.open = self.open.saturating_sub(1);
        self.returned = self.returned.saturating_sub(usize::from(request.has_failed));
        self.suspected = self.suspected.saturating_sub(usize::from(request.is_suspected));
    }

    /// Returns whether any request has no final result yet.
    pub(super) fn has_open_requests(&self) -> bool {
        self.open > 0
    }

    /// Returns how many failed requests are not in flight.
    pub(super) fn parked(&self) -> usize {
        self.returned.saturating_sub(self.resent_in_flight)
    }

    fn fresh_requests(&self) -> usize {
        self.open - self.returned
    }

    /// Queues a request to be sent again that has failed `returns` times.
    pub(super) fn enqueue(&mut self, returns: u32, is_suspected: bool) -> ResendPosition {
        self.last += 1;
        let handicap = if is_suspected { SUSPECTED_RETURNS } else { 0 };
        let position = ResendPosition { returns: returns.saturating_add(handicap), number: self.last };
        self.waiting.insert(position);
        position
    }

    /// Removes a request from the queue.
    pub(super) fn dequeue(&mut self, position: ResendPosition) {
        self.waiting.remove(&position);
    }

    /// Returns whether a failed request may be sent again. `can_start_items` is whether the run has items that
    /// have not started.
    pub(super) fn decide(
        &mut self,
        position: ResendPosition,
        can_start_items: bool,
        now: Instant,
    ) -> ResendDecision {
        if let Some(hold) = &mut self.hold
            && hold.requests == HeldRequests::FailSuspected
            && self.suspected < self.returned
        {
            // There is a request that is not suspected.
            hold.requests = HeldRequests::Wait;
        }
        let is_first = self.waiting.first() == Some(&position);
        let fresh_requests_may_probe = can_start_items || self.fresh_requests() > 0;
        let resend_limit = self.resend_limit.max(self.fresh_requests() / IN_FLIGHT_PER_RESEND).max(1);
        let decision = match &mut self.hold {
            Some(hold) if hold.requests != HeldRequests::Wait => ResendDecision::Fail,
            None if !is_first || self.resent_in_flight >= resend_limit => ResendDecision::WaitForChange,
            None => ResendDecision::Send,
            Some(hold) if hold.is_probing || !is_first => ResendDecision::WaitForChange,
            Some(hold) if hold.is_probed_by_target => {
                ResendDecision::WaitUntil(now + TARGET_PROBE_POLL_INTERVAL)
            }
            Some(hold) => {
                let at = if fresh_requests_may_probe {
                    hold.retry_at + FRESH_REQUEST_HEAD_START
                } else {
                    hold.retry_at
                };
                if now < at {
                    ResendDecision::WaitUntil(at)
                } else {
                    hold.is_probing = true;
                    ResendDecision::Probe
                }
            }
        };
        if matches!(decision, ResendDecision::Send | ResendDecision::Probe) {
            self.dequeue(position);
            self.resent_in_flight += 1;
        }
        decision
    }

    /// Records that a resent request has finished.
    pub(super) fn resend_finished(&mut self, decision: ResendDecision, answered: bool) {
        self.resent_in_flight = self.resent_in_flight.saturating_sub(1);
        self.resend_limit = if answered { self.resend_limit + 1 } else { self.resend_limit / 2 };
        if let (ResendDecision::Probe, Some(hold)) = (decision, &mut self.hold) {
            hold.is_probing = false;
        }
    }

    /// Returns whether another item should start, so that a request that has not failed is the probe. Returns
    /// true once per retry time.
    pub(super) fn should_start_item(&mut self, now: Instant) -> bool {
        if self.fresh_requests() > 0 {
            return false;
        }
        let Some(hold) = &mut self.hold else { return false };
        let is_due = hold.requests == HeldRequests::Wait
            && !hold.is_probing
            && !hold.is_probed_by_target
            && now >= hold.retry_at;
        if !is_due || hold.item_started_for == Some(hold.retry_at) {
            return false;
        }
        hold.item_started_for = Some(hold.retry_at);
        true
    }

    /// Records that a request failed and is not known to be the cause itself.
    pub(super) fn mark_returned(&mut self, request: &mut RequestState) {
        self.returned += usize::from(!std::mem::replace(&mut request.has_failed, true));
    }

    /// Records whether a request failed while others were answered.
    pub(super) fn set_suspected(&mut self, request: &mut RequestState, is_suspected: bool) {
        let is_new = is_suspected && !std::mem::replace(&mut request.is_suspected, true);
        self.suspected += usize::from(is_new);
    }

    /// Records why a request failed that was [marked as returned](Self::mark_returned), and starts a hold if
    /// the failures show that the targets are unusable.
    pub(super) fn record_failure(
        &mut self,
        request: &mut RequestState,
        report: FailureReport<'_>,
        (now, jitter): (Instant, f64),
    ) {
        let FailureReport { failure, target, attempt, is_lasting, answered, oldest_pending, can_start_items } =
            report;
        let is_new = attempt.is_none_or(|attempt| self.add_reported(attempt));
        if is_new {
            self.streak.count(request, answered, now);
        }
        let failures = self.streak.failures;
        let failures_needed = self.streak.failures_to_hold(oldest_pending);
        if self.hold.is_none() && failures < failures_needed && self.fresh_requests() > 0 {
            return;
        }
        let hold = self.hold.get_or_insert_with(|| Hold::new(failure, target, answered, now));
        hold.failures = hold.failures.saturating_add(u32::from(is_new));
        let more_requests_may_follow = can_start_items && failures < FAILURES_TO_HOLD;
        hold.is_recoverable &=
            !is_lasting || more_requests_may_follow || failures < failures_needed && can_start_items;
        hold.schedule_probe(failure, is_lasting && more_requests_may_follow, (now, jitter));
    }

    /// Records a failed attempt. Returns whether no request has reported it before.
    fn add_reported(&mut self, attempt: &FailedAttempt) -> bool {
        if self.reported.contains(attempt) {
            return false;
        }
        if self.reported.len() >= MAX_REPORTED_ATTEMPTS {
            self.reported.pop_front();
        }
        self.reported.push_back(attempt.clone());
        true
    }

    /// Updates the hold from the state of the targets. `outage` is set if none of them is usable, for the one
    /// to try first, or if the route has no targets. `can_start_items` is whether the run has items that have not
    /// started. Returns whether waiting requests may be sent earlier than before.
    pub(super) fn update(
        &mut self,
        outage: Option<(Outage, Option<TargetName>)>,
        answered: u64,
        can_start_items: bool,
        now: Instant,
    ) -> bool {
        let Some((mut outage, target)) = outage else {
            if let Some(hold) = &mut self.hold {
                hold.is_probed_by_target = false;
            }
            let is_over = |hold: &Hold| answered > hold.answered_at_start || self.open == 0;
            let has_ended = self.hold.take_if(|hold| is_over(hold)).is_some();
            return has_ended || self.hold.as_mut().is_some_and(|hold| hold.end_outage(now));
        };
        if self.open == 0 {
            return self.hold.take().is_some();
        }
        // The requests that have not been sent show whether the provider refuses only the one that was.
        outage.can_recover |= outage.is_shown_by_one_request && (can_start_items || self.open > 1);
        let hold = self.hold.get_or_insert_with(|| Hold::new(&outage.failure, None, answered, now));
        hold.set_outage(outage, target);
        false
    }

    /// Returns whether the requests of a hold may be failed once each of them is suspected: only failed
    /// requests are left, and nothing was answered for a while or waiting does not help. `can_start_items` is
    /// whether the run has items that have not started.
    pub(super) fn may_fail_suspected(
        &self,
        can_start_items: bool,
        max_hold: Option<Duration>,
        now: Instant,
    ) -> bool {
        let are_last = !can_start_items && self.returned > 0 && self.fresh_requests() == 0;
        are_last && self.hold.as_ref().is_some_and(|hold| hold.may_fail_suspected(max_hold, now))
    }

    /// Fails the requests of a hold if each of them failed while others were answered: it is less likely that
    /// the targets became unusable just when the last other request was answered. Returns whether it does.
    pub(super) fn fail_suspected(
        &mut self,
        can_start_items: bool,
        max_hold: Option<Duration>,
        now: Instant,
    ) -> bool {
        if self.suspected < self.returned || !self.may_fail_suspected(can_start_items, max_hold, now) {
            return false;
        }
        self.hold.as_mut().is_some_and(|hold| hold.fail_requests(HeldRequests::FailSuspected))
    }

    /// Fails the requests of a hold. Returns whether that is new.
    pub(super) fn fail_held(&mut self) -> bool {
        self.hold.as_mut().is_some_and(|hold| hold.fail_requests(HeldRequests::Fail))
    }
}

#[cfg(test)]
mod tests;
