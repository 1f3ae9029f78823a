//! Utilization of the limits of an account or of one of its models, for display.
//!
//! Measures only; the guards enforce the limits. Pure.

use serde::Serialize;
use tokio::time::Instant;

use crate::guard::{Meter, RateLimiter, TokenCost};
use crate::types::ModelName;

/// Utilization of the limit that is used most.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LimitUtilization {
    /// The model whose limit it is; `None` for the account's.
    pub model: Option<ModelName>,
    /// What the limit counts: `requests`, `tokens`, `input tokens` or `output tokens`.
    pub limit: &'static str,
    /// The limit per minute, as configured or advertised by the provider.
    pub per_minute: f64,
    /// The rate of the last ten seconds as a share of the limit. It is above 1 during a burst, which uses the
    /// unused part of the minute.
    pub utilization: f64,
}

/// A limit of an account or a model at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LimitSnapshot {
    /// What it counts: `requests`, `tokens`, `input tokens`, `output tokens` or `requests per day`.
    pub limit: &'static str,
    /// The limit in the configuration, per minute or per day.
    pub configured: Option<f64>,
    /// The limit that the provider advertises, per minute.
    pub advertised: Option<f64>,
    /// The limit that applies: the lower of both, or an estimate.
    pub effective: f64,
    /// The use of the last ten seconds as a share of the limit; of a daily limit, that of the last 24 hours.
    pub utilization: f64,
}

/// Rates of the calls sent recently.
#[derive(Debug)]
pub(in crate::provider) struct RecentUsage {
    requests: Meter,
    input: Meter,
    output: Meter,
}

impl RecentUsage {
    pub(in crate::provider) fn new(now: Instant) -> Self {
        Self { requests: Meter::new(now), input: Meter::new(now), output: Meter::new(now) }
    }

    /// Counts a sent call, and the mean tokens of such a call.
    pub(in crate::provider) fn record(&mut self, mean: TokenCost, now: Instant) {
        self.requests.add(1, now);
        self.input.add(mean.input, now);
        self.output.add(mean.output, now);
    }

    /// Returns the utilization of the limit that is used most; `None` without a limit.
    pub(in crate::provider) fn tightest(
        &self,
        limits: &RateLimiter,
        now: Instant,
    ) -> Option<LimitUtilization> {
        self.of_limits(limits, now).reduce(more_utilized)
    }

    /// Returns the rates per minute, in the order of the limits.
    fn used_per_minute(&self, now: Instant) -> [f64; 5] {
        let [requests, input, output] =
            [&self.requests, &self.input, &self.output].map(|meter| meter.per_second(now) * 60.0);
        [requests, requests, input + output, input, output]
    }

    /// Returns the utilization of each known limit.
    pub(in crate::provider) fn of_limits(
        &self,
        limits: &RateLimiter,
        now: Instant,
    ) -> impl Iterator<Item = LimitUtilization> + use<> {
        let used = self.used_per_minute(now);
        limits.known_per_minute().into_iter().zip(used).filter_map(|(limit, used)| {
            let per_minute = limit.per_minute.filter(|per_minute| *per_minute > 0.0)?;
            let utilization = used / per_minute;
            Some(LimitUtilization { model: None, limit: limit.unit, per_minute, utilization })
        })
    }
}

/// Returns each known limit with its utilization.
pub(in crate::provider) fn limit_snapshots(
    usage: &RecentUsage,
    limits: &RateLimiter,
    now: Instant,
) -> Vec<LimitSnapshot> {
    let used = usage.used_per_minute(now);
    let per_minute = limits.known_per_minute().into_iter().zip(used).filter_map(|(known, used)| {
        let effective = known.per_minute.filter(|per_minute| *per_minute > 0.0)?;
        Some(LimitSnapshot {
            limit: known.unit,
            configured: known.configured,
            advertised: known.advertised,
            effective,
            utilization: used / effective,
        })
    });
    let per_day = limits.daily_usage().map(|(limit, used)| LimitSnapshot {
        limit: "requests per day",
        configured: Some(limit as f64),
        advertised: None,
        effective: limit as f64,
        utilization: used as f64 / limit.max(1) as f64,
    });
    per_minute.chain(per_day).collect()
}

/// Returns the one with the higher share; the first if both are equal.
pub(in crate::provider) fn more_utilized(one: LimitUtilization, other: LimitUtilization) -> LimitUtilization {
    if other.utilization > one.utilization { other } else { one }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;
    use crate::guard::RateLimits;

    #[test]
    fn the_limit_with_the_highest_utilization_is_reported_by_its_name() {
        let start = Instant::now();
        let limits = RateLimits {
            requests: NonZeroU64::new(600),
            output_tokens: NonZeroU64::new(6_000),
            ..RateLimits::default()
        };
        let limits = RateLimiter::new(&limits, start);
        let mut usage = RecentUsage::new(start);
        for second in 0..10 {
            usage.record(TokenCost { input: 500, output: 80 }, start + Duration::from_secs(second));
        }
        let tightest = usage.tightest(&limits, start + Duration::from_secs(10)).unwrap();
        assert_eq!((tightest.limit, tightest.per_minute), ("output tokens", 6_000.0));
        assert!((tightest.utilization - 0.8).abs() < 1e-9, "{tightest:?}");
        assert_eq!(usage.tightest(&RateLimiter::new(&RateLimits::default(), start), start), None);
    }
}
