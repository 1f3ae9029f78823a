//! Lanes and routes as the router holds them: with the providers that they lead to.

use std::sync::Arc;

use crate::provider;
use crate::types::LaneName;

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

/// A route with lanes that can be used.
#[derive(Debug, Clone)]
pub struct RouteHandle {
    /// How it chooses.
    pub policy: Policy,
    /// Among which.
    pub lanes: Vec<LaneHandle>,
}
