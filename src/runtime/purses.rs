//! The purses that outlive a run: the day's, and each provider's of the day.
//!
//! What has no price cannot be held to a cap: who tries is told before anything starts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::clock;
use crate::config::{BudgetSettings, Usable};
use crate::document::{Fault, Faults};
use crate::guard::{Purse, PurseOf};
use crate::provider::Model;
use crate::store::{self, Store};
use crate::types::{Booked, Day, LaneName, ProviderName};

/// The purses of a day.
#[derive(Debug, Default)]
pub(super) struct Purses {
    day: Option<Arc<Purse>>,
    providers: HashMap<ProviderName, Arc<Purse>>,
}

impl Purses {
    pub(super) fn new(settings: &BudgetSettings) -> Self {
        let own = |(name, cap): (&ProviderName, &_)| {
            (name.clone(), Purse::of_day(PurseOf::Provider(name.clone()), *cap))
        };
        Self {
            day: settings.day.map(|cap| Purse::of_day(PurseOf::Day, cap)),
            providers: settings.provider.iter().map(own).collect(),
        }
    }

    /// Returns what the calls of a provider spend.
    pub(super) fn of(&self, provider: &ProviderName) -> Vec<Arc<Purse>> {
        self.providers.get(provider).into_iter().chain(&self.day).cloned().collect()
    }

    /// Returns what runs at these providers spend beside their own.
    pub(super) fn of_run<'a>(&self, providers: impl Iterator<Item = &'a ProviderName>) -> Vec<Arc<Purse>> {
        self.day
            .iter()
            .chain(providers.filter_map(|provider| self.providers.get(provider)))
            .cloned()
            .collect()
    }

    /// Learns what a store has booked today, of all runs.
    pub(super) async fn learn(&self, store: &dyn Store) -> Result<(), store::Error> {
        if self.day.is_none() && self.providers.is_empty() {
            return Ok(());
        }
        let today = Day::at(clock::milliseconds());
        let mut booked: BTreeMap<ProviderName, Booked> = store.spent_on(today).await?;
        // Booked before the clock stepped back over midnight.
        for (provider, ahead) in store.spent_on(Day(today.0.saturating_add(1))).await? {
            *booked.entry(provider).or_default() += ahead;
        }
        if let Some(day) = &self.day {
            day.turn_to(today);
            day.store_has(booked.values().copied().sum());
        }
        for (provider, purse) in &self.providers {
            purse.turn_to(today);
            purse.store_has(booked.get(provider).copied().unwrap_or_default());
        }
        Ok(())
    }

    /// Checks that everything has a price that a cap is to hold; `all` is whether a run's cap does.
    /// Returns what is good to know.
    ///
    /// # Errors
    /// Every lane whose price is missing.
    pub(super) fn check(
        &self,
        usable: &Usable,
        lanes: impl Iterator<Item = LaneName>,
        all: bool,
    ) -> Result<Vec<String>, Faults> {
        let (mut faults, mut simulated) = (Faults::default(), Vec::new());
        let mut seen = std::collections::HashSet::new();
        for lane in lanes.filter(|lane| seen.insert(lane.clone())) {
            let capped = all || self.day.is_some() || self.providers.contains_key(&lane.provider);
            let Some(ready) = usable.providers.get(&lane.provider) else { continue };
            let priced = ready.settings.models.get(&lane.model).is_some_and(Model::has_price);
            match (capped && !priced, ready.settings.is_practice()) {
                (false, _) => {}
                (true, true) => simulated.push(lane.to_string()),
                (true, false) => faults.push(unpriced(&lane)),
            }
        }
        let note = |lanes: &[String]| {
            format!("{}: simulated answers cost nothing, so no spending cap holds them", lanes.join(", "))
        };
        faults.or(simulated.first().map(|_| note(&simulated)).into_iter().collect())
    }
}

fn unpriced(lane: &LaneName) -> Fault {
    let LaneName { provider, model } = lane;
    let fault = Fault::new(format!("spending is capped, and nobody knows what {lane} costs"));
    fault.advise(format!(
        "write price = {{ input = .., output = .. }} (US dollars per million tokens) in \
         [provider.{provider}.models.{model}]"
    ))
}
