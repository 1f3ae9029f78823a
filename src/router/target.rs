//! Targets and routes with the shared state of their providers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::provider::{self, TargetHealth};
use crate::types::TargetName;

use super::hedge::HedgeAfter;
use super::settings::{Policy, RetrySettings};

/// The quantile of the latencies of a target after which [`HedgeAfter::P95`] hedges a call.
const HEDGE_QUANTILE: f64 = 0.95;

/// A target of a route.
#[derive(Debug, Clone)]
pub struct TargetHandle {
    /// Its name.
    pub name: TargetName,
    /// Its weight under [`Policy::Weighted`].
    pub weight: u32,
    /// The state of its provider.
    pub provider: Arc<provider::State>,
}

impl TargetHandle {
    /// Returns the time in flight after which a call to it is hedged; `None` if it is not hedged.
    pub(super) fn hedge_delay(&self, after: HedgeAfter) -> Option<Duration> {
        match after {
            HedgeAfter::Off => None,
            HedgeAfter::P95 => self.provider.latency_quantile(&self.name.model, HEDGE_QUANTILE),
            HedgeAfter::Time(time) => Some(time),
        }
    }

    /// Returns whether its provider runs and considers it healthy at `now`.
    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.provider.is_up() && self.provider.target_health(&self.name.model, now) == TargetHealth::Healthy
    }

    /// Returns whether it is unresponsive, its probe is due, and no queued call can serve as the probe.
    pub(super) fn needs_probe(&self, now: Instant) -> bool {
        self.provider.is_up() && self.provider.needs_probe(&self.name.model, now)
    }

    /// Returns whether it is unresponsive: it accepts calls and does not answer.
    pub(super) fn is_unresponsive(&self) -> bool {
        self.provider.is_unresponsive(&self.name.model)
    }

    /// Returns whether a call would be sent without waiting for queued calls.
    pub(super) fn has_capacity(&self, now: Instant) -> bool {
        self.provider.is_up() && self.provider.has_capacity(&self.name.model, now)
    }
}

/// A route with usable targets.
#[derive(Debug, Clone, Default)]
pub struct RouteHandle {
    /// The order of the targets.
    pub policy: Policy,
    /// The targets, best first.
    pub targets: Vec<TargetHandle>,
    /// When a slow call is hedged; `None` for the setting of `[retry]`.
    pub hedge_after: Option<HedgeAfter>,
    /// Whether a refusal fails over to another target; `None` for the setting of `[retry]`.
    pub failover_refusals: Option<bool>,
}

impl RouteHandle {
    /// Returns whether another route has the same targets with the same order and weights.
    pub(super) fn orders_like(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&TargetHandle, &TargetHandle)| {
            one.name == other.name && one.weight == other.weight
        };
        self.policy == other.policy
            && self.targets.len() == other.targets.len()
            && self.targets.iter().zip(&other.targets).all(is_same)
    }

    /// Returns `retry` with the settings that this route overrides.
    pub(super) fn retry_settings(&self, retry: &RetrySettings) -> RetrySettings {
        RetrySettings {
            failover_refusals: self.failover_refusals.unwrap_or(retry.failover_refusals),
            hedge_after: self.hedge_after.unwrap_or(retry.hedge_after),
            ..*retry
        }
    }
}
