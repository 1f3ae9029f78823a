//! How a provider is doing: for the router, for the window of items, and for people.
//!
//! Only looks; nothing here changes a number.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{BreakerState, Need};
use crate::types::{Failure, ModelName};

use super::book::Book;
use super::call::LaneHealth;
use super::lane::{ASSUMED_NEED, Lane};
use super::limit_use::{LimitUse, tighter};

/// A provider that asked us to stay away for longer than this is not the first choice meanwhile.
const SHORT_HOLD: Duration = Duration::from_secs(2);

/// Seconds a call is assumed to take before one has been seen.
const ASSUMED_SECONDS: f64 = 2.0;

/// Seconds until an item that has ended is followed by the next one's call, at most: it is read, begun and asked for
/// beside much else. Calls that end meanwhile leave their places empty unless others wait.
const REFILL: f64 = 0.010;

/// Most calls that wait for that reason, for each that may be out.
const MOST_REFILL: f64 = 2.5;

impl Book {
    /// Returns how every lane is doing.
    pub(super) fn health(&self, now: Instant) -> Vec<(ModelName, LaneHealth)> {
        self.lanes.iter().map(|(model, lane)| (model.clone(), self.lane_health(model, lane, now))).collect()
    }

    /// Returns how one lane is doing; a lane that there is not is out.
    pub(super) fn health_of(&self, model: &ModelName, now: Instant) -> LaneHealth {
        self.lanes.get(model).map_or(LaneHealth::Out, |lane| self.lane_health(model, lane, now))
    }

    fn lane_health(&self, model: &ModelName, lane: &Lane, now: Instant) -> LaneHealth {
        if self.keys.are_out(model, now) {
            LaneHealth::Out
        } else if !self.door.would_admit(now)
            || !lane.breaker.would_admit(now)
            || self.held_for(lane, now) > SHORT_HOLD
        {
            LaneHealth::Poor
        } else {
            LaneHealth::Good
        }
    }

    /// Returns when a lane may be better again by time alone: when a breaker's pause ends, or what the provider
    /// asked for. `None` when nothing is waited for.
    pub(super) fn recovers(&self, now: Instant) -> Option<Instant> {
        let of_lane = |lane: &Lane| {
            let hold = self.held_for_long(lane, now).and_then(|until| until.checked_sub(SHORT_HOLD));
            [lane.breaker.rests_until(now), hold]
        };
        let lanes = self.lanes.values().flat_map(of_lane);
        lanes.chain([self.door.rests_until(now)]).flatten().min()
    }

    /// Returns for how long a lane's calls are held back at the provider's wish.
    pub(super) fn held_for(&self, lane: &Lane, now: Instant) -> Duration {
        self.limits.held_for(now).max(lane.limits.held_for(now))
    }

    /// Returns until when a lane's calls are held back, if that is worth going elsewhere for.
    pub(super) fn held_for_long(&self, lane: &Lane, now: Instant) -> Option<Instant> {
        let held = self.held_for(lane, now);
        (held > SHORT_HOLD).then(|| now + held)
    }

    /// Returns for how long calls are held back at most.
    pub(super) fn longest_hold(&self, now: Instant) -> Duration {
        self.lanes.values().map(|lane| self.held_for(lane, now)).max().unwrap_or_default()
    }

    /// Returns where the breaker of a lane stands, or the one that all lanes share where that is worse.
    pub(super) fn breaker_of(&self, model: &ModelName, now: Instant) -> Option<BreakerState> {
        let lane = self.lanes.get(model)?.breaker.state(now);
        Some(match self.door.state(now) {
            BreakerState::Closed => lane,
            BreakerState::HalfOpen if lane == BreakerState::Open => lane,
            door => door,
        })
    }

    /// Returns for how long no call of a lane leaves because a breaker is open.
    pub(super) fn rests_for(&self, lane: &Lane, now: Instant) -> Duration {
        let until = [lane.breaker.rests_until(now), self.door.rests_until(now)].into_iter().flatten().max();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Returns the failure for which a breaker of the lane is not closed.
    pub(super) fn last_failure_of<'a>(&'a self, lane: &'a Lane) -> Option<&'a Failure> {
        let own = lane.last.as_ref().filter(|_| lane.breaker.trouble().is_some());
        own.or_else(|| self.at_the_door.as_ref().filter(|_| self.door.trouble().is_some()))
    }

    /// Returns how many calls may be out at once, of those lanes that are used.
    pub(super) fn concurrency(&self) -> usize {
        let reachable = |lane: &Lane| lane.concurrency.reachable(lane.is_paced(&self.limits));
        let all: usize = self.used_lanes().map(reachable).sum();
        self.max_in_flight.map_or(all, |max| all.min(max))
    }

    /// Returns how many calls, out and waiting, keep the provider busy: those its limits let through at
    /// once and in twice the time a call takes, so that some always wait, and more where calls take but milliseconds;
    /// and no more than have their turn within half of `patience`, for who has to wait longer than his question may is
    /// turned away.
    pub(super) fn capacity(&self, patience: Duration, now: Instant) -> usize {
        let refill = self.seconds.0.map_or(0.0, |seconds| (REFILL / seconds).min(MOST_REFILL));
        let busy_with = |max: usize| max as f64 * (1.5 + refill) + 2.0;
        let lanes = self.used_lanes().map(|lane| {
            let need = lane.usual_need().unwrap_or(ASSUMED_NEED);
            // A limit that is used up may double before anyone looks here again.
            let reachable = lane.concurrency.reachable(lane.is_paced(&self.limits));
            let concurrency = reachable as f64 * (2.0 + refill) + 2.0;
            self.paced(lane, need, patience, now).min(concurrency).min(busy_with(lane.concurrency.max()))
        });
        lanes.sum::<f64>().min(self.max_in_flight.map_or(f64::MAX, busy_with)).ceil() as usize
    }

    /// Returns how many calls the limits have use for.
    fn paced(&self, lane: &Lane, need: Need, patience: Duration, now: Instant) -> f64 {
        let seconds = self.seconds.0.unwrap_or(ASSUMED_SECONDS).max(0.5).min(patience.as_secs_f64() / 4.0);
        let paced = [&self.limits, &lane.limits].map(|limits| {
            let flowing = limits.calls_per_second(need).map_or(f64::MAX, |rate| rate * seconds * 2.0 + 2.0);
            flowing + limits.calls_at_once(need, now)
        });
        paced[0].min(paced[1])
    }

    /// Returns the lanes that have been called; as long as there is none, the first.
    fn used_lanes(&self) -> impl Iterator<Item = &Lane> {
        let any = self.lanes.values().any(|lane| lane.usual_need().is_some());
        let used = self.lanes.values().filter(move |lane| !any || lane.usual_need().is_some());
        used.take(if any { usize::MAX } else { 1 })
    }

    /// Returns the limit of which the last ten seconds used most: the account's, or a model's.
    pub(super) fn limit_use(&self, now: Instant) -> Option<LimitUse> {
        let own = |(model, lane): (&ModelName, &Lane)| {
            let used = lane.lately.tightest(&lane.limits, now)?;
            Some(LimitUse { model: Some(model.clone()), ..used })
        };
        let of_models = self.lanes.iter().filter_map(own).reduce(tighter);
        self.lately.tightest(&self.limits, now).into_iter().chain(of_models).reduce(tighter)
    }
}
