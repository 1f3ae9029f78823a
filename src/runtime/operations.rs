//! Operations on the providers and the scopes of a running Pointsman.

use std::sync::Arc;

use crate::config::suggest;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::guard::ScopeSettings;
use crate::provider;
use crate::types::{KeyLabel, ModelName, NanoUsd, ProviderName, ScopeName, TargetName};

use super::budgets::DayBudgets;
use super::changes::AddedScope;
use super::current::Current;
use super::error::Error;
use super::pointsman::Pointsman;

impl Pointsman {
    /// Opens the breaker of a target, until [`close_breaker`](Self::close_breaker) closes it or Pointsman stops. Queued calls
    /// go to other targets; calls in flight end. A run without another target holds.
    ///
    /// # Errors
    /// If there is no such target.
    pub fn open_breaker(&self, target: &TargetName) -> Result<(), Error> {
        self.with_target(target, provider::State::force_breaker_open)
    }

    /// Closes the breaker of a target now, whatever has opened it.
    ///
    /// # Errors
    /// If there is no such target.
    pub fn close_breaker(&self, target: &TargetName) -> Result<(), Error> {
        self.with_target(target, provider::State::force_breaker_closed)
    }

    /// Takes a provider out of service, until [`resume_provider`](Self::resume_provider) or the next start. It gets no new
    /// calls, its queued calls go to other targets, and its calls in flight end. A run without another target holds.
    ///
    /// # Errors
    /// If there is no such provider.
    pub fn drain_provider(&self, provider: &ProviderName) -> Result<(), Error> {
        self.provider_state(provider)?.drain();
        Ok(())
    }

    /// Takes a provider into service again.
    ///
    /// # Errors
    /// If there is no such provider.
    pub fn resume_provider(&self, provider: &ProviderName) -> Result<(), Error> {
        self.provider_state(provider)?.resume();
        Ok(())
    }

    /// Reads the keys of a provider again now, from all their sources, and returns their labels. The next call uses them;
    /// calls in flight end with the former ones.
    ///
    /// # Errors
    /// If there is no such provider, or a key cannot be read. The former keys stay in use then.
    pub async fn reload_keys(&self, provider: &ProviderName) -> Result<Vec<KeyLabel>, Error> {
        let _no_other_reload = self.changes().begin().await;
        let state = self.provider_state(provider)?;
        let mut config = (*self.current().config).clone();
        config.providers.retain(|name, _| name == provider);
        config.routes.clear();
        let mut resolved = self.resolve(config).await?;
        let Some(ready) = resolved.providers.swap_remove(provider) else {
            let reason = resolved.notes.pop().unwrap_or_default();
            return Err(Error::Diagnostics(Diagnostics(vec![Diagnostic::new(reason)])));
        };
        let labels = state
            .replace_keys(&ready.keys)
            .map_err(|source| Error::Provider { provider: provider.clone(), source })?;
        self.replace_current(|current| {
            let mut usable = current.usable.clone();
            if let Some(known) = usable.providers.get_mut(provider) {
                known.keys = ready.keys;
            }
            Current { usable, ..current.clone() }
        });
        Ok(labels)
    }

    /// Adds a scope, or changes one: its limits, and its cap of a day in US dollars, if it has one. What a scope has used
    /// stays used when it is changed. A [reload](Self::reload) does not remove the scope; it replaces a scope of the
    /// configuration with the same name.
    ///
    /// A new budget begins with nothing spent. [`sync_budgets`](Self::sync_budgets) adds what a store has recorded.
    ///
    /// # Errors
    /// If no scope may have that name.
    pub fn set_scope(
        &self,
        name: &ScopeName,
        settings: ScopeSettings,
        day_cap: Option<NanoUsd>,
    ) -> Result<(), Error> {
        name.check()?;
        let mut added = self.changes().lock();
        let current = self.current();
        let budgets = current.budgets.clone().with_scope(name, day_cap);
        self.scopes().set(name, &settings, budgets.of_scopes().get(name).cloned());
        self.store_budgets(&current, budgets);
        added.insert(name.clone(), AddedScope { settings, cap: day_cap });
        Ok(())
    }

    /// Removes a scope that [`set_scope`](Self::set_scope) has added. A scope of the configuration with the same name applies
    /// again. Requests and runs that have begun keep the limits and the budget of the scope. Returns whether there was one.
    pub fn remove_scope(&self, name: &ScopeName) -> bool {
        let mut added = self.changes().lock();
        if added.remove(name).is_none() {
            return false;
        }
        let current = self.current();
        let budgets = match current.config.budget.scope.get(name) {
            Some(cap) => current.budgets.clone().with_scope(name, Some(*cap)),
            None => current.budgets.clone().without_scope(name),
        };
        let budget = budgets.of_scopes().get(name).cloned();
        match current.config.scopes.get(name) {
            Some(settings) => self.scopes().set(name, settings, budget),
            None if budget.is_some() => self.scopes().set(name, &ScopeSettings::new(), budget),
            None => self.scopes().retain(|known| known != name),
        }
        self.store_budgets(&current, budgets);
        true
    }

    /// Replaces the budgets of the configuration in use. The caller holds the lock of the changes.
    fn store_budgets(&self, current: &Current, budgets: DayBudgets) {
        self.shared_current().store(Arc::new(Current { budgets, ..current.clone() }));
    }

    /// Replaces the configuration in use.
    pub(super) fn replace_current(&self, change: impl FnOnce(&Current) -> Current) {
        let _no_other_change = self.changes().lock();
        let next = change(&self.current());
        self.shared_current().store(Arc::new(next));
    }

    fn with_target(
        &self,
        target: &TargetName,
        operation: impl FnOnce(&provider::State, &ModelName) -> bool,
    ) -> Result<(), Error> {
        let state = self.provider_state(&target.provider)?;
        if operation(&state, &target.model) {
            return Ok(());
        }
        let current = self.current();
        let known: Vec<String> = current.config.targets().map(|target| target.to_string()).collect();
        let name = target.to_string();
        let help = suggest(&name, known.iter().map(String::as_str), "targets");
        Err(Error::UnknownTarget { name: target.clone(), help })
    }

    /// Returns the state of a usable provider.
    fn provider_state(&self, provider: &ProviderName) -> Result<Arc<provider::State>, Error> {
        let current = self.current();
        if let Some(state) = current.providers.get(provider) {
            return Ok(state.clone());
        }
        let known = current.providers.keys().map(ProviderName::as_str);
        let help = suggest(provider.as_str(), known, "providers");
        Err(Error::UnknownProvider { name: provider.clone(), help })
    }
}
