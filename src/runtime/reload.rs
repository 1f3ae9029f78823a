//! Changes the configuration of a running Pointsman.
//!
//! Everything that can fail is done before anything changes: the keys are read, clients and states are created, and the
//! actors of new providers start. Then the change is applied at once, in this order: settings in place, the routes, the
//! scopes, the configuration in use. Last, the states that have no place any more take no new calls, and their actors stop
//! when their last calls have ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::config::{BudgetSettings, Config, ResolvedConfig};
use crate::guard::{MemoryBudget, ScopeSettings};
use crate::provider::{self, PreparedUpdate};
use crate::store::RunNumber;
use crate::supervisor::{self, StopChild, Supervisor};
use crate::types::{NanoUsd, ProviderName, ScopeName, TargetName};

use super::budgets::DayBudgets;
use super::changes::{AddedScopes, KeyLookup};
use super::children::{Providers, account, provider_child, provider_spec, route_table};
use super::config_diff::{AppliedAs, ConfigDiff, of_provider};
use super::current::{Current, model_identity_of, shared_model_identity_of};
use super::error::Error;
use super::pointsman::{self, Pointsman};

/// How often a provider that takes no new calls is checked for its last one.
const LAST_CALL_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a reload waits for the actor of a new provider, and how often it looks.
const MAX_WAIT_FOR_ACTOR: Duration = Duration::from_secs(1);
const ACTOR_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReloadReport {
    /// The changed settings, and providers whose keys have come or gone.
    pub diff: ConfigDiff,
    /// The changes as sentences.
    pub changes: Vec<String>,
    /// A line for each provider that is left out or simulated, as [`Pointsman::notes`], and for each model that changes while
    /// a stored run uses it.
    pub notes: Vec<String>,
    /// Whether a cap is new. It begins with nothing spent; [`Pointsman::sync_budgets`] adds what a store has recorded.
    pub has_new_caps: bool,
}

/// A checked change of the whole configuration.
struct Prepared {
    config: Config,
    usable: ResolvedConfig,
    budgets: DayBudgets,
    providers: Providers,
    /// The states that continue, with their changes.
    updates: Vec<(Arc<provider::State>, PreparedUpdate)>,
    /// The states that others take the place of, each with its successor.
    replaced: Vec<(Arc<provider::State>, Arc<provider::State>)>,
    removed: Vec<Arc<provider::State>>,
    /// The states whose actors must start.
    new: Vec<Arc<provider::State>>,
}

impl Pointsman {
    /// Applies a changed configuration without a restart. Requests in progress continue; the next attempt, request or run
    /// uses the new settings. What cannot be changed is in the report as [`AppliedAs::NeedsRestart`] and keeps its value.
    ///
    /// - Limits and caps change in place: what was used stays used, and what was learned stays known.
    /// - Changed keys, prices, timeouts and headers apply to the next attempt.
    /// - A provider with another address or format is replaced; the old one ends its calls.
    /// - A run whose route has no target any more holds, and continues when a later reload brings one back.
    ///
    /// A second reload waits for the first one. A future that is dropped does not stop the reload.
    ///
    /// # Errors
    /// Every fault of the configuration and every key that cannot be read. Nothing is changed then.
    pub async fn reload(&self, config: &Config) -> Result<ReloadReport, Error> {
        self.reload_in_task(config.clone(), None).await
    }

    /// Applies a changed configuration as [`reload`](Self::reload) does, with keys from `env`, from now on.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub async fn reload_with(
        &self,
        config: &Config,
        env: impl Fn(&str) -> Option<String> + Send + 'static,
    ) -> Result<ReloadReport, Error> {
        self.reload_in_task(config.clone(), Some(Box::new(env))).await
    }

    /// Returns what a reload of `config` would change. Reads no key and changes nothing.
    pub fn diff(&self, config: &Config) -> ConfigDiff {
        ConfigDiff::between(&self.config(), config)
    }

    /// Reloads in a task of its own, so that a caller which is dropped leaves no half-applied configuration.
    async fn reload_in_task(&self, config: Config, env: Option<KeyLookup>) -> Result<ReloadReport, Error> {
        let (report_tx, report_rx) = oneshot::channel();
        let pointsman = self.clone();
        drop(self.runtime().spawn(async move {
            let report = pointsman.reload_now(config, env).await;
            // Dropped first: the caller may then drop the last other handle.
            drop(pointsman);
            drop(report_tx.send(report));
        }));
        report_rx.await.map_err(|_| Error::Stopped)?
    }

    async fn reload_now(&self, config: Config, env: Option<KeyLookup>) -> Result<ReloadReport, Error> {
        let _no_other_reload = self.changes().begin().await;
        let current = self.current();
        let diff = self.diff(&config);
        let config = with_kept_settings(config, &current.config);
        let env = self.changes().env_or(env);
        let usable = self.resolve_with(config.clone(), env.clone()).await?;
        let prepared = self.prepare(&current, config, usable)?;
        let mut report = report_of(diff, &current, &prepared);
        self.start_actors(&prepared.new).await?;
        self.changes().set_env(env);
        let next = prepared.config.clone();
        for (run, target) in self.apply(prepared) {
            let note = changed_model_note(run, &target, &current.config, &next);
            tracing::warn!(%run, %target, "{note}");
            report.notes.push(note);
        }
        for change in &report.changes {
            tracing::info!(%change, "configuration changed");
        }
        Ok(report)
    }

    /// Reads the keys of a configuration with the source of keys in use.
    pub(super) async fn resolve(&self, config: Config) -> Result<ResolvedConfig, Error> {
        let env = self.changes().env_or(None);
        self.resolve_with(config, env).await
    }

    /// Reads the keys on a thread that may block: a key command may take seconds.
    async fn resolve_with(
        &self,
        config: Config,
        env: Arc<Mutex<KeyLookup>>,
    ) -> Result<ResolvedConfig, Error> {
        let resolve = move || {
            let env = env.lock().unwrap_or_else(PoisonError::into_inner);
            config.resolve(&**env)
        };
        let resolved = self.runtime().spawn_blocking(resolve).await.map_err(|_| Error::Stopped)?;
        Ok(resolved?)
    }

    /// Creates everything that the configuration needs. Changes nothing.
    fn prepare(&self, current: &Current, config: Config, usable: ResolvedConfig) -> Result<Prepared, Error> {
        let (_, _, arbiters) = self.actor_parts();
        self.simulated().start(&config, &usable, arbiters)?;
        let budgets = current.budgets.changed(&config.budget);
        let mut prepared = Prepared {
            config,
            usable,
            budgets,
            providers: Providers::new(),
            updates: Vec::new(),
            replaced: Vec::new(),
            removed: Vec::new(),
            new: Vec::new(),
        };
        for (name, ready) in &prepared.usable.providers {
            let account = account(name, ready, self.simulated(), &prepared.budgets)?;
            let failed = |source| Error::Provider { provider: name.clone(), source };
            let state = match current.providers.get(name) {
                Some(state) if state.can_become(&account) => {
                    prepared.updates.push((state.clone(), state.prepare_update(account).map_err(failed)?));
                    state.clone()
                }
                known => {
                    let state = provider::State::new(account, arbiters.calls.clone()).map_err(failed)?;
                    prepared.new.push(state.clone());
                    let successor = known.map(|old| (old.clone(), state.clone()));
                    prepared.replaced.extend(successor);
                    state
                }
            };
            prepared.providers.insert(name.clone(), state);
        }
        let is_removed =
            |(name, _): &(&ProviderName, &Arc<provider::State>)| !prepared.providers.contains_key(*name);
        prepared.removed =
            current.providers.iter().filter(is_removed).map(|(_, state)| state.clone()).collect();
        Ok(prepared)
    }

    /// Starts the actors of new states; if one cannot start, none of them stays.
    async fn start_actors(&self, states: &[Arc<provider::State>]) -> Result<(), Error> {
        let (router, supervisor, arbiters) = self.actor_parts();
        let settings = &self.config().supervisor;
        let mut started: Vec<String> = Vec::new();
        for state in states {
            let mut child = provider_child(state.name(), None);
            let spec = |child: &str| provider_spec(child, settings, state, router, arbiters);
            let mut result = pointsman::start(supervisor, spec(&child)).await;
            // The actor of a provider with this name still ends its calls.
            if matches!(result, Err(Error::Actor(supervisor::Error::NameTaken { .. }))) {
                child = provider_child(state.name(), Some(self.changes().next_generation()));
                result = pointsman::start(supervisor, spec(&child)).await;
            }
            if let Err(error) = result {
                for name in started {
                    // A supervisor that is gone has stopped them.
                    let _ = supervisor.send(StopChild { name: name.into() }).await;
                }
                return Err(error);
            }
            self.changes().set_actor(state, child.clone());
            started.push(child);
            // A call that comes before its actor runs would wait for a second.
            let end = Instant::now() + MAX_WAIT_FOR_ACTOR;
            while !state.is_up() && Instant::now() < end {
                sleep(ACTOR_POLL_INTERVAL).await;
            }
        }
        Ok(())
    }

    /// Applies a change. Nothing here can fail or wait. Returns the models that change while a run uses them.
    fn apply(&self, prepared: Prepared) -> Vec<(RunNumber, TargetName)> {
        let Prepared { config, usable, mut budgets, providers, updates, replaced, removed, new: _ } =
            prepared;
        let added_scopes = self.changes().lock();
        // Scopes may have been added since the change was prepared.
        let latest = self.current();
        let budget_settings = with_added_scopes(&config.budget, &added_scopes);
        budgets.take_scopes(latest.budgets.changed(&budget_settings));
        budgets.apply_caps(&latest.budgets, &budget_settings);
        MemoryBudget::of_process().set_total(config.run.max_memory.0);
        // Before the first call of a changed model.
        let changed_models = self.sessions().forget_changed_models(
            |target| model_identity_of(&usable, target),
            |target| shared_model_identity_of(&usable, target),
        );
        replaced.iter().for_each(|(old, new)| new.inherit(old));
        for (state, update) in updates {
            state.apply_update(update);
        }
        self.routes().replace(route_table(&config, &usable, &providers));
        self.apply_scopes(&config, &budgets, &added_scopes);
        let config = Arc::new(config);
        self.shared_current().store(Arc::new(Current { config, usable, providers, budgets }));
        drop(added_scopes);
        for (old, new) in replaced {
            old.retire(Some(new));
            self.stop_when_idle(old);
        }
        for state in removed {
            state.retire(None);
            self.changes().add_removed(state.clone());
            self.stop_when_idle(state);
        }
        changed_models
    }

    fn apply_scopes(&self, config: &Config, budgets: &DayBudgets, added: &AddedScopes) {
        let unlimited = ScopeSettings::new();
        let mut settings: BTreeMap<&ScopeName, &ScopeSettings> = BTreeMap::new();
        settings.extend(budgets.of_scopes().keys().map(|name| (name, &unlimited)));
        settings.extend(&config.scopes);
        settings.extend(added.iter().map(|(name, scope)| (name, &scope.settings)));
        for (name, settings) in &settings {
            self.scopes().set(name, settings, budgets.of_scopes().get(*name).cloned());
        }
        self.scopes().retain(|name| settings.contains_key(name));
    }

    /// Stops the actor of a state that takes no new calls when its last call has ended.
    fn stop_when_idle(&self, state: Arc<provider::State>) {
        let (_, supervisor, _) = self.actor_parts();
        let supervisor: Addr<Supervisor> = supervisor.clone();
        let child = self.changes().take_actor(&state);
        let removed = self.changes().removed_list();
        drop(self.runtime().spawn(async move {
            while !state.is_idle() {
                sleep(LAST_CALL_POLL_INTERVAL).await;
            }
            state.hand_over_sums();
            // During a shutdown the supervisor stops it.
            let _ = supervisor.send(StopChild { name: child.into() }).await;
            let mut removed = removed.lock().unwrap_or_else(PoisonError::into_inner);
            removed.retain(|known| !Arc::ptr_eq(known, &state));
        }));
    }
}

/// Returns a configuration with the settings of the former one that apply only at the start.
fn with_kept_settings(mut config: Config, former: &Config) -> Config {
    config.supervisor = former.supervisor.clone();
    config.store = former.store.clone();
    config.serve.keep_start_settings(&former.serve);
    #[cfg(feature = "simulator")]
    {
        config.simulator = former.simulator.clone();
    }
    config
}

/// Returns the caps of a configuration with those of the scopes that were added while Pointsman runs.
fn with_added_scopes(budget: &BudgetSettings, added: &AddedScopes) -> BudgetSettings {
    let mut budget = budget.clone();
    for (name, scope) in added {
        match scope.cap {
            Some(cap) => drop(budget.scope.insert(name.clone(), cap)),
            None => drop(budget.scope.remove(name)),
        }
    }
    budget
}

/// Returns what the user should know of a model that changes while a run uses it.
fn changed_model_note(run: RunNumber, target: &TargetName, before: &Config, after: &Config) -> String {
    let name = |config: &Config| {
        let provider = config.providers.get(&target.provider)?;
        Some(provider.models.get(&target.model)?.name.clone())
    };
    let change = match (name(before), name(after)) {
        (Some(old), Some(new)) if old != new => {
            format!("the model of {target} changes from {old} to {new} while run {run} uses it")
        }
        (Some(_) | None, Some(_) | None) => {
            format!("the settings of the model {target} change while run {run} uses it")
        }
    };
    format!("{change}: items that have ended keep the answers of the former")
}

fn report_of(mut diff: ConfigDiff, current: &Current, prepared: &Prepared) -> ReloadReport {
    let Prepared { config, usable, .. } = prepared;
    // A key that has come or gone changes no setting.
    for (name, settings) in &config.providers {
        let was_usable = current.providers.contains_key(name);
        let is_usable = usable.providers.contains_key(name);
        let is_known = current.config.providers.contains_key(name);
        let applied = match (was_usable, is_usable) {
            (false, true) if is_known => AppliedAs::Started,
            (true, false) => AppliedAs::Draining,
            (true | false, _) => continue,
        };
        diff.changes.push(of_provider(name, Some(settings), Some(settings), applied));
    }
    let is_new = |before: Option<NanoUsd>, after: Option<NanoUsd>| before.is_none() && after.is_some();
    let before = &current.config.budget;
    let after = &config.budget;
    let has_new_caps = is_new(before.day, after.day)
        || after.provider.keys().any(|name| !before.provider.contains_key(name))
        || after.scope.keys().any(|name| !before.scope.contains_key(name));
    ReloadReport { changes: diff.sentences(), diff, notes: usable.notes.clone(), has_new_caps }
}
