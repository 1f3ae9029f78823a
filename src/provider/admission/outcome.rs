//! Updates of the scheduler when calls end.
//!
//! Pure, as the rest of the scheduler: the caller passes `now` and the source of random jitter.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{self, Backoff, BreakerState, TokenCost};
use crate::types::{Class, Failure, FailureScope, ModelName};

use super::evidence::{Evidence, concurrency_outcome, evidence_of, has_response, min_stream_silence};
use super::grant::{CallOutcome, Grant};
use super::scheduler::Scheduler;
use super::token_stats::StatsKey;
use crate::provider::call::TargetHealth;
use crate::provider::health::reachability::ConnectFailureScope;
use crate::provider::keys::key_set::KeyFault;
use crate::provider::keys::refusal_tracker::RefusedAttempt;
use crate::provider::target::{ConcurrencyChange, Target};

/// Backoff after a rate limit without a retry-after time.
const THROTTLE_BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };

/// Minimum backoff after a rate limit, whatever its retry-after time: a provider that repeatedly sends `0`
/// without meaning it would otherwise be called in a loop.
const MIN_THROTTLE_BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(50), max: Duration::from_secs(10) };

/// Changes that the end of a call caused, for logs and the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) struct StateChange {
    /// Whether the router must be notified.
    pub(in crate::provider) health_changed: bool,
    /// The new state of the target's breaker or the endpoint breaker, if it opened or closed.
    pub(in crate::provider) breaker_moved_to: Option<BreakerState>,
    /// Whether a key has entered its cool-down.
    pub(in crate::provider) key_cools_down: bool,
    /// Whether the call failed because of its key.
    pub(in crate::provider) key_fault: KeyFault,
    /// Whether it was just detected that the provider counts `max_tokens`.
    pub(in crate::provider) counts_max_tokens: bool,
    /// Whether it was just found that there is no such model.
    pub(in crate::provider) model_not_found: bool,
    /// The change of the target's concurrency limit.
    pub(in crate::provider) concurrency: Option<ConcurrencyChange>,
    /// Whether the retry budget has recovered after it was exhausted.
    pub(in crate::provider) retry_budget_recovered: bool,
}

impl Scheduler {
    /// Counts a failed connection.
    fn record_connect_failure(&mut self, grant: &Grant, jitter: f64, now: Instant) {
        match self.reachability.classify(grant.in_flight.sent_at(), self.mean_latency.0, now) {
            ConnectFailureScope::Request => {
                self.endpoint_breaker.record_isolated_failure(grant.endpoint_token, now, jitter)
            }
            ConnectFailureScope::Unclear => {
                self.endpoint_breaker.record_overload(grant.endpoint_token, now, jitter);
                self.reachability.start_hold(now);
            }
            ConnectFailureScope::Provider => {
                self.endpoint_breaker.record_failure(grant.endpoint_token, now, jitter);
                self.reachability.start_hold(now);
            }
        }
    }

    /// Opens the breaker of targets that have become unresponsive and returns them.
    pub(in crate::provider) fn detect_unresponsive(
        &mut self,
        jitter: fn() -> f64,
        now: Instant,
    ) -> Vec<ModelName> {
        let mean_latency = self.mean_latency.0;
        if let Some((probe, sent_at)) = self.reachability.take_connected_probe(now) {
            self.endpoint_breaker.record_unresponsive(probe, sent_at, now, jitter());
        }
        let targets = self.targets.iter_mut();
        targets
            .filter_map(|(model, target)| {
                target.detect_unresponsive(mean_latency, jitter, now).then(|| model.clone())
            })
            .collect()
    }

    /// Releases what a call holds; `None` is a call that died without an outcome.
    pub(in crate::provider) fn release(
        &mut self,
        grant: &Grant,
        outcome: Option<&CallOutcome<'_>>,
        jitter: fn() -> f64,
        now: Instant,
    ) -> StateChange {
        // First, so that a panic below loses no slot.
        self.in_flight = self.in_flight.saturating_sub(1);
        let (health, state, cooling_keys) = self.reported_state(&grant.model, now);
        let key_fault = self.release_grant(grant, outcome, jitter, now);
        let after = self.reported_state(&grant.model, now);
        let breaker_moved_to = state.zip(after.1).filter(|(state, after)| state != after);
        let mut target = self.targets.get_mut(&grant.model);
        if let Some(target) = &mut target {
            target.metrics.record_end(grant, outcome, key_fault, now);
        }
        let counts_max_tokens = target.is_some_and(|target| target.output_accounting.take_detection());
        let model_not_found = self.targets.get_mut(&grant.model).is_some_and(Target::take_not_found_notice);
        let retry_budget_recovered = self.retries_exhausted && self.retry_budget.is_half_full(now);
        self.retries_exhausted &= !retry_budget_recovered;
        StateChange {
            concurrency: self.targets.get_mut(&grant.model).and_then(Target::take_concurrency_change),
            retry_budget_recovered,
            health_changed: health != after.0,
            breaker_moved_to: breaker_moved_to.map(|(_, after)| after),
            key_cools_down: cooling_keys != after.2,
            key_fault,
            counts_max_tokens,
            model_not_found,
        }
    }

    /// Returns the state of a target that [`StateChange`] reports on.
    fn reported_state(&self, model: &ModelName, now: Instant) -> (TargetHealth, Option<BreakerState>, usize) {
        (self.health_of(model, now), self.breaker_state(model, now), self.keys.cooling_down(now).count())
    }

    fn release_grant(
        &mut self,
        grant: &Grant,
        outcome: Option<&CallOutcome<'_>>,
        jitter: fn() -> f64,
        now: Instant,
    ) -> KeyFault {
        let result = outcome.map(|outcome| outcome.result);
        let reserved = grant.reservation.reserved;
        // A call that was not sent gives back its request, too.
        let charged = (!grant.is_unsent).then(|| grant.charged(result));
        match charged {
            Some(charged) => self.limits.reconcile(reserved, charged, now),
            None => self.limits.rollback(reserved, &grant.shared),
        }
        if let Some(turn) = &grant.turn {
            // A failed call counts for what it was expected to use: else a scope whose calls fail at once would have
            // every turn.
            let is_answered = matches!(result, Some(Ok(_)));
            let used = charged.map_or(0, TokenCost::total);
            let least = if is_answered || grant.is_unsent { 0 } else { turn.tokens() };
            self.queue.finish(turn, used.max(least));
        }
        let mean_latency = self.mean_latency.0;
        let min_silence = || {
            let of_stream = min_stream_silence(mean_latency);
            self.targets.get(&grant.model)?.min_silence(grant.step.as_ref(), of_stream)
        };
        let evidence = outcome.map_or(Evidence::Unrelated, |outcome| evidence_of(outcome, min_silence));
        // The token of the endpoint breaker was returned with the first response headers, if there were any.
        let holds_endpoint_token = self.reachability.remove(grant.number);
        if grant.is_unsent {
            if grant.endpoint_token.is_probe() {
                self.reachability.discard_probe();
            }
            match grant.is_retry {
                true => self.retry_budget.put_back(),
                false => self.retry_budget.undo_deposit(),
            }
        }
        let Some(target) = self.targets.get_mut(&grant.model) else { return KeyFault::NotAtFault };
        match charged {
            Some(charged) => target.limits.reconcile(reserved, charged, now),
            None => target.rollback_unsent(grant, now),
        }
        match outcome {
            Some(outcome) => {
                let failure = outcome.result.as_ref().err().map(|failure| failure.class);
                target.counts.count(failure);
                if failure.is_some() {
                    target.first_attempts.record_failure(grant.number);
                }
                if grant.is_first {
                    target.first_attempts.record_end(grant.number, failure);
                }
            }
            None => target.first_attempts.discard(grant.number),
        }
        target.blocked_until = None;
        if outcome.is_none() && !grant.is_unsent {
            target.record_cancelled(grant.number, jitter, now);
        }
        let hung = target.remove_pending(grant.number);
        // A refusal by a known rate limit adapts the rate, not the concurrency limit.
        let is_rate_limited = target.is_rate_limited(&self.limits);
        // The end of a hung call belongs to an outage that is over.
        let concurrency_outcome = if hung {
            guard::ConcurrencyOutcome::Other
        } else {
            concurrency_outcome(outcome, &evidence, is_rate_limited)
        };
        let was_too_many = target.concurrency.release(grant.in_flight, concurrency_outcome, now);
        let mut endpoint_closed = false;
        match evidence {
            Evidence::Answered => {
                target.has_answered = true;
                target.failure_hold_until = None;
                self.retry_budget.deposit_answer(grant.is_retry, now);
                if target.breaker.record_success(grant.target_token, now) {
                    target.concurrency.restart_after_outage(now);
                }
                endpoint_closed =
                    holds_endpoint_token && self.endpoint_breaker.record_success(grant.endpoint_token, now);
            }
            Evidence::Target => {
                target.record_failure(
                    grant.target_token,
                    result,
                    was_too_many,
                    grant.in_flight.sent_at(),
                    jitter,
                    now,
                );
                target.last_failure = result.and_then(|result| result.as_ref().err()).cloned();
                let has_response = has_response(result);
                endpoint_closed = holds_endpoint_token
                    && has_response
                    && self.endpoint_breaker.record_success(grant.endpoint_token, now);
                if holds_endpoint_token && !has_response {
                    self.endpoint_breaker.release(grant.endpoint_token);
                }
            }
            Evidence::Endpoint => {
                // The target's next probe must not follow this one immediately.
                if grant.target_token.is_probe() {
                    target.breaker.record_failure(grant.target_token, now, jitter());
                } else {
                    target.breaker.release(grant.target_token);
                }
                if holds_endpoint_token {
                    self.record_connect_failure(grant, jitter(), now);
                }
                self.last_connect_error = result.and_then(|result| result.as_ref().err()).cloned();
            }
            Evidence::Unrelated => {
                target.breaker.release(grant.target_token);
                if holds_endpoint_token && has_response(result) {
                    endpoint_closed = self.endpoint_breaker.record_success(grant.endpoint_token, now);
                } else if holds_endpoint_token {
                    self.endpoint_breaker.release(grant.endpoint_token);
                }
            }
        }
        if endpoint_closed {
            self.targets.values_mut().for_each(|target| target.concurrency.restart_after_outage(now));
        }
        outcome.map_or(KeyFault::NotAtFault, |outcome| self.record_result(grant, outcome, jitter, now))
    }

    fn record_result(
        &mut self,
        grant: &Grant,
        outcome: &CallOutcome<'_>,
        jitter: fn() -> f64,
        now: Instant,
    ) -> KeyFault {
        let Some(target) = self.targets.get_mut(&grant.model) else { return KeyFault::NotAtFault };
        let key = StatsKey::new(&grant.scope, grant.step.as_ref());
        grant.reservation.record_into(&mut target.token_stats, key, outcome.result);
        match outcome.result {
            Ok(_) => {
                target.consecutive_throttles = 0;
                target.latencies.record(outcome.took);
                target.step_latencies.record(grant.step.as_ref(), outcome.took);
                self.mean_latency.update(outcome.took.as_secs_f64());
                self.keys.on_answered(&grant.key, &grant.model);
                KeyFault::NotAtFault
            }
            Err(failure) => self.apply_backoff(grant, failure, jitter, now),
        }
    }

    /// Applies the backoff that a failure requires to the target or to the whole provider.
    fn apply_backoff(
        &mut self,
        grant: &Grant,
        failure: &Failure,
        jitter: fn() -> f64,
        now: Instant,
    ) -> KeyFault {
        let attempt = RefusedAttempt {
            request: &grant.request,
            is_explicit: failure.scope != FailureScope::Unclear,
            oldest_pending: self.targets.values().filter_map(Target::oldest_pending).min(),
            latest_sent: self.first_number + self.calls_sent,
        };
        let key_fault = self.keys.on_refused(&grant.key, &grant.model, failure, attempt, now);
        if key_fault != KeyFault::NotAtFault {
            return key_fault;
        }
        let Some(target) = self.targets.get_mut(&grant.model) else { return key_fault };
        if failure.class == Class::NotFound {
            target.record_not_found(failure, grant.target_token.is_probe(), attempt, jitter, now);
        }
        let others_are_accepted =
            target.last_accepted_at.is_some_and(|accepted| accepted >= grant.in_flight.sent_at());
        let retry_after = failure.credible_retry_after();
        // Vendors limit each model. If the only known limits are the account's, the refusal must be the
        // account's.
        let token_limits = target.token_limits(&self.limits);
        let is_account_limit = self.limits.is_known() && !target.limits.is_known();
        let (limits, sent_call) = if is_account_limit || !target.has_own_limits {
            (&mut self.limits, &grant.shared)
        } else {
            (&mut target.limits, &grant.own)
        };
        match (failure.class, retry_after) {
            (Class::RateLimit, retry_after) => {
                self.throttled += 1;
                target.hold_failure = None;
                // The request waits by itself; the target stays available to others.
                if target.refused_requests.record(&grant.request, target.last_accepted_at, now) {
                    return key_fault;
                }
                // Calls that were sent together are refused together: that is one incident.
                if limits.held_for(now).is_zero() {
                    target.consecutive_throttles = target.consecutive_throttles.saturating_add(1);
                }
                let times = target.consecutive_throttles;
                let jitter = jitter();
                let counts_max_tokens = target.output_accounting.record_refused(
                    &grant.reservation,
                    token_limits,
                    failure.limited_resource,
                    now,
                );
                if counts_max_tokens {
                    target.reservations.count_max_tokens();
                }
                let estimated_wait = if counts_max_tokens {
                    None
                } else {
                    limits.record_unexplained_throttle(sent_call, failure.limited_resource, retry_after, now)
                };
                // Jitter, because several processes may share the limit.
                let estimated_wait = estimated_wait.map(|pause| pause.mul_f64(0.8 + 0.2 * jitter));
                let wait = match (retry_after, estimated_wait) {
                    (Some(retry_after), estimated_wait) => retry_after + estimated_wait.unwrap_or_default(),
                    (None, Some(estimated_wait)) => estimated_wait,
                    (None, None) => THROTTLE_BACKOFF.wait(times, jitter),
                };
                let until = now + wait.max(MIN_THROTTLE_BACKOFF.wait(times, jitter));
                limits.record_throttled(sent_call, until, now);
                target.breaker.extend_open_until(until);
            }
            // A retry-after time on one of many calls, while others are accepted, applies to that call only.
            (Class::Overloaded | Class::ServerError, Some(wait)) if !others_are_accepted => {
                limits.hold(now + wait);
                target.breaker.extend_open_until(now + wait);
                target.hold_failure = Some(failure.clone());
            }
            _ => {}
        }
        key_fault
    }
}
