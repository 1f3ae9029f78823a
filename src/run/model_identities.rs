//! The models of a session's targets, as they were when it began.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use crate::types::{Fingerprint, TargetName};

/// Fingerprints of the model identities of targets.
///
/// A reload may change the model of a target while a run is in progress. From then on its answers are stored without a key,
/// so that a later session does not take an answer of one model for that of the other.
#[derive(Debug, Default)]
pub struct ModelIdentities(RwLock<Identities>);

#[derive(Debug, Default)]
struct Identities {
    known: HashMap<TargetName, Fingerprint>,
    changed: BTreeSet<TargetName>,
}

impl ModelIdentities {
    /// Returns the identity of the model of a target; `None` if the target is not known or its model has changed.
    pub fn get(&self, target: &TargetName) -> Option<Fingerprint> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).known.get(target).copied()
    }

    /// Forgets the targets whose model is not the same now, and returns them. `now` returns the identity of a target.
    pub fn forget_changed(&self, now: impl Fn(&TargetName) -> Option<Fingerprint>) -> Vec<TargetName> {
        let mut forgotten = Vec::new();
        let mut identities = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Identities { known, changed } = &mut *identities;
        known.retain(|target, identity| {
            // The calls of a target that is not configured any more end with the model that it had.
            let is_same = now(target).is_none_or(|now| now == *identity);
            if !is_same {
                changed.insert(target.clone());
                forgotten.push(target.clone());
            }
            is_same
        });
        forgotten.sort();
        forgotten
    }

    /// Returns the targets whose model has changed.
    pub fn changed(&self) -> BTreeSet<TargetName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).changed.clone()
    }
}

impl FromIterator<(TargetName, Fingerprint)> for ModelIdentities {
    fn from_iter<I: IntoIterator<Item = (TargetName, Fingerprint)>>(identities: I) -> Self {
        let known = identities.into_iter().collect();
        Self(RwLock::new(Identities { known, changed: BTreeSet::new() }))
    }
}
