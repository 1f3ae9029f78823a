//! The router actor: orders the targets for every request and starts its execution.
//!
//! It holds no futures. An execution runs in the task of its caller. So executions do not slow the actor down, and a
//! panic in one affects only that one.
//! While draining, it accepts no more requests and runs until all executions have ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use actix::prelude::*;
use tokio::sync::{oneshot, watch};

use crate::chaos;
use crate::provider::{CallResponder, HealthChanged, TargetHealth};
use crate::supervisor::Stop;
use crate::types::{Class, Failure, RouteName, TargetName};

use super::execution::{DelegatedCall, Execution};
use super::hedge::HedgeLimiter;
use super::policy::TargetSelector;
use super::request::{Request, STOPPING_MESSAGE};
use super::settings::RetrySettings;
use super::shared_routes::{RouteTable, SharedRoutes};
use super::target::{RouteHandle, TargetHandle};

/// The router.
#[derive(Debug)]
pub struct Router {
    setup: Arc<Setup>,
    /// The routes that `selectors` belong to.
    table: Arc<RouteTable>,
    selectors: HashMap<RouteName, TargetSelector>,
    health: HashMap<TargetName, TargetHealth>,
    stopping: bool,
}

/// What the router is created from, also after a panic.
#[derive(Debug)]
struct Setup {
    routes: SharedRoutes,
    hedges: Arc<HedgeLimiter>,
    /// Whether a stop is final and not a restart.
    draining: Arc<AtomicBool>,
    /// Every execution holds a receiver. Dropping this sender ends the executions.
    shutdown_tx: watch::Sender<()>,
}

impl Router {
    /// Creates a router over `routes`. Once `draining` is set, a stop waits for all executions.
    pub fn new(
        routes: HashMap<RouteName, RouteHandle>,
        retry: RetrySettings,
        draining: Arc<AtomicBool>,
    ) -> Self {
        Self::with_shared_routes(SharedRoutes::new(RouteTable::new(routes, retry)), draining)
    }

    /// Creates a router over routes that may be replaced at any time. Once `draining` is set, a stop waits for all
    /// executions.
    pub fn with_shared_routes(routes: SharedRoutes, draining: Arc<AtomicBool>) -> Self {
        let ratio = routes.load().retry.hedge_ratio;
        let hedges = Arc::new(HedgeLimiter::new(ratio, draining.clone()));
        let shutdown_tx = watch::Sender::new(());
        Self::from_setup(Arc::new(Setup { routes, hedges, draining, shutdown_tx }))
    }

    /// Creates the next incarnation, for the case that this one is terminated. Executions of both may run at the
    /// same time.
    pub fn next_incarnation(&self) -> Self {
        Self::from_setup(self.setup.clone())
    }

    fn from_setup(setup: Arc<Setup>) -> Self {
        let table = setup.routes.load();
        let selectors =
            table.routes.iter().map(|(name, route)| (name.clone(), new_selector(route))).collect();
        Self { setup, table, selectors, health: HashMap::new(), stopping: false }
    }

    /// Changes to the routes in use, if they were replaced. A route with the same targets continues its order.
    fn follow_routes(&mut self) {
        let table = self.setup.routes.load();
        if Arc::ptr_eq(&table, &self.table) {
            return;
        }
        let former = std::mem::replace(&mut self.table, table);
        let mut selectors = std::mem::take(&mut self.selectors);
        for (name, route) in &self.table.routes {
            let is_same = former.routes.get(name).is_some_and(|former| former.orders_like(route));
            let kept = selectors.remove(name).filter(|_| is_same);
            self.selectors.insert(name.clone(), kept.unwrap_or_else(|| new_selector(route)));
        }
        self.setup.hedges.set_ratio(self.table.retry.hedge_ratio);
        let is_used = |name: &TargetName| {
            self.table.routes.values().any(|route| route.targets.iter().any(|target| target.name == *name))
        };
        self.health.retain(|name, _| is_used(name));
    }

    /// Returns the targets of a route in the order in which they should be tried, and its retry settings.
    fn ordered_targets(&mut self, route: &RouteName) -> Option<(Vec<TargetHandle>, RetrySettings)> {
        let selector = self.selectors.get_mut(route)?;
        let route = self.table.routes.get(route)?;
        let targets = &route.targets;
        let health_of =
            |target: &TargetHandle| self.health.get(&target.name).copied().unwrap_or(TargetHealth::Healthy);
        let health: Vec<TargetHealth> = targets.iter().map(health_of).collect();
        let ordered = selector.order(&health).into_iter().map(|index| targets[index].clone());
        Some((ordered.collect(), route.retry_settings(&self.table.retry)))
    }

    /// Starts the execution of a request, unless the router is stopping or the route does not exist.
    fn start(&mut self, request: Request) -> Result<(Execution, Option<DelegatedCall>), Failure> {
        if self.stopping {
            return Err(Failure::new(Class::Cancelled, STOPPING_MESSAGE));
        }
        self.follow_routes();
        let Some((targets, retry)) = self.ordered_targets(&request.route) else {
            // A run begins only with usable routes, so a reload has removed this one.
            let is_of_run = request.context.step.is_some();
            let table = &self.table;
            let route = &request.route;
            return Err(if is_of_run { table.removed_route(route) } else { table.no_route(route) });
        };
        let shutdown_rx = self.setup.shutdown_tx.subscribe();
        Ok(Execution::start(request, targets, retry, (&self.setup.hedges, shutdown_rx)))
    }
}

fn new_selector(route: &RouteHandle) -> TargetSelector {
    let weights = route.targets.iter().map(|target| target.weight).collect();
    TargetSelector::new(route.policy, weights)
}

/// Starts a request whose caller completes the execution itself, which needs no task and no wake-up.
///
/// The router sends `execution` first, then submits the first call with the responder `first_call`. If there is no
/// first call, or the execution awaits it itself, the responder is dropped at once.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StartRequest {
    pub(super) request: Request,
    pub(super) first_call: CallResponder,
    pub(super) execution: oneshot::Sender<Result<Box<Execution>, Failure>>,
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Supervised for Router {
    /// The providers report their health again within a second.
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::from_setup(self.setup.clone());
    }
}

impl Handler<StartRequest> for Router {
    type Result = ();

    fn handle(
        &mut self,
        StartRequest { request, first_call, execution }: StartRequest,
        _: &mut Self::Context,
    ) {
        chaos::point("router.request");
        let started = self.start(request);
        chaos::point("router.request_started");
        let (started, call) = match started {
            Ok((started, call)) => (Ok(Box::new(started)), call),
            Err(failure) => (Err(failure), None),
        };
        // The call is submitted last, so that a panic before it loses no call. If the caller is gone, no call is
        // sent.
        if let (Ok(()), Some((provider, call))) = (execution.send(started), call) {
            provider.submit_with(call, first_call);
        }
    }
}

impl Handler<HealthChanged> for Router {
    type Result = ();

    fn handle(&mut self, changed: HealthChanged, _: &mut Self::Context) {
        chaos::point("router.health");
        self.health.extend(changed.targets);
    }
}

impl Handler<Stop> for Router {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        if !self.setup.draining.load(Relaxed) {
            // The supervisor restarts it at once with the same mailbox. The executions continue meanwhile.
            return ctx.stop();
        }
        self.stopping = true;
        let setup = self.setup.clone();
        let ended = async move { setup.shutdown_tx.closed().await };
        ctx.spawn(ended.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}
