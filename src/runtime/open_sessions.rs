//! The sessions of stored runs that are in progress, so that a reload can tell them which models have changed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::run::RunPersistence;
use crate::store::RunNumber;
use crate::types::{Fingerprint, RouteName, TargetName};

use super::current::Current;

/// The sessions in progress.
#[derive(Debug, Default)]
pub(super) struct OpenSessions(Mutex<Vec<Weak<RunPersistence>>>);

impl OpenSessions {
    /// Adds a session until it ends. Targets whose model has changed since it was prepared are forgotten; `current` is what
    /// is in use after it was added.
    pub(super) fn add(&self, session: &Arc<RunPersistence>, current: impl FnOnce() -> Arc<Current>) {
        {
            let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.retain(|session| session.strong_count() > 0);
            sessions.push(Arc::downgrade(session));
        }
        let current = current();
        drop(session.model_identities.forget_changed(|target| current.model_identity(target)));
        drop(session.cache.models.forget_changed(|target| current.shared_model_identity(target)));
    }

    /// Records a configuration that is about to be used: from now on, answers of changed models are stored without a key.
    /// `next` returns the model of a target, and `next_shared` the model with its address.
    /// Returns those models, each with the run that uses it.
    pub(super) fn forget_changed_models(
        &self,
        next: impl Fn(&TargetName) -> Option<Fingerprint>,
        next_shared: impl Fn(&TargetName) -> Option<Fingerprint>,
    ) -> Vec<(RunNumber, TargetName)> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = sessions.iter().filter_map(Weak::upgrade).flat_map(|session| {
            drop(session.cache.models.forget_changed(&next_shared));
            let targets = session.model_identities.forget_changed(&next).into_iter();
            targets.map(move |target| (session.run, target))
        });
        changed.collect()
    }

    /// Returns the routes of all sessions.
    pub(super) fn routes(&self) -> BTreeSet<RouteName> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = sessions.iter().filter_map(Weak::upgrade);
        sessions.flat_map(|session| session.routes.keys().cloned().collect::<Vec<_>>()).collect()
    }
}
