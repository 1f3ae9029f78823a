//! Decides when a run holds: all targets of a route are unusable for reasons other than the requests
//! themselves.
//!
//! A hold begins when requests fail for such a reason and no other request in flight could still show that a
//! target is usable, or when the providers report that none is usable. During a hold, requests of the route
//! wait, and one at a time is sent as a probe. The hold ends with the first answer.
//!
//! A request that is itself the cause of its failures must not be the probe every time. Probes are chosen in
//! this order: requests that have not failed (those in the router's queue, or one of an item that has not
//! started), then those that failed least often and longest ago. After a hold, failed requests are sent again a
//! few at a time, and more with each one that is answered. Pure: the caller passes `now` and the providers'
//! counts.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Backoff;
use crate::provider::Outage;
use crate::types::{Failure, TargetName};

/// Wait between two probes if the provider names no time.
const PROBE_BACKOFF: Backoff = Backoff { base: Duration::from_secs(2), max: Duration::from_secs(60) };

/// A wait from the provider of this length or longer is ignored, as it is in the providers' own state.
const MAX_CREDIBLE_RETRY_AFTER: Duration = Duration::from_hours(24);

/// How long to wait for a request that has not failed to become the probe, before one that has failed is sent.
const FRESH_REQUEST_HEAD_START: Duration = Duration::from_secs(1);

/// How often to check whether a probe chosen by the provider's state has finished.
const TARGET_PROBE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Consecutive failed requests, with no answer between them, after which a hold begins.
const FAILURES_TO_HOLD: u32 = 3;

/// The same while attempts are pending that were sent before the first of these failures: their answers would
/// show that the targets work.
const FAILURES_TO_HOLD_WITH_PENDING_ATTEMPTS: u32 = 12;

/// Time in a hold after which suspected requests (those that failed while others were answered) fail, if no
/// others are left. `MAX_HOLD_DIVISOR` shortens it, so that they fail before the run pauses.
const MIN_HOLD_BEFORE_FAILING_SUSPECTED: Duration = Duration::from_secs(20);

/// Minimum number of failures during the hold before suspected requests fail.
const MIN_FAILURES_BEFORE_FAILING_SUSPECTED: u32 = 3;

/// `MIN_HOLD_BEFORE_FAILING_SUSPECTED` is at most the maximum hold time divided by this number.
const MAX_HOLD_DIVISOR: u32 = 2;

/// One resent request may be in flight per this many requests that have not failed.
const IN_FLIGHT_PER_RESEND: usize = 8;

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
    /// Whether its requests are not sent any more but fail.
    fails_requests: bool,
    /// Whether that is because all of them failed while others were answered.
    fails_suspected: bool,
    /// Probes that failed.
    failed_probes: u32,
    /// Requests that failed.
    failures: u32,
    is_probing: bool,
    /// Whether the provider's state reports that an attempt is probing.
    is_probed_by_target: bool,
    /// Whether the providers reported that no target is usable.
    is_outage: bool,
    /// The `retry_at` for which an item was already started, so that only one is.
    item_started_for: Option<Instant>,
    /// Answers that the targets had given when it began.
    answered_at_start: u64,
}

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

/// A failed request, and the state of the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailureReport<'a> {
    pub(super) failure: &'a Failure,
    pub(super) target: Option<&'a TargetName>,
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

    /// Queues a request to be sent again.
    pub(super) fn enqueue(&mut self, returns: u32) -> ResendPosition {
        self.last += 1;
        let position = ResendPosition { returns, number: self.last };
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
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.fails_suspected)
            && self.suspected < self.returned
        {
            // There is a request that is not suspected.
            hold.fails_requests = false;
            hold.fails_suspected = false;
        }
        let is_first = self.waiting.first() == Some(&position);
        let fresh_requests_may_probe = can_start_items || self.fresh_requests() > 0;
        let resend_limit = self.resend_limit.max(self.fresh_requests() / IN_FLIGHT_PER_RESEND).max(1);
        let decision = match &mut self.hold {
            Some(hold) if hold.fails_requests => ResendDecision::Fail,
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
        let is_due =
            !hold.fails_requests && !hold.is_probing && !hold.is_probed_by_target && now >= hold.retry_at;
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
        let FailureReport { failure, target, is_lasting, answered, oldest_pending, can_start_items } = report;
        if self.streak.since.is_none_or(|(_, before)| answered > before) {
            self.streak =
                FailureStreak { number: self.streak.number + 1, failures: 0, since: Some((now, answered)) };
        }
        if std::mem::replace(&mut request.streak, self.streak.number) != self.streak.number {
            self.streak.failures += 1;
        }
        let failures = self.streak.failures;
        let attempts_pending =
            oldest_pending.zip(self.streak.since).is_some_and(|(oldest, (since, _))| oldest <= since);
        let failures_needed =
            if attempts_pending { FAILURES_TO_HOLD_WITH_PENDING_ATTEMPTS } else { FAILURES_TO_HOLD };
        if self.hold.is_none() && failures < failures_needed && self.fresh_requests() > 0 {
            return;
        }
        let hold = self.hold.get_or_insert_with(|| Hold::new(failure, target, answered, now));
        hold.failures = hold.failures.saturating_add(1);
        let more_requests_may_follow = can_start_items && failures < FAILURES_TO_HOLD;
        hold.is_recoverable &=
            !is_lasting || more_requests_may_follow || failures < failures_needed && can_start_items;
        if hold.retry_at > now {
            return;
        }
        hold.failed_probes = hold.failed_probes.saturating_add(1);
        let credible = failure.retry_after.filter(|wait| *wait < MAX_CREDIBLE_RETRY_AFTER);
        hold.provider_retry_at = credible.map(|wait| now + wait);
        let wait = if is_lasting && more_requests_may_follow {
            Duration::ZERO
        } else {
            PROBE_BACKOFF.wait(hold.failed_probes, jitter).max(PROBE_BACKOFF.base)
        };
        hold.retry_at = hold.provider_retry_at.unwrap_or(now + wait);
    }

    /// Updates the hold from the state of the targets. `outage` is set if none of them is usable, for the one
    /// to try first. Returns whether waiting requests may be sent earlier than before.
    pub(super) fn update(
        &mut self,
        outage: Option<(Outage, TargetName)>,
        answered: u64,
        now: Instant,
    ) -> bool {
        let Some((outage, target)) = outage else {
            if let Some(hold) = &mut self.hold {
                hold.is_probed_by_target = false;
            }
            let is_over = |hold: &Hold| answered > hold.answered_at_start || self.open == 0;
            let has_ended = self.hold.take_if(|hold| is_over(hold)).is_some();
            // The event for which the outage waited came early, for example a new key in its file.
            let Some(hold) = self.hold.as_mut().filter(|hold| hold.is_outage) else { return has_ended };
            hold.retry_at = now;
            hold.provider_retry_at = None;
            hold.is_outage = false;
            return true;
        };
        if self.open == 0 {
            return self.hold.take().is_some();
        }
        let hold = self.hold.get_or_insert_with(|| Hold::new(&outage.failure, None, answered, now));
        hold.is_outage = true;
        hold.provider_retry_at = outage.retry_at.filter(|_| outage.is_retry_at_binding);
        hold.is_recoverable = outage.can_recover;
        hold.is_probed_by_target = outage.is_probing;
        if let Some(at) = outage.retry_at {
            hold.retry_at = at;
        }
        hold.failure = outage.failure;
        hold.target = Some(target);
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
        let time = max_hold.map_or(MIN_HOLD_BEFORE_FAILING_SUSPECTED, |max| {
            MIN_HOLD_BEFORE_FAILING_SUSPECTED.min(max / MAX_HOLD_DIVISOR)
        });
        let is_long = |hold: &Hold| {
            hold.failures >= MIN_FAILURES_BEFORE_FAILING_SUSPECTED
                && hold.since.checked_add(time).is_some_and(|end| now >= end)
                && hold.provider_retry_at.is_none_or(|at| at <= now)
        };
        are_last
            && self
                .hold
                .as_ref()
                .is_some_and(|hold| !hold.fails_requests && (!hold.is_recoverable || is_long(hold)))
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
        if let Some(hold) = &mut self.hold {
            hold.fails_suspected = true;
        }
        self.fail_held()
    }

    /// Fails the requests of a hold. Returns whether that is new.
    pub(super) fn fail_held(&mut self) -> bool {
        self.hold.as_mut().is_some_and(|hold| !std::mem::replace(&mut hold.fails_requests, true))
    }
}

impl Hold {
    fn new(failure: &Failure, target: Option<&TargetName>, answered: u64, now: Instant) -> Self {
        Self {
            since: now,
            failure: failure.clone(),
            target: target.cloned(),
            retry_at: now,
            provider_retry_at: None,
            is_recoverable: true,
            fails_requests: false,
            fails_suspected: false,
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
        !self.fails_requests && (!self.is_recoverable || max_hold.is_some_and(is_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

    /// A route with one request that has failed.
    fn one_failed(class: Class, answered: u64, now: Instant) -> (RouteHold, RequestState) {
        let mut route = RouteHold::default();
        let mut request = route.open_request();
        route.mark_returned(&mut request);
        route.set_suspected(&mut request, false);
        fail(&mut route, &mut request, class, answered, now);
        (route, request)
    }

    fn fail(route: &mut RouteHold, request: &mut RequestState, class: Class, answered: u64, now: Instant) {
        fail_with(route, request, &Failure::new(class, "x"), (answered, false), None, now);
    }

    fn fail_with(
        route: &mut RouteHold,
        request: &mut RequestState,
        failure: &Failure,
        (answered, is_lasting): (u64, bool),
        oldest_pending: Option<Instant>,
        now: Instant,
    ) {
        route.mark_returned(request);
        route.set_suspected(request, false);
        let report = FailureReport {
            failure,
            target: None,
            is_lasting,
            answered,
            oldest_pending,
            can_start_items: true,
        };
        route.record_failure(request, report, (now, 0.5));
    }

    fn outage(retry_at: Option<Instant>, is_named: bool) -> Option<(Outage, TargetName)> {
        let failure = Failure::new(Class::Quota, "spent");
        Some((
            Outage { failure, retry_at, is_probing: false, is_retry_at_binding: is_named, can_recover: true },
            "a/m".parse().unwrap(),
        ))
    }

    #[test]
    fn one_request_at_a_time_probes_and_the_first_answer_ends_the_hold() {
        let now = Instant::now();
        let (mut route, _request) = one_failed(Class::ServerError, 7, now);
        let mut other = route.open_request();
        fail(&mut route, &mut other, Class::ServerError, 7, now);
        let positions = [route.enqueue(1), route.enqueue(1)];
        let ResendDecision::WaitUntil(at) = route.decide(positions[0], false, now) else {
            panic!("not waiting")
        };
        assert!(at >= now + Duration::from_secs(1) && at <= now + Duration::from_secs(4));
        assert_eq!(
            positions.map(|position| route.decide(position, false, at)),
            [ResendDecision::Probe, ResendDecision::WaitForChange]
        );
        assert!(!route.update(None, 7, at), "nothing was answered");
        route.resend_finished(ResendDecision::Probe, false);
        assert!(route.update(None, 8, at));
        assert_eq!(route.decide(positions[1], false, at), ResendDecision::Send);
    }

    #[test]
    fn the_request_that_failed_least_often_and_longest_ago_is_the_probe() {
        let now = Instant::now();
        let (mut route, _request) = one_failed(Class::ServerError, 0, now);
        let late = now + Duration::from_mins(5);
        let [often, later, first] = [(3, 0), (1, 1), (1, 2)].map(|(returns, _)| route.enqueue(returns));
        let order = [later, first, often];
        assert_eq!(
            [often, first].map(|position| route.decide(position, false, late)),
            [ResendDecision::WaitForChange; 2]
        );
        for position in order {
            assert_eq!(route.decide(position, false, late), ResendDecision::Probe);
            route.resend_finished(ResendDecision::Probe, false);
        }
    }

    #[test]
    fn requests_that_have_not_failed_and_new_items_probe_before_failed_ones() {
        let now = Instant::now();
        let (mut route, _request) = one_failed(Class::ServerError, 0, now);
        let position = route.enqueue(1);
        let retry_at = route.hold().unwrap().retry_at;
        assert!(!route.should_start_item(now));
        assert_eq!(
            route.decide(position, true, retry_at),
            ResendDecision::WaitUntil(retry_at + FRESH_REQUEST_HEAD_START)
        );
        assert!(
            route.should_start_item(retry_at) && !route.should_start_item(retry_at),
            "once per retry time"
        );
        let fresh = route.open_request();
        assert_eq!(
            route.decide(position, false, retry_at),
            ResendDecision::WaitUntil(retry_at + FRESH_REQUEST_HEAD_START)
        );
        route.close_request(&fresh);
        assert_eq!(route.decide(position, false, retry_at), ResendDecision::Probe);
    }

    #[test]
    fn one_failed_request_does_not_start_a_hold_while_others_are_in_flight() {
        let mut route = RouteHold::default();
        let now = Instant::now();
        let mut requests: Vec<RequestState> = (0..40).map(|_| route.open_request()).collect();
        let lasting = Failure::new(Class::NotFound, "x");
        let oldest = Some(now);
        for _ in 0..50 {
            fail_with(&mut route, &mut requests[0], &lasting, (0, true), None, now);
            assert!(route.hold().is_none(), "a single request, however often it fails");
        }
        for request in &mut requests[1..11] {
            fail_with(&mut route, request, &lasting, (0, true), oldest, now);
            assert!(route.hold().is_none(), "earlier attempts are pending");
        }
        // Their answers have arrived.
        fail_with(&mut route, &mut requests[11], &lasting, (1, false), None, now);
        fail_with(&mut route, &mut requests[12], &lasting, (1, false), None, now);
        assert!(route.hold().is_none());
        fail_with(&mut route, &mut requests[13], &lasting, (1, false), None, now);
        assert!(route.hold().is_some_and(|hold| hold.is_recoverable));
    }

    #[test]
    fn a_lasting_failure_ends_the_session_once_three_requests_or_all_have_failed_for_it() {
        let now = Instant::now();
        let lasting = Failure::new(Class::NotFound, "x");
        let mut route = RouteHold::default();
        let mut pauses = Vec::new();
        let mut requests: Vec<RequestState> = (0..40).map(|_| route.open_request()).collect();
        for request in &mut requests {
            fail_with(&mut route, request, &lasting, (0, true), None, now);
            pauses.push(route.hold().is_some_and(|hold| hold.must_end_session(None, now)));
        }
        assert_eq!(pauses.iter().position(|pauses| *pauses), Some(2));
        let mut only = RouteHold::default();
        let mut request = only.open_request();
        only.mark_returned(&mut request);
        only.set_suspected(&mut request, false);
        let alone = FailureReport {
            failure: &lasting,
            target: None,
            is_lasting: true,
            answered: 0,
            oldest_pending: None,
            can_start_items: false,
        };
        only.record_failure(&mut request, alone, (now, 0.5));
        assert!(only.hold().unwrap().must_end_session(None, now));
    }

    #[test]
    fn after_a_hold_each_answer_allows_more_requests_to_be_resent() {
        let now = Instant::now();
        let (mut route, request) = one_failed(Class::ServerError, 0, now);
        assert!(route.update(None, 1, now));
        let positions: Vec<ResendPosition> = (0..20).map(|_| route.enqueue(1)).collect();
        let sent = |route: &mut RouteHold| {
            positions
                .iter()
                .filter(|position| route.decide(**position, true, now) == ResendDecision::Send)
                .count()
        };
        assert_eq!(sent(&mut route), 1);
        route.resend_finished(ResendDecision::Send, true);
        assert_eq!(sent(&mut route), 1);
        (0..4).for_each(|_| route.resend_finished(ResendDecision::Send, true));
        assert!(sent(&mut route) >= 4);
        route.close_request(&request);
    }

    #[test]
    fn requests_that_failed_while_others_were_answered_fail_finally_when_only_they_are_left() {
        let now = Instant::now();
        let mut route = RouteHold::default();
        let mut requests = [route.open_request(), route.open_request()];
        let why = Failure::new(Class::ServerError, "x");
        let report = FailureReport {
            failure: &why,
            target: None,
            is_lasting: false,
            answered: 9,
            oldest_pending: None,
            can_start_items: false,
        };
        for request in &mut requests {
            route.mark_returned(request);
            route.set_suspected(request, true);
            route.record_failure(request, report, (now, 0.5));
        }
        let late = now + MIN_HOLD_BEFORE_FAILING_SUSPECTED;
        assert!(!route.fail_suspected(false, None, late), "too few failures");
        let late = late.max(route.hold().unwrap().retry_at) + Duration::from_mins(1);
        route.record_failure(&mut requests[0], report, (late, 0.5));
        route.record_failure(&mut requests[1], report, (late, 0.5));
        let clean = route.open_request();
        assert!(!route.fail_suspected(false, None, late), "a request that has not failed is in flight");
        route.close_request(&clean);
        assert!(!route.fail_suspected(true, None, late), "items can start");
        assert!(!route.fail_suspected(false, None, now), "too early");
        let position = route.enqueue(1);
        assert!(
            route.fail_suspected(false, None, late)
                && route.decide(position, false, late) == ResendDecision::Fail
        );
        assert!(!route.hold().unwrap().must_end_session(Some(Duration::ZERO), late));
    }

    #[test]
    fn an_answer_that_was_in_flight_does_not_end_a_hold_while_no_target_is_usable() {
        let mut route = RouteHold::default();
        let now = Instant::now();
        route.open_request();
        let at = now + Duration::from_secs(9);
        assert!(!route.update(outage(Some(at), false), 7, now));
        assert!(!route.update(outage(Some(at), false), 12, now));
        let position = route.enqueue(1);
        assert_eq!(
            route.decide(position, false, now),
            ResendDecision::WaitUntil(at + FRESH_REQUEST_HEAD_START)
        );
        assert!(route.update(None, 13, now));
    }

    #[test]
    fn no_request_is_sent_while_the_provider_probes_itself_and_one_is_sent_afterwards() {
        let now = Instant::now();
        let (mut route, _request) = one_failed(Class::ServerError, 3, now);
        let probed_outage = |is_probed| {
            let (outage, target) = outage(None, false).unwrap();
            Some((Outage { is_probing: is_probed, ..outage }, target))
        };
        let position = route.enqueue(1);
        let late = now + Duration::from_mins(5);
        route.update(probed_outage(true), 3, late);
        assert_eq!(
            route.decide(position, false, late),
            ResendDecision::WaitUntil(late + TARGET_PROBE_POLL_INTERVAL)
        );
        route.update(probed_outage(false), 3, late);
        assert_eq!(route.decide(position, false, late), ResendDecision::Probe);
    }

    #[test]
    fn a_hold_whose_outage_has_ended_is_probed_at_once() {
        let now = Instant::now();
        let (mut route, _request) = one_failed(Class::Auth, 3, now);
        route.update(outage(Some(now + Duration::from_secs(300)), false), 3, now);
        assert!(route.update(None, 3, now) && route.hold().is_some(), "nothing was answered");
        let position = route.enqueue(1);
        assert_eq!(route.decide(position, false, now), ResendDecision::Probe);
    }

    #[test]
    fn a_route_without_open_requests_does_not_hold() {
        let mut route = RouteHold::default();
        let now = Instant::now();
        route.update(outage(None, false), 0, now);
        assert!(route.hold().is_none());
        let mut request = route.open_request();
        fail(&mut route, &mut request, Class::NetworkError, 0, now);
        route.close_request(&request);
        assert!(route.update(None, 0, now) && route.hold().is_none());
    }

    #[test]
    fn a_hold_ends_the_session_once_it_has_exceeded_its_limit_or_is_known_to() {
        let now = Instant::now();
        let max = Some(Duration::from_secs(600));
        let (mut route, _request) = one_failed(Class::ServerError, 0, now);
        let late = now + Duration::from_secs(600);
        let hold = route.hold().unwrap().clone();
        assert_eq!([hold.must_end_session(max, now), hold.must_end_session(max, late)], [false, true]);
        assert!(!hold.must_end_session(None, late));
        route.update(outage(Some(now + Duration::from_secs(900)), true), 0, now);
        assert!(route.hold().unwrap().must_end_session(max, now));
        assert!(!route.hold().unwrap().must_end_session(None, now));
        route.update(outage(Some(now + Duration::from_secs(900)), false), 0, now);
        assert!(!route.hold().unwrap().must_end_session(max, now), "an estimate is not enough");
    }

    #[test]
    fn an_absurd_wait_is_not_used_as_the_retry_time() {
        for wait in [Duration::MAX, Duration::from_secs(u64::MAX / 4), Duration::from_hours(24)] {
            let mut route = RouteHold::default();
            let now = Instant::now();
            let mut request = route.open_request();
            let absurd = Failure { retry_after: Some(wait), ..Failure::new(Class::RateLimit, "x") };
            fail_with(&mut route, &mut request, &absurd, (0, false), None, now);
            let hold = route.hold().unwrap();
            assert!(hold.provider_retry_at.is_none() && hold.retry_at <= now + PROBE_BACKOFF.max, "{wait:?}");
            assert!(!hold.must_end_session(Some(Duration::from_mins(10)), now));
        }
    }

    #[test]
    fn probes_that_fail_become_less_frequent() {
        let mut now = Instant::now();
        let started = now;
        let (mut route, mut request) = one_failed(Class::ServerError, 0, now);
        let mut probes = 0;
        let mut position = route.enqueue(1);
        while now < started + Duration::from_mins(10) {
            match route.decide(position, false, now) {
                ResendDecision::WaitUntil(at) => now = at,
                ResendDecision::Probe => {
                    probes += 1;
                    fail(&mut route, &mut request, Class::ServerError, 0, now);
                    route.resend_finished(ResendDecision::Probe, false);
                    position = route.enqueue(probes);
                }
                decision => panic!("{decision:?}"),
            }
        }
        assert!((10..=30).contains(&probes), "{probes}");
    }
}
