//! Whether an arriving call may be queued, or is rejected at once because it could never be sent in time.
//!
//! Read-only and pure, as the rest of the scheduler.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::guard::{Breaker, BreakerState, TokenCost, TripReason};
use crate::types::{Cause, Class, Failure, ProviderName};

use super::estimate::Estimate;
use super::scheduler::Scheduler;
use super::token_stats::StatsKey;
use crate::provider::call::{Call, Rejection};
use crate::provider::keys::key_set::NoUsableKey;
use crate::provider::settings::Settings;
use crate::provider::target::Target;

impl Scheduler {
    /// Checks whether a call may be queued, and returns the tokens that such calls use on average. Takes the time by
    /// the monotonic clock and by the wall clock.
    ///
    /// # Errors
    /// The rejection, if it may not.
    pub(in crate::provider) fn check_admissible(
        &self,
        provider: &ProviderName,
        settings: &Settings,
        call: &Call,
        estimate: Estimate,
        now: Instant,
        wall_clock: Timestamp,
    ) -> Result<TokenCost, Rejection> {
        let (Some(model), Some(target)) = (settings.models.get(&call.model), self.targets.get(&call.model))
        else {
            let unknown = format!("{provider} has no model {}", call.model);
            return Err(Rejection::TooLarge(Failure::new(Class::NotFound, unknown)));
        };
        if let Some(failure) = self.out_of_service(&call.model) {
            return Err(Rejection::OutOfService(failure));
        }
        if let Some(rejection) = self.budgets.cap_reached(call) {
            return Err(rejection);
        }
        let too_large = |message: String| Rejection::TooLarge(Failure::new(Class::TooLong, message));
        let in_context = estimate.input_in_context(&call.prompt);
        let least = target.token_stats.min_input(in_context);
        if let Some(context) = model.context.filter(|context| least > context.get()) {
            let about = target.token_stats.corrected_input(in_context);
            return Err(too_large(format!(
                "the prompt has about {about} tokens, and the context of {provider}/{} has {context}",
                call.model
            )));
        }
        for limits in [&self.limits, &target.limits] {
            target
                .reservations
                .check_fits(provider, limits, &target.token_stats, estimate)
                .map_err(too_large)?;
        }
        let reserved =
            target.reservations.for_call(&target.token_stats, StatsKey::of(&call.context), estimate);
        // While a probe is due or in flight, the call waits for its result. The probe of an unresponsive target
        // may take arbitrarily long, so its breaker counts as open meanwhile.
        let is_open = |breaker: &Breaker| {
            let is_unresponsive = breaker.trip_reason() == Some(TripReason::Unresponsive);
            breaker.state(now) == BreakerState::Open || is_unresponsive && !breaker.would_admit(now)
        };
        if is_open(&self.endpoint_breaker) || is_open(&target.breaker) {
            self.check_breakers(target, call.only_option_now, now)?;
        }
        if let Err(NoUsableKey::AllCoolingDown(failure)) =
            self.keys.pick(&call.model, &call.excluded_keys, now)
        {
            return Err(Rejection::NoUsableKey(failure));
        }
        let exhausted =
            [&target.limits, &self.limits].into_iter().find_map(|limits| limits.exhausted_daily_quota(now));
        if let Some(quota) = exhausted.filter(|quota| quota.until > call.deadline) {
            let wait = quota.until.saturating_duration_since(now);
            return Err(Rejection::NoUsableKey(daily_limit_failure(provider, quota.limit, wait, wall_clock)));
        }
        if let Some(until) = self.long_hold_until(target, now).filter(|_| !call.only_option) {
            return Err(Rejection::Busy { until });
        }
        // Calls of targets that cannot take calls now are not sent before this one.
        let key = call.queue_key(reserved.mean.total());
        let ahead = self.queue.ahead_of(&key, |model| self.may_dispatch(model, now));
        let own = if self.queue.other_models_wait(&key.model) {
            self.queue.ahead_of(&key, |_| false)
        } else {
            ahead
        };
        let until = self.expected_dispatch(target, (ahead, own), reserved.wait_cost(), now);
        if until > call.deadline {
            return Err(Rejection::Busy { until });
        }
        if self.queue.is_full(&key.scope) {
            // The wait would be short enough, but the queue is full: retry when a tenth of it was sent.
            let part = self.queue.len() / 10;
            let until = self.expected_dispatch(target, (part, part), reserved.wait_cost(), now);
            return Err(Rejection::Busy { until });
        }
        Ok(reserved.mean)
    }

    /// Returns when a call would be sent that has `ahead` calls of all targets and `own` calls of its target
    /// before it.
    fn expected_dispatch(
        &self,
        target: &Target,
        (ahead, own): (usize, usize),
        need: TokenCost,
        now: Instant,
    ) -> Instant {
        let shared = self.limits.expected_at(ahead as u64, need, now);
        let rate_limited = shared.max(target.limits.expected_at(own as u64, need, now));
        let limit = target.concurrency.effective_limit(target.is_rate_limited(&self.limits));
        let of_target = (target.concurrency.active() + own) as f64 / limit as f64;
        let of_all = self.max_in_flight.map_or(0.0, |max| (self.in_flight + ahead) as f64 / max as f64);
        let waves = of_target.max(of_all);
        // Until a call was answered, the latency is unknown, and an assumption must not reject calls.
        let Some(seconds) = self.mean_latency.0.filter(|_| waves >= 1.0) else { return rate_limited };
        // On average, half the latency of the calls in flight has passed.
        rate_limited.max(now + Duration::from_secs_f64((waves - 0.5) * seconds))
    }
}

/// Returns the failure for an exhausted daily limit, with the wall-clock time of its reset.
fn daily_limit_failure(
    provider: &ProviderName,
    limit: u64,
    wait: Duration,
    wall_clock: Timestamp,
) -> Failure {
    let resets_at = wall_clock.saturating_add(wait).unwrap_or(Timestamp::MAX);
    let message = format!(
        "requests_per_day = {limit} of provider {provider} is used up: there is room again at {} UTC",
        resets_at.strftime("%Y-%m-%d %H:%M")
    );
    let failure = Failure::new(Class::Quota, message).with_cause(Cause::ConfiguredLimit);
    Failure { retry_after: Some(wait), ..failure }
}
