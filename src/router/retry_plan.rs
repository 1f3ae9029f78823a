//! Retries and failover of one request: which target is called next, when, and when the request fails.
//!
//! Four limits apply: the attempts at each target, the number of targets, the rounds over all targets, and the
//! deadline. Pure: the caller passes `now`, and no I/O happens here.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Backoff;
use crate::provider::Rejection;
use crate::types::{Cause, Class, Failure, FailureScope, RetryAction};

use super::settings::RetrySettings;
pub use action::{Candidate, HasOtherKey, IsProbe, NextAction};
pub(super) use request_failure::RequestFailure;

/// If a provider requests a longer wait than this, the request fails over if another target is eligible.
const MAX_WAIT_BEFORE_FAILOVER: Duration = Duration::from_secs(2);

/// Maximum number of rate limits at one target before the request fails over to a target that is ready.
const MAX_RATE_LIMITS_BEFORE_FAILOVER: u32 = 3;

/// The plan of one request over the targets of its route, which are identified by their indexes.
#[derive(Debug)]
pub struct RetryPlan {
    retry: RetrySettings,
    deadline: Instant,
    targets: Vec<TargetAttempts>,
    /// The target that is called again before any other.
    retry_target: Option<usize>,
    round: u32,
    /// The start of the next round, if it is scheduled.
    next_round_at: Option<Instant>,
    /// The latest failure.
    last_failure: Option<RequestFailure>,
    /// The failure that ends the request.
    final_failure: Option<RequestFailure>,
    /// Whether the caller sends a failed request again. Then the request fails instead of waiting for a target
    /// that is down.
    caller_resends: bool,
}

/// The attempts at one target.
#[derive(Debug)]
struct TargetAttempts {
    candidate: Candidate,
    /// The number of failed calls in this round.
    attempts: u32,
    /// Whether a call has failed in any round.
    called: bool,
    /// Whether it is not called again in this round.
    exhausted: bool,
    /// Whether a call has timed out. Then it is called again only if there is no alternative.
    timed_out: bool,
    /// Whether a call has failed by a fault of the provider.
    provider_failed: bool,
    /// The number of calls that failed because of a rate limit.
    rate_limits: u32,
    /// Whether the model has answered with a tool call that the request does not allow.
    has_invalid_tool_call: bool,
    /// Its latest failure, or the reason why it rejected a call.
    last_failure: Option<Failure>,
    /// Whether a call has failed and its breaker was open after that.
    is_down: bool,
    /// The reason why it is not called again in any round.
    excluded: Option<Failure>,
    /// The earliest time of the next call.
    not_before: Option<Instant>,
}

impl RetryPlan {
    /// Creates a plan over targets, in the order in which they are tried.
    pub fn new(
        targets: impl IntoIterator<Item = Candidate>,
        retry: RetrySettings,
        deadline: Instant,
    ) -> Self {
        let targets = targets.into_iter().map(TargetAttempts::new).collect();
        Self {
            retry,
            deadline,
            targets,
            retry_target: None,
            round: 1,
            next_round_at: None,
            last_failure: None,
            final_failure: None,
            caller_resends: false,
        }
    }

    /// If `caller_resends`, the request fails instead of waiting for targets that have failed it and are down.
    /// Requests that have not failed yet probe whether these targets have recovered.
    #[must_use]
    pub fn with_caller_resends(self, caller_resends: bool) -> Self {
        Self { caller_resends, ..self }
    }

    /// Returns the next action at `now`. `jitter` is in `0.0..1.0` and spreads the waits.
    pub fn next(&mut self, now: Instant, jitter: f64) -> NextAction {
        if let Some(failure) = self.final_failure.take() {
            return NextAction::Fail(failure);
        }
        if now >= self.deadline {
            return self.fail();
        }
        if let Some(target) = self.retry_target {
            return match self.targets[target].not_before.filter(|at| *at > now) {
                Some(at) => self.wait(at),
                None => self.call(target),
            };
        }
        if let Some(target) = (0..self.targets.len()).find(|target| self.is_ready(*target, now)) {
            return self.call(target);
        }
        // Targets that rejected the call because of a queue or a breaker will admit it later. The next round,
        // which retries the failed targets, may start before that.
        let eligible = (0..self.targets.len()).filter(|target| self.is_eligible(*target));
        let first_due = eligible.filter_map(|target| self.targets[target].not_before).min();
        match (first_due, self.schedule_next_round(now, jitter)) {
            (Some(due), Some(round)) if round < due => self.start_next_round(round, now, jitter),
            (Some(_), _) if self.caller_resends && self.only_down_targets_remain() => self.fail(),
            (Some(due), _) => self.wait(due),
            (None, Some(round)) => self.start_next_round(round, now, jitter),
            (None, None) => self.fail(),
        }
    }

    /// Ends the request with the failure of a call whose answer the caller has begun to get.
    pub fn end(&mut self, target: usize, failure: &Failure) {
        self.final_failure = Some(RequestFailure::of_target(target, failure));
    }

    /// Returns whether a failure has ended the request.
    pub fn is_over(&self) -> bool {
        self.final_failure.is_some()
    }

    /// Returns whether the provider of a target has already failed the request, so that a call to it is a retry.
    pub fn is_retry(&self, target: usize) -> bool {
        let provider = &self.targets[target].candidate.provider;
        self.targets.iter().any(|state| state.provider_failed && state.candidate.provider == *provider)
    }

    /// Returns whether every other target is not ready, not healthy, or has timed out for this request.
    pub fn is_only_option_now(
        &self,
        target: usize,
        now: Instant,
        is_healthy: impl Fn(usize) -> bool,
    ) -> bool {
        let is_usable =
            |other| self.is_ready(other, now) && !self.targets[other].timed_out && is_healthy(other);
        !self.other_targets(target).any(is_usable)
    }

    /// Returns whether no other target without a timeout is usable, now or later.
    pub fn is_only_option(&self, target: usize) -> bool {
        !self.has_alternative(target)
    }

    /// Returns the targets to which a call to `target` may be hedged at `now`. Targets of other providers come
    /// first: they are not slow for the same reason.
    pub fn hedge_candidates(&self, target: usize, now: Instant) -> Vec<usize> {
        let TargetAttempts { candidate, called, .. } = &self.targets[target];
        let may_add_target =
            self.called_targets() + usize::from(!called) < self.retry.max_targets.get() as usize;
        let is_candidate = |other: &usize| {
            let state = &self.targets[*other];
            self.is_ready(*other, now) && !state.timed_out && (may_add_target || state.called)
        };
        let mut candidates: Vec<usize> = self.other_targets(target).filter(is_candidate).collect();
        candidates.sort_by_key(|other| self.targets[*other].candidate.provider == candidate.provider);
        candidates
    }

    /// Excludes a target from all further calls, for this reason.
    pub fn exclude(&mut self, target: usize, failure: Failure) {
        self.targets[target].excluded = Some(failure);
    }

    /// Records that a target rejected the call. `jitter` is in `0.0..1.0` and spreads the requests that wait for
    /// the same instant.
    pub fn record_rejection(&mut self, target: usize, rejection: &Rejection, now: Instant, jitter: f64) {
        self.retry_target = None;
        let state = &mut self.targets[target];
        match rejection {
            // A minimum wait prevents a busy loop.
            Rejection::Busy { until } | Rejection::RetryBudgetExhausted { until } => {
                let spread = self.retry.initial_backoff.mul_f64(jitter.clamp(0.0, 1.0) / 2.0);
                state.not_before = Some((*until).max(now + self.retry.initial_backoff) + spread);
            }
            Rejection::BreakerOpen { until: Some(until) } => {
                state.is_down = state.provider_failed;
                state.not_before = Some((*until).max(now + self.retry.initial_backoff));
            }
            Rejection::BreakerOpen { until: None } => {
                state.is_down = state.provider_failed;
                state.not_before = Some(now + self.retry.initial_backoff * 2);
            }
            Rejection::ActorRestarting => state.not_before = Some(now + self.retry.initial_backoff * 2),
            // A target that has never answered costs a round, and the number of rounds is limited. Only a target
            // that has answered before is awaited until the deadline. The same applies to an actor that is down;
            // an actor that is restarting is awaited.
            Rejection::NeverAnswered(failure) | Rejection::ActorDown(failure) => {
                state.exhausted = true;
                state.last_failure = Some(failure.clone());
                self.last_failure.get_or_insert_with(|| RequestFailure::of_target(target, failure));
            }
            // The budget does not admit a call to any target.
            Rejection::Budget { failure, for_all_targets: true } => {
                self.final_failure = Some(failure.clone().into());
            }
            Rejection::Budget { failure, for_all_targets: false } => state.excluded = Some(failure.clone()),
            // The latest failure stays: if another target is only down, the request has not failed by its content.
            Rejection::Unsupported(failure) => match failure.retry_action() {
                RetryAction::Failover => state.excluded = Some(failure.clone()),
                RetryAction::Retry { .. } | RetryAction::Fail => {
                    self.final_failure = Some(RequestFailure::of_target(target, failure));
                }
            },
            Rejection::NoUsableKey(failure)
            | Rejection::OutOfService(failure)
            | Rejection::ModelNotFound(failure)
            | Rejection::TooLarge(failure) => {
                state.excluded = Some(failure.clone());
                let is_undecided =
                    |last: &RequestFailure| last.target == Some(target) && last.failure.scope.is_undecided();
                self.last_failure = self.last_failure.take().filter(|last| !is_undecided(last));
                self.last_failure.get_or_insert_with(|| RequestFailure::of_target(target, failure));
            }
        }
    }

    /// Records that a call failed.
    pub fn record_failure(
        &mut self,
        target: usize,
        failure: Failure,
        (HasOtherKey(has_other_key), IsProbe(is_probe)): (HasOtherKey, IsProbe),
        now: Instant,
        jitter: f64,
    ) {
        self.retry_target = None;
        let other_eligible = self.other_targets(target).any(|other| self.is_eligible(other));
        let retry_after = failure.credible_retry_after();
        let other_ready = self.other_targets(target).any(|other| self.is_ready(other, now));
        let backoff = self.backoff();
        let state = &mut self.targets[target];
        state.called = true;
        state.last_failure = Some(failure.clone());
        state.timed_out |= failure.class == Class::Timeout;
        state.provider_failed |= failure.class.is_provider_fault();
        state.rate_limits += u32::from(failure.class == Class::RateLimit);
        match (failure.retry_action(), failure.class) {
            // The same model refuses the same request again. Another model may answer it.
            (RetryAction::Fail, Class::ContentFilter) if self.retry.failover_refusals => {
                state.excluded = Some(failure.clone());
            }
            (RetryAction::Fail, _) => self.final_failure = Some(RequestFailure::of_target(target, &failure)),
            // The target was known to be down, and this call was the probe for all requests. It costs no attempt:
            // otherwise a single request would use up its attempts in an outage. The breaker of the target is open
            // again and determines the wait.
            (_, class) if is_probe && class.is_provider_fault() => {
                state.is_down = true;
                state.not_before = Some(now + self.retry.initial_backoff);
            }
            // The provider now delays all calls. That does not count as an attempt, because the call itself was
            // not at fault.
            (RetryAction::Retry { .. }, Class::RateLimit) => match retry_after {
                Some(wait) if wait > MAX_WAIT_BEFORE_FAILOVER && other_eligible => {
                    state.not_before = Some(now + wait);
                }
                // Short waits add up, too.
                _ if state.rate_limits > MAX_RATE_LIMITS_BEFORE_FAILOVER && other_ready => {
                    state.not_before = Some(now + retry_after.unwrap_or(self.retry.initial_backoff));
                }
                // The requested wait was too short for this request. It waits longer and leaves capacity to
                // others.
                _ if state.rate_limits > 1 && !other_ready => {
                    let wait = backoff.wait(state.rate_limits - 1, jitter);
                    state.not_before = Some(now + wait.max(retry_after.unwrap_or_default()));
                    self.retry_target = Some(target);
                }
                _ => self.retry_target = Some(target),
            },
            // The target does not admit this request, although it may admit others.
            (RetryAction::Failover, Class::RateLimit | Class::TooLong)
                if failure.scope == FailureScope::Target =>
            {
                state.excluded = Some(failure.clone());
            }
            // The provider omits the parameter that the model rejected. That is a different call, and there are
            // few.
            (RetryAction::Retry { .. }, Class::ApiError) => self.retry_target = Some(target),
            // Each such answer is charged, and a model that repeats it repeats it again.
            (RetryAction::Retry { .. }, Class::ValidationError)
                if failure.cause == Some(Cause::InvalidToolCall) =>
            {
                if std::mem::replace(&mut state.has_invalid_tool_call, true) {
                    state.excluded = Some(failure.clone());
                } else {
                    self.retry_or_exhaust(target, now, jitter);
                }
            }
            (RetryAction::Retry { .. }, _) => {
                self.retry_or_exhaust(target, now, jitter);
                if let Some(wait) = retry_after {
                    let state = &mut self.targets[target];
                    state.not_before = state.not_before.max(Some(now + wait));
                    let fails_over = wait > MAX_WAIT_BEFORE_FAILOVER && other_eligible;
                    self.retry_target = self.retry_target.filter(|_| !fails_over);
                }
            }
            (RetryAction::Failover, Class::Auth | Class::Quota | Class::ApiError) if has_other_key => {
                self.retry_target = Some(target);
            }
            // The same target refuses the same request again. Exception: it is undecided whether the key or only
            // this request is refused. Other requests show that meanwhile.
            (
                RetryAction::Failover,
                Class::Auth | Class::Quota | Class::NotFound | Class::ApiError | Class::ContentFilter,
            ) if !failure.scope.is_undecided() => {
                state.excluded = Some(failure.clone());
            }
            (RetryAction::Failover, Class::TooLong) => self.exclude_smaller_windows(target, &failure),
            (RetryAction::Failover, _) if other_eligible => state.exhausted = true,
            (RetryAction::Failover, _) => self.retry_or_exhaust(target, now, jitter),
        }
        self.last_failure = Some(RequestFailure::of_target(target, &failure));
    }

    /// Excludes a target whose context is too small for the prompt, and all targets with an equal or smaller known
    /// context.
    fn exclude_smaller_windows(&mut self, target: usize, failure: &Failure) {
        let too_small = self.targets[target].candidate.context_window;
        let is_not_larger = |other: &TargetAttempts| {
            let both = other.candidate.context_window.zip(too_small);
            both.is_some_and(|(window, too_small)| window <= too_small)
        };
        for (index, state) in self.targets.iter_mut().enumerate() {
            if state.excluded.is_none() && (index == target || is_not_larger(state)) {
                state.excluded = Some(failure.clone());
            }
        }
    }

    /// Counts an attempt, and schedules the next one if the target has attempts left in this round.
    fn retry_or_exhaust(&mut self, target: usize, now: Instant, jitter: f64) {
        let backoff = self.backoff();
        let state = &mut self.targets[target];
        state.attempts += 1;
        if state.attempts < self.retry.attempts_per_target.get() {
            state.not_before = Some(now + backoff.wait(state.attempts, jitter));
            self.retry_target = Some(target);
        } else {
            state.exhausted = true;
        }
    }

    /// Returns when the next round over the failed targets starts; `None` if no target is worth a retry or no
    /// round is left.
    fn schedule_next_round(&mut self, now: Instant, jitter: f64) -> Option<Instant> {
        let is_retryable = |target: usize| {
            let state = &self.targets[target];
            state.exhausted && state.excluded.is_none() && !(state.timed_out && self.has_alternative(target))
        };
        let any_retryable = (0..self.targets.len()).any(is_retryable);
        // The backoff between rounds continues the backoff between the attempts at one target.
        let waits = self.round + self.retry.attempts_per_target.get();
        if !any_retryable || self.round >= self.retry.max_rounds.get() {
            return None;
        }
        // Computed once per round: a target that rejects calls repeatedly meanwhile must not delay it.
        let at = now + self.backoff().wait(waits, jitter);
        Some(*self.next_round_at.get_or_insert(at))
    }

    /// Starts the next round with every target that is not excluded.
    fn start_next_round(&mut self, at: Instant, now: Instant, jitter: f64) -> NextAction {
        self.round += 1;
        self.next_round_at = None;
        for state in &mut self.targets {
            state.attempts = 0;
            state.exhausted = false;
            state.not_before = state.not_before.max(Some(at));
        }
        // Its start may have passed during a call.
        if at <= now { self.next(now, jitter) } else { self.wait(at) }
    }

    fn call(&mut self, target: usize) -> NextAction {
        self.retry_target = None;
        self.targets[target].not_before = None;
        self.targets[target].is_down = false;
        NextAction::Call(target)
    }

    fn wait(&mut self, until: Instant) -> NextAction {
        if until >= self.deadline { self.fail() } else { NextAction::Wait(until) }
    }

    /// Ends the request. Any earlier failure is more informative than the passed deadline.
    fn fail(&mut self) -> NextAction {
        let deadline_failure =
            || Failure::new(Class::Deadline, "no target could admit the call before its deadline").into();
        let failure = self.budget_failure();
        let failure = failure.or_else(|| self.larger_window_failure()).or_else(|| self.last_failure.take());
        let failure = failure.or_else(|| self.unsupported_failure());
        NextAction::Fail(failure.unwrap_or_else(deadline_failure))
    }

    /// Returns the budget failure if all targets are excluded and at least one of them only by its budget: with a
    /// larger budget it would answer.
    fn budget_failure(&self) -> Option<RequestFailure> {
        let reasons: Option<Vec<&Failure>> =
            self.targets.iter().map(|state| state.excluded.as_ref()).collect();
        let by_budget = reasons?.into_iter().enumerate().find(|(_, failure)| failure.class == Class::Budget);
        by_budget.map(|(target, failure)| RequestFailure::of_target(target, failure))
    }

    /// Returns why the first target is excluded if all of them are and none was called: no target can express the
    /// request.
    fn unsupported_failure(&self) -> Option<RequestFailure> {
        let are_all_excluded = self.targets.iter().all(|state| state.excluded.is_some());
        let first = self.targets.first().filter(|_| are_all_excluded)?.excluded.as_ref()?;
        Some(RequestFailure::of_target(0, first))
    }

    /// Returns why a target with a larger context has not answered, if the contexts of the others are too small.
    fn larger_window_failure(&self) -> Option<RequestFailure> {
        self.last_failure.as_ref().filter(|last| last.failure.class == Class::TooLong)?;
        let is_too_small = |state: &TargetAttempts| {
            state.excluded.as_ref().is_some_and(|reason| reason.class == Class::TooLong)
        };
        let is_relevant =
            |target: usize| self.targets[target].last_failure.is_some() || self.is_allowed(target);
        let target = (0..self.targets.len())
            .find(|target| !is_too_small(&self.targets[*target]) && is_relevant(*target))?;
        let Some(failure) = &self.targets[target].last_failure else {
            let message = "no target with a large enough context was free before the deadline";
            return Some(Failure::new(Class::Deadline, message).into());
        };
        Some(RequestFailure::of_target(target, failure))
    }

    fn only_down_targets_remain(&self) -> bool {
        let mut eligible = (0..self.targets.len()).filter(|target| self.is_eligible(*target));
        eligible.all(|target| self.targets[target].is_down)
    }

    /// Returns whether a target may be called in this round, now or later.
    fn is_eligible(&self, target: usize) -> bool {
        let state = &self.targets[target];
        !state.exhausted && self.is_allowed(target) && !(state.timed_out && self.has_alternative(target))
    }

    /// Returns whether a target may be called in any round: it is not excluded, and the maximum number of
    /// targets is not reached.
    fn is_allowed(&self, target: usize) -> bool {
        let state = &self.targets[target];
        let may_add_target = self.called_targets() < self.retry.max_targets.get() as usize;
        state.excluded.is_none() && (state.called || may_add_target)
    }

    /// Returns whether another target without a timeout may still be called, in this round or a later one.
    fn has_alternative(&self, target: usize) -> bool {
        self.other_targets(target).any(|other| {
            let state = &self.targets[other];
            let has_rounds = !state.exhausted || self.round < self.retry.max_rounds.get();
            let in_time = state.not_before.is_none_or(|at| at < self.deadline);
            !state.timed_out && has_rounds && in_time && self.is_allowed(other)
        })
    }

    fn other_targets(&self, target: usize) -> impl Iterator<Item = usize> {
        (0..self.targets.len()).filter(move |other| *other != target)
    }

    fn called_targets(&self) -> usize {
        self.targets.iter().filter(|state| state.called).count()
    }

    /// Returns whether a target may be called at `now`.
    fn is_ready(&self, target: usize, now: Instant) -> bool {
        self.is_eligible(target) && self.is_due(target, now)
    }

    fn is_due(&self, target: usize, now: Instant) -> bool {
        self.targets[target].not_before.is_none_or(|at| at <= now)
    }

    fn backoff(&self) -> Backoff {
        Backoff { base: self.retry.initial_backoff, max: self.retry.max_backoff }
    }
}

impl TargetAttempts {
    fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            attempts: 0,
            called: false,
            exhausted: false,
            timed_out: false,
            provider_failed: false,
            rate_limits: 0,
            has_invalid_tool_call: false,
            last_failure: None,
            is_down: false,
            excluded: None,
            not_before: None,
        }
    }
}

mod action;
mod request_failure;
#[cfg(test)]
mod tests;
