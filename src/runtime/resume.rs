//! Prepares a run, which resumes a stored run or is new, and begins its session.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::ledger::Ledger;
use crate::pipeline::{FileUse, Pipeline, ProtectedFiles, RunManifest, TargetManifest};
use crate::provider::{Model, Settings};
use crate::run::{AnswerCache, ItemSet, ModelIdentities, RunPersistence};
use crate::sink::{OutputOwner, ReplaceableFile, RowLayout, WrittenFile};
use crate::source::{Entry, Source};
use crate::store::{self, RunLock, RunMetadata, RunNumber, RunState, RunTotals, Store};
use crate::types::{ItemKey, RouteName, ScopeName, TargetName};

use super::budgets::MaxCost;
use super::current::model_identity;
use super::error::Error;
use super::existing_run::{ExistingRun, SIMULATED_SUFFIX};
use super::outcome::{StoredOutcome, outcome_before_session, rejected_count, stored_layout, stored_outcome};
use super::pause_options::PauseOptions;
use super::pointsman::Pointsman;
use super::resume_options::ResumeOptions;
use super::session::ActiveSession;

/// The run number whose lock stands for a run that is being created.
const CREATION_LOCK: RunNumber = RunNumber(0);

/// How many items are looked up at once.
const KEYS_PER_LOOK_UP: usize = 200;

/// How long to wait for the lock for new runs: its holder looks for the run and then creates it, and each of the
/// two may wait for the database.
const MAX_WAIT_FOR_CREATION: Duration = store::MAX_LOCK_WAIT.saturating_mul(2);

/// A run that is ready to begin or to resume. No request has been sent and nothing was written. While this value
/// exists, no other process can work on an existing run.
#[derive(Debug)]
pub struct PreparedRun {
    options: ResumeOptions,
    metadata: RunMetadata,
    manifest: RunManifest,
    existing: Option<ExistingRun>,
    is_simulated: bool,
    /// Files that it writes besides its output.
    additional_files: Vec<WrittenFile>,
    /// Files that it did not write and may replace.
    replaceable: Vec<ReplaceableFile>,
}

impl PreparedRun {
    /// Returns the run's number in its store; `None` before a new run has begun.
    pub fn id(&self) -> Option<RunNumber> {
        self.existing.as_ref().map(|existing| existing.run.number)
    }

    /// Returns the totals of earlier sessions for the items of the present input, as far as that is known.
    #[doc(hidden)]
    pub fn earlier_totals(&self) -> RunTotals {
        self.existing.as_ref().map(|existing| existing.input_totals).unwrap_or_default()
    }

    /// Returns whether the run has finished items, including items of earlier inputs.
    pub fn has_finished_items(&self) -> bool {
        self.existing.as_ref().is_some_and(|existing| existing.totals.finished() > 0)
    }

    /// Returns how many lines of its input were rejected, when it was last read to its end.
    #[doc(hidden)]
    pub fn rejected_before(&self) -> u64 {
        self.existing.as_ref().map_or(0, |existing| rejected_count(&existing.run))
    }

    /// Returns whether no item has to be processed: the run was complete before, and no change affects its items.
    pub fn is_still_complete(&self) -> bool {
        self.existing
            .as_ref()
            .is_some_and(|existing| existing.run.state == RunState::Completed && !existing.restarts_items)
    }

    /// Returns whether the run was complete before.
    pub fn was_complete(&self) -> bool {
        self.existing.as_ref().is_some_and(|existing| existing.run.state == RunState::Completed)
    }

    /// Returns the changes since the run began that leave every answer valid.
    pub fn notes(&self) -> &[String] {
        self.existing.as_ref().map(|existing| existing.notes.as_slice()).unwrap_or_default()
    }

    /// Returns whether the run is complete and its files are unchanged.
    pub fn is_up_to_date(&self) -> bool {
        self.existing.as_ref().is_some_and(|existing| existing.is_up_to_date)
    }

    /// Returns the owner of its output: the run may replace the files that it wrote, and the files that an earlier
    /// session was allowed to replace.
    #[doc(hidden)]
    pub fn owner(&self) -> OutputOwner {
        let existing =
            self.existing.as_ref().map(|existing| stored_outcome(&existing.run)).unwrap_or_default();
        OutputOwner::of(existing.outputs).replacing(existing.replaceable).simulated(self.is_simulated)
    }

    /// Returns what the columns of its results were made from in an earlier session.
    pub(super) fn layout(&self) -> Option<RowLayout> {
        self.existing.as_ref().and_then(|existing| stored_layout(&existing.run))
    }

    /// Allows the run to replace this file, which it did not write, in this session and later ones.
    #[doc(hidden)]
    pub fn add_replaceable_file(&mut self, file: ReplaceableFile) {
        self.replaceable.push(file);
    }

    /// Records a file that the run writes besides its output.
    #[doc(hidden)]
    pub fn add_written_file(&mut self, file: WrittenFile) {
        self.additional_files.push(file);
    }

    /// Counts the items of earlier sessions that `source` does not have. A file in place of a moved one has all of them.
    ///
    /// # Errors
    /// If the items or the store cannot be read.
    #[doc(hidden)]
    pub async fn count_missing(&self, mut source: Source) -> Result<u64, Error> {
        let mut used = ProtectedFiles::default();
        self.store_files().iter().for_each(|file| used.add(FileUse::Store, file));
        source.leave_out(&used);
        let Some(existing) = &self.existing else { return Ok(0) };
        let known = existing.totals.open + existing.totals.finished();
        if known == 0 {
            return Ok(0);
        }
        let mut reader = source.read().map_err(Error::Source)?;
        let mut keys: Vec<ItemKey> = Vec::with_capacity(KEYS_PER_LOOK_UP);
        let mut seen = ItemSet::default();
        let mut found = 0;
        loop {
            let next = reader.next().await.transpose().map_err(Error::Source)?;
            let is_end = next.is_none();
            keys.extend(next.and_then(|entry| match entry {
                Entry::Item(item) => Some(item.key),
                Entry::Rejected(_) => None,
            }));
            if keys.len() < KEYS_PER_LOOK_UP && !is_end {
                continue;
            }
            for item in self.options.store.look_up(existing.run.number, &keys).await?.into_iter().flatten() {
                if !seen.contains(item.head.number) {
                    seen.insert(item.head.number);
                    found += 1;
                }
            }
            if is_end || found >= known {
                return Ok(known.saturating_sub(found));
            }
            keys.clear();
        }
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.options.store
    }

    /// Returns the files of the store. The lock of a run that has no number yet is known by its name.
    pub(super) fn store_files(&self) -> Vec<PathBuf> {
        self.options.store.files(self.id().unwrap_or(CREATION_LOCK))
    }

    /// Returns the cap that was set for the run, now or in an earlier session.
    pub fn max_cost(&self) -> Option<MaxCost> {
        let before = || self.existing.as_ref().and_then(|existing| stored_outcome(&existing.run).max_cost);
        self.options.max_cost.or_else(before)
    }

    /// Returns when the run pauses.
    pub(super) fn pause(&self) -> PauseOptions {
        self.options.pause
    }

    /// Returns the scope of the run's requests, which was set now or in an earlier session; empty for none.
    pub(super) fn scope(&self) -> ScopeName {
        let before = || self.existing.as_ref().map(|existing| stored_outcome(&existing.run).scope);
        self.options.scope.clone().or_else(before).unwrap_or_default()
    }

    /// Begins a session that writes `files`, with results of this layout.
    pub(super) async fn begin_session(
        self,
        pointsman: &Pointsman,
        mut files: Vec<WrittenFile>,
        layout: RowLayout,
    ) -> Result<ActiveSession, Error> {
        let Self { options, metadata, manifest, existing, additional_files, replaceable, is_simulated } =
            self;
        files.extend(additional_files);
        let store = options.store.clone();
        let is_new = existing.is_none();
        let session_run = match existing {
            Some(existing) => SessionRun::from(existing),
            None => create_run(&options, &metadata, &manifest).await?,
        };
        let SessionRun { number: run, state, lock, totals, mut outcome, restarts_items } = session_run;
        let missing_items = outcome.missing_items.clone();
        let known_items = if options.partial { 0 } else { totals.open + totals.finished() };
        let is_cap_new = options.max_cost.is_some() && options.max_cost != outcome.max_cost;
        outcome.max_cost = options.max_cost.or(outcome.max_cost);
        let scope = options.scope.unwrap_or_else(|| outcome.scope.clone());
        let is_scope_new = scope != outcome.scope;
        outcome.scope = scope.clone();
        let is_layout_new = outcome.set_layout(layout, options.partial);
        let is_begun_fresh = is_new && options.force_new;
        let is_freshness_new = is_begun_fresh && !outcome.fresh;
        outcome.fresh |= is_begun_fresh;
        let is_fresh = outcome.fresh || options.retry.is_some();
        let has_new_terms = is_cap_new || is_scope_new || is_layout_new || is_freshness_new;
        if !files.is_empty() || !replaceable.is_empty() || has_new_terms || outcome.lost_session {
            // Before the first request or write: the session after a crash finds the cap, the scope and the files. A
            // session that was lost is noted before the number of this session hides it.
            outcome.record_opened(&files);
            outcome.record_replaceable(replaceable);
            store.record_outcome(run, &serde_json::to_value(&outcome).unwrap_or_default()).await?;
        }
        let before = store.spent_by(run).await?;
        pointsman.current().budgets.sync_from_store(&*store, [&scope]).await?;
        pointsman.restore_daily_quotas(&*store).await?;
        if options.move_identity {
            store.set_identity(run, &options.identity).await?;
        }
        let session = store.begin_session(run, Some(&metadata), restarts_items).await?;
        pointsman.restore_token_stats(&*store, run, &scope, session.last_item).await?;
        let routes: HashMap<RouteName, Vec<TargetName>> = manifest
            .routes
            .iter()
            .map(|(route, targets)| {
                (route.clone(), targets.iter().map(|target| target.target.clone()).collect())
            })
            .collect();
        let model_identities = manifest
            .routes
            .values()
            .flatten()
            .map(|target| (target.target.clone(), target.model_identity))
            .collect();
        let models = pointsman.shared_model_identities(routes.values().flatten());
        let requests = pointsman.shared_requests().clone();
        let runtime = pointsman.runtime().clone();
        let cache = AnswerCache::new(options.cache, models, requests, store.clone(), runtime)
            .simulated(is_simulated)
            .fresh(is_fresh);
        let ledger =
            Ledger::counting(store.clone(), pointsman.runtime().clone(), Some(pointsman.sent_calls()))
                .with_metrics(pointsman.metrics().ledgers.clone());
        let persistence = Arc::new(RunPersistence {
            ledger,
            run,
            session,
            scope,
            keep_inputs: options.keep_inputs,
            steps: manifest.steps.keys().cloned().collect(),
            retry_classes: options.retry,
            seen_items: Mutex::default(),
            items_with_line: Mutex::default(),
            input_fields: Mutex::default(),
            missing_items,
            is_partial_input: options.partial,
            known_items,
            has_earlier_answers: totals.open + totals.completed > 0,
            model_identities,
            routes,
            cache,
        });
        pointsman.sessions().add(&persistence, || pointsman.current());
        let state_when_completed = match state {
            _ if !options.partial => RunState::Completed,
            // It is not known which items of its input are left.
            RunState::Running => RunState::Stopped,
            // A change also affects the items outside of the partial input.
            _ if restarts_items => RunState::Stopped,
            before => before,
        };
        Ok(ActiveSession {
            persistence,
            store,
            spent_before: before,
            files: options.files,
            input: None,
            written_lengths: Vec::new(),
            state_when_completed,
            outcome,
            own_steps: Vec::new(),
            outputs: files,
            is_partial: options.partial,
            cache_limits: options.cache_limits,
            _lock: lock,
        })
    }
}

/// A run whose session is about to begin.
struct SessionRun {
    number: RunNumber,
    state: RunState,
    lock: RunLock,
    /// The totals of all its items.
    totals: RunTotals,
    outcome: StoredOutcome,
    /// Whether a change affects items, so that finished items are processed again.
    restarts_items: bool,
}

impl SessionRun {
    /// Returns a run that has just been created.
    fn created(number: RunNumber, lock: RunLock) -> Self {
        Self {
            number,
            state: RunState::Running,
            lock,
            totals: RunTotals::default(),
            outcome: StoredOutcome::of_new_run(),
            restarts_items: false,
        }
    }
}

impl From<ExistingRun> for SessionRun {
    fn from(existing: ExistingRun) -> Self {
        let ExistingRun { run, lock, totals, restarts_items, .. } = existing;
        let outcome = outcome_before_session(&run);
        Self { number: run.number, state: run.state, lock, totals, outcome, restarts_items }
    }
}

/// Creates a run. If two processes begin the same run at once, one creates it and the other finds it. The lock for
/// new runs is held only here, so that a prepared run which never begins blocks no other.
async fn create_run(
    options: &ResumeOptions,
    metadata: &RunMetadata,
    manifest: &RunManifest,
) -> Result<SessionRun, Error> {
    let creation_lock = lock_for_creation(&*options.store).await?;
    if let Some(run) = options.find_run().await? {
        drop(creation_lock);
        let existing = options.open_existing(run, manifest, true).await?;
        let finished = existing.totals.finished();
        // Its output was prepared as that of a run without finished items.
        return if finished > 0 {
            Err(Error::StartedElsewhere { run, finished })
        } else {
            Ok(SessionRun::from(existing))
        };
    }
    let run = options.store.create(&options.identity, metadata).await?;
    Ok(SessionRun::created(run, options.store.lock(run)?))
}

/// Lets one process at a time begin a run in a store.
async fn lock_for_creation(store: &dyn Store) -> Result<RunLock, Error> {
    let end = Instant::now() + MAX_WAIT_FOR_CREATION;
    loop {
        match store.lock(CREATION_LOCK) {
            Ok(lock) => return Ok(lock),
            Err(store::Error::Busy { .. }) if Instant::now() < end => sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

impl Pointsman {
    /// Finds the stored run that `options` identify, or prepares a new one. This sends no request and changes
    /// nothing; a new run holds no lock yet.
    ///
    /// # Errors
    /// If the store cannot be used, another process works on the run, or the run has changed and the changes are
    /// not accepted.
    pub async fn prepare_run(
        &self,
        pipeline: &Pipeline,
        mut options: ResumeOptions,
    ) -> Result<PreparedRun, Error> {
        let is_simulated = self.is_simulated(pipeline);
        if is_simulated {
            options.identity.push_str(SIMULATED_SUFFIX);
        }
        let manifest = RunManifest::of(pipeline, |route| self.target_manifests(route));
        let serialized =
            serde_json::to_value(&manifest).map_err(|error| Error::Manifest(error.to_string()))?;
        let metadata = RunMetadata {
            name: pipeline.name().to_owned(),
            command: options.command.clone(),
            pipeline: pipeline.text().to_owned(),
            manifest: serialized,
        };
        let has_attachments = pipeline.has_attachments();
        self.work(async move {
            let existing = match options.find_run().await? {
                Some(run) => Some(options.open_existing(run, &manifest, has_attachments).await?),
                None => None,
            };
            Ok(PreparedRun {
                options,
                metadata,
                manifest,
                existing,
                is_simulated,
                additional_files: Vec::new(),
                replaceable: Vec::new(),
            })
        })
        .await?
    }

    /// Checks that a run was prepared with this pipeline.
    ///
    /// # Errors
    /// If it was prepared with another one: answers of both would be stored in one run.
    pub(super) fn check_prepared(&self, prepared: &PreparedRun, pipeline: &Pipeline) -> Result<(), Error> {
        let manifest = RunManifest::of(pipeline, |route| self.target_manifests(route));
        if manifest == prepared.manifest { Ok(()) } else { Err(Error::OtherPipeline) }
    }

    /// Returns whether a target of `pipeline` is simulated.
    #[doc(hidden)]
    pub fn is_simulated(&self, pipeline: &Pipeline) -> bool {
        let current = self.current();
        let is_simulated =
            |route: &RouteName| current.targets_of(route).any(|(_, settings, _)| settings.is_simulated());
        pipeline.routes().any(is_simulated)
    }

    /// Returns the models of these targets with their addresses.
    fn shared_model_identities<'a>(&self, targets: impl Iterator<Item = &'a TargetName>) -> ModelIdentities {
        let current = self.current();
        let identity = |target: &TargetName| Some((target.clone(), current.shared_model_identity(target)?));
        targets.filter_map(identity).collect()
    }

    /// Returns the manifests of a route's targets.
    fn target_manifests(&self, route: &RouteName) -> Vec<TargetManifest> {
        let target_manifest = |(target, settings, model): (&TargetName, &Settings, &Model)| {
            let model_identity = model_identity(settings, model);
            let address = settings.base_url.clone();
            TargetManifest { target: target.clone(), model_identity, price: model.price, address }
        };
        self.current().targets_of(route).map(target_manifest).collect()
    }
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use super::*;
    use crate::store::Sqlite;

    #[tokio::test]
    async fn a_new_run_waits_for_the_creation_lock_as_long_as_its_holder_may_wait_for_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        let held = store.lock(CREATION_LOCK).unwrap();
        tokio::time::pause();
        let (lock, ()) = tokio::join!(lock_for_creation(&store), async {
            sleep(store::MAX_LOCK_WAIT).await;
            drop(held);
        });
        let held = lock.unwrap();
        let refused = lock_for_creation(&store).await;
        assert!(matches!(refused, Err(Error::Store(store::Error::Busy { .. }))), "{refused:?}");
        drop(held);
    }
}
