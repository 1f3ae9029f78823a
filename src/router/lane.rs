//! Lanes and routes as the router holds them: with the providers that they lead to.

use std::sync::Arc;

use tokio::time::Instant;

use crate::provider::{self, LaneHealth};
use crate::types::LaneName;

use super::hedge::HedgeAfter;
use super::settings::Policy;

/// One lane of a route.
#[derive(Debug, Clone)]
pub struct LaneHandle {
    /// Its name.
    pub name: LaneName,
    /// Its share under [`Policy::Weighted`].
    pub weight: u32,
    /// The provider it belongs to.
    pub provider: Arc<provider::State>,
}

impl LaneHandle {
    /// Returns whether it takes calls at `now`, as far as its provider knows.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        self.provider.is_up() && self.provider.lane_health(&self.name.model, now) == LaneHealth::Good
    }

    /// Returns whether it has fallen silent, its probe is due, and no call waits to be it.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        self.provider.is_up() && self.provider.wants_probe(&self.name.model, now)
    }

    /// Returns whether it has fallen silent.
    pub(super) fn is_silent(&self) -> bool {
        self.provider.is_silent(&self.name.model)
    }

    /// Returns whether a call would not wait behind others there.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.provider.is_up() && self.provider.has_room(&self.name.model, now)
    }
}

/// A route with lanes that can be used.
#[derive(Debug, Clone, Default)]
pub struct RouteHandle {
    /// How it chooses.
    pub policy: Policy,
    /// Among which.
    pub lanes: Vec<LaneHandle>,
    /// When another lane is asked beside one that takes long; as `[retry]` says when it is `None`.
    pub hedge_after: Option<HedgeAfter>,
    /// Whether another lane is asked after a refusal; as `[retry]` says when it is `None`.
    pub failover_refusals: Option<bool>,
}
