//! Spending caps: the cap of a run, the budgets of a day, and the spend that is recorded when a run ends.
//!
//! A cap needs prices. A target without a price is reported before anything starts.
//!
//! A budget counts every call, also a call whose caller has gone. The store has only the calls that ended within
//! their item. The difference is recorded when the run ends, so that it counts when the run is resumed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::config::{BudgetSettings, ResolvedConfig};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::guard::{BudgetScope, RecordedSpend, SharedBudget};
use crate::provider::Model;
use crate::run::RunBudgets;
use crate::store::{self, RunNumber, Store};
use crate::types::{Day, NanoUsd, ProviderName, ScopeName, Spend, TargetName};

use super::pause_options::PauseOptions;

/// How long cancelled calls may take to end.
const MAX_WAIT_FOR_CALLS: Duration = Duration::from_secs(2);

/// How often the budget of a run is read while its calls end.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The spending cap of a run, as its caller sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MaxCost {
    /// The run has no cap of its own, whatever `[budget] run` is.
    Unlimited,
    /// All sessions of the run together may spend this much.
    Limit(NanoUsd),
}

impl MaxCost {
    /// Returns the effective cap: `named`, or `configured` if the caller set none.
    pub(super) fn or_configured(named: Option<Self>, configured: Option<NanoUsd>) -> Option<NanoUsd> {
        match named {
            Some(Self::Limit(cap)) => Some(cap),
            Some(Self::Unlimited) => None,
            None => configured,
        }
    }
}

impl From<NanoUsd> for MaxCost {
    fn from(cap: NanoUsd) -> Self {
        Self::Limit(cap)
    }
}

/// The options of a run that is not stored. A stored run has [`ResumeOptions`](super::ResumeOptions).
///
/// ```
/// use std::time::Duration;
///
/// use pointsman::{MaxFailures, NanoUsd, PauseOptions, RunOptions};
///
/// let pause = PauseOptions::new()
///     .with_max_hold(Duration::from_secs(600))
///     .with_max_failures(MaxFailures::Count(100));
/// let options = RunOptions::new().with_max_cost(NanoUsd(5_000_000_000)).with_pause(pause); // $5.00
/// assert_eq!(options.max_cost, Some(NanoUsd(5_000_000_000).into()));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// The maximum that the run may spend; `None` uses `[budget] run`.
    pub max_cost: Option<MaxCost>,
    /// When the run pauses.
    pub pause: PauseOptions,
    /// The scope of its requests; empty for none.
    pub scope: ScopeName,
}

impl RunOptions {
    /// Creates options that use the values of the configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum that the run may spend.
    #[must_use]
    pub fn with_max_cost(mut self, max_cost: impl Into<MaxCost>) -> Self {
        self.max_cost = Some(max_cost.into());
        self
    }

    /// Sets when the run pauses.
    #[must_use]
    pub fn with_pause(mut self, pause: PauseOptions) -> Self {
        self.pause = pause;
        self
    }

    /// Sets the scope of the run's requests: a tenant or the holder of a token. Its requests wait for the limits of the
    /// scope, and this wait counts against no deadline. The run pauses when the budget of the scope is spent.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<ScopeName>) -> Self {
        self.scope = scope.into();
        self
    }
}

/// Waits until no call of the run is in flight, for `MAX_WAIT_FOR_CALLS` at most.
pub(super) async fn wait_for_calls(budgets: &RunBudgets) {
    let end = Instant::now() + MAX_WAIT_FOR_CALLS;
    while budgets.own.status().reserved > NanoUsd(0) && Instant::now() < end {
        sleep(POLL_INTERVAL).await;
    }
}

/// Records the spend of the run that the store does not have; `before` is what was recorded at the start of the session.
/// The difference is from this session, so it is also recorded as the spend of the session's `scope`.
pub(super) async fn record_missing_spend(
    store: &dyn Store,
    run: RunNumber,
    scope: &ScopeName,
    budget: &SharedBudget,
    before: &BTreeMap<ProviderName, Spend>,
) -> Result<(), store::Error> {
    let known = store.spent_by(run).await?;
    let rest = budget.by_provider().into_iter().map(|(provider, mut all)| {
        all += before.get(&provider).copied().unwrap_or_default();
        let unrecorded = all.saturating_sub(known.get(&provider).copied().unwrap_or_default());
        (provider, unrecorded)
    });
    let rest: BTreeMap<_, _> = rest.filter(|(_, rest)| *rest != Spend::default()).collect();
    if rest.is_empty() {
        return Ok(());
    }
    store.add_spend(run, scope, Day::at(clock::milliseconds()), &rest).await
}

/// The budgets of a day: that of all providers, and those of single providers and scopes.
#[derive(Debug, Clone, Default)]
pub(super) struct DayBudgets {
    day: Option<Arc<SharedBudget>>,
    providers: HashMap<ProviderName, Arc<SharedBudget>>,
    scopes: BTreeMap<ScopeName, Arc<SharedBudget>>,
}

impl DayBudgets {
    pub(super) fn new(settings: &BudgetSettings) -> Self {
        let own = |(name, cap): (&ProviderName, &_)| {
            (name.clone(), SharedBudget::for_day(BudgetScope::Provider(name.clone()), *cap))
        };
        let of_scope = |(name, cap): (&ScopeName, &_)| {
            (name.clone(), SharedBudget::for_day(BudgetScope::Scope(name.clone()), *cap))
        };
        Self {
            day: settings.day.map(|cap| SharedBudget::for_day(BudgetScope::Day, cap)),
            providers: settings.provider.iter().map(own).collect(),
            scopes: settings.scope.iter().map(of_scope).collect(),
        }
    }

    /// Returns the budgets of a changed configuration. Caps that stay keep what was spent. Nothing changes before
    /// [`apply_caps`](Self::apply_caps).
    pub(super) fn changed(&self, settings: &BudgetSettings) -> Self {
        let new = Self::new(settings);
        let day = new.day.map(|day| self.day.clone().unwrap_or(day));
        let kept = |(name, budget): (ProviderName, Arc<SharedBudget>)| {
            let budget = self.providers.get(&name).cloned().unwrap_or(budget);
            (name, budget)
        };
        let of_scope = |(name, budget): (ScopeName, Arc<SharedBudget>)| {
            let budget = self.scopes.get(&name).cloned().unwrap_or(budget);
            (name, budget)
        };
        Self {
            day,
            providers: new.providers.into_iter().map(kept).collect(),
            scopes: new.scopes.into_iter().map(of_scope).collect(),
        }
    }

    /// Sets the caps of these budgets, and removes those of `former` that are no longer configured: calls in flight still
    /// spend them.
    pub(super) fn apply_caps(&self, former: &Self, settings: &BudgetSettings) {
        for day in former.day.iter().chain(&self.day) {
            day.set_cap(settings.day);
        }
        for (name, budget) in former.providers.iter().chain(&self.providers) {
            budget.set_cap(settings.provider.get(name).copied());
        }
        for (name, budget) in former.scopes.iter().chain(&self.scopes) {
            budget.set_cap(settings.scope.get(name).copied());
        }
    }

    /// Takes over the budgets of scopes from other budgets.
    pub(super) fn take_scopes(&mut self, other: Self) {
        self.scopes = other.scopes;
    }

    /// Returns the same budgets without that of a scope. What has begun still spends it, under its cap.
    #[must_use]
    pub(super) fn without_scope(mut self, scope: &ScopeName) -> Self {
        self.scopes.remove(scope);
        self
    }

    /// Returns the same budgets with this cap of a scope; `None` lifts it, also for what has begun.
    #[must_use]
    pub(super) fn with_scope(mut self, scope: &ScopeName, cap: Option<NanoUsd>) -> Self {
        match (self.scopes.get(scope), cap) {
            (Some(budget), cap) => {
                budget.set_cap(cap);
                if cap.is_none() {
                    self.scopes.remove(scope);
                }
            }
            (None, Some(cap)) => {
                let budget = SharedBudget::for_day(BudgetScope::Scope(scope.clone()), cap);
                self.scopes.insert(scope.clone(), budget);
            }
            (None, None) => {}
        }
        self
    }

    /// Returns the budgets from which the calls of a provider are paid.
    pub(super) fn of_provider(&self, provider: &ProviderName) -> Vec<Arc<SharedBudget>> {
        self.providers.get(provider).into_iter().chain(&self.day).cloned().collect()
    }

    /// Returns all budgets: that of the day, then those of providers and of scopes, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<SharedBudget>> {
        let providers: BTreeMap<_, _> = self.providers.iter().collect();
        self.day.iter().chain(providers.into_values()).chain(self.scopes.values())
    }

    /// Returns the budgets of scopes.
    pub(super) fn of_scopes(&self) -> &BTreeMap<ScopeName, Arc<SharedBudget>> {
        &self.scopes
    }

    /// Returns the budgets that a run of this scope at these providers shares with others.
    pub(super) fn shared_by_run<'a>(
        &self,
        scope: &ScopeName,
        providers: impl Iterator<Item = &'a ProviderName>,
    ) -> Vec<Arc<SharedBudget>> {
        self.day
            .iter()
            .chain(self.scopes.get(scope))
            .chain(providers.filter_map(|provider| self.providers.get(provider)))
            .cloned()
            .collect()
    }

    /// Reads from a store what was spent today, for all runs and for these scopes.
    pub(super) async fn sync_from_store(
        &self,
        store: &dyn Store,
        of_scopes: impl IntoIterator<Item = &ScopeName>,
    ) -> Result<(), store::Error> {
        let today = Day::at(clock::milliseconds());
        let next_day = Day(today.0.saturating_add(1));
        if self.day.is_some() || !self.providers.is_empty() {
            let of_today = store.spent_on(today).await?;
            let of_next_day = store.spent_on(next_day).await?;
            if let Some(day) = &self.day {
                let recorded = RecordedSpend {
                    of_today: of_today.values().copied().sum(),
                    of_next_day: of_next_day.values().copied().sum(),
                };
                day.sync_from_store(today, recorded);
            }
            for (provider, budget) in &self.providers {
                budget.sync_from_store(today, recorded_for(provider, &of_today, &of_next_day));
            }
        }
        let budgets = of_scopes.into_iter().filter_map(|scope| self.scopes.get_key_value(scope));
        for (scope, budget) in budgets {
            let of_today = store.scopes_spent_on(today, Some(scope)).await?;
            let of_next_day = store.scopes_spent_on(next_day, Some(scope)).await?;
            budget.sync_from_store(today, recorded_for(scope, &of_today, &of_next_day));
        }
        Ok(())
    }

    /// Checks that each target under a cap has a price; `all` is whether the run or its scope has a cap. Returns notes
    /// for the user.
    ///
    /// # Errors
    /// Every target whose price is missing.
    pub(super) fn check_prices(
        &self,
        usable: &ResolvedConfig,
        targets: impl Iterator<Item = TargetName>,
        all: bool,
    ) -> Result<Vec<String>, Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let mut simulated = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for target in targets.filter(|target| seen.insert(target.clone())) {
            let capped = all || self.day.is_some() || self.providers.contains_key(&target.provider);
            let Some(ready) = usable.providers.get(&target.provider) else { continue };
            let priced = ready.settings.models.get(&target.model).is_some_and(Model::has_price);
            match (capped && !priced, ready.settings.is_simulated()) {
                (false, _) => {}
                (true, true) => simulated.push(target.to_string()),
                (true, false) => diagnostics.push(unpriced(&target)),
            }
        }
        let note = |targets: &[String]| {
            format!(
                "{}: simulated answers cost nothing, so no spending cap applies to them",
                targets.join(", ")
            )
        };
        diagnostics.into_result(simulated.first().map(|_| note(&simulated)).into_iter().collect())
    }
}

/// Returns what was recorded for one provider or one scope.
fn recorded_for<K: Ord>(
    name: &K,
    of_today: &BTreeMap<K, Spend>,
    of_next_day: &BTreeMap<K, Spend>,
) -> RecordedSpend {
    let of = |day: &BTreeMap<K, Spend>| day.get(name).copied().unwrap_or_default();
    RecordedSpend { of_today: of(of_today), of_next_day: of(of_next_day) }
}

fn unpriced(target: &TargetName) -> Diagnostic {
    let TargetName { provider, model } = target;
    let diagnostic = Diagnostic::new(format!("spending is capped, and {target} has no price"));
    diagnostic.with_help(format!(
        "write price = {{ input = .., output = .. }} (US dollars per million tokens) in \
         [provider.{provider}.models.{model}]"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> BudgetSettings {
        toml::from_str(text).unwrap()
    }

    fn spent(dollars: u64) -> Spend {
        Spend { cost: NanoUsd(dollars * 1_000_000_000), ..Spend::default() }
    }

    #[test]
    fn changed_caps_keep_what_was_spent_and_removed_ones_no_longer_apply() {
        let former_settings = settings("day = 10\nprovider.a = 5\nscope.team-a = 3");
        let former = DayBudgets::new(&former_settings);
        for budget in former.of_provider(&"a".into()) {
            budget.settle(NanoUsd(0), &"a".into(), spent(2), false);
        }
        let changed = settings("day = 20\nprovider.b = 1");
        let next = former.changed(&changed);
        let day = next.day.clone().unwrap();
        assert_eq!(day.status().cap, Some(NanoUsd(10_000_000_000)), "nothing has changed yet");
        next.apply_caps(&former, &changed);
        assert_eq!((day.status().cap, day.status().spent), (Some(NanoUsd(20_000_000_000)), spent(2)));
        // Calls in flight still have the removed budget.
        assert!(!former.providers["a"].is_capped() && !former.scopes["team-a"].is_capped());
        assert_eq!(next.of_provider(&"a".into()).len(), 1);
        assert_eq!(next.of_provider(&"b".into()).len(), 2);
        assert!(next.of_scopes().is_empty());
    }
}
