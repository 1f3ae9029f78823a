//! Limits of a day across processes: the ledger of a run has the store count the calls that leave, and a process takes
//! over what was counted before it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use crate::ledger::LeftCalls;
use crate::provider::State;
use crate::store::{self, Store};

use super::pointsman::Pointsman;

impl Pointsman {
    /// Tells the providers which calls of the last 24 hours `store` has counted.
    pub(super) async fn restore_day(&self, store: &dyn Store) -> Result<(), store::Error> {
        let providers = self.with_day_limits();
        if providers.is_empty() {
            return Ok(());
        }
        let mut calls: HashMap<_, Vec<_>> = HashMap::new();
        for count in store.calls_of_day().await? {
            calls.entry(count.target.provider).or_default().push((
                count.target.model,
                count.age,
                count.calls,
            ));
        }
        let now = Instant::now();
        for provider in providers {
            provider.restore_day(calls.get(provider.name()).map_or(&[], Vec::as_slice), now);
        }
        Ok(())
    }

    /// Returns where a ledger learns which calls have left; `None` where no limit of a day counts them.
    pub(super) fn left_calls(&self) -> Option<LeftCalls> {
        let providers = self.with_day_limits();
        if providers.is_empty() {
            return None;
        }
        let left = move || {
            let mut calls = BTreeMap::new();
            providers.iter().for_each(|provider| provider.take_uncounted(&mut calls));
            calls
        };
        Some(Box::new(left))
    }

    fn with_day_limits(&self) -> Vec<Arc<State>> {
        let (providers, ..) = self.parts();
        providers.values().filter(|provider| provider.counts_day()).cloned().collect()
    }
}
