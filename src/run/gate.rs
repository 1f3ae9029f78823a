//! Where the requests of a run wait while it holds.
//!
//! Shared by the run and its items. What a hold is, `hold.rs` decides.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::evidence::Evidence;
use super::hold::{Back, Hold, Member, Place, RouteHold, Turn};
use crate::provider::{self, Outage};
use crate::types::{AttemptCounts, Cause, Class, ItemOfRun, LaneName, RouteName, Unanswered};

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
    requests: Mutex<Vec<Requests>>,
    /// Whether any is in force.
    holding: AtomicBool,
    /// Whether items can begin that have not.
    more: AtomicBool,
    /// Whether the run had answers in an earlier session.
    had_answers: bool,
    changed: Notify,
}

/// The requests of a route.
#[derive(Debug, Default)]
struct Requests {
    hold: RouteHold,
    /// Those that have no answer yet, by their numbers.
    open: BTreeMap<u64, (Member, Evidence)>,
    opened: u64,
}

/// A request that has no answer yet.
pub(super) struct Open {
    gate: Arc<Gate>,
    route: usize,
    number: u64,
}

/// A request that was sent again.
pub(super) struct SentAgain {
    gate: Arc<Gate>,
    route: usize,
    turn: Turn,
    answered: bool,
}

/// A request that is to be sent again as soon as it may.
struct Waits<'a> {
    gate: &'a Gate,
    route: usize,
    place: Place,
}

impl Gate {
    /// Makes the gate of a run that leads to `routes`; `had_answers` is whether an earlier session of it was answered.
    pub(super) fn new(routes: Vec<RunRoute>, had_answers: bool) -> Arc<Self> {
        let requests = routes.iter().map(|_| Requests::default()).collect();
        Arc::new(Self {
            routes,
            requests: Mutex::new(requests),
            holding: AtomicBool::new(false),
            more: AtomicBool::new(true),
            had_answers,
            changed: Notify::new(),
        })
    }

    /// Returns whether any route holds.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Relaxed)
    }

    /// Returns the hold that began first, and its route.
    pub(super) fn holding(&self) -> Option<(RouteName, Hold)> {
        let requests = self.lock();
        let held = self.routes.iter().zip(requests.iter());
        let held = held.filter_map(|(route, requests)| Some((&route.name, requests.hold.hold()?)));
        let first = held.min_by_key(|(_, hold)| hold.since);
        first.map(|(route, hold)| (route.clone(), hold.clone()))
    }

    /// Returns the hold that is to end the session, if there is one.
    pub(super) fn too_long(&self, max_hold: Option<Duration>, now: Instant) -> Option<Hold> {
        let requests = self.lock();
        let mut holds = requests.iter().filter_map(|requests| requests.hold.hold());
        holds.find(|hold| hold.is_too_long(max_hold, now)).cloned()
    }

    /// Notes whether items can begin that have not.
    pub(super) fn set_more(&self, more: bool) {
        if self.more.swap(more, Relaxed) != more {
            self.changed.notify_waiters();
        }
    }

    /// Returns whether an item is to begin that has not, to find out whether a hold is over. Once for each time.
    pub(super) fn wants_another(&self, now: Instant) -> bool {
        self.lock().iter_mut().any(|requests| requests.hold.wants_another(now))
    }

    /// Returns how many requests have come back and are not under way.
    pub(super) fn resting(&self) -> usize {
        self.lock().iter().map(|requests| requests.hold.resting()).sum()
    }

    /// Fails the requests that wait in holds, and returns whether there were any.
    pub(super) fn give_up(&self) -> bool {
        let gives_up = self.lock().iter_mut().fold(false, |any, requests| requests.hold.give_up() | any);
        self.changed.notify_waiters();
        gives_up
    }

    /// Notes a request of an item that is to be sent by a route; its end is when what is returned goes.
    pub(super) fn open(self: &Arc<Self>, route: &RouteName, item: ItemOfRun) -> Option<Open> {
        let route = self.number(route)?;
        let mut requests = self.lock();
        let Requests { hold, open, opened } = &mut requests[route];
        *opened += 1;
        open.insert(*opened, (hold.opened(), Evidence::new(item)));
        Some(Open { gate: self.clone(), route, number: *opened })
    }

    /// Waits until `not_before`, or a hold begins, and until a request of the route may be sent that has come back `lives`
    /// times. Keep what is returned until the request is back.
    ///
    /// # Errors
    /// When it is not to be sent any more.
    pub(super) async fn turn(
        self: Arc<Self>,
        route: RouteName,
        lives: u32,
        not_before: Instant,
    ) -> Result<Option<SentAgain>, GivenUp> {
        let Some(route) = self.number(&route) else { return Ok(None) };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking: what changes after that is not missed.
            changed.as_mut().enable();
            // A hold says by itself when requests are sent again.
            if Instant::now() >= not_before || self.lock()[route].hold.hold().is_some() {
                break;
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(not_before) => {}
            }
        }
        let place = self.lock()[route].hold.wait(lives);
        let waits = Waits { gate: &self, route, place };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let turn = self.lock()[route].hold.turn(place, self.more.load(Relaxed), Instant::now());
            match turn {
                Turn::Send | Turn::Probe => {
                    // It has left the line, and another may be first.
                    drop(waits);
                    return Ok(Some(SentAgain { gate: self.clone(), route, turn, answered: false }));
                }
                Turn::GiveUp => return Err(GivenUp),
                Turn::Await => changed.await,
                Turn::Wait(until) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Looks how the targets are doing, and lets requests go on whose hold has ended.
    pub(super) fn look(&self, max_hold: Option<Duration>, now: Instant) {
        let mut all = self.lock();
        let (mut changed, more) = (false, self.more.load(Relaxed));
        for (route, requests) in self.routes.iter().zip(all.iter_mut()) {
            let Requests { hold, open, .. } = requests;
            if !hold.is_asked() && hold.hold().is_none() {
                continue;
            }
            let retry_at = hold.hold().map(|hold| hold.retry_at);
            changed |= hold.look(route.outage(now), route.answered(), now);
            if hold.would_give_up(more, max_hold, now) {
                // Attempts that left next to theirs may have ended since they came back.
                for (member, evidence) in open.values_mut().filter(|(member, _)| !member.is_suspected()) {
                    self.compare(evidence);
                    hold.suspects(member, evidence.is_suspected());
                    if !member.is_suspected() {
                        break;
                    }
                }
            }
            changed |= hold.give_up_suspected(more, max_hold, now);
            changed |= hold.hold().map(|hold| hold.retry_at) != retry_at;
        }
        self.holding.store(all.iter().any(|requests| requests.hold.hold().is_some()), Relaxed);
        drop(all);
        if changed {
            self.changed.notify_waiters();
        }
    }

    /// Lets a request learn how others fare at the targets that have failed it.
    fn compare(&self, evidence: &mut Evidence) {
        for name in evidence.targets() {
            let mut targets = self.routes.iter().flat_map(|route| &route.targets);
            if let Some(target) = targets.find(|known| known.name == name) {
                target.provider.with_first_attempts(&name.model, |first| evidence.compare(&name, first));
            }
        }
    }

    fn number(&self, route: &RouteName) -> Option<usize> {
        self.routes.iter().position(|known| known.name == *route)
    }

    /// A panic while the lock was held leaves numbers: go on with them.
    fn lock(&self) -> MutexGuard<'_, Vec<Requests>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Returns whether no target of its route can be used.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.gate.routes[self.route].outage(now).is_some()
    }

    /// Learns that the request came back with `unanswered`; `time` is how long it may take. Returns how often it came back
    /// so far, or `None` where the failure is its own.
    pub(super) fn came_back(&self, unanswered: &Unanswered, time: Duration, now: Instant) -> Option<u32> {
        let (gate, route) = (&self.gate, &self.gate.routes[self.route]);
        let Unanswered { failure, lane, .. } = unanswered;
        // Asked before the lock is taken.
        let (answered, oldest_unheard) = (route.answered(), route.oldest_unheard());
        let is_lasting = answered == 0
            && !gate.had_answers
            && (failure.class == Class::NotFound
                || failure.class == Class::Unreadable && failure.cause.is_some_and(Cause::is_of_no_api));
        let mut requests = gate.lock();
        let Requests { hold, open, .. } = &mut requests[self.route];
        let (member, evidence) = open.get_mut(&self.number)?;
        if evidence.add(unanswered, time) {
            return None;
        }
        gate.compare(evidence);
        if evidence.is_proven() {
            return None;
        }
        let lives = Some(evidence.lives());
        hold.returned(member);
        hold.suspects(member, evidence.is_suspected());
        // A request that could not be sent in time says nothing of its targets: what they say themselves counts.
        if failure.class == Class::Deadline && unanswered.trail.calls() == 0 {
            return lives;
        }
        let more = gate.more.load(Relaxed);
        let back = Back { why: failure, target: lane.as_ref(), is_lasting, answered, oldest_unheard, more };
        hold.came_back(member, back, (now, fastrand::f64()));
        let holds_now = hold.hold().is_some();
        drop(requests);
        if holds_now && !gate.holding.swap(true, Relaxed) {
            gate.changed.notify_waiters();
        }
        lives
    }
}

/// A request is not sent any more.
pub(super) struct GivenUp;

impl SentAgain {
    /// Notes that the request was answered.
    pub(super) fn answered(&mut self) {
        self.answered = true;
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

    /// Returns when the oldest attempt left that has had no word yet.
    fn oldest_unheard(&self) -> Option<Instant> {
        self.targets.iter().filter_map(|target| target.provider.oldest_unheard(&target.name.model)).min()
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
        let mut requests = self.gate.lock();
        let Requests { hold, open, .. } = &mut requests[self.route];
        if let Some((member, _)) = open.remove(&self.number) {
            hold.closed(&member);
        }
    }
}

impl Drop for SentAgain {
    fn drop(&mut self) {
        self.gate.lock()[self.route].hold.is_back(self.turn, self.answered);
        self.gate.changed.notify_waiters();
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.gate.lock()[self.route].hold.waits_no_more(self.place);
        self.gate.changed.notify_waiters();
    }
}
