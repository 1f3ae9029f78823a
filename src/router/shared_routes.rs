//! The routes that a router, its callers and its runs share. A reload replaces them as a whole.
//!
//! A request that has begun keeps the targets with which it was planned.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::types::{Cause, Class, Failure, RouteName};

use super::settings::RetrySettings;
use super::target::{RouteHandle, TargetHandle};

/// All routes at one time.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RouteTable {
    /// The routes with usable targets.
    pub routes: HashMap<RouteName, RouteHandle>,
    /// Configured routes without a usable target, with the reason.
    pub disabled_routes: HashMap<RouteName, String>,
    /// The retry settings of routes without their own.
    pub retry: RetrySettings,
}

/// The routes in use. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct SharedRoutes(Arc<ArcSwap<RouteTable>>);

impl RouteTable {
    /// Creates a table of routes with usable targets.
    pub fn new(routes: HashMap<RouteName, RouteHandle>, retry: RetrySettings) -> Self {
        Self { routes, disabled_routes: HashMap::new(), retry }
    }

    /// Sets the routes that are configured and have no usable target, with the reason.
    #[must_use]
    pub fn with_disabled_routes(self, disabled_routes: HashMap<RouteName, String>) -> Self {
        Self { disabled_routes, ..self }
    }

    /// Returns the targets of a route; none if the route does not exist.
    pub fn targets(&self, route: &RouteName) -> &[TargetHandle] {
        self.routes.get(route).map(|route| route.targets.as_slice()).unwrap_or_default()
    }

    /// Returns why a route has no targets.
    fn why_missing(&self, route: &RouteName) -> String {
        self.disabled_routes.get(route).cloned().unwrap_or_else(|| {
            let mut known: Vec<&str> = self.routes.keys().map(RouteName::as_str).collect();
            known.sort_unstable();
            format!("there is no route `{route}`; known routes: {}", known.join(", "))
        })
    }

    /// Returns the failure of a request along a route without targets.
    pub(super) fn no_route(&self, route: &RouteName) -> Failure {
        Failure::new(Class::ApiError, self.why_missing(route))
    }

    /// Returns the failure of a request of a run along a route that a reload has removed: its item has not failed by itself,
    /// and a later reload may bring the route back.
    pub fn removed_route(&self, route: &RouteName) -> Failure {
        let message = format!(
            "the configuration in use has no usable target for route `{route}` ({})",
            self.why_missing(route)
        );
        Failure::new(Class::NetworkError, message).with_cause(Cause::OutOfService)
    }
}

impl SharedRoutes {
    /// Shares a table.
    pub fn new(table: RouteTable) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(table)))
    }

    /// Returns the routes in use.
    pub fn load(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }

    /// Replaces the routes. Requests that begin from now on use the new ones.
    pub fn replace(&self, table: RouteTable) {
        self.0.store(Arc::new(table));
    }
}
