//! The execution of one request: calls targets as its [`RetryPlan`] decides, until one answers.
//!
//! It ends early if the caller drops it, at the deadline of the request, and when the router stops. The response
//! is that of a single call; responses are never combined.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::chaos;
use crate::provider::{AnswerWriter, Call, CallReceiver, DispatchSignal, KeyId, Rejection, State};
use crate::types::{
    Attempt, AttemptLog, Class, Completion, FailedAttempt, Failure, FailureScope, NanoUsd, RequestContext,
    RequestError, Response, RetryAction, TargetName,
};

use super::attempt;
use super::hedge::{HedgeAfter, HedgeLimiter};
use super::other_requests::OtherRequests;
use super::outage;
use super::pending_call::{CallEnd, CallMeta, PendingCall};
use super::provider_time::{ProviderClock, TimedResult};
use super::request::{Request, STOPPED_MESSAGE};
use super::retry_plan::{self, Candidate, HasOtherKey, IsProbe, NextAction, RetryPlan};
use super::settings::RetrySettings;
use super::stop_signal::{StopSignal, wait_for_stop};
use super::target::TargetHandle;

/// Maximum number of calls of one request that are lost in panics of a provider's actor. The next loss counts as a
/// failure.
const MAX_LOST_CALLS: u32 = 3;

/// Total time that a request may stay queued after the caller has stopped. After that it fails.
const MAX_WAIT_AFTER_STOP: Duration = Duration::from_millis(500);

/// The failure message of a request that is not sent because the caller stops.
const STOPPED_WHILE_QUEUED: &str = "the run stops, and the call was still queued";

/// Interval between two checks of the budget while a request waits.
const BUDGET_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The result of a request.
pub(super) type RequestResult = Result<Response, Box<RequestError>>;

/// The execution of one request.
pub(super) struct Execution {
    request: Request,
    targets: Vec<TargetHandle>,
    plan: RetryPlan,
    attempts: AttemptLog,
    hedging: Option<(HedgeAfter, Arc<HedgeLimiter>)>,
    /// The time without response headers after which an unresponsive call is hedged, independent of `hedge_after`.
    unresponsive_hedging: Option<(Duration, Arc<HedgeLimiter>)>,
    first_call: Option<FirstCall>,
    /// Closed when the router stops. A draining router waits until all receivers are dropped.
    shutdown_rx: watch::Receiver<()>,
    /// The number of calls that were lost in panics of a provider's actor.
    lost_calls: u32,
    /// The keys that were refused for this request, with the target index.
    refused_keys: Vec<(usize, KeyId)>,
    other_requests: OtherRequests,
    /// The attempts that failed.
    failed_attempts: Vec<FailedAttempt>,
    /// The end of the time that the request may stay queued after the caller has stopped.
    stop_deadline: Option<Instant>,
    provider_clock: ProviderClock,
    /// The number of calls that were submitted.
    built_calls: AtomicU64,
}

/// A first call that the router is to submit, with the state of its provider.
pub(super) type DelegatedCall = (Arc<State>, Call);

/// Who awaits the first call.
enum FirstCall {
    /// The execution awaits it.
    Owned(PendingCall),
    /// The caller awaits it and passes its end to [`Execution::complete`].
    Delegated(CallMeta, Option<Arc<DispatchSignal>>),
}

/// How the first call, which the caller awaited, ended.
pub(super) enum FirstCallEnd {
    /// It has ended.
    Ended(CallEnd),
    /// It has not ended. The execution awaits it from now on.
    Pending(CallReceiver),
}

/// A call that was answered; the log is in the execution.
struct AnsweredCall {
    completion: Completion,
    target: TargetName,
    simulated: bool,
    cost: Option<NanoUsd>,
}

impl Execution {
    /// Starts the execution, and returns the first call for the router to submit: the router shares its thread with
    /// the providers, so that no other thread is woken up. The caller awaits that call and passes its end on. No
    /// call is returned if there is none yet, or if it may be hedged: the execution then awaits it itself.
    pub(super) fn start(
        mut request: Request,
        targets: Vec<TargetHandle>,
        retry: RetrySettings,
        (hedges, shutdown_rx): (&Arc<HedgeLimiter>, watch::Receiver<()>),
    ) -> (Self, Option<DelegatedCall>) {
        // A run sends failed requests again itself. A resent request gets one attempt, so that many alternate.
        let caller_resends = request.context.step.is_some();
        let single_attempt =
            RetrySettings { attempts_per_target: NonZeroU32::MIN, max_rounds: NonZeroU32::MIN, ..retry };
        let retry = if request.context.has_failed { single_attempt } else { retry };
        let plan = RetryPlan::new(targets.iter().map(candidate), retry, request.deadline)
            .with_caller_resends(caller_resends);
        let is_hedged = retry.hedge_after != HedgeAfter::Off && targets.len() > 1;
        let hedging = is_hedged.then(|| (retry.hedge_after, hedges.clone()));
        // No time before the end of a whole response is long.
        let is_whole = request.prompt.embedding.is_some();
        let unresponsive_hedging = (!is_whole).then(|| (retry.unresponsive_after, hedges.clone()));
        if let Some(live_log) = &request.live_log {
            live_log.clear();
        }
        if targets.iter().any(|target| target.provider.sends_traceparent()) {
            request.trace.ensure_context();
        }
        let mut execution = Self {
            request,
            targets,
            plan,
            attempts: AttemptLog::default(),
            hedging,
            unresponsive_hedging,
            first_call: None,
            shutdown_rx,
            lost_calls: 0,
            refused_keys: Vec::new(),
            other_requests: OtherRequests::default(),
            failed_attempts: Vec::new(),
            stop_deadline: None,
            provider_clock: ProviderClock::default(),
            built_calls: AtomicU64::new(0),
        };
        // Any other action (there is no target, the deadline has passed) is returned again by the next query.
        let NextAction::Call(target) = execution.plan.next(Instant::now(), 0.0) else {
            return (execution, None);
        };
        if execution.hedging.is_some() {
            execution.first_call = Some(FirstCall::Owned(execution.send_call(target)));
            return (execution, None);
        }
        let provider = execution.targets[target].provider.clone();
        let call = execution.planned_call(target);
        let stream_number = call.stream.as_ref().map(AnswerWriter::number);
        let meta = CallMeta { target, hedge: false, submitted_at: Instant::now(), stream_number };
        execution.first_call = Some(FirstCall::Delegated(meta, call.dispatch_signal.clone()));
        (execution, Some((provider, call)))
    }

    /// Runs the request to its end. `first_call` is what the caller passes on about a delegated first call.
    pub(super) async fn complete(mut self, first_call: FirstCallEnd) -> TimedResult {
        let mut shutdown_rx = self.shutdown_rx.clone();
        let result = match self.record_first_call(first_call) {
            Some(answered) => Ok(answered),
            None => tokio::select! {
                biased;
                _ = shutdown_rx.changed() => {
                    let failure = Failure::new(Class::Cancelled, STOPPED_MESSAGE);
                    Err(failure.maybe_charged().into())
                }
                result = self.follow_plan() => result,
            },
        };
        let Self { targets, attempts, failed_attempts, provider_clock, .. } = self;
        let provider_time = Some(provider_clock.total(Instant::now()));
        let result = match result {
            Ok(AnsweredCall { completion, target, simulated, cost }) => {
                Ok(Response { completion, target, simulated, cost, attempts, resends: 0 })
            }
            Err(retry_plan::RequestFailure { failure, target }) => {
                let expected_wait = outage::expected_wait(&targets, &failure, Instant::now());
                let target = target.map(|index| targets[index].name.clone());
                Err(Box::new(RequestError {
                    failure,
                    target,
                    attempts,
                    resends: 0,
                    failed_attempts,
                    expected_wait,
                }))
            }
        };
        TimedResult { result, provider_time }
    }

    /// Records what the caller passes on about the first call, if that call was delegated. Returns the answer, if
    /// any.
    fn record_first_call(&mut self, end: FirstCallEnd) -> Option<AnsweredCall> {
        match (self.first_call.take(), end) {
            (Some(FirstCall::Delegated(meta, _)), FirstCallEnd::Ended(end)) => {
                chaos::point("execution.plan");
                self.record_end(meta, end, false)
            }
            (Some(FirstCall::Delegated(meta, dispatch_signal)), FirstCallEnd::Pending(receiver)) => {
                let call = PendingCall::take_over(meta, self.request.deadline, dispatch_signal, receiver);
                self.first_call = Some(FirstCall::Owned(call));
                None
            }
            (first_call, _) => {
                self.first_call = first_call;
                None
            }
        }
    }

    async fn follow_plan(&mut self) -> Result<AnsweredCall, retry_plan::RequestFailure> {
        loop {
            chaos::point("execution.plan");
            let call = match self.first_call.take() {
                Some(FirstCall::Owned(call)) => call,
                _ => match self.plan.next(Instant::now(), fastrand::f64()) {
                    NextAction::Call(target) if self.must_stop_before(target) => {
                        return Err(Failure::new(Class::Cancelled, STOPPED_WHILE_QUEUED).into());
                    }
                    NextAction::Call(target) => self.send_call(target),
                    NextAction::Wait(until) => {
                        if let Some(failure) = self.fail_fast(Instant::now()) {
                            return Err(failure);
                        }
                        self.provider_clock.begin(Instant::now());
                        let waited = self.wait_until(until).await;
                        // What the timer is late is not a wait for a provider.
                        self.provider_clock.end(until.min(Instant::now()), false);
                        waited?;
                        continue;
                    }
                    NextAction::Fail(failure) => return Err(failure),
                },
            };
            if let Some(answered) = self.await_call(call).await? {
                return Ok(answered);
            }
        }
    }

    /// Waits until that instant. Fails as soon as a budget of the request is exhausted or the caller stops.
    async fn wait_until(&mut self, until: Instant) -> Result<(), Failure> {
        while Instant::now() < until {
            if let Some(failure) = self.request.cap_failure() {
                return Err(failure);
            }
            // The stop deadline bounds the sum of many short waits, such as those for a provider that is down.
            let latest = Instant::now() + MAX_WAIT_AFTER_STOP;
            let is_stopping = self.request.stop.as_ref().is_some_and(StopSignal::is_set);
            let stop_deadline = if is_stopping { *self.stop_deadline.get_or_insert(latest) } else { latest };
            let exceeds_deadline = until > stop_deadline;
            tokio::select! {
                () = sleep_until(until.min(Instant::now() + BUDGET_CHECK_INTERVAL)) => {}
                () = wait_for_stop(self.request.stop.clone()), if exceeds_deadline => {
                    return Err(Failure::new(Class::Cancelled, STOPPED_WHILE_QUEUED));
                }
            }
        }
        Ok(())
    }

    /// Awaits a call, and hedges it if it is slow or unresponsive. Returns the first answer.
    ///
    /// # Errors
    /// If the caller stops before the call is sent, or while it hangs.
    async fn await_call(&mut self, mut call: PendingCall) -> Result<Option<AnsweredCall>, Failure> {
        self.provider_clock.begin(call.meta.submitted_at);
        let mut slow = pin!(self.hedge_due(&call).fuse());
        let mut unresponsive = pin!(self.unresponsive_hedge_due(&call, Instant::now()).fuse());
        let mut abandoned = pin!(self.abandoned_by_stop(&call).fuse());
        loop {
            let hedge = tokio::select! {
                biased;
                end = call.wait_end() => return Ok(self.record_end(call.meta, end, false)),
                () = &mut slow, if !slow.is_terminated() && !self.is_committed() => {
                    self.send_hedge(call.meta.target)
                }
                () = &mut unresponsive, if !unresponsive.is_terminated() => {
                    let hedge = self.send_unresponsive_hedge(&call);
                    // Another target may be free soon.
                    if hedge.is_none() {
                        let next_check = Instant::now() + hedging::CHECK_INTERVAL;
                        unresponsive.set(self.unresponsive_hedge_due(&call, next_check).fuse());
                    }
                    hedge
                }
                // A withdrawn call is not sent. A call that was just sent is in flight and is awaited.
                () = &mut abandoned, if !abandoned.is_terminated() => match call.withdraw() {
                    true => return Err(Failure::new(Class::Cancelled, STOPPED_WHILE_QUEUED)),
                    false if self.is_hanging(&call) => return Err(self.abort_hanging(call)),
                    false => None,
                },
            };
            if let Some(hedge) = hedge {
                return Ok(self.await_both(call, hedge).await);
            }
        }
    }

    /// Awaits a call and its hedge, and returns the first answer.
    async fn await_both(&mut self, mut call: PendingCall, mut hedge: PendingCall) -> Option<AnsweredCall> {
        let committed = self.committed();
        let (end, ended, mut other) = tokio::select! {
            biased;
            end = call.wait_end() => (end, call, hedge),
            end = hedge.wait_end() => (end, hedge, call),
            number = committed => {
                let (mut answering, other) =
                    if call.meta.stream_number == Some(number) { (call, hedge) } else { (hedge, call) };
                self.abort(other);
                let end = answering.wait_end().await;
                return self.record_end(answering.meta, end, false);
            }
        };
        if matches!(&end, CallEnd::Finished(call) if call.result.is_ok()) {
            self.abort(other);
            return self.record_end(ended.meta, end, false);
        }
        self.record_end(ended.meta, end, true);
        if self.plan.is_over() {
            self.abort(other);
            return None;
        }
        // A hanging call is awaited like a first call: it may be hedged again.
        if self.is_hanging(&other) {
            self.first_call = Some(FirstCall::Owned(other));
            return None;
        }
        let end = other.wait_end().await;
        self.record_end(other.meta, end, false)
    }

    fn send_call(&self, target: usize) -> PendingCall {
        if let Some((_, hedges)) = &self.hedging {
            hedges.record_call();
        }
        PendingCall::send(target, &self.targets[target], false, self.planned_call(target))
    }

    /// Builds the call that the plan has decided.
    fn planned_call(&self, target: usize) -> Call {
        let now = Instant::now();
        let only_option_now =
            self.plan.is_only_option_now(target, now, |other| self.targets[other].is_healthy(now));
        let only_option = self.plan.is_only_option(target);
        let call = self.build_call(target, false, only_option_now, only_option);
        self.add_to_live_log(target, false, &call);
        call
    }

    fn add_to_live_log(&self, target: usize, hedge: bool, call: &Call) {
        if let Some((live_log, signal)) = self.request.live_log.as_ref().zip(call.dispatch_signal.as_ref()) {
            live_log.add_call(&self.targets[target].name, hedge, signal);
        }
    }

    fn build_call(&self, target: usize, is_hedge: bool, only_option_now: bool, only_option: bool) -> Call {
        let number = self.built_calls.fetch_add(1, Relaxed) + 1;
        let has_failed = self.request.context.has_failed || !self.failed_attempts.is_empty();
        let name = &self.targets[target].name;
        Call {
            prompt: self.request.prompt.clone(),
            model: name.model.clone(),
            priority: self.request.priority,
            context: RequestContext { has_failed, ..self.request.context.clone() },
            is_retry: self.plan.is_retry(target),
            only_option_now,
            only_option,
            excluded_keys: self.refused_keys_of(target),
            dispatch_signal: Some(Arc::new(DispatchSignal::new())),
            budget: self.request.budget.clone(),
            scope_budget: self.request.scope_limits.as_ref().and_then(|scope| scope.budget()),
            memory: self.request.memory.clone(),
            stream: self.request.stream.as_ref().and_then(|stream| stream.writer(name.clone())),
            trace: self.request.trace.call(number, is_hedge),
            deadline: self.request.deadline,
        }
    }

    /// Returns the keys of a target that were refused for this request.
    fn refused_keys_of(&self, target: usize) -> Vec<KeyId> {
        self.refused_keys.iter().filter(|(at, _)| *at == target).map(|(_, key)| key.clone()).collect()
    }

    /// Records how a call ended, and returns its answer, if any. `other_in_flight` is whether another call of this
    /// request is in flight.
    fn record_end(&mut self, meta: CallMeta, end: CallEnd, other_in_flight: bool) -> Option<AnsweredCall> {
        self.provider_clock.begin(meta.submitted_at);
        self.provider_clock.end(end.ended_at(meta), other_in_flight);
        let answered = self.apply_end(meta, end, other_in_flight);
        if let Some(live_log) = &self.request.live_log {
            live_log.set_ended(&self.attempts, &self.failed_attempts);
        }
        answered
    }

    fn apply_end(&mut self, meta: CallMeta, end: CallEnd, other_in_flight: bool) -> Option<AnsweredCall> {
        chaos::point("execution.call_ended");
        let now = Instant::now();
        let TargetHandle { name, provider, .. } = &self.targets[meta.target];
        let (failure, key_and_probe) = match end {
            CallEnd::Finished(call) => {
                let cost = call.cost;
                let is_probe = call.is_probe;
                let key = call.key.clone();
                let number = call.number;
                let (attempt, result) = attempt::record_reply(name, meta.hedge, *call);
                log_attempt(&self.request, &mut self.attempts, attempt);
                match result {
                    Ok(completion) => {
                        let target = name.clone();
                        let simulated = provider.is_simulated();
                        return Some(AnsweredCall { completion, target, simulated, cost });
                    }
                    Err(mut failure) => {
                        self.other_requests.record_failure(meta.target, &self.targets);
                        self.failed_attempts.push(FailedAttempt { target: name.clone(), number });
                        if failure.class == Class::RateLimit && self.is_limited_by_itself(meta.target) {
                            failure.scope = FailureScope::Target;
                        }
                        let mut has_other_key = false;
                        if failure.allows_another_key() {
                            self.refused_keys.push((meta.target, key));
                            let refused = self.refused_keys_of(meta.target);
                            has_other_key = provider.has_other_key(&name.model, &refused, now);
                        }
                        (failure, (HasOtherKey(has_other_key), IsProbe(is_probe)))
                    }
                }
            }
            CallEnd::Rejected(rejection) => {
                attempt::record_rejection(&mut self.attempts, name, &rejection, meta.submitted_at.elapsed());
                match rejection {
                    // The other call is in flight and may still be answered.
                    Rejection::Budget { failure, .. } | Rejection::Unsupported(failure)
                        if other_in_flight =>
                    {
                        self.plan.exclude(meta.target, failure);
                    }
                    rejection => self.plan.record_rejection(meta.target, &rejection, now, fastrand::f64()),
                }
                return None;
            }
            CallEnd::TimedOut(call) => {
                self.other_requests.record_failure(meta.target, &self.targets);
                self.failed_attempts.push(FailedAttempt { target: name.clone(), number: call.number });
                let (attempt, failure) = attempt::record_timed_out(name, meta.hedge, call);
                log_attempt(&self.request, &mut self.attempts, attempt);
                (failure, (HasOtherKey(true), IsProbe(false)))
            }
            CallEnd::Lost(failure) => {
                self.attempts.0.push(attempt::record_lost(
                    name,
                    meta.hedge,
                    meta.submitted_at.elapsed(),
                    &failure,
                ));
                self.lost_calls += 1;
                // A panic of the actor is not a fault of the provider and costs no attempt: the actor restarts
                // soon, or rejects calls as down. But a request that causes the panic each time must end.
                if self.lost_calls <= MAX_LOST_CALLS {
                    self.plan.record_rejection(
                        meta.target,
                        &Rejection::ActorRestarting,
                        now,
                        fastrand::f64(),
                    );
                    return None;
                }
                (failure, (HasOtherKey(true), IsProbe(false)))
            }
        };
        if self.is_committed() {
            // The reader has begun to get the answer of one call. The failure of another one does not matter, unless
            // the answering call is lost: then nothing else can answer.
            if self.is_committed_to(meta) || !other_in_flight {
                self.plan.end(meta.target, &failure);
            }
        } else if other_in_flight && meta.hedge && failure.retry_action() == RetryAction::Fail {
            // The failure of a hedge must not end the request while the other call may still be answered.
            self.plan.exclude(meta.target, failure);
        } else {
            self.plan.record_failure(meta.target, failure, key_and_probe, now, fastrand::f64());
        }
        None
    }

    /// Aborts a call whose result is no longer needed.
    fn abort(&mut self, call: PendingCall) {
        let target = &self.targets[call.meta.target].name;
        let hedge = call.meta.hedge;
        // Before it is dropped, so that the provider does not count it as cancelled.
        call.dispatch_signal().iter().for_each(|signal| signal.mark_superseded());
        if let Some(aborted) = call.abort() {
            log_attempt(
                &self.request,
                &mut self.attempts,
                attempt::record_superseded(target, hedge, aborted),
            );
        }
    }
}

/// Logs and counts a call that was sent and has ended.
fn log_attempt(request: &Request, log: &mut AttemptLog, attempt: Attempt) {
    if let Some(counts) = &request.counts {
        counts.count(&attempt);
    }
    log.0.push(attempt);
}

fn candidate(target: &TargetHandle) -> Candidate {
    let TargetName { provider, model } = &target.name;
    Candidate { provider: provider.clone(), context_window: target.provider.context(model) }
}

mod hedging;
mod stopping;
mod streaming;
mod target_state;
