//! Where the requests of a run wait while it holds.
//!
//! Shared by the run and its items. What a hold is, `hold.rs` decides.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::hold::{Hold, RouteHold, Turn};
use crate::provider::{self, Outage};
use crate::types::{AttemptCounts, Cause, Class, LaneName, RouteName, Unanswered};

/// Requests after which what has never answered, and only ever sent what cannot be read, is no API.
const UNREADABLE: u32 = 3;

/// A route of a run, with the targets that it leads to.
#[derive(Debug, Clone)]
pub struct RunRoute {
    /// Its name.
    pub name: RouteName,
    /// Its targets.
    pub targets: Vec<RunTarget>,
    /// The shortest time that a step has which takes it.
    pub patience: Duration,
}

/// A target of a route.
#[derive(Debug, Clone)]
pub struct RunTarget {
    /// Its name.
    pub name: LaneName,
    /// The provider that it belongs to.
    pub provider: Arc<provider::State>,
}

/// The holds of a run.
#[derive(Debug)]
pub(super) struct Gate {
    routes: Vec<RunRoute>,
    holds: Mutex<Vec<RouteHold>>,
    /// Whether any is in force.
    holding: AtomicBool,
    changed: Notify,
}

/// A request that has no answer yet.
pub(super) struct Open {
    gate: Arc<Gate>,
    route: usize,
}

/// A request that finds out whether a hold is over.
pub(super) struct Probe {
    gate: Arc<Gate>,
    route: usize,
}

impl Gate {
    pub(super) fn new(routes: Vec<RunRoute>) -> Arc<Self> {
        let holds = routes.iter().map(|_| RouteHold::default()).collect();
        Arc::new(Self {
            routes,
            holds: Mutex::new(holds),
            holding: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// Returns whether any route holds.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Relaxed)
    }

    /// Returns the hold that began first, and its route.
    pub(super) fn holding(&self) -> Option<(RouteName, Hold)> {
        let holds = self.lock();
        let held = self.routes.iter().zip(holds.iter());
        let held = held.filter_map(|(route, hold)| Some((&route.name, hold.hold()?)));
        let first = held.min_by_key(|(_, hold)| hold.since);
        first.map(|(route, hold)| (route.clone(), hold.clone()))
    }

    /// Returns the hold that is to end the session, if there is one.
    pub(super) fn too_long(&self, max_hold: Option<Duration>, now: Instant) -> Option<Hold> {
        let holds = self.lock();
        holds.iter().filter_map(RouteHold::hold).find(|hold| hold.is_too_long(max_hold, now)).cloned()
    }

    /// Notes a request of a route that is to be sent; its end is when what is returned goes.
    pub(super) fn open(self: &Arc<Self>, route: &RouteName) -> Option<Open> {
        let number = self.number(route)?;
        self.lock()[number].opened();
        Some(Open { gate: self.clone(), route: number })
    }

    /// Waits until `not_before`, and until a request of the route may be sent that has come back before. Keep what is
    /// returned until the request is back.
    pub(super) async fn turn(self: Arc<Self>, route: RouteName, not_before: Instant) -> Option<Probe> {
        sleep_until(not_before).await;
        let number = self.number(&route)?;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking: what changes after that is not missed.
            changed.as_mut().enable();
            let turn = self.lock()[number].turn(Instant::now());
            match turn {
                Turn::Send => return None,
                Turn::Probe => return Some(Probe { gate: self.clone(), route: number }),
                Turn::Await => changed.await,
                Turn::Wait(until) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Learns that a request of the route came back for a reason that is not its own.
    pub(super) fn came_back(&self, route: &RouteName, unanswered: &Unanswered, now: Instant) {
        let Some(number) = self.number(route) else { return };
        let Unanswered { failure, lane, .. } = unanswered;
        // A request that could not be sent in time says nothing of its targets: what they say themselves counts.
        if failure.class == Class::Deadline && unanswered.trail.calls() == 0 {
            return;
        }
        let answered = self.routes[number].answered();
        let lasting_after = match failure.class {
            Class::NotFound if answered == 0 => Some(1),
            Class::Unreadable if answered == 0 && failure.cause.is_some_and(Cause::is_of_no_api) => {
                Some(UNREADABLE)
            }
            _ => None,
        };
        let jitter = fastrand::f64();
        self.lock()[number].came_back(failure, lane.as_ref(), (answered, lasting_after), (now, jitter));
        self.holding.store(true, Relaxed);
    }

    /// Looks how the targets are doing, and lets requests go on whose hold has ended.
    pub(super) fn look(&self, now: Instant) {
        let mut holds = self.lock();
        let mut is_earlier = false;
        for (route, hold) in self.routes.iter().zip(holds.iter_mut()) {
            if !hold.is_asked() && hold.hold().is_none() {
                continue;
            }
            is_earlier |= hold.look(route.outage(now), route.answered(), now);
        }
        self.holding.store(holds.iter().any(|hold| hold.hold().is_some()), Relaxed);
        drop(holds);
        if is_earlier {
            self.changed.notify_waiters();
        }
    }

    /// Returns what a target has counted.
    pub(super) fn counts(&self, target: &LaneName) -> AttemptCounts {
        let mut targets = self.routes.iter().flat_map(|route| &route.targets);
        let target = targets.find(|known| known.name == *target);
        target.map(RunTarget::counts).unwrap_or_default()
    }

    fn number(&self, route: &RouteName) -> Option<usize> {
        self.routes.iter().position(|known| known.name == *route)
    }

    /// A panic while the lock was held leaves numbers: go on with them.
    fn lock(&self) -> MutexGuard<'_, Vec<RouteHold>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunRoute {
    /// Returns why none of the targets can be used, of the one that is worth trying first.
    fn outage(&self, now: Instant) -> Option<(Outage, LaneName)> {
        let mut outages = Vec::new();
        for RunTarget { name, provider } in &self.targets {
            let outage = provider.outage(&name.model, self.patience, now)?;
            outages.push((outage, name.clone()));
        }
        let can_mend = outages.iter().any(|(outage, _)| outage.can_mend);
        // One that waiting cannot mend is not worth trying while another is.
        outages.retain(|(outage, _)| outage.can_mend == can_mend);
        outages.into_iter().min_by_key(|(outage, _)| outage.retry_at)
    }

    fn answered(&self) -> u64 {
        self.targets.iter().map(|target| target.counts().answered).sum()
    }
}

impl RunTarget {
    fn counts(&self) -> AttemptCounts {
        self.provider.attempt_counts(&self.name.model)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gate.lock()[self.route].closed();
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.gate.lock()[self.route].probed();
        self.gate.changed.notify_waiters();
    }
}
