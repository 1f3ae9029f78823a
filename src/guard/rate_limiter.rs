//! All rate limits of one account or of one model: requests, and tokens of each direction.
//!
//! A call takes permits from all of them or from none. Tokens are reserved by estimate before the call and
//! reconciled after it, on success and on failure. Pure.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use super::burst::BurstSettings;
use super::daily_quota::{DailyQuota, ExhaustedQuota};
use super::limit::{Limit, LimitUse};
use super::rate_estimate::{RateEstimate, SendRecord};
use super::rate_limits::{RateLimitStatuses, RateLimits};
use crate::types::{RateLimitResource, RateLimitStatus};

/// The tokens of a call, estimated or used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCost {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
}

impl TokenCost {
    /// Returns input and output together.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// Whether the headers of a response describe these limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderScope {
    /// They do.
    Own,
    /// Vendors describe the model that answered. Of an account with several models, only a header with the
    /// account's own limit describes the account.
    MatchingOnly,
}

/// A call that was sent, as recorded by the limiter.
#[derive(Debug, Clone, Copy)]
pub struct SentCall {
    sent_at: Instant,
    typical_cost: TokenCost,
    uses: [LimitUse; 5],
    record: SendRecord,
}

/// The known token limits, per minute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TokenLimits {
    /// Input and output together.
    pub tokens: Option<f64>,
    /// Output.
    pub output: Option<f64>,
}

/// A limit, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnownLimit {
    /// What it counts: `requests`, `tokens`, `input tokens` or `output tokens`.
    pub unit: &'static str,
    /// The limit per minute, from the configuration, the headers or the estimate.
    pub per_minute: Option<f64>,
    /// The limit per minute in the configuration.
    pub configured: Option<f64>,
    /// The limit per minute in the provider's headers.
    pub advertised: Option<f64>,
}

/// A call that exceeds the limit of a whole minute: it could never be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("needs about {needed} {unit}, and the limit is {limit} per minute")]
pub struct NeverFits {
    unit: &'static str,
    needed: u64,
    limit: u64,
}

/// The rate limits of one account or model.
#[derive(Debug)]
pub struct RateLimiter {
    requests: Limit,
    requests_per_second: Limit,
    tokens: Limit,
    input_tokens: Limit,
    output_tokens: Limit,
    daily_quota: Option<DailyQuota>,
    /// Estimate of an unknown limit, from 429 responses.
    estimate: RateEstimate,
    held_until: Instant,
}

impl RateLimiter {
    /// Creates the limits. Each starts with at most one second's worth.
    pub fn new(limits: &RateLimits, now: Instant) -> Self {
        let limit = |per_minute: Option<NonZeroU64>| {
            Limit::new(per_minute.map(|limit| limit.get() as f64), limits.burst, now)
        };
        // The limit per second has a burst of at most one second's worth.
        let per_second = per_minute_of_second(limits);
        Self {
            requests: limit(limits.requests),
            requests_per_second: Limit::new(per_second, BurstSettings::Auto, now),
            tokens: limit(limits.tokens),
            input_tokens: limit(limits.input_tokens),
            output_tokens: limit(limits.output_tokens),
            daily_quota: limits.requests_per_day.map(|limit| DailyQuota::new(limit.get())),
            estimate: RateEstimate::new(now),
            held_until: now,
        }
    }

    /// Sets the configured limits. What was taken stays taken, and what was learned from the provider stays.
    pub fn set_limits(&mut self, limits: &RateLimits, now: Instant) {
        let per_minute = |limit: Option<NonZeroU64>| limit.map(|limit| limit.get() as f64);
        let burst = limits.burst;
        self.requests.set_configured(per_minute(limits.requests), burst, now);
        self.requests_per_second.set_configured(per_minute_of_second(limits), BurstSettings::Auto, now);
        self.tokens.set_configured(per_minute(limits.tokens), burst, now);
        self.input_tokens.set_configured(per_minute(limits.input_tokens), burst, now);
        self.output_tokens.set_configured(per_minute(limits.output_tokens), burst, now);
        self.daily_quota = limits.requests_per_day.map(|limit| match self.daily_quota.take() {
            Some(mut quota) => {
                quota.set_limit(limit.get());
                quota
            }
            None => DailyQuota::new(limit.get()),
        });
        self.apply_estimate(now);
    }

    /// Takes over the calls of the last 24 hours from other limits, which count none from then on.
    pub fn inherit_daily_quota(&mut self, other: &mut Self) {
        if let (Some(quota), Some(earlier)) = (&mut self.daily_quota, other.daily_quota.take()) {
            let limit = quota.limit();
            *quota = earlier;
            quota.set_limit(limit);
        }
    }

    /// Returns the calls per day, and about how many were sent in the last 24 hours; `None` without a daily quota.
    pub fn daily_usage(&self) -> Option<(u64, u64)> {
        self.daily_quota.as_ref().map(|quota| (quota.limit(), quota.used()))
    }

    /// Checks whether a call of this size can ever be sent.
    ///
    /// # Errors
    /// The limit that the call exceeds by itself.
    pub fn fits(&self, cost: TokenCost) -> Result<(), NeverFits> {
        let limits = [
            ("tokens", &self.tokens, cost.input.saturating_add(cost.output)),
            ("input tokens", &self.input_tokens, cost.input),
            ("output tokens", &self.output_tokens, cost.output),
        ];
        for (unit, limit, needed) in limits {
            if let Some(limit) = limit.nominal().filter(|limit| needed as f64 > *limit) {
                return Err(NeverFits { unit, needed, limit: limit as u64 });
            }
        }
        Ok(())
    }

    /// Takes one call and its tokens. `reserved` is reserved; `typical` is what such a call consumes on
    /// average.
    ///
    /// # Errors
    /// The instant from which a retry is worthwhile; nothing was taken.
    pub fn take(
        &mut self,
        reserved: TokenCost,
        typical: TokenCost,
        now: Instant,
    ) -> Result<SentCall, Instant> {
        if now < self.held_until {
            return Err(self.held_until);
        }
        for (index, permits) in permits_of(reserved).into_iter().enumerate() {
            if let Err(ready) = self.all_mut()[index].take(permits, now) {
                self.give_back_to_first(index, reserved);
                return Err(ready);
            }
        }
        if let Some(Err(ready)) = self.daily_quota.as_mut().map(|quota| quota.take(now)) {
            self.give_back_to_first(5, reserved);
            return Err(ready);
        }
        let mut uses = [LimitUse::default(); 5];
        for ((limit, permits), limit_use) in
            self.all_mut().into_iter().zip(permits_of(typical)).zip(&mut uses)
        {
            *limit_use = limit.record_sent(permits, now);
        }
        let record = self.estimate.record_sent(typical.input.saturating_add(typical.output), now);
        Ok(SentCall { sent_at: now, typical_cost: typical, uses, record })
    }

    /// Replaces the reservation of a call by what it used.
    pub fn reconcile(&self, reserved: TokenCost, used: TokenCost, now: Instant) {
        let pairs = permits_of(reserved).into_iter().zip(permits_of(used));
        for (limit, (reserved, used)) in self.all().into_iter().zip(pairs) {
            limit.give_back(reserved.saturating_sub(used));
            limit.add_debt(used.saturating_sub(reserved), now);
        }
    }

    /// Returns everything that [`Self::take`] took, the request too: the call was not sent.
    pub fn rollback(&mut self, reserved: TokenCost, call: &SentCall) {
        self.give_back_to_first(5, reserved);
        for (limit, permits) in self.all_mut().into_iter().zip(permits_of(call.typical_cost)) {
            limit.rollback(permits);
        }
        self.estimate.rollback(&call.record);
        if let Some(quota) = &mut self.daily_quota {
            quota.give_back();
        }
    }

    /// Admits nothing before `until`; a shorter hold never shortens a longer one.
    pub fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(until);
        for limit in self.all_mut() {
            limit.hold(until);
        }
    }

    /// Applies the headers of the response to `call`.
    pub fn apply_headers(
        &mut self,
        headers: &RateLimitStatuses,
        call: &SentCall,
        scope: HeaderScope,
        now: Instant,
    ) {
        let statuses = [
            headers.requests,
            headers.requests_per_second,
            headers.tokens,
            headers.input_tokens,
            headers.output_tokens,
        ];
        for ((limit, status), limit_use) in self.all_mut().into_iter().zip(statuses).zip(call.uses) {
            let applies = |status: &RateLimitStatus| {
                scope == HeaderScope::Own
                    || limit.nominal().is_some_and(|own| {
                        status.limit_per_minute().is_some_and(|advertised| advertised == own)
                    })
            };
            if let Some(status) = status.filter(applies) {
                limit.apply_headers(&status, limit_use.mark, call.sent_at, now);
            }
        }
        self.apply_estimate(now);
    }

    /// Records that the provider accepted a call.
    pub fn record_accepted(&mut self, call: &SentCall, now: Instant) {
        let uses = call.uses.into_iter().zip(permits_of(call.typical_cost));
        for (limit, (limit_use, permits)) in self.all_mut().into_iter().zip(uses) {
            limit.record_accepted(permits, limit_use.in_use, now);
        }
        let estimated = self.estimate.limit();
        let is_rate_limited =
            estimated.is_some_and(|estimated| call.uses[index_of(estimated.resource)].in_use);
        self.estimate.record_accepted(&call.record, is_rate_limited);
        self.apply_estimate(now);
    }

    /// Records a 429 response that no known limit explains, because none of them was in use, and updates
    /// the estimate. `resource` and `named_wait` are as stated in the response. Returns how long to wait,
    /// counted from the end of the named wait if there is one; `None` if a known limit explains the
    /// response or the wait is unknown.
    pub fn record_unexplained_throttle(
        &mut self,
        call: &SentCall,
        resource: Option<RateLimitResource>,
        named_wait: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        let explains = |(limit, limit_use): (&Limit, LimitUse)| limit.explains_throttle(limit_use.in_use);
        let is_known = |limit: &Limit| limit.nominal().is_some();
        let is_explained = self.all().into_iter().zip(call.uses).any(explains);
        let is_of_tokens = resource == Some(RateLimitResource::Tokens);
        let has_requests = is_known(&self.requests) || is_known(&self.requests_per_second);
        if is_explained || has_requests && !is_of_tokens || is_known(&self.tokens) && is_of_tokens {
            return None;
        }
        let pause = self.estimate.record_throttled(&call.record, resource, named_wait, now);
        self.apply_estimate(now);
        pause
    }

    /// Applies the estimate, or drops it if a limit of its resource is known.
    fn apply_estimate(&mut self, now: Instant) {
        let is_limit_known = self.estimate.limit().is_some_and(|estimated| match estimated.resource {
            RateLimitResource::Requests => {
                self.requests.nominal().or(self.requests_per_second.nominal()).is_some()
            }
            RateLimitResource::Tokens => self.tokens.nominal().is_some(),
        });
        if is_limit_known {
            self.estimate.reset();
        }
        let estimated = self.estimate.limit();
        let select =
            |resource| estimated.filter(|limit| limit.resource == resource).map(|limit| limit.per_minute);
        self.requests.set_estimate(select(RateLimitResource::Requests), now);
        self.tokens.set_estimate(select(RateLimitResource::Tokens), now);
    }

    /// Records a 429 response to a call; the provider accepts none before `until`.
    pub fn record_throttled(&mut self, call: &SentCall, until: Instant, now: Instant) {
        let uses = call.uses.into_iter().zip(permits_of(call.typical_cost));
        for (limit, (limit_use, permits)) in self.all_mut().into_iter().zip(uses) {
            limit.record_throttled(permits, limit_use.in_use, call.sent_at, until, now);
        }
        self.held_until = self.held_until.max(until);
    }

    /// Returns when a call could be sent that has `ahead` others of about the same cost before it.
    pub fn expected_at(&self, ahead: u64, cost: TokenCost, now: Instant) -> Instant {
        let calls = ahead.saturating_add(1);
        let is_certain =
            |(limit, _): &(&Limit, u64)| limit.nominal().is_some() || !self.estimate.is_searching();
        let limits = self.all().into_iter().zip(permits_of(cost)).filter(is_certain);
        let by_rate = limits.map(|(limit, permits)| limit.expected_at(permits.saturating_mul(calls), now));
        let by_day = self.daily_quota.as_ref().map(|quota| quota.expected_at(ahead, now));
        by_rate.chain(by_day).fold(self.held_until.max(now), Instant::max)
    }

    /// Returns the daily quota if it is used up; `None` otherwise.
    pub fn exhausted_daily_quota(&self, now: Instant) -> Option<ExhaustedQuota> {
        self.daily_quota.as_ref().and_then(|quota| quota.exhausted(now))
    }

    /// Returns how many calls of this cost the limits admit per second; `None` is no limit.
    pub fn calls_per_second(&self, cost: TokenCost) -> Option<f64> {
        let limits = self.all().into_iter().zip(permits_of(cost));
        limits
            .filter_map(|(limit, permits)| Some(limit.per_minute()? / 60.0 / permits.max(1) as f64))
            .reduce(f64::min)
    }

    /// Returns how many calls of this cost could be sent at once before long; `f64::MAX` without a limit.
    pub fn calls_available(&self, cost: TokenCost, now: Instant) -> f64 {
        let limits = self.all().into_iter().zip(permits_of(cost));
        limits.map(|(limit, permits)| limit.available(now) / permits.max(1) as f64).fold(f64::MAX, f64::min)
    }

    /// Returns each limit: requests per minute, requests per second, tokens, input tokens, output tokens.
    pub fn known_per_minute(&self) -> [KnownLimit; 5] {
        let units = ["requests", "requests", "tokens", "input tokens", "output tokens"];
        let mut known =
            units.map(|unit| KnownLimit { unit, per_minute: None, configured: None, advertised: None });
        for (known, limit) in known.iter_mut().zip(self.all()) {
            known.per_minute = limit.nominal_or_estimated();
            known.configured = limit.configured();
            known.advertised = limit.advertised();
        }
        known
    }

    /// Returns the known token limits.
    pub fn known_token_limits(&self) -> TokenLimits {
        TokenLimits { tokens: self.tokens.nominal(), output: self.output_tokens.nominal() }
    }

    /// Returns whether any limit is known, from the configuration or from headers.
    pub fn is_known(&self) -> bool {
        self.all().into_iter().any(|limit| limit.nominal().is_some())
    }

    /// Returns whether calls are held to a rate: a limit is known or estimated.
    pub fn is_rate_limited(&self) -> bool {
        self.is_known() || self.estimate.limit().is_some()
    }

    /// Returns how long everything is held back at the provider's request.
    pub fn held_for(&self, now: Instant) -> Duration {
        self.held_until.saturating_duration_since(now)
    }

    /// Returns whether there is a daily quota.
    pub fn has_daily_quota(&self) -> bool {
        self.daily_quota.is_some()
    }

    /// Adds calls that were sent before a restart: how long ago, and how many.
    pub fn restore_daily_quota(&mut self, calls: impl Iterator<Item = (Duration, u64)>, now: Instant) {
        if let Some(quota) = &mut self.daily_quota {
            quota.restore(calls, now);
        }
    }

    fn give_back_to_first(&self, count: usize, cost: TokenCost) {
        for (limit, permits) in self.all().into_iter().zip(permits_of(cost)).take(count) {
            limit.give_back(permits);
        }
    }

    fn all(&self) -> [&Limit; 5] {
        [&self.requests, &self.requests_per_second, &self.tokens, &self.input_tokens, &self.output_tokens]
    }

    fn all_mut(&mut self) -> [&mut Limit; 5] {
        [
            &mut self.requests,
            &mut self.requests_per_second,
            &mut self.tokens,
            &mut self.input_tokens,
            &mut self.output_tokens,
        ]
    }
}

/// Returns the configured limit per second as a limit per minute.
fn per_minute_of_second(limits: &RateLimits) -> Option<f64> {
    limits.requests_per_second.map(|limit| limit.get() as f64 * 60.0)
}

/// Returns the index of the limit that the estimate applies to.
fn index_of(resource: RateLimitResource) -> usize {
    match resource {
        RateLimitResource::Requests => 0,
        RateLimitResource::Tokens => 2,
    }
}

/// Returns the permits that a call of this cost takes from each limit.
fn permits_of(cost: TokenCost) -> [u64; 5] {
    [1, 1, cost.input.saturating_add(cost.output), cost.input, cost.output]
}

#[cfg(test)]
mod tests;
