//! The answer cache of a run: which requests it answers, and what that saved.
//!
//! An answer is found if a target of the route gave it to the same request, at the same address and with the same settings
//! of the model. The targets count in the order of the route, whatever its policy. An answer of another model is never
//! found.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::runtime::Handle;

use super::answer_lookup::AnswerLookup;
use super::cache_totals::CacheTotals;
use super::model_identities::ModelIdentities;
use super::shared_requests::SharedRequests;
use crate::pipeline::cache_key;
use crate::pipeline::cache_mode::{CacheMode, StepReuse};
use crate::pipeline::definition::Step;
use crate::store::{CachedAnswer, Store};
use crate::types::{Fingerprint, NanoUsd, Prompt, ScopeName, TargetName};

/// Which stored answers a session of a run reuses.
#[derive(Debug)]
pub struct AnswerCache {
    mode: CacheMode,
    is_simulated: bool,
    is_fresh: bool,
    /// The model and the address of each target, as they were when the session began.
    pub models: ModelIdentities,
    pub(super) requests: SharedRequests,
    pub(super) lookup: Arc<AnswerLookup>,
    pub(super) counts: CacheCounts,
}

/// What the cache answered in a session.
#[derive(Debug, Default)]
pub(super) struct CacheCounts {
    /// Answers of the cache.
    hits: AtomicU64,
    /// What their requests had cost, as far as it is known, in billionths of a US dollar.
    saved: AtomicU64,
    /// Requests that were sent; one with all its attempts counts once.
    sent: AtomicU64,
}

/// The keys of a request in the cache.
#[derive(Debug, Clone)]
pub(super) struct CachedRequest {
    /// The key of the request and of all models that may answer it.
    pub(super) shared: Fingerprint,
    /// The key of the answer of each target of the route, in their order.
    answers: Vec<(TargetName, Fingerprint)>,
}

impl AnswerCache {
    /// Creates the cache of a session with a mode. `models` are the targets of its routes, each with the fingerprint of its
    /// model and address.
    pub fn new(
        mode: CacheMode,
        models: ModelIdentities,
        requests: SharedRequests,
        store: Arc<dyn Store>,
        runtime: Handle,
    ) -> Self {
        let lookup = AnswerLookup::new(store, runtime);
        let counts = CacheCounts::default();
        Self { mode, is_simulated: false, is_fresh: false, models, requests, lookup, counts }
    }

    /// Sets whether a target of the run is simulated.
    #[must_use]
    pub fn simulated(mut self, is_simulated: bool) -> Self {
        self.is_simulated = is_simulated;
        self
    }

    /// Sets whether every request is sent, although its answer may be in the cache. The answers are added to the cache.
    #[must_use]
    pub fn fresh(mut self, is_fresh: bool) -> Self {
        self.is_fresh = is_fresh;
        self
    }

    /// Returns which stored answers a step reuses.
    pub(super) fn reuse(&self, step: &Step) -> StepReuse {
        self.mode.of_step(step, self.is_simulated)
    }

    /// Returns the key of a request of `step`, without the model, under which its answer is added to the cache; `None` if
    /// it is not.
    pub(super) fn request_key(&self, scope: &ScopeName, step: &Step, prompt: &Prompt) -> Option<Fingerprint> {
        match self.reuse(step) {
            StepReuse::Store => cache_key::shared_request_key(scope, prompt),
            StepReuse::Run | StepReuse::Off => None,
        }
    }

    /// Returns the keys under which the answer to a request may be found; `None` if the request is sent in any case.
    pub(super) fn keys(&self, request: Fingerprint, targets: &[TargetName]) -> Option<CachedRequest> {
        if self.is_fresh {
            return None;
        }
        let key = |target: &TargetName| Some((target.clone(), self.answer_key(request, target)?));
        let answers: Vec<_> = targets.iter().filter_map(key).collect();
        if answers.is_empty() {
            return None;
        }
        let keys = answers.iter().map(|(_, key)| key.0.as_slice());
        Some(CachedRequest { shared: Fingerprint::of(keys), answers })
    }

    /// Returns the key of an answer by `target`; `None` if its model has changed since the session began.
    pub(super) fn answer_key(&self, request: Fingerprint, target: &TargetName) -> Option<Fingerprint> {
        self.models.get(target).map(|model| cache_key::answer_key(request, model))
    }
}

impl CachedRequest {
    /// Returns the keys of the answers.
    pub(super) fn answer_keys(&self) -> Vec<Fingerprint> {
        self.answers.iter().map(|(_, key)| *key).collect()
    }

    /// Returns the answer of the first target that has one.
    pub(super) fn preferred(&self, answers: &[Arc<CachedAnswer>]) -> Option<Arc<CachedAnswer>> {
        let of_key = |key: &Fingerprint| answers.iter().find(|answer| answer.key == *key);
        self.answers.iter().find_map(|(_, key)| of_key(key)).cloned()
    }

    /// Returns the target of the route whose answer this is.
    pub(super) fn target_of(&self, answer: &CachedAnswer) -> Option<&TargetName> {
        self.answers.iter().find(|(_, key)| *key == answer.key).map(|(target, _)| target)
    }
}

impl CacheCounts {
    /// Counts an answer of the cache, whose request had this cost.
    pub(super) fn count_hit(&self, cost: Option<NanoUsd>) {
        self.hits.fetch_add(1, Relaxed);
        self.saved.fetch_add(cost.unwrap_or(NanoUsd(0)).0, Relaxed);
    }

    /// Counts a request that is sent.
    pub(super) fn count_sent(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    pub(super) fn totals(&self) -> CacheTotals {
        CacheTotals {
            hits: self.hits.load(Relaxed),
            saved: NanoUsd(self.saved.load(Relaxed)),
            sent: self.sent.load(Relaxed),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use super::*;
    use crate::store::Sqlite;

    fn models(of: &[(&str, u8)]) -> ModelIdentities {
        of.iter().map(|(target, model)| (target.parse().unwrap(), Fingerprint([*model; 16]))).collect()
    }

    async fn cache(folder: &std::path::Path, of: &[(&str, u8)]) -> AnswerCache {
        let store = Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap());
        AnswerCache::new(CacheMode::Store, models(of), SharedRequests::default(), store, Handle::current())
    }

    #[tokio::test]
    async fn the_keys_depend_on_the_models_of_the_route_and_not_on_the_names_of_its_targets() {
        let folder = tempfile::tempdir().unwrap();
        let of = [("a/m", 1), ("b/n", 2), ("c/o", 1)];
        let cache = cache(folder.path(), &of).await;
        let targets = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        let request = Fingerprint([7; 16]);
        let both = cache.keys(request, &targets(&["a/m", "b/n"])).unwrap();
        let renamed = cache.keys(request, &targets(&["c/o", "b/n"])).unwrap();
        let one = cache.keys(request, &targets(&["a/m"])).unwrap();
        assert_eq!((both.shared, both.answer_keys()), (renamed.shared, renamed.answer_keys()));
        assert_ne!(both.shared, one.shared, "the other model may have answered");
        assert!(cache.keys(request, &targets(&["d/unknown"])).is_none());
        // A model that a reload has changed.
        cache.models.forget_changed(|target| Some(Fingerprint([u8::from(target.model.as_str() == "n"); 16])));
        assert!(cache.keys(request, &targets(&["a/m"])).is_none());
        assert!(cache.fresh(true).keys(request, &targets(&["b/n"])).is_none());
    }

    #[tokio::test]
    async fn lookups_at_the_same_time_get_the_answers_to_their_own_keys() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), &[]).await;
        let finds = (0..2_000_u32).map(|number| cache.lookup.find(vec![Fingerprint([number as u8; 16])]));
        let found = futures_util::future::join_all(finds).await;
        assert!(found.iter().all(Vec::is_empty));
    }
}
