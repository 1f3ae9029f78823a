//! Health, capacity and utilization of a provider: for the router, for the item window, and for display.
//!
//! The queries change nothing that the provider's decisions depend on. The router makes them before it decides
//! where a request goes, so each is cheap.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{BreakerState, TokenCost};
use crate::types::{Failure, ModelName};

use super::utilization::{LimitUtilization, more_utilized};
use crate::provider::admission::scheduler::Scheduler;
use crate::provider::call::TargetHealth;
use crate::provider::state::State;
use crate::provider::target::{ASSUMED_TOKEN_COST, Target};

/// A target whose provider asked for a longer wait counts as degraded.
const MAX_HEALTHY_HOLD: Duration = Duration::from_secs(2);

/// Assumed latency of a call before the first one, in seconds.
const ASSUMED_LATENCY_SECONDS: f64 = 2.0;

/// Maximum time from the end of an item to the call of the next one, in seconds: the item is read, started and
/// its request built beside other work. Slots that become free meanwhile stay empty unless other calls are
/// queued.
const MAX_REFILL_SECONDS: f64 = 0.010;

/// Maximum number of queued calls for that reason, per slot.
const MAX_REFILL_CALLS_PER_SLOT: f64 = 2.5;

/// A run's share of a provider's capacity; all runs have equal shares.
#[derive(Debug)]
pub struct CapacityShare(Arc<AtomicUsize>);

impl Drop for CapacityShare {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Scheduler {
    /// Returns the health of every target.
    pub(in crate::provider) fn health(&self, now: Instant) -> Vec<(ModelName, TargetHealth)> {
        self.targets
            .iter()
            .map(|(model, target)| (model.clone(), self.health_of_target(model, target, now)))
            .collect()
    }

    /// Returns the health of one target; an unknown model is unavailable.
    pub(in crate::provider) fn health_of(&self, model: &ModelName, now: Instant) -> TargetHealth {
        self.targets
            .get(model)
            .map_or(TargetHealth::Unavailable, |target| self.health_of_target(model, target, now))
    }

    fn health_of_target(&self, model: &ModelName, target: &Target, now: Instant) -> TargetHealth {
        if self.out_of_service(model).is_some() || self.keys.none_usable(model, now) {
            TargetHealth::Unavailable
        } else if !self.endpoint_breaker.would_admit(now)
            || !target.breaker.would_admit(now)
            || self.held_for(target, now) > MAX_HEALTHY_HOLD
        {
            TargetHealth::Degraded
        } else {
            TargetHealth::Healthy
        }
    }

    /// Returns when the health of a target may improve by time alone: when a breaker's pause or a requested
    /// wait ends. `None` if nothing is pending.
    pub(in crate::provider) fn recovers_at(&self, now: Instant) -> Option<Instant> {
        let times_of = |target: &Target| {
            let hold =
                self.long_hold_until(target, now).and_then(|until| until.checked_sub(MAX_HEALTHY_HOLD));
            [target.breaker.open_until(now), hold]
        };
        let targets = self.targets.values().flat_map(times_of);
        targets.chain([self.endpoint_breaker.open_until(now)]).flatten().min()
    }

    /// Returns how long the calls of a target are held back at the provider's request.
    pub(in crate::provider) fn held_for(&self, target: &Target, now: Instant) -> Duration {
        self.limits.held_for(now).max(target.limits.held_for(now))
    }

    /// Returns until when the calls of a target are held back, if that is long enough to use another target.
    pub(in crate::provider) fn long_hold_until(&self, target: &Target, now: Instant) -> Option<Instant> {
        let held = self.held_for(target, now);
        (held > MAX_HEALTHY_HOLD).then(|| now + held)
    }

    /// Returns the longest wait of any target.
    pub(in crate::provider) fn longest_hold(&self, now: Instant) -> Duration {
        self.targets.values().map(|target| self.held_for(target, now)).max().unwrap_or_default()
    }

    /// Returns the state of a target's breaker, or of the endpoint breaker if that is worse.
    pub(in crate::provider) fn breaker_state(&self, model: &ModelName, now: Instant) -> Option<BreakerState> {
        let target = self.targets.get(model)?;
        if target.is_forced_open {
            return Some(BreakerState::Open);
        }
        let target = target.breaker.state(now);
        Some(match self.endpoint_breaker.state(now) {
            BreakerState::Closed => target,
            BreakerState::HalfOpen if target == BreakerState::Open => target,
            endpoint => endpoint,
        })
    }

    /// Returns how long no call to a target is sent because a breaker is open.
    pub(in crate::provider) fn open_for(&self, target: &Target, now: Instant) -> Duration {
        let until = [target.breaker.open_until(now), self.endpoint_breaker.open_until(now)]
            .into_iter()
            .flatten()
            .max();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Returns the failure that keeps a breaker of the target from being closed.
    pub(in crate::provider) fn last_failure_of<'a>(&'a self, target: &'a Target) -> Option<&'a Failure> {
        let own = target.last_failure.as_ref().filter(|_| target.breaker.trip_reason().is_some());
        own.or_else(|| {
            self.last_connect_error.as_ref().filter(|_| self.endpoint_breaker.trip_reason().is_some())
        })
    }

    /// Returns the current concurrency limit, summed over the targets in use.
    pub(in crate::provider) fn concurrency(&self) -> usize {
        let reachable =
            |target: &Target| target.concurrency.effective_limit(target.is_rate_limited(&self.limits));
        let all: usize = self.used_targets().map(reachable).sum();
        self.max_in_flight.map_or(all, |max| all.min(max))
    }

    /// Returns how many calls, in flight and queued, keep the provider busy: those that its limits admit at
    /// once and within twice the latency of a call, so that some are always queued, and more if calls take only
    /// milliseconds. The number is limited to calls whose turn comes within half of `max_wait`: a call that
    /// would wait longer than its request allows is rejected.
    pub(in crate::provider) fn capacity(&self, max_wait: Duration, now: Instant) -> usize {
        let refill_per_slot = self
            .mean_latency
            .0
            .map_or(0.0, |latency| (MAX_REFILL_SECONDS / latency).min(MAX_REFILL_CALLS_PER_SLOT));
        let busy_with = |max: usize| max as f64 * (1.5 + refill_per_slot) + 2.0;
        let targets = self.used_targets().map(|target| {
            let need = target.mean_token_cost().unwrap_or(ASSUMED_TOKEN_COST);
            // A concurrency limit that is fully used may double before the next query.
            let reachable = target.concurrency.effective_limit(target.is_rate_limited(&self.limits));
            let concurrency = reachable as f64 * (2.0 + refill_per_slot) + 2.0;
            self.rate_limit_capacity(target, need, max_wait, now)
                .min(concurrency)
                .min(busy_with(target.concurrency.max()))
        });
        targets.sum::<f64>().min(self.max_in_flight.map_or(f64::MAX, busy_with)).ceil() as usize
    }

    /// Returns how many calls the rate limits can use.
    fn rate_limit_capacity(&self, target: &Target, need: TokenCost, max_wait: Duration, now: Instant) -> f64 {
        let latency =
            self.mean_latency.0.unwrap_or(ASSUMED_LATENCY_SECONDS).max(0.5).min(max_wait.as_secs_f64() / 4.0);
        let by_limits = [&self.limits, &target.limits].map(|limits| {
            let sustained = limits.calls_per_second(need).map_or(f64::MAX, |rate| rate * latency * 2.0 + 2.0);
            sustained + limits.calls_available(need, now)
        });
        by_limits[0].min(by_limits[1])
    }

    /// Returns the targets that have been called; before the first call, the first target.
    fn used_targets(&self) -> impl Iterator<Item = &Target> {
        let is_any_used = self.targets.values().any(|target| target.mean_token_cost().is_some());
        let in_use =
            self.targets.values().filter(move |target| !is_any_used || target.mean_token_cost().is_some());
        in_use.take(if is_any_used { usize::MAX } else { 1 })
    }

    /// Returns the utilization of the limit that was used most in the last ten seconds: the account's, or a
    /// model's.
    pub(in crate::provider) fn limit_utilization(&self, now: Instant) -> Option<LimitUtilization> {
        let own = |(model, target): (&ModelName, &Target)| {
            let in_use = target.recent_usage.tightest(&target.limits, now)?;
            Some(LimitUtilization { model: Some(model.clone()), ..in_use })
        };
        let of_models = self.targets.iter().filter_map(own).reduce(more_utilized);
        self.recent_usage.tightest(&self.limits, now).into_iter().chain(of_models).reduce(more_utilized)
    }
}

impl State {
    /// Returns how many requests one of the runs that share it should keep in flight, if they wait no longer
    /// than `max_wait`.
    pub fn capacity(&self, max_wait: Duration, now: Instant) -> usize {
        self.lock().capacity(max_wait, now).div_ceil(self.active_runs.load(Relaxed).max(1))
    }

    /// Shares its capacity with one more run until the returned value is dropped.
    pub fn share_capacity(&self) -> CapacityShare {
        self.active_runs.fetch_add(1, Relaxed);
        CapacityShare(self.active_runs.clone())
    }

    /// Returns the health of a target.
    pub fn target_health(&self, model: &ModelName, now: Instant) -> TargetHealth {
        match self.successor() {
            Some(successor) => successor.target_health(model, now),
            None => self.lock().health_of(model, now),
        }
    }

    /// Returns whether a call to a model would be sent without waiting behind others.
    pub fn has_capacity(&self, model: &ModelName, now: Instant) -> bool {
        if let Some(successor) = self.successor() {
            return successor.has_capacity(model, now);
        }
        let inner = self.lock();
        let room = inner.queue.is_empty() && inner.has_free_slot() && inner.may_dispatch(model, now);
        room && inner.health_of(model, now) == TargetHealth::Healthy
    }

    /// Returns this quantile of the latencies of recent calls to a model, from sending to the end; `None` with
    /// too few answers.
    pub fn latency_quantile(&self, model: &ModelName, quantile: f64) -> Option<Duration> {
        self.lock().latencies(model)?.quantile(quantile)
    }

    /// Records a call that was cancelled after this time.
    pub(in crate::provider) fn record_cancelled(&self, model: &ModelName, after: Duration) {
        if let Some(times) = self.lock().latencies(model) {
            times.record_cancelled(after);
        }
    }

    /// Returns about the longest recent time until response headers; zero before the first response. `None` if its
    /// calls ask for whole responses: their headers come with the end of the answer, and the next one may be longer.
    pub fn max_header_latency(&self) -> Option<Duration> {
        self.settings().dialect.stream.asks_for_stream().then(|| self.header_latency.longest())
    }

    /// Returns whether a call at this provider, which has sent no response headers for long, may be hedged, and
    /// takes the permission: once until its next response.
    pub fn try_hedge(&self) -> bool {
        self.header_latency.try_hedge()
    }

    /// Returns when the health of a target may change by time alone; `None` if nothing is pending.
    pub(in crate::provider) fn recovers_at(&self, now: Instant) -> Option<Instant> {
        self.lock().recovers_at(now)
    }

    /// Returns the context size of a model; `None` if unknown.
    pub fn context(&self, model: &ModelName) -> Option<NonZeroU64> {
        self.settings().models.get(model)?.context
    }
}
