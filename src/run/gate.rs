//! Makes the requests of a run wait while the run holds.
//!
//! Shared by the run and its items. `route_hold.rs` decides when a hold begins and ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::evidence::Evidence;
use super::hold::Hold;
use super::probe_wait::ProbeWaits;
use super::route_hold::{FailureReport, RequestState, ResendDecision, ResendPosition, RouteHold};
use crate::provider::{self, Outage};
use crate::router::{SharedRoutes, TargetHandle};
use crate::types::{Cause, Class, ModelName, RequestError, RouteName, RunItem, SharedPrefix, TargetName};

/// A route of a run. Its targets are those of the configuration in use, which a reload may replace.
#[derive(Debug, Clone)]
pub struct RunRoute {
    /// Its name.
    pub name: RouteName,
    /// The routes in use.
    pub routes: SharedRoutes,
    /// Whether only targets with embeddings can answer the steps that use it.
    pub only_embeddings: bool,
    /// The shortest deadline of the steps that use it.
    pub min_step_deadline: Duration,
}

/// Counts the answers of the targets of a route. It never decreases, also if a target is removed or replaced.
#[derive(Debug, Default)]
struct AnswerCount {
    /// What each target had answered when it was last read.
    seen: Vec<(Weak<provider::State>, ModelName, u64)>,
    total: u64,
}

impl AnswerCount {
    /// Returns the count with the present answers of these targets.
    fn update(&mut self, targets: &[TargetHandle]) -> u64 {
        let mut seen = Vec::with_capacity(targets.len());
        for TargetHandle { name, provider, .. } in targets {
            let answered = provider.attempt_counts(&name.model).answered;
            let is_same = |(known, model, _): &&(Weak<provider::State>, ModelName, u64)| {
                std::ptr::eq(known.as_ptr(), Arc::as_ptr(provider)) && *model == name.model
            };
            let before = self.seen.iter().find(is_same).map_or(0, |(.., before)| *before);
            self.total += answered.saturating_sub(before);
            seen.push((Arc::downgrade(provider), name.model.clone(), answered));
        }
        self.seen = seen;
        self.total
    }
}

/// The holds of a run.
#[derive(Debug)]
pub(super) struct Gate {
    routes: Vec<RunRoute>,
    /// The answers of each route.
    answers: Vec<Mutex<AnswerCount>>,
    requests: Mutex<Vec<RouteRequests>>,
    /// Whether any hold is in force.
    is_any_holding: AtomicBool,
    /// Whether the run has items that have not started.
    can_start_items: AtomicBool,
    /// Whether the run had answers in an earlier session.
    has_earlier_answers: bool,
    changed: Notify,
}

/// The requests of a route.
#[derive(Debug, Default)]
struct RouteRequests {
    hold: RouteHold,
    /// Requests without a final result, by number.
    open: BTreeMap<u64, (RequestState, Evidence)>,
    last_number: u64,
    probe_waits: ProbeWaits,
}

/// A request without a final result.
pub(super) struct OpenRequest {
    gate: Arc<Gate>,
    route: usize,
    number: u64,
}

/// A request that was sent again.
pub(super) struct ResentRequest {
    gate: Arc<Gate>,
    route: usize,
    decision: ResendDecision,
    answered: bool,
}

/// A probe that waits for the limits of its scope. That time does not count for `max_hold`.
pub(super) struct ProbeWait {
    gate: Arc<Gate>,
    route: usize,
}

/// A request that is queued to be sent again.
struct QueuedRequest<'a> {
    gate: &'a Gate,
    route: usize,
    position: ResendPosition,
}

impl Gate {
    /// Creates the gate of a run with these routes. `has_earlier_answers` is whether an earlier session of it
    /// was answered.
    pub(super) fn new(routes: Vec<RunRoute>, has_earlier_answers: bool) -> Arc<Self> {
        let requests = routes.iter().map(|_| RouteRequests::default()).collect();
        let answers = routes.iter().map(|_| Mutex::default()).collect();
        Arc::new(Self {
            routes,
            answers,
            requests: Mutex::new(requests),
            is_any_holding: AtomicBool::new(false),
            can_start_items: AtomicBool::new(true),
            has_earlier_answers,
            changed: Notify::new(),
        })
    }

    /// Returns whether any route holds.
    pub(super) fn is_holding(&self) -> bool {
        self.is_any_holding.load(Relaxed)
    }

    /// Returns the hold that began first, and its route.
    pub(super) fn oldest_hold(&self) -> Option<(RouteName, Hold)> {
        let requests = self.lock();
        let held = self.routes.iter().zip(requests.iter());
        let held = held.filter_map(|(route, requests)| Some((&route.name, requests.hold.hold()?)));
        let first = held.min_by_key(|(_, hold)| hold.since);
        first.map(|(route, hold)| (route.clone(), hold.clone()))
    }

    /// Returns a hold that must end the session, if there is one.
    pub(super) fn hold_to_end_session(&self, max_hold: Option<Duration>, now: Instant) -> Option<Hold> {
        let requests = self.lock();
        let must_end = |requests: &&RouteRequests| {
            let Some(hold) = requests.hold.hold() else { return false };
            let waited = requests.probe_waits.in_hold(hold.since, now);
            hold.must_end_session(max_hold.map(|max| max.saturating_add(waited)), now)
        };
        requests.iter().find(must_end).and_then(|requests| requests.hold.hold()).cloned()
    }

    /// Records whether the run has items that have not started.
    pub(super) fn set_can_start_items(&self, can_start_items: bool) {
        if self.can_start_items.swap(can_start_items, Relaxed) != can_start_items {
            self.changed.notify_waiters();
        }
    }

    /// Returns whether an item should start so that its request becomes the probe of a hold. Returns true once
    /// per probe time.
    pub(super) fn should_start_item(&self, now: Instant) -> bool {
        self.lock().iter_mut().any(|requests| requests.hold.should_start_item(now))
    }

    /// Returns how many failed requests are not in flight.
    pub(super) fn parked(&self) -> usize {
        self.lock().iter().map(|requests| requests.hold.parked()).sum()
    }

    /// Fails the requests that wait in holds. Returns whether there were any.
    pub(super) fn fail_held(&self) -> bool {
        let any_failed = self.lock().iter_mut().fold(false, |any, requests| requests.hold.fail_held() | any);
        self.changed.notify_waiters();
        any_failed
    }

    /// Adds a request of an item that is about to be sent by a route. The request ends when the returned value
    /// is dropped.
    pub(super) fn open_request(self: &Arc<Self>, route: &RouteName, item: RunItem) -> Option<OpenRequest> {
        let route = self.route_index(route)?;
        let mut requests = self.lock();
        let RouteRequests { hold, open, last_number, .. } = &mut requests[route];
        *last_number += 1;
        open.insert(*last_number, (hold.open_request(), Evidence::new(item)));
        Some(OpenRequest { gate: self.clone(), route, number: *last_number })
    }

    /// Updates the holds from the state of the targets and releases requests whose hold has ended.
    pub(super) fn update(&self, max_hold: Option<Duration>, now: Instant) {
        let mut routes = self.lock();
        let mut changed = false;
        let can_start_items = self.can_start_items.load(Relaxed);
        for (index, (route, requests)) in self.routes.iter().zip(routes.iter_mut()).enumerate() {
            let RouteRequests { hold, open, probe_waits, .. } = requests;
            if !hold.has_open_requests() && hold.hold().is_none() {
                continue;
            }
            let retry_at = hold.hold().map(|hold| hold.retry_at);
            changed |= hold.update(route.outage(now), self.answered(index), can_start_items, now);
            // Only its scope made a probe wait: as if that time had not passed.
            let waited = hold.hold().map(|hold| probe_waits.in_hold(hold.since, now)).unwrap_or_default();
            let now = now.checked_sub(waited).unwrap_or(now);
            if hold.may_fail_suspected(can_start_items, max_hold, now) {
                // Attempts that were sent next to its attempts may have ended since it failed.
                for (request, evidence) in open.values_mut().filter(|(request, _)| !request.is_suspected()) {
                    self.compare(evidence);
                    hold.set_suspected(request, evidence.is_suspected());
                    if !request.is_suspected() {
                        break;
                    }
                }
            }
            changed |= hold.fail_suspected(can_start_items, max_hold, now);
            changed |= hold.hold().map(|hold| hold.retry_at) != retry_at;
        }
        self.is_any_holding.store(routes.iter().any(|requests| requests.hold.hold().is_some()), Relaxed);
        drop(routes);
        if changed {
            self.changed.notify_waiters();
        }
    }

    /// Updates the evidence of a request with the results of other requests at the targets that failed it.
    fn compare(&self, evidence: &mut Evidence) {
        for name in evidence.targets() {
            let mut targets = self.routes.iter().flat_map(RunRoute::targets);
            if let Some(target) = targets.find(|known| known.name == name) {
                target.provider.with_first_attempts(&name.model, |first| evidence.compare(&name, first));
            }
        }
    }

    /// Returns how many attempts at the targets of a route were answered.
    fn answered(&self, route: usize) -> u64 {
        let targets = self.routes[route].targets();
        self.answers[route].lock().unwrap_or_else(PoisonError::into_inner).update(&targets)
    }

    fn route_index(&self, route: &RouteName) -> Option<usize> {
        self.routes.iter().position(|known| known.name == *route)
    }

    /// A panic while the lock was held leaves only counts, which stay usable.
    fn lock(&self) -> MutexGuard<'_, Vec<RouteRequests>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRequest {
    /// Waits until `not_before` or until a hold begins, then until this request, which has failed, may be sent
    /// again. Keep the returned value until it has finished.
    ///
    /// # Errors
    /// If the request must not be sent any more.
    pub(super) async fn wait_to_resend(&self, not_before: Instant) -> Result<ResentRequest, ResendRefused> {
        let gate = &self.gate;
        loop {
            let changed = gate.changed.notified();
            tokio::pin!(changed);
            // Before the check, so that no later change is missed.
            changed.as_mut().enable();
            // During a hold, the hold decides when requests are sent again.
            if Instant::now() >= not_before || gate.lock()[self.route].hold.hold().is_some() {
                break;
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(not_before) => {}
            }
        }
        let position = self.enqueue();
        let queued = QueuedRequest { gate, route: self.route, position };
        loop {
            let changed = gate.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let can_start_items = gate.can_start_items.load(Relaxed);
            let decision = gate.lock()[self.route].hold.decide(position, can_start_items, Instant::now());
            match decision {
                ResendDecision::Send | ResendDecision::Probe => {
                    // It has left the queue, and another request may be first.
                    drop(queued);
                    let gate = gate.clone();
                    return Ok(ResentRequest { gate, route: self.route, decision, answered: false });
                }
                ResendDecision::Fail => return Err(ResendRefused),
                ResendDecision::WaitForChange => changed.await,
                ResendDecision::WaitUntil(until) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Queues the request to be sent again, by what is known about it now: attempts that were sent next to its
    /// attempts may have ended since it failed.
    fn enqueue(&self) -> ResendPosition {
        let mut requests = self.gate.lock();
        let RouteRequests { hold, open, .. } = &mut requests[self.route];
        let Some((request, evidence)) = open.get_mut(&self.number) else { return hold.enqueue(0, false) };
        if !request.is_suspected() {
            self.gate.compare(evidence);
            hold.set_suspected(request, evidence.is_suspected());
        }
        hold.enqueue(evidence.returns(), request.is_suspected())
    }

    /// Returns whether no target of its route is usable.
    pub(super) fn has_outage(&self, now: Instant) -> bool {
        self.gate.routes[self.route].outage(now).is_some()
    }

    /// Records that the request failed with `error`; `time_limit` is how long it may take. Returns how often it
    /// has failed so far, or `None` if the failure is its own.
    pub(super) fn record_failure(
        &self,
        error: &RequestError,
        time_limit: Duration,
        now: Instant,
    ) -> Option<u32> {
        let gate = &self.gate;
        let route = &gate.routes[self.route];
        let RequestError { failure, target, failed_attempts, .. } = error;
        // Determined before the lock is taken.
        let answered = gate.answered(self.route);
        let oldest_pending = route.oldest_pending();
        let is_lasting = answered == 0
            && !gate.has_earlier_answers
            && (failure.class == Class::NotFound
                || failure.class == Class::Unreadable && failure.cause.is_some_and(Cause::is_not_an_api));
        let mut requests = gate.lock();
        let RouteRequests { hold, open, .. } = &mut requests[self.route];
        let (request, evidence) = open.get_mut(&self.number)?;
        if evidence.record_failure(error, time_limit) {
            return None;
        }
        gate.compare(evidence);
        if evidence.is_proven() {
            return None;
        }
        let returns = Some(evidence.returns());
        hold.mark_returned(request);
        hold.set_suspected(request, evidence.is_suspected());
        // A request that was not sent before its deadline shows nothing about its targets; the targets' own
        // state counts.
        if failure.class == Class::Deadline && error.attempts.calls() == 0 {
            return returns;
        }
        let can_start_items = gate.can_start_items.load(Relaxed);
        let report = FailureReport {
            failure,
            target: target.as_ref(),
            attempt: failed_attempts.first(),
            is_lasting,
            answered,
            oldest_pending,
            can_start_items,
        };
        hold.record_failure(request, report, (now, fastrand::f64()));
        let holds_now = hold.hold().is_some();
        drop(requests);
        if holds_now && !gate.is_any_holding.swap(true, Relaxed) {
            gate.changed.notify_waiters();
        }
        returns
    }
}

/// The request must not be sent any more.
pub(super) struct ResendRefused;

impl ResentRequest {
    /// Records that the request was answered.
    pub(super) fn mark_answered(&mut self) {
        self.answered = true;
    }

    /// Records that it waits for its scope until the returned value is dropped; `None` if it is not the probe of a hold.
    pub(super) fn wait_for_scope(&self) -> Option<ProbeWait> {
        match self.decision {
            ResendDecision::Probe => Some(ProbeWait::begin(self.gate.clone(), self.route)),
            ResendDecision::Send
            | ResendDecision::Fail
            | ResendDecision::WaitForChange
            | ResendDecision::WaitUntil(_) => None,
        }
    }
}

impl ProbeWait {
    fn begin(gate: Arc<Gate>, route: usize) -> Self {
        gate.lock()[route].probe_waits.begin(Instant::now());
        Self { gate, route }
    }
}

impl RunRoute {
    /// Returns why none of the targets is usable, for the one to try first.
    fn outage(&self, now: Instant) -> Option<(Outage, Option<TargetName>)> {
        let targets = self.targets();
        if targets.is_empty() {
            return Some((self.removed(), None));
        }
        let mut outages = Vec::new();
        for TargetHandle { name, provider, .. } in targets {
            let outage = provider.outage(&name.model, self.min_step_deadline, now)?;
            outages.push((outage, Some(name)));
        }
        let may_recover = |outage: &Outage| outage.can_recover || outage.is_shown_by_one_request;
        let can_mend = outages.iter().any(|(outage, _)| may_recover(outage));
        // A target for which waiting does not help is not worth trying if there is another.
        outages.retain(|(outage, _)| may_recover(outage) == can_mend);
        // Time alone does not bring back a target that is out of service.
        let is_out_of_service = |outage: &Outage| outage.failure.cause == Some(Cause::OutOfService);
        outages.into_iter().min_by_key(|(outage, _)| (is_out_of_service(outage), outage.retry_at))
    }

    /// Returns the targets in use that can answer its steps.
    pub(super) fn targets(&self) -> Vec<TargetHandle> {
        let table = self.routes.load();
        let has_embeddings = |target: &&TargetHandle| target.provider.embedding_limits().is_some();
        let targets = table.targets(&self.name).iter();
        targets.filter(|target| !self.only_embeddings || has_embeddings(target)).cloned().collect()
    }

    /// Returns the outage of a route that a reload has removed. It ends with a reload that brings a target back.
    fn removed(&self) -> Outage {
        Outage {
            failure: self.routes.load().removed_route(&self.name),
            retry_at: None,
            // No request is sent as a probe meanwhile.
            is_probing: true,
            is_retry_at_binding: false,
            can_recover: true,
            is_shown_by_one_request: false,
        }
    }

    /// Returns whether any of the targets caches the beginning of these requests.
    pub(super) fn caches(&self, prefix: &SharedPrefix) -> bool {
        let min_tokens = |target: &TargetHandle| target.provider.min_cached(&target.name.model);
        self.targets().iter().filter_map(min_tokens).any(|tokens| prefix.tokens >= tokens)
    }

    /// Returns when the oldest attempt was sent that has had no response yet.
    fn oldest_pending(&self) -> Option<Instant> {
        self.targets()
            .iter()
            .filter_map(|target| target.provider.oldest_pending_sent_at(&target.name.model))
            .min()
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut requests = self.gate.lock();
        let RouteRequests { hold, open, .. } = &mut requests[self.route];
        if let Some((request, _)) = open.remove(&self.number) {
            hold.close_request(&request);
        }
    }
}

impl Drop for ResentRequest {
    fn drop(&mut self) {
        self.gate.lock()[self.route].hold.resend_finished(self.decision, self.answered);
        self.gate.changed.notify_waiters();
    }
}

impl Drop for ProbeWait {
    fn drop(&mut self) {
        let mut requests = self.gate.lock();
        let RouteRequests { hold, probe_waits, .. } = &mut requests[self.route];
        probe_waits.end(hold.hold().map(|hold| hold.since), Instant::now());
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        self.gate.lock()[self.route].hold.dequeue(self.position);
        self.gate.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Failure, RequestContext};

    const MAX_HOLD: Duration = Duration::from_secs(60);

    fn must_end_session(gate: &Gate) -> bool {
        gate.hold_to_end_session(Some(MAX_HOLD), Instant::now()).is_some()
    }

    /// A request that has failed, so that its route holds.
    fn held_request() -> (Arc<Gate>, OpenRequest) {
        let name = RouteName::from("default");
        let route = RunRoute {
            name: name.clone(),
            routes: SharedRoutes::default(),
            only_embeddings: false,
            min_step_deadline: Duration::MAX,
        };
        let gate = Gate::new(vec![route], false);
        gate.set_can_start_items(false);
        let open = gate.open_request(&name, RequestContext::default().item()).unwrap();
        let error = RequestError::from(Failure::new(Class::ServerError, "down"));
        assert_eq!(open.record_failure(&error, MAX_HOLD, Instant::now()), Some(1));
        assert!(gate.is_holding());
        (gate, open)
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_a_probe_waits_for_its_scope_does_not_count_for_max_hold() {
        let (gate, open) = held_request();
        let began = Instant::now();
        let Ok(probe) = open.wait_to_resend(began).await else { panic!("it must be sent") };
        let before = began.elapsed();
        assert!(before < MAX_HOLD);
        let wait = probe.wait_for_scope().unwrap();
        sleep_until(began + 10 * MAX_HOLD).await;
        assert!(!must_end_session(&gate), "only its scope made it wait");
        drop(wait);
        sleep_until(began + 11 * MAX_HOLD - before - Duration::from_secs(1)).await;
        assert!(!must_end_session(&gate));
        sleep_until(began + 11 * MAX_HOLD + Duration::from_secs(1)).await;
        assert!(must_end_session(&gate), "the time after the wait counts");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_a_probe_is_in_flight_counts_for_max_hold() {
        let (gate, open) = held_request();
        let began = Instant::now();
        let Ok(probe) = open.wait_to_resend(began).await else { panic!("it must be sent") };
        sleep_until(began + MAX_HOLD - Duration::from_secs(1)).await;
        assert!(!must_end_session(&gate));
        sleep_until(began + MAX_HOLD + Duration::from_secs(1)).await;
        assert!(must_end_session(&gate));
        drop(probe);
    }
}
