//! One rate limit of an account or model: requests, or tokens, per minute.
//!
//! Four inputs determine the rate: the configured limit, the provider's headers, the burst size that the
//! provider has accepted, and the factor by which 429 responses have reduced the rate. Each is in a file of
//! its own; this file combines them. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::GcraLimiter;
use super::advertised::{AdvertisedLimit, SendMark};
use super::burst::{Burst, BurstHeadroom, BurstSettings};
use super::rate_backoff::RateBackoff;
use crate::types::RateLimitStatus;

/// How often the rate follows a reduction factor that grows back by itself.
const REFRESH_INTERVAL: Duration = Duration::from_millis(250);

/// One rate limit.
#[derive(Debug)]
pub(super) struct Limit {
    /// `None` while no limit is known: then nothing is held back.
    limiter: Option<GcraLimiter>,
    configured: Option<f64>,
    /// Upper bound per minute estimated from 429 responses that no known limit explains.
    estimated: Option<f64>,
    advertised: AdvertisedLimit,
    burst: Burst,
    backoff: RateBackoff,
    /// When a burst was last rejected: 429 responses to calls sent before that say nothing about the rate.
    burst_ended_at: Option<Instant>,
    refreshed_at: Instant,
}

/// The use of one limit by a call that was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LimitUse {
    /// The consumption so far.
    pub(super) mark: SendMark,
    /// Whether the limit was in use: only then does the response say anything about the limit.
    pub(super) in_use: bool,
}

impl Limit {
    /// Creates a limit per minute; `None` is learned from the provider's headers, if it sends them.
    pub(super) fn new(per_minute: Option<f64>, burst: BurstSettings, now: Instant) -> Self {
        let mut limit = Self {
            limiter: None,
            configured: per_minute,
            estimated: None,
            advertised: AdvertisedLimit::default(),
            burst: Burst::new(burst),
            backoff: RateBackoff::new(now),
            burst_ended_at: None,
            refreshed_at: now,
        };
        limit.refresh(now);
        limit
    }

    /// Sets the configured limit per minute and its burst. What was taken stays taken, and what the provider has advertised
    /// stays known.
    pub(super) fn set_configured(&mut self, per_minute: Option<f64>, burst: BurstSettings, now: Instant) {
        if self.configured == per_minute && self.burst.settings() == burst {
            return;
        }
        let nominal = self.nominal();
        self.configured = per_minute;
        self.burst.set_settings(burst);
        if nominal != self.nominal() {
            // Earlier 429 responses refer to the former limit.
            self.backoff.reset(now);
        }
        self.refresh(now);
    }

    /// Returns the configured limit per minute.
    pub(super) fn configured(&self) -> Option<f64> {
        self.configured
    }

    /// Returns the limit per minute that the provider advertises.
    pub(super) fn advertised(&self) -> Option<f64> {
        self.advertised.per_minute().map(|limit| limit as f64)
    }

    /// Returns the rate now; `None` without a limit.
    pub(super) fn per_minute(&self) -> Option<f64> {
        self.limiter.as_ref().map(GcraLimiter::per_minute)
    }

    /// Returns the permits available now; below zero, the debt.
    #[cfg(test)]
    pub(super) fn level(&self, now: Instant) -> f64 {
        self.limiter.as_ref().map_or(f64::MAX, |limiter| limiter.level(now))
    }

    /// Returns the burst size.
    #[cfg(test)]
    pub(super) fn burst(&self) -> u64 {
        self.limiter.as_ref().map_or(u64::MAX, GcraLimiter::burst)
    }

    /// Returns the effective limit before any reduction: the smaller of the configured and the advertised
    /// one.
    pub(super) fn nominal(&self) -> Option<f64> {
        let advertised = self.advertised.per_minute().map(|limit| limit as f64);
        self.configured.into_iter().chain(advertised).reduce(f64::min)
    }

    /// Sets the estimated upper bound per minute; `None` removes it.
    pub(super) fn set_estimate(&mut self, per_minute: Option<f64>, now: Instant) {
        let is_new = self.estimated.is_some() != per_minute.is_some();
        self.estimated = per_minute;
        if is_new {
            self.refresh(now);
        }
    }

    /// Returns the effective limit, or the estimate if no limit is known.
    pub(super) fn nominal_or_estimated(&self) -> Option<f64> {
        self.nominal().or(self.estimated)
    }

    /// Returns whether this limit can be the reason of a 429 response: it was in use, or its burst was
    /// larger than one second's worth.
    pub(super) fn explains_throttle(&self, in_use: bool) -> bool {
        self.nominal().is_some() && (in_use || self.burst.is_grown())
    }

    /// Takes `permits`.
    ///
    /// # Errors
    /// The instant from which a retry is worthwhile; nothing was taken.
    pub(super) fn take(&mut self, permits: u64, now: Instant) -> Result<(), Instant> {
        if now.saturating_duration_since(self.refreshed_at) >= REFRESH_INTERVAL {
            self.refresh(now);
        }
        self.limiter.as_ref().map_or(Ok(()), |limiter| limiter.take(permits, now))
    }

    /// Records a call that is being sent and typically consumes `amount`.
    pub(super) fn record_sent(&mut self, amount: u64, now: Instant) -> LimitUse {
        let in_use =
            self.limiter.as_ref().is_some_and(|limiter| limiter.level(now) < limiter.burst() as f64 / 2.0);
        self.backoff.record_sent(amount);
        LimitUse { mark: self.advertised.record_sent(amount), in_use }
    }

    /// Undoes [`Self::record_sent`] for a call that was not sent.
    pub(super) fn rollback(&mut self, amount: u64) {
        self.backoff.rollback(amount);
        self.advertised.rollback(amount);
    }

    /// Returns permits that were taken and not used.
    pub(super) fn give_back(&self, permits: u64) {
        if let Some(limiter) = &self.limiter {
            limiter.give_back(permits);
        }
    }

    /// Takes permits that were used without having been taken.
    pub(super) fn add_debt(&self, permits: u64, now: Instant) {
        if let Some(limiter) = &self.limiter {
            limiter.add_debt(permits, now);
        }
    }

    /// Applies the headers of the response to the call with this mark, which was sent at that instant.
    pub(super) fn apply_headers(
        &mut self,
        status: &RateLimitStatus,
        mark: SendMark,
        sent_at: Instant,
        now: Instant,
    ) {
        let nominal = self.nominal();
        self.advertised.apply_headers(status, mark, sent_at);
        if nominal != self.nominal() {
            // Earlier 429 responses are explained by the limit that is known now.
            self.backoff.reset(now);
        }
        self.refresh(now);
        let Some(limiter) = &self.limiter else { return };
        if let Some(remaining) = self.advertised.remaining(limiter.per_minute(), now) {
            limiter.cap_level(remaining, now);
        }
    }

    /// Records that the provider accepted a call of `permits`. `in_use` is whether the limit was in use
    /// when the call was sent.
    pub(super) fn record_accepted(&mut self, permits: u64, in_use: bool, now: Instant) {
        self.backoff.record_accepted(permits, now);
        let Some(limiter) = &self.limiter else { return };
        let Some(remaining) = self.advertised.remaining(limiter.per_minute(), now) else { return };
        let max_remaining = self.advertised.max_remaining();
        let headroom = BurstHeadroom { level: limiter.level(now), remaining, max_remaining };
        // The advertised remainder is available to us only where the advertised limit is the effective one.
        let is_advertised =
            self.advertised.per_minute().is_some_and(|advertised| self.nominal() == Some(advertised as f64));
        let Some(nominal) = self.nominal().filter(|_| in_use && is_advertised) else { return };
        if self.burst.record_accepted(permits, nominal, headroom, now) {
            self.refresh(now);
        }
    }

    /// Records a 429 response to a call of `permits` that was sent at `sent_at`; the provider accepts none
    /// before `until`. Only a limit that was in use can be the reason.
    pub(super) fn record_throttled(
        &mut self,
        permits: u64,
        in_use: bool,
        sent_at: Instant,
        until: Instant,
        now: Instant,
    ) {
        let Some(nominal) = self.nominal().filter(|_| self.limiter.is_some()) else {
            return self.hold(until);
        };
        if self.burst.record_throttled(nominal, now) {
            self.burst_ended_at = Some(now);
            self.refresh(now);
            // We chose to try the burst; the provider names the time from which calls are accepted again.
            if let Some(limiter) = &self.limiter {
                limiter.reset(until);
            }
        } else if in_use && self.burst_ended_at.is_none_or(|ended| sent_at > ended) {
            self.backoff.record_throttled(permits, nominal / 60.0, sent_at, now);
            self.refresh(now);
        }
        self.hold(until);
    }

    /// Takes no permits before `until`.
    pub(super) fn hold(&self, until: Instant) {
        if let Some(limiter) = &self.limiter {
            limiter.hold(until);
        }
    }

    /// Returns when `permits` more than those already taken would be available.
    pub(super) fn expected_at(&self, permits: u64, now: Instant) -> Instant {
        self.limiter.as_ref().map_or(now, |limiter| limiter.expected_at(permits, now))
    }

    /// Returns how many permits could be taken at once before long: the level, or the advertised remainder,
    /// into which the burst grows.
    pub(super) fn available(&self, now: Instant) -> f64 {
        let Some(limiter) = &self.limiter else { return f64::MAX };
        let remaining = self.advertised.remaining(limiter.per_minute(), now).unwrap_or_default();
        limiter.level(now).max(remaining).max(0.0)
    }

    /// Updates rate and burst from everything that is known.
    fn refresh(&mut self, now: Instant) {
        self.refreshed_at = now;
        let reduced = self.nominal().map(|nominal| nominal * self.backoff.factor(now));
        let Some(per_minute) = reduced.into_iter().chain(self.estimated).reduce(f64::min) else {
            self.limiter = None;
            return;
        };
        let limit = self.nominal().unwrap_or(per_minute);
        let burst = self.burst.size(self.estimated.map_or(limit, |estimated| estimated.min(limit)));
        match &mut self.limiter {
            Some(limiter) if limiter.per_minute() == per_minute && limiter.burst() == burst => {}
            Some(limiter) => limiter.set(per_minute, burst, now),
            None => self.limiter = Some(GcraLimiter::new(per_minute, burst, now)),
        }
    }
}
