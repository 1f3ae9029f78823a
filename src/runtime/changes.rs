//! What serializes the changes of a running Pointsman, and what they need: the source of keys, the scopes that were added
//! while it runs, and the providers that were removed and whose last calls have not ended.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::guard::ScopeSettings;
use crate::provider::State;
use crate::types::{NanoUsd, ScopeName};

use super::children::{Providers, provider_child};

/// Returns the value of an environment variable, for keys of providers.
pub(super) type KeyLookup = Box<dyn Fn(&str) -> Option<String> + Send>;

/// A scope that was added while Pointsman runs. A reload does not remove it.
#[derive(Debug, Clone)]
pub(super) struct AddedScope {
    pub(super) settings: ScopeSettings,
    /// The cap of its day.
    pub(super) cap: Option<NanoUsd>,
}

/// The scopes that were added while Pointsman runs.
pub(super) type AddedScopes = BTreeMap<ScopeName, AddedScope>;

/// What serializes the changes.
pub(super) struct Changes {
    /// Held for a whole reload: the second one waits.
    reload: tokio::sync::Mutex<()>,
    /// Held while the configuration in use is replaced. Never across a wait.
    added_scopes: Mutex<AddedScopes>,
    env: Mutex<Arc<Mutex<KeyLookup>>>,
    /// The names of the actors of states that were started by a reload.
    actors: Mutex<Vec<(Weak<State>, String)>>,
    /// Providers that no configuration has any more, while their last calls end.
    removed: Arc<Mutex<Vec<Arc<State>>>>,
    generations: AtomicU64,
}

impl Changes {
    pub(super) fn new(env: KeyLookup) -> Self {
        Self {
            reload: tokio::sync::Mutex::default(),
            added_scopes: Mutex::default(),
            env: Mutex::new(Arc::new(Mutex::new(env))),
            actors: Mutex::default(),
            removed: Arc::default(),
            generations: AtomicU64::new(1),
        }
    }

    /// Waits until no other reload is in progress.
    pub(super) async fn begin(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.reload.lock().await
    }

    /// Locks the configuration in use for its replacement.
    pub(super) fn lock(&self) -> MutexGuard<'_, AddedScopes> {
        self.added_scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns this source of keys, or the one in use.
    pub(super) fn env_or(&self, env: Option<KeyLookup>) -> Arc<Mutex<KeyLookup>> {
        match env {
            Some(env) => Arc::new(Mutex::new(env)),
            None => self.env.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Sets the source of keys from now on.
    pub(super) fn set_env(&self, env: Arc<Mutex<KeyLookup>>) {
        *self.env.lock().unwrap_or_else(PoisonError::into_inner) = env;
    }

    /// Records the name of the actor of a state.
    pub(super) fn set_actor(&self, state: &Arc<State>, child: String) {
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        actors.retain(|(known, _)| known.strong_count() > 0);
        actors.push((Arc::downgrade(state), child));
    }

    /// Returns the name of the actor of a state, and forgets it.
    pub(super) fn take_actor(&self, state: &Arc<State>) -> String {
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(known, _): &(Weak<State>, String)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(state));
        let known = actors.iter().position(is_same).map(|at| actors.swap_remove(at).1);
        // The actors of the first configuration have the plain name.
        known.unwrap_or_else(|| provider_child(state.name(), None))
    }

    /// Returns the number of an actor that takes the place of another.
    pub(super) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Relaxed)
    }

    /// Adds a provider whose last calls end.
    pub(super) fn add_removed(&self, state: Arc<State>) {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).push(state);
    }

    /// Returns the list of the removed providers, for the task that waits for their last calls.
    pub(super) fn removed_list(&self) -> Arc<Mutex<Vec<Arc<State>>>> {
        self.removed.clone()
    }

    /// Returns the removed providers whose names no provider has again.
    pub(super) fn removed(&self, providers: &Providers) -> Vec<Arc<State>> {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed.iter().filter(|state| !providers.contains_key(state.name())).cloned().collect()
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Changes").finish_non_exhaustive()
    }
}
