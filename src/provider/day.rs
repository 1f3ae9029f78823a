//! The calls that limits of a day count, beyond the process: what has left, for a store to count, and what a store
//! has counted before.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{LaneName, ModelName};

use super::book::Book;
use super::state::State;

impl Book {
    /// Returns the calls to each model that have left since this was last asked.
    fn take_uncounted(&mut self) -> impl Iterator<Item = (&ModelName, u64)> {
        let taken = self.lanes.iter_mut().map(|(model, lane)| (model, std::mem::take(&mut lane.uncounted)));
        taken.filter(|(_, calls)| *calls > 0)
    }

    /// Takes over what was counted before: calls to each model, and how long ago.
    fn restore_day(&mut self, calls: &[(ModelName, Duration, u64)], now: Instant) {
        self.limits.restore_day(calls.iter().map(|(_, age, calls)| (*age, *calls)), now);
        for (name, lane) in &mut self.lanes {
            let own = calls.iter().filter(|(model, ..)| model == name);
            lane.limits.restore_day(own.map(|(_, age, calls)| (*age, *calls)), now);
        }
    }
}

impl State {
    /// Returns whether a limit of a day holds calls of it that leave the process.
    pub fn counts_day(&self) -> bool {
        let inner = self.lock();
        let counts_day =
            inner.limits.counts_day() || inner.lanes.values().any(|lane| lane.limits.counts_day());
        counts_day && !self.is_practice()
    }

    /// Adds the calls to each target that have left since this was last asked, as far as limits of a day count them.
    pub fn take_uncounted(&self, calls: &mut BTreeMap<LaneName, u64>) {
        for (model, left) in self.lock().take_uncounted() {
            let target = LaneName { provider: self.name().clone(), model: model.clone() };
            *calls.entry(target).or_default() += left;
        }
    }

    /// Takes over the calls that a store has counted, each to a model and how long ago. Only the first time: what
    /// leaves later is counted here already.
    pub fn restore_day(&self, calls: &[(ModelName, Duration, u64)], now: Instant) {
        let mut inner = self.lock();
        if !std::mem::replace(&mut inner.has_restored_day, true) {
            inner.restore_day(calls, now);
        }
    }
}
