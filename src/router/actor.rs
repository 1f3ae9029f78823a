//! Orders the lanes for every ask and sets it on its way.
//!
//! Holds no future: an ask under way is its asker's (or, where an actor has sent it, a task on the shared runtime),
//! so that ten thousand of them cost the actor nothing, and a panic in one costs that one. In a drain it takes no
//! more asks and stays until those under way have ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use actix::prelude::*;
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tracing::debug;

use crate::chaos;
use crate::provider::{HealthChanged, LaneHealth};
use crate::supervisor::{Later, Stop};
use crate::types::{Class, Failure, LaneName, RouteName};

use super::ask::{Ask, Begin};
use super::flow::{FirstCall, Flow};
use super::hedge::Hedges;
use super::lane::{LaneHandle, RouteHandle};
use super::policy::Chooser;
use super::settings::RetrySettings;

/// The router.
#[derive(Debug)]
pub struct Router {
    setup: Arc<Setup>,
    choosers: HashMap<RouteName, Chooser>,
    health: HashMap<LaneName, LaneHealth>,
    stopping: bool,
}

/// What the router is made from, and made from again after a panic.
#[derive(Debug)]
struct Setup {
    routes: HashMap<RouteName, RouteHandle>,
    retry: RetrySettings,
    hedges: Arc<Hedges>,
    runtime: Runtime,
    /// Whether a stop is for good, and no restart.
    draining: Arc<AtomicBool>,
    /// Every ask under way holds the other end. When this one goes, they give up.
    open: watch::Sender<()>,
}

impl Router {
    /// Makes a router over `routes`; asks of other actors run on `runtime`. Once `draining` is set, a stop waits for them.
    pub fn new(
        routes: HashMap<RouteName, RouteHandle>,
        retry: RetrySettings,
        runtime: Runtime,
        draining: Arc<AtomicBool>,
    ) -> Self {
        let hedges = Arc::new(Hedges::new(retry.hedge_share, draining.clone()));
        let open = watch::Sender::new(());
        Self::from_setup(Arc::new(Setup { routes, retry, hedges, runtime, draining, open }))
    }

    /// Makes the router's next life, should this one be killed: the asks of both are under way together.
    pub fn next_life(&self) -> Self {
        Self::from_setup(self.setup.clone())
    }

    fn from_setup(setup: Arc<Setup>) -> Self {
        let chooser = |route: &RouteHandle| {
            let weights = route.lanes.iter().map(|lane| lane.weight).collect();
            Chooser::new(route.policy, weights)
        };
        let choosers = setup.routes.iter().map(|(name, route)| (name.clone(), chooser(route))).collect();
        Self { setup, choosers, health: HashMap::new(), stopping: false }
    }

    /// Returns the lanes of a route in the order in which they should be tried, and how often.
    fn lanes(&mut self, route: &RouteName) -> Option<(Vec<LaneHandle>, RetrySettings)> {
        let (route, chooser) = (self.setup.routes.get(route)?, self.choosers.get_mut(route)?);
        let lanes = &route.lanes;
        let healthy = |lane: &LaneHandle| self.health.get(&lane.name).copied().unwrap_or(LaneHealth::Good);
        let health: Vec<LaneHealth> = lanes.iter().map(healthy).collect();
        let ordered = chooser.order(&health).into_iter().map(|lane| lanes[lane].clone());
        Some((ordered.collect(), self.setup.retry.along(route)))
    }

    /// Begins an ask, unless it comes too late or nobody knows its route.
    fn begin(&mut self, ask: Ask, brought: bool) -> Result<(Flow, Option<FirstCall>), Failure> {
        if self.stopping {
            return Err(Failure::new(Class::Cancelled, super::STOPPED));
        }
        let Some((lanes, retry)) = self.lanes(&ask.route) else {
            let message = format!("there is no route called {}", ask.route);
            return Err(Failure::new(Class::ApiError, message));
        };
        let open = self.setup.open.subscribe();
        Ok(Flow::begin(ask, lanes, retry, (&self.setup.hedges, open), brought))
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Supervised for Router {
    /// Health is told anew within a second.
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::from_setup(self.setup.clone());
    }
}

impl Handler<Ask> for Router {
    type Result = Later<<Ask as Message>::Result>;

    fn handle(&mut self, ask: Ask, _: &mut Self::Context) -> Self::Result {
        chaos::point("router.ask");
        let begun = self.begin(ask, false);
        chaos::point("router.begun");
        let setup = self.setup.clone();
        Later::new(move |mut reply| match begun {
            Ok((flow, _)) => drop(setup.runtime.spawn(async move {
                tokio::select! {
                    answered = flow.answer(None) => reply.send(answered),
                    () = reply.abandoned() => debug!("nobody waits for the answer any more"),
                }
            })),
            Err(failure) => reply.send(Err(Box::new(failure.into()))),
        })
    }
}

impl Handler<Begin> for Router {
    type Result = ();

    fn handle(&mut self, Begin { ask, first, flow }: Begin, _: &mut Self::Context) {
        chaos::point("router.ask");
        let begun = self.begin(ask, true);
        chaos::point("router.begun");
        let (begun, call) = match begun {
            Ok((begun, call)) => (Ok(Box::new(begun)), call),
            Err(failure) => (Err(failure), None),
        };
        // The call goes last: whatever panics before it costs none. An asker that has gone needs none.
        if let (Ok(()), Some((to, call))) = (flow.send(begun), call) {
            to.call_for(call, first);
        }
    }
}

impl Handler<HealthChanged> for Router {
    type Result = ();

    fn handle(&mut self, changed: HealthChanged, _: &mut Self::Context) {
        chaos::point("router.health");
        self.health.extend(changed.lanes);
    }
}

impl Handler<Stop> for Router {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        if !self.setup.draining.load(Relaxed) {
            // It lives again at once, with the same mailbox, and its asks go on meanwhile.
            return ctx.stop();
        }
        self.stopping = true;
        let setup = self.setup.clone();
        let ended = async move { setup.open.closed().await };
        ctx.spawn(ended.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}
