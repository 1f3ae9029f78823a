//! Daily quotas across processes: the ledger of a run writes the number of sent calls to the store, and a process
//! starts with the calls that were counted before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use crate::ledger::SentCalls;
use crate::provider::State;
use crate::store::{self, Store};

use super::pointsman::Pointsman;

impl Pointsman {
    /// Gives the providers the calls of the last 24 hours that `store` has counted.
    pub(super) async fn restore_daily_quotas(&self, store: &dyn Store) -> Result<(), store::Error> {
        let providers = self.providers_with_daily_quota();
        if providers.is_empty() {
            return Ok(());
        }
        let mut calls: HashMap<_, Vec<_>> = HashMap::new();
        for count in store.calls_of_last_day().await? {
            calls.entry(count.target.provider).or_default().push((
                count.target.model,
                count.age,
                count.calls,
            ));
        }
        let now = Instant::now();
        for provider in providers {
            provider.restore_daily_usage(calls.get(provider.name()).map_or(&[], Vec::as_slice), now);
        }
        Ok(())
    }

    /// Returns the function by which a ledger reads the sent calls to the providers in use that have a daily quota.
    pub(super) fn sent_calls(&self) -> SentCalls {
        let current = self.shared_current();
        Box::new(move || {
            let mut calls = BTreeMap::new();
            let current = current.load();
            let providers = current.providers.values().filter(|provider| provider.tracks_daily_usage());
            providers.for_each(|provider| provider.take_uncounted(&mut calls));
            calls
        })
    }

    fn providers_with_daily_quota(&self) -> Vec<Arc<State>> {
        let current = self.current();
        current.providers.values().filter(|provider| provider.tracks_daily_usage()).cloned().collect()
    }
}
