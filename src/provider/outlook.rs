//! What the router may ask of a provider's state before it decides where a question goes.
//!
//! Cheap: each looks once, and changes nothing that a decision of the provider's rests on.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::ModelName;

use super::call::LaneHealth;
use super::state::State;

/// The part of a provider's capacity that a run has; all have the same.
#[derive(Debug)]
pub struct CapacityShare(Arc<AtomicUsize>);

impl Drop for CapacityShare {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl State {
    /// Returns how many requests are worth keeping in flight for it by one of the runs that share it, which wait no
    /// longer than `patience`.
    pub fn capacity(&self, patience: Duration, now: Instant) -> usize {
        self.lock().capacity(patience, now).div_ceil(self.runs.load(Relaxed).max(1))
    }

    /// Shares its capacity with one more run, until what is returned goes.
    pub fn share(&self) -> CapacityShare {
        self.runs.fetch_add(1, Relaxed);
        CapacityShare(self.runs.clone())
    }

    /// Returns how the lane of a model is doing.
    pub fn lane_health(&self, model: &ModelName, now: Instant) -> LaneHealth {
        self.lock().health_of(model, now)
    }

    /// Returns whether a call to a model would not have to wait behind others.
    pub fn has_room(&self, model: &ModelName, now: Instant) -> bool {
        let inner = self.lock();
        let room = inner.queue.is_empty() && inner.has_room_for_all() && inner.may(model, now);
        room && inner.health_of(model, now) == LaneHealth::Good
    }

    /// Returns the time, from leaving to its end, that this share of the latest calls to a model did not
    /// outlast; `None` while too few have been answered.
    pub fn usual_time(&self, model: &ModelName, share: f64) -> Option<Duration> {
        self.lock().times(model)?.usual(share)
    }

    /// Notes that a call was broken off after so long a time.
    pub(super) fn broken_off(&self, model: &ModelName, after: Duration) {
        if let Some(times) = self.lock().times(model) {
            times.broken_off(after);
        }
    }

    /// Returns about how long its response headers took to come at most, lately; zero before there were any.
    pub fn longest_silence(&self) -> Duration {
        self.silence.longest()
    }

    /// Returns whether another provider may be asked beside this one, which has said nothing for long, and takes it: once
    /// until it has answered.
    pub fn may_ask_beside(&self) -> bool {
        self.silence.may_ask_beside()
    }

    /// Returns when time alone may change how a lane is doing; `None` when nothing is waited for.
    pub(super) fn recovers(&self, now: Instant) -> Option<Instant> {
        self.lock().recovers(now)
    }

    /// Returns how many tokens a model takes at most; `None` when it is not known.
    pub fn context(&self, model: &ModelName) -> Option<NonZeroU64> {
        self.settings().models.get(model)?.context
    }
}
