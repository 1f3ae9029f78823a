//! Daily usage beyond the process: the calls that were sent, for a store to count, and the calls that a store has
//! counted before.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{ModelName, TargetName};

use super::scheduler::Scheduler;
use crate::provider::state::State;

impl Scheduler {
    /// Returns the calls to each model that were sent since the last call of this method.
    fn take_uncounted(&mut self) -> impl Iterator<Item = (&ModelName, u64)> {
        let calls = self
            .targets
            .iter_mut()
            .map(|(model, target)| (model, std::mem::take(&mut target.unstored_calls)));
        calls.filter(|(_, calls)| *calls > 0)
    }

    /// Restores earlier usage: the calls to each model, and how long ago they were sent.
    fn restore_daily_usage(&mut self, calls: &[(ModelName, Duration, u64)], now: Instant) {
        self.limits.restore_daily_quota(calls.iter().map(|(_, age, calls)| (*age, *calls)), now);
        for (name, target) in &mut self.targets {
            let own = calls.iter().filter(|(model, ..)| model == name);
            target.limits.restore_daily_quota(own.map(|(_, age, calls)| (*age, *calls)), now);
        }
    }
}

impl State {
    /// Returns whether a daily limit applies to calls that are really sent: false for simulated providers.
    pub fn tracks_daily_usage(&self) -> bool {
        let inner = self.lock();
        let has_daily_quota = inner.limits.has_daily_quota()
            || inner.targets.values().any(|target| target.limits.has_daily_quota());
        has_daily_quota && !self.is_simulated()
    }

    /// Adds the calls to each target that were sent since the last call of this method, if a daily limit counts
    /// them.
    pub fn take_uncounted(&self, calls: &mut BTreeMap<TargetName, u64>) {
        for (model, count) in self.lock().take_uncounted() {
            let target = TargetName { provider: self.name().clone(), model: model.clone() };
            *calls.entry(target).or_default() += count;
        }
    }

    /// Restores the calls that a store has counted, by model and age. Only the first call has an effect, because
    /// later calls are already counted here.
    pub fn restore_daily_usage(&self, calls: &[(ModelName, Duration, u64)], now: Instant) {
        let mut inner = self.lock();
        if !std::mem::replace(&mut inner.daily_usage_restored, true) {
            inner.restore_daily_usage(calls, now);
        }
    }
}
