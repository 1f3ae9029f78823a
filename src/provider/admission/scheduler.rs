//! Admission scheduler of a provider: its limits, and which queued call may be sent.
//!
//! Pure: the caller passes the time and the source of random jitter, holds the lock, sends the responses and
//! performs the calls. `check.rs` decides whether an arriving call may be queued, `response_headers.rs` applies
//! the response headers of calls and `outcome.rs` their results, and `health/target_health.rs` and
//! `health/outage.rs` answer queries about the scheduler's state.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{Breaker, BreakerSettings, BreakerToken, RateLimiter, RetryBudget, TripReason};
use crate::types::{Failure, ModelName, Spend};

use super::budget::{BudgetError, BudgetReservation, Budgets, CallTokens, SharedBy};
use super::estimate::Estimate;
use super::grant::Grant;
use super::queue::{Queue, Ticket};
use super::queued_call::QueuedCall;
use super::token_stats::StatsKey;
use crate::provider::call::{Call, Rejection};
use crate::provider::health::pending_attempts::PendingAttempt;
use crate::provider::health::reachability::Reachability;
use crate::provider::health::stats::{Ewma, LatencyWindow};
use crate::provider::health::utilization::RecentUsage;
use crate::provider::keys::key::ReadyKey;
use crate::provider::keys::key_set::{Keys, NoUsableKey};
use crate::provider::out_of_service::OutOfService;
use crate::provider::settings::Settings;
use crate::provider::target::Target;

/// How long a call waits before it checks a fully reserved budget again. Calls of other providers may have
/// released some of it by then; calls of the same provider wake it at once.
const BUDGET_RECHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Queue, limits, breakers and counters of a provider.
#[derive(Debug)]
pub(in crate::provider) struct Scheduler {
    pub(in crate::provider) queue: Queue<QueuedCall>,
    /// When the queue was last searched for calls whose caller is gone.
    pub(in crate::provider) abandoned_searched_at: Option<Instant>,
    pub(in crate::provider) limits: RateLimiter,
    pub(in crate::provider) keys: Keys,
    /// Counts failures that affect all targets: connections that fail.
    pub(in crate::provider) endpoint_breaker: Breaker,
    /// The last failure that counted for the endpoint breaker.
    pub(in crate::provider) last_connect_error: Option<Failure>,
    /// Evidence of whether the provider can be reached while connections fail.
    pub(in crate::provider) reachability: Reachability,
    /// Whether response headers have closed the endpoint breaker and the router has not been notified yet.
    pub(in crate::provider) endpoint_breaker_closed: bool,
    pub(in crate::provider) retry_budget: RetryBudget,
    /// Whether the retry budget is exhausted and that was logged.
    pub(in crate::provider) retries_exhausted: bool,
    pub(in crate::provider) budgets: Budgets,
    pub(in crate::provider) targets: BTreeMap<ModelName, Target>,
    pub(in crate::provider) in_flight: usize,
    /// Limit of attempts in flight to all models together; `None` if only the models' own limits apply.
    pub(in crate::provider) max_in_flight: Option<usize>,
    pub(in crate::provider) mean_latency: Ewma,
    pub(in crate::provider) recent_usage: RecentUsage,
    pub(in crate::provider) calls_sent: u64,
    /// The number of the first call. It is higher than those of an account that this one has taken the place of.
    pub(in crate::provider) first_number: u64,
    /// Why it takes no new calls; `None` if it takes them.
    pub(in crate::provider) out_of_service: Option<OutOfService>,
    pub(in crate::provider) throttled: u64,
    /// Whether the daily usage that a store had counted was restored.
    pub(in crate::provider) daily_usage_restored: bool,
    /// Whether queued calls wait for rate limits, and not for other calls to end.
    pub(in crate::provider) rate_limited: bool,
}

/// The decision about the next queued call.
pub(in crate::provider) enum Decision {
    /// Send this call, with its key, the resources that it holds, and its reserved budget.
    Dispatch(Box<(QueuedCall, ReadyKey, Box<Grant>, BudgetReservation)>),
    /// Reject this call.
    Reject(Box<QueuedCall>, Rejection),
    /// The next call may be sent at that instant.
    Wait(Instant),
    /// The queue is empty, or no call may be sent before another one ends.
    Idle,
}

/// Why a call cannot be sent now.
enum Blocked {
    /// All calls are blocked until then.
    All(Instant),
    /// The calls of its target are blocked.
    Target,
    /// The call is rejected.
    Rejected(Rejection),
}

impl Scheduler {
    pub(in crate::provider) fn new(settings: &Settings, keys: Keys, now: Instant) -> Self {
        let target = |(name, model): (&ModelName, _)| (name.clone(), Target::new(settings, model, now));
        Self {
            queue: Queue::new(settings.queue.get()),
            limits: RateLimiter::new(&settings.limits.rates(), now),
            keys,
            endpoint_breaker: Breaker::new(endpoint_breaker_settings(&settings.breaker)),
            last_connect_error: None,
            reachability: Reachability::default(),
            endpoint_breaker_closed: false,
            retry_budget: RetryBudget::new(settings.retry_budget.clone(), now),
            retries_exhausted: false,
            budgets: Budgets::default(),
            targets: settings.models.iter().map(target).collect(),
            in_flight: 0,
            max_in_flight: settings.max_concurrency.map(|bound| bound.get() as usize),
            mean_latency: Ewma::default(),
            recent_usage: RecentUsage::new(now),
            calls_sent: 0,
            first_number: 0,
            out_of_service: None,
            throttled: 0,
            daily_usage_restored: false,
            abandoned_searched_at: None,
            rate_limited: false,
        }
    }

    /// Applies changed settings. What was learned and what is in use stays, also for a model that is no longer configured
    /// and whose last calls have not ended.
    pub(in crate::provider) fn reconfigure(&mut self, before: &Settings, settings: &Settings, now: Instant) {
        self.queue.set_bound(settings.queue.get());
        self.limits.set_limits(&settings.limits.rates(), now);
        self.endpoint_breaker.set_settings(endpoint_breaker_settings(&settings.breaker));
        self.retry_budget.set_settings(settings.retry_budget.clone(), now);
        self.max_in_flight = settings.max_concurrency.map(|bound| bound.get() as usize);
        let queue = &self.queue;
        self.targets.retain(|name, target| {
            target.is_retired = !settings.models.contains_key(name);
            !target.is_retired || target.concurrency.in_flight() > 0 || queue.has_calls_of(name)
        });
        for (name, model) in &settings.models {
            let is_other_model = before.models.get(name).is_none_or(|before| before.name != model.name);
            match self.targets.get_mut(name) {
                Some(target) => target.reconfigure(settings, model, is_other_model, now),
                None => drop(self.targets.insert(name.clone(), Target::new(settings, model, now))),
            }
        }
    }

    /// Returns why no new call to a model is accepted; `None` if calls are accepted.
    pub(in crate::provider) fn out_of_service(&self, model: &ModelName) -> Option<Failure> {
        let reason = self.out_of_service.or_else(|| {
            let target = self.targets.get(model)?;
            if target.is_retired {
                return Some(OutOfService::ModelRemoved);
            }
            target.is_forced_open.then_some(OutOfService::BreakerForcedOpen)
        });
        reason.map(OutOfService::failure)
    }

    /// Returns why the queued calls to a model are rejected, too.
    pub(in crate::provider) fn rejects_queued(&self, model: &ModelName) -> Option<Failure> {
        let is_forced_open = self.targets.get(model).is_some_and(|target| target.is_forced_open);
        let reason = self.out_of_service.filter(|reason| reason.rejects_queued());
        reason.or(is_forced_open.then_some(OutOfService::BreakerForcedOpen)).map(OutOfService::failure)
    }

    /// Checks both breakers without taking tokens.
    pub(in crate::provider) fn check_breakers(
        &self,
        target: &Target,
        only_option_now: bool,
        now: Instant,
    ) -> Result<(), Rejection> {
        if let Err(until) = self.endpoint_breaker.check(now, only_option_now) {
            return Err(match &self.last_connect_error {
                // Waiting makes sense only if a target of this provider has worked before.
                Some(failure) if !self.targets.values().any(|target| target.has_answered) => {
                    Rejection::NeverAnswered(failure.clone())
                }
                _ => Rejection::BreakerOpen { until },
            });
        }
        target.breaker.check(now, only_option_now).map_err(|until| target.rejection(until))
    }

    /// Returns whether calls of a target may be considered now.
    pub(in crate::provider) fn may_dispatch(&self, model: &ModelName, now: Instant) -> bool {
        // The calls in flight will soon show whether the provider is unreachable or only single requests fail.
        if self.reachability.hold_until(now).is_some() && self.endpoint_breaker.could_trip() {
            return false;
        }
        let is_endpoint_down = self.endpoint_breaker.trip_reason() == Some(TripReason::ConsecutiveFailures);
        self.targets.get(model).is_none_or(|target| target.can_dispatch(&self.limits, is_endpoint_down, now))
    }

    /// Decides about the next queued call.
    pub(in crate::provider) fn next(&mut self, jitter: fn() -> f64, now: Instant) -> Decision {
        self.rate_limited = false;
        let mut full = Vec::new(); // Models whose next call must wait until another one ends.
        loop {
            let next = self.queue.next(|model| !full.contains(model) && self.may_dispatch(model, now));
            let Some((ticket, first)) = next else { return self.wait_for_target(now) };
            // The caller is gone, possibly by a panic after the call was queued, or the deadline has passed.
            if first.responder.is_closed() || first.call.deadline <= now {
                return self.reject(&ticket, Rejection::Busy { until: now });
            }
            if self.must_wait_for_slot(&first.call, now) {
                full.push(first.call.model.clone());
                continue;
            }
            let call = first.call.clone();
            let estimate = first.estimate;
            match self.admit(&call, estimate, now) {
                Ok((key, mut grant, budget)) => {
                    let Some((queued, turn)) = self.queue.take(ticket) else {
                        self.release(&grant, None, jitter, now);
                        return Decision::Idle;
                    };
                    grant.turn = Some(turn);
                    return Decision::Dispatch(Box::new((queued, key, grant, budget)));
                }
                Err(Blocked::Target) => {}
                Err(Blocked::All(ready)) => {
                    self.rate_limited = true;
                    return Decision::Wait(ready);
                }
                Err(Blocked::Rejected(rejection)) => return self.reject(&ticket, rejection),
            }
        }
    }

    /// Returns whether a call must wait because the provider-wide limit of calls in flight is reached. A call
    /// that a breaker rejects, or admits as a probe, does not wait for calls that hang.
    fn must_wait_for_slot(&self, call: &Call, now: Instant) -> bool {
        let Some(max) = self.max_in_flight else { return false };
        let Some(target) = self.targets.get(&call.model) else { return self.in_flight >= max };
        if target.breaker.trip_reason().is_none() && self.endpoint_breaker.trip_reason().is_none() {
            return !self.has_free_slot();
        }
        let passes_breakers = |only_option_now| self.check_breakers(target, only_option_now, now).is_ok();
        self.in_flight >= max && call.only_option_now && passes_breakers(true) && !passes_breakers(false)
    }

    /// Returns whether fewer attempts are in flight than the provider-wide limit. Attempts at an unresponsive
    /// model do not count: they may hang for minutes, and the other models must not wait for them.
    pub(in crate::provider) fn has_free_slot(&self) -> bool {
        let active = |target: &Target| if target.is_unresponsive() { 0 } else { target.concurrency.active() };
        self.max_in_flight.is_none_or(|max| self.targets.values().map(active).sum::<usize>() < max)
    }

    /// Takes all resources that a call needs, or none if one of them is missing.
    fn admit(
        &mut self,
        call: &Call,
        estimate: Estimate,
        now: Instant,
    ) -> Result<(ReadyKey, Box<Grant>, BudgetReservation), Blocked> {
        if let Some(failure) = self.rejects_queued(&call.model) {
            return Err(Blocked::Rejected(Rejection::OutOfService(failure)));
        }
        let key = match self.keys.pick(&call.model, &call.excluded_keys, now) {
            Ok(key) => key.clone(),
            Err(NoUsableKey::Rechecking(until)) => return Err(Blocked::All(until)),
            Err(NoUsableKey::AllCoolingDown(failure)) => {
                return Err(Blocked::Rejected(Rejection::NoUsableKey(failure)));
            }
        };
        let target = self.targets.get(&call.model).ok_or(Blocked::Rejected(Rejection::ActorRestarting))?;
        self.check_breakers(target, call.only_option_now, now).map_err(Blocked::Rejected)?;
        // Returned when it is dropped, if the call is not sent.
        let budget = self.reserve_budget(call, estimate, now)?;
        let Some(target) = self.targets.get_mut(&call.model) else {
            return Err(Blocked::Rejected(Rejection::ActorRestarting));
        };
        // Computed only now, because answers that arrived in the meantime have improved the statistics.
        let reserved =
            target.reservations.for_call(&target.token_stats, StatsKey::of(&call.context), estimate);
        let own = target.take(&reserved, now).map_err(|_| Blocked::Target)?;
        let shared = self.limits.take(reserved.reserved, reserved.mean, now).map_err(|ready| {
            target.limits.rollback(reserved.reserved, &own);
            Blocked::All(ready)
        })?;
        let tokens = match count_attempt(&mut self.retry_budget, call.is_retry, now) {
            Ok(()) => {
                admit_by_breakers(&mut self.endpoint_breaker, &mut target.breaker, call.only_option_now, now)
            }
            Err(rejection) => Err(rejection),
        };
        let (endpoint_token, target_token) = match tokens {
            Ok(tokens) => tokens,
            Err(rejection) => {
                target.limits.rollback(reserved.reserved, &own);
                self.limits.rollback(reserved.reserved, &shared);
                return Err(Blocked::Rejected(rejection));
            }
        };
        if endpoint_token.is_probe() {
            self.reachability.record_probe(endpoint_token, now);
        }
        if self.limits.has_daily_quota() || target.limits.has_daily_quota() {
            target.unstored_calls += 1;
        }
        target.record_dispatched(&reserved);
        target.output_accounting.record_sent(&reserved, now);
        let in_flight = target.concurrency.record_sent(target.is_rate_limited(&self.limits), now);
        self.in_flight += 1;
        self.calls_sent += 1;
        let number = self.first_number + self.calls_sent;
        let attempt = PendingAttempt {
            sent_at: now,
            breaker_token: target_token,
            step: call.context.step.clone(),
            signal: call.dispatch_signal.clone(),
        };
        if call.prompt.embedding.is_some() {
            target.record_embeddings();
        }
        target.add_pending(number, attempt);
        let is_first = !call.is_retry && !call.context.has_failed;
        if is_first {
            target.first_attempts.record_sent(number, call.context.item());
        }
        target.recent_usage.record(reserved.mean, now);
        self.recent_usage.record(reserved.mean, now);
        let grant = Grant {
            model: call.model.clone(),
            key: key.id.clone(),
            request: Arc::downgrade(&call.prompt),
            number,
            endpoint_token,
            target_token,
            in_flight,
            is_retry: call.is_retry,
            is_first,
            scope: call.context.scope.clone(),
            step: call.context.step.clone(),
            reservation: reserved,
            shared,
            own,
            turn: None,
            is_unsent: false,
            sent: None,
            abort: None,
            spend: Spend::default(),
            received_output: 0,
        };
        Ok((key, Box::new(grant), budget))
    }

    /// Reserves the expected cost of a call, and its maximum cost from the budget of its scope.
    fn reserve_budget(
        &mut self,
        call: &Call,
        estimate: Estimate,
        now: Instant,
    ) -> Result<BudgetReservation, Blocked> {
        let Some(target) = self.targets.get_mut(&call.model) else {
            return Err(Blocked::Rejected(Rejection::ActorRestarting));
        };
        let key = StatsKey::of(&call.context);
        let expected = target.token_stats.expected_cost(key, estimate);
        let max =
            if call.scope_budget.is_some() { target.token_stats.max_cost(key, estimate) } else { expected };
        let until = now + BUDGET_RECHECK_INTERVAL;
        let tokens = CallTokens { expected, max };
        self.budgets.reserve(call, target.price, tokens).map_err(|error| match error {
            BudgetError::Rejected(rejection) => Blocked::Rejected(rejection),
            BudgetError::Contended(shared_by) => {
                // A call that waits for a budget must not delay the calls of others: the router submits it again. The
                // next call of another scope may be cheaper, also if both spend the same budget.
                let key = call.queue_key(0);
                let must_not_block = match shared_by {
                    SharedBy::Run => self.queue.other_runs_wait(&key),
                    SharedBy::Scope | SharedBy::All => {
                        !call.context.scope.is_empty() || self.queue.other_scopes_wait(&key)
                    }
                };
                if must_not_block {
                    return Blocked::Rejected(Rejection::Busy { until });
                }
                target.blocked_until = Some(until);
                Blocked::Target
            }
        })
    }

    /// Returns when to check the next target again that has queued calls.
    fn wait_for_target(&mut self, now: Instant) -> Decision {
        let checks =
            self.queue.waiting_by_model().filter_map(|(model, _)| self.targets.get(model)?.next_check_at());
        let ready = checks.chain(self.reachability.hold_until(now)).filter(|ready| *ready > now).min();
        self.rate_limited = ready.is_some();
        ready.map_or(Decision::Idle, Decision::Wait)
    }

    /// Returns the latency statistics of a model.
    pub(in crate::provider) fn latencies(&mut self, model: &ModelName) -> Option<&mut LatencyWindow> {
        self.targets.get_mut(model).map(|target| &mut target.latencies)
    }

    fn reject(&mut self, ticket: &Ticket, rejection: Rejection) -> Decision {
        self.queue
            .discard(ticket)
            .map_or(Decision::Idle, |queued| Decision::Reject(Box::new(queued), rejection))
    }
}

/// Returns the settings of the endpoint breaker. Two fifths of the failures open it, because a failed connection
/// is stronger evidence than a failed request.
fn endpoint_breaker_settings(settings: &BreakerSettings) -> BreakerSettings {
    let failures = settings.consecutive_failures.get().saturating_mul(2).div_ceil(5);
    BreakerSettings {
        consecutive_failures: NonZeroU32::new(failures).unwrap_or(NonZeroU32::MIN),
        ..settings.clone()
    }
}

/// Deposits a first attempt into the retry budget, or withdraws a retry from it.
fn count_attempt(budget: &mut RetryBudget, is_retry: bool, now: Instant) -> Result<(), Rejection> {
    if is_retry {
        return budget.withdraw(now).map_err(|until| Rejection::RetryBudgetExhausted { until });
    }
    budget.deposit_call(now);
    Ok(())
}

/// Takes tokens of both breakers, which the caller has checked before.
fn admit_by_breakers(
    endpoint: &mut Breaker,
    target: &mut Breaker,
    only_option_now: bool,
    now: Instant,
) -> Result<(BreakerToken, BreakerToken), Rejection> {
    let endpoint_token =
        endpoint.admit(now, only_option_now).map_err(|until| Rejection::BreakerOpen { until })?;
    let target_token = target.admit(now, only_option_now).map_err(|until| {
        endpoint.release(endpoint_token);
        Rejection::BreakerOpen { until }
    })?;
    Ok((endpoint_token, target_token))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
