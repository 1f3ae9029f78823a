//! Records what requests outside of runs spend, so that budgets of a day hold after a restart.
//!
//! All requests of a scope spend from one budget without a cap, which knows what each provider has charged. A call whose
//! caller has gone is counted too, when it ends. Once a second the difference to what the store has is added to the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::guard::SharedBudget;
use crate::store::{self, RunNumber, Store};
use crate::types::{Day, ProviderName, ScopeName, Spend};

/// What requests outside of runs spend.
#[derive(Debug)]
pub(crate) struct RequestSpending {
    store: Arc<dyn Store>,
    budgets: Mutex<HashMap<ScopeName, Arc<SharedBudget>>>,
    /// What the store has of each budget. Held while it is written.
    recorded: tokio::sync::Mutex<HashMap<ScopeName, BTreeMap<ProviderName, Spend>>>,
}

impl RequestSpending {
    /// Creates it with nothing spent.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, budgets: Mutex::default(), recorded: tokio::sync::Mutex::default() }
    }

    /// Returns the budget from which the requests of a scope spend.
    pub(crate) fn budget_of(&self, scope: &ScopeName) -> Arc<SharedBudget> {
        let new = || SharedBudget::for_run(None, Spend::default(), true);
        self.lock().entry(scope.clone()).or_insert_with(new).clone()
    }

    /// Adds to the store what it does not have. It must run to its end: it would add what it has added again.
    pub(crate) async fn record(&self) -> Result<(), store::Error> {
        let mut recorded = self.recorded.lock().await;
        let budgets: Vec<(ScopeName, Arc<SharedBudget>)> =
            self.lock().iter().map(|(scope, budget)| (scope.clone(), budget.clone())).collect();
        let day = Day::at(clock::milliseconds());
        for (scope, budget) in budgets {
            let total = budget.by_provider();
            let before = recorded.entry(scope.clone()).or_default();
            let unrecorded = unrecorded(&total, before);
            if !unrecorded.is_empty() {
                self.store.add_spend(RunNumber::NONE, &scope, day, &unrecorded).await?;
                *before = total;
            }
        }
        // No request and no call has the budget any more, so that nothing is added to it.
        self.lock().retain(|scope, budget| {
            let is_recorded = recorded.get(scope).is_some_and(|before| *before == budget.by_provider());
            let is_idle = Arc::strong_count(budget) == 1 && is_recorded;
            if is_idle {
                recorded.remove(scope);
            }
            !is_idle
        });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ScopeName, Arc<SharedBudget>>> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the part of `total` that is not in `before`.
fn unrecorded(
    total: &BTreeMap<ProviderName, Spend>,
    before: &BTreeMap<ProviderName, Spend>,
) -> BTreeMap<ProviderName, Spend> {
    let rest = total.iter().map(|(provider, all)| {
        (provider.clone(), all.saturating_sub(before.get(provider).copied().unwrap_or_default()))
    });
    rest.filter(|(_, rest)| *rest != Spend::default()).collect()
}

#[cfg(test)]
mod tests {
    use crate::store::Sqlite;
    use crate::types::NanoUsd;

    use super::*;

    fn spend(budget: &SharedBudget, provider: &str, cost: u64) {
        let cost = Spend { cost: NanoUsd(cost), ..Spend::default() };
        budget.settle(NanoUsd(0), &provider.into(), cost, true);
    }

    #[tokio::test]
    async fn each_spend_is_recorded_once_by_provider_and_by_scope() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
        let spending = RequestSpending::new(store.clone());
        let today = Day::at(clock::milliseconds());
        let of_scope = async |scope: &str| {
            let scope = ScopeName::from(scope);
            let spent = store.scopes_spent_on(today, Some(&scope)).await.unwrap();
            spent.get(&scope).map_or(0, |spend| spend.cost.0)
        };
        let of_provider = async |provider: &str| {
            store.spent_on(today).await.unwrap().get(provider).map_or(0, |spend| spend.cost.0)
        };
        let ci = spending.budget_of(&"token:ci".into());
        spend(&ci, "a", 10);
        spend(&ci, "b", 5);
        spend(&spending.budget_of(&ScopeName::default()), "a", 100);
        spending.record().await.unwrap();
        spending.record().await.unwrap();
        assert_eq!(
            (of_provider("a").await, of_provider("b").await, of_scope("token:ci").await),
            (110, 5, 15)
        );
        // The budget without requests is gone, that with one is not.
        assert_eq!(spending.lock().keys().cloned().collect::<Vec<_>>(), [ScopeName::from("token:ci")]);
        spend(&ci, "a", 1);
        drop(ci);
        spending.record().await.unwrap();
        assert_eq!((of_provider("a").await, of_scope("token:ci").await), (111, 16));
        assert!(spending.lock().is_empty() && spending.recorded.lock().await.is_empty());
        spend(&spending.budget_of(&"token:ci".into()), "a", 1);
        spending.record().await.unwrap();
        assert_eq!((of_provider("a").await, of_scope("token:ci").await), (112, 17));
    }
}
