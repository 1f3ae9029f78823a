//! Persistence of a run: sends answers and results to the ledger, and finds those of earlier sessions.
//!
//! A run without persistence stores nothing and behaves the same otherwise.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::task::JoinError;

use super::answer_cache::AnswerCache;
use super::file_stamp::is_unchanged;
use super::item_set::ItemSet;
use super::model_identities::ModelIdentities;
use super::stored_steps;
use crate::ledger::{CommitError, Ledger};
use crate::pipeline::cache_key;
use crate::pipeline::cache_mode::StepReuse;
use crate::pipeline::definition::Step;
use crate::source;
use crate::store::{
    Error, ItemHead, ItemNumber, OutcomeRecord, Record, RunNumber, Session, StepRecord, StepState,
    StoredItem, StoredStep,
};
use crate::types::{
    AttemptLog, Class, FieldCollector, Fingerprint, ItemKey, ItemStatus, Prompt, RouteName, ScopeName,
    StepName, TargetName,
};

/// Where a run stores what must survive.
#[derive(Debug)]
pub struct RunPersistence {
    /// Commits the records.
    pub ledger: Ledger,
    /// The run's number in the store.
    pub run: RunNumber,
    /// Its current session.
    pub session: Session,
    /// The scope of its requests in this session, whose spend the store records; empty for none.
    pub scope: ScopeName,
    /// Whether the fields of every item are stored, or only those of failed items.
    pub keep_inputs: bool,
    /// The steps of the pipeline.
    pub steps: Vec<StepName>,
    /// Set if only failed items are processed: those of one of these classes, or all if it is empty. Every
    /// other item keeps its line.
    pub retry_classes: Option<Vec<Class>>,
    /// Items that were read from the input in this session.
    pub seen_items: Mutex<ItemSet>,
    /// Items whose line was sent to the writer.
    pub items_with_line: Mutex<ItemSet>,
    /// The fields of the items that were read from the input in this session.
    pub input_fields: Mutex<FieldCollector>,
    /// Items that were not in the input when it was last read to its end, as ranges with both ends included.
    pub missing_items: Vec<(i64, i64)>,
    /// Whether the source has only a part of the run's items.
    pub is_partial_input: bool,
    /// Items that the run had before, if its whole input is read now.
    pub known_items: u64,
    /// Whether an earlier session was answered.
    pub has_earlier_answers: bool,
    /// The model of each target, as it was when the session began.
    pub model_identities: ModelIdentities,
    /// The targets of each route.
    pub routes: HashMap<RouteName, Vec<TargetName>>,
    /// Which stored answers are reused.
    pub cache: AnswerCache,
}

/// What to do with an item of the input.
#[derive(Debug)]
pub(super) enum ItemAction {
    /// It has finished: write its stored line again.
    WriteStoredLine(Box<EarlierItem>),
    /// It finished before its fields or the pipeline changed: write its stored line, because only failed items
    /// are processed now.
    WriteOutdatedLine(Box<EarlierItem>),
    /// It has never finished, and only failed items are processed now: leave it out.
    LeaveOut,
    /// Process it, with what earlier sessions have stored about it.
    Process(Option<Box<EarlierItem>>),
}

/// What earlier sessions have stored about an item.
#[derive(Debug)]
pub(super) struct EarlierItem {
    pub(super) item: StoredItem,
    /// Whether the files that were attached to its requests are unchanged.
    pub(super) files_unchanged: bool,
}

/// Persistence of one item.
#[derive(Debug)]
pub(super) struct ItemPersistence {
    pub(super) run: Arc<RunPersistence>,
    pub(super) head: Arc<ItemHead>,
    /// Records of its steps from earlier sessions.
    earlier_steps: Vec<StoredStep>,
    /// The last session in which it finished. Its records of later sessions are of an interrupted item.
    finished_in: Option<i64>,
    /// Records of this session: a second incarnation of the item continues from them.
    current_steps: Mutex<HashMap<StepName, StepRecord>>,
    /// Answers of earlier sessions that are still valid.
    restored_steps: Mutex<HashMap<StepName, StoredStep>>,
}

impl RunPersistence {
    /// Returns what is stored about the items with these keys, in their order. Does not query the store if the
    /// run is new.
    ///
    /// # Errors
    /// If the store cannot be read, or a completed item lacks the result of a step.
    pub(super) async fn look_up(&self, keys: &[ItemKey]) -> Result<Vec<Option<EarlierItem>>, Error> {
        if self.session.last_item == ItemNumber(0) {
            return Ok(keys.iter().map(|_| None).collect());
        }
        let found = self.ledger.store().look_up(self.run, keys).await?;
        found.iter().flatten().try_for_each(|item| self.verify_steps(item))?;
        let has_files =
            found.iter().flatten().any(|item| records_of_line(item).any(|step| !step.files.is_empty()));
        let check = move || found.into_iter().map(|item| item.map(EarlierItem::of)).collect();
        if !has_files {
            return Ok(check());
        }
        match tokio::task::spawn_blocking(check).await.map_err(JoinError::try_into_panic) {
            Ok(stored) => Ok(stored),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, so nothing waits for this any more.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    /// Returns at most `max` items after `after`, in order.
    ///
    /// # Errors
    /// If the store cannot be read, or a completed item lacks the result of a step.
    pub(super) async fn items_after(&self, after: ItemNumber, max: u32) -> Result<Vec<StoredItem>, Error> {
        let items = self.ledger.store().items(self.run, after, max).await?;
        items.iter().try_for_each(|item| self.verify_steps(item))?;
        Ok(items)
    }

    fn verify_steps(&self, item: &StoredItem) -> Result<(), Error> {
        let store = &**self.ledger.store();
        stored_steps::verify(store, self.run, self.session.revision, self.steps.iter(), item)
    }

    /// Returns what to do with an item of the input.
    pub(super) fn action_for(&self, earlier: Option<Box<EarlierItem>>, content: Fingerprint) -> ItemAction {
        let is_due = |classes: &[Class], outcome: &OutcomeRecord| {
            let class = outcome.error.as_ref().map(|(_, failure)| failure.class);
            let has_class = classes.is_empty() || class.is_some_and(|class| classes.contains(&class));
            outcome.status == ItemStatus::Failed && has_class
        };
        let Some(earlier) = earlier else {
            return if self.retry_classes.is_some() {
                ItemAction::LeaveOut
            } else {
                ItemAction::Process(None)
            };
        };
        match (&self.retry_classes, &earlier.item.outcome) {
            (Some(classes), Some(outcome)) if is_due(classes, outcome) => ItemAction::Process(Some(earlier)),
            (_, Some(outcome)) if self.is_current(&earlier, outcome, content) => {
                ItemAction::WriteStoredLine(earlier)
            }
            (Some(_), Some(_)) => ItemAction::WriteOutdatedLine(earlier),
            (Some(_), None) => ItemAction::LeaveOut,
            (None, _) => ItemAction::Process(Some(earlier)),
        }
    }

    /// Returns whether an item, the pipeline and the attached files are the same as when the item finished.
    fn is_current(&self, stored: &EarlierItem, outcome: &OutcomeRecord, content: Fingerprint) -> bool {
        // Records of an earlier version do not have the session in which an item finished. Such an item is
        // processed again, and every valid answer is restored.
        let is_complete = outcome.session.is_some() || outcome.status == ItemStatus::Failed;
        outcome.revision == self.session.revision
            && is_complete
            && stored.item.head.content == content
            && stored.files_unchanged
    }

    /// Records that the line of an item was sent to the writer.
    pub(super) fn mark_line(&self, item: ItemNumber) {
        self.items_with_line.lock().unwrap_or_else(PoisonError::into_inner).insert(item);
    }

    /// Returns whether a finished item is in the input, as far as is known, and its line was not sent yet.
    pub(super) fn needs_line(&self, item: ItemNumber) -> bool {
        let has_line = self.items_with_line.lock().unwrap_or_else(PoisonError::into_inner).contains(item);
        !has_line && !self.missing_items.iter().any(|(first, last)| (*first..=*last).contains(&item.0))
    }

    /// Records the fields of an item of the input.
    pub(super) fn note_fields(&self, item: &source::Item) {
        if let Value::Object(fields) = &item.value {
            self.input_fields.lock().unwrap_or_else(PoisonError::into_inner).add(&item.key, fields);
        }
    }

    /// Records that the input has an item.
    pub(super) fn mark_seen(&self, item: ItemNumber) {
        self.seen_items.lock().unwrap_or_else(PoisonError::into_inner).insert(item);
    }

    /// Creates a record of this session.
    pub(super) fn record(
        &self,
        item: Arc<ItemHead>,
        steps: Vec<StepRecord>,
        outcome: Option<OutcomeRecord>,
    ) -> Record {
        let scope = self.scope.clone();
        Record { run: self.run, session: self.session.number, scope, item, steps, outcome }
    }
}

impl EarlierItem {
    /// Compares the attached files with their stored state. Accesses the file system.
    fn of(item: StoredItem) -> Self {
        let files_unchanged = records_of_line(&item).flat_map(|step| &step.files).all(is_unchanged);
        Self { item, files_unchanged }
    }
}

/// Returns the records from which the line of an item is made.
fn records_of_line(item: &StoredItem) -> impl Iterator<Item = &StepRecord> {
    let session = item.outcome.as_ref().and_then(|outcome| outcome.session);
    item.steps.iter().filter(move |step| Some(step.session) == session).map(|step| &step.record)
}

impl ItemPersistence {
    /// Creates the persistence of an item. `earlier` has its records and outcome of earlier sessions.
    pub(super) fn new(run: Arc<RunPersistence>, head: Arc<ItemHead>, earlier: Option<StoredItem>) -> Self {
        let (earlier_steps, outcome) = earlier.map(|item| (item.steps, item.outcome)).unwrap_or_default();
        Self {
            run,
            head,
            earlier_steps,
            finished_in: outcome.map(|outcome| outcome.session.unwrap_or(i64::MAX)),
            current_steps: Mutex::default(),
            restored_steps: Mutex::default(),
        }
    }

    fn lock_current_steps(&self) -> MutexGuard<'_, HashMap<StepName, StepRecord>> {
        self.current_steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the stored answer of this item to the same request, if it is from a model that the request would go to now.
    pub(super) fn find_answer(&self, step: &Step, request_key: Fingerprint) -> Option<StoredStep> {
        let reuse = self.run.cache.reuse(step);
        let Step { name: step, route, .. } = step;
        let targets = self.run.routes.get(route)?;
        let identities = targets.iter().filter_map(|target| self.run.model_identities.get(target));
        let valid: Vec<_> = identities.map(|identity| cache_key::answer_key(request_key, identity)).collect();
        let fits = |record: &StepRecord| {
            record.step == *step
                && record.state == StepState::Answered
                && record.answer_key.is_some_and(|key| valid.contains(&key))
        };
        let session = self.run.session.number;
        let current = self.lock_current_steps().get(step).filter(|record| fits(record)).cloned();
        let current = current.map(|record| {
            let answered_by = record.answered_by().cloned();
            StoredStep { session, record, answered_by }
        });
        // After a session in which the item finished, it was interrupted.
        let is_reused = |stored: &&StoredStep| match reuse {
            StepReuse::Run | StepReuse::Store => true,
            StepReuse::Off => self.finished_in.is_none_or(|finished_in| finished_in < stored.session),
        };
        let mut earlier = self.earlier_steps.iter().rev().filter(is_reused);
        current.or_else(|| earlier.find(|step| fits(&step.record)).cloned())
    }

    /// Returns the targets of a route, in their order.
    pub(super) fn targets(&self, route: &RouteName) -> &[TargetName] {
        self.run.routes.get(route).map(Vec::as_slice).unwrap_or_default()
    }

    /// Records that an answer of an earlier session is still valid.
    pub(super) fn mark_restored(&self, stored: &StoredStep) {
        let mut recalled = self.restored_steps.lock().unwrap_or_else(PoisonError::into_inner);
        recalled.insert(stored.record.step.clone(), stored.clone());
    }

    /// Returns the record of a step that has ended in this session or whose answer was restored; `None` if it
    /// has not ended.
    pub(super) fn ended(&self, step: &StepName) -> Option<StoredStep> {
        let current = self.lock_current_steps().get(step).cloned();
        if let Some(record) = current.filter(|record| record.state != StepState::Open) {
            let answered_by = record.answered_by().cloned();
            return Some(StoredStep { session: self.run.session.number, record, answered_by });
        }
        self.restored_steps.lock().unwrap_or_else(PoisonError::into_inner).get(step).cloned()
    }

    /// Returns whether `stored` is a record of this session.
    pub(super) fn is_of_this_session(&self, stored: &StoredStep) -> bool {
        stored.session == self.run.session.number
    }

    /// Returns the attempts of earlier sessions for a step, and those of this session.
    pub(super) fn attempt_logs(&self, step: &StepName) -> (AttemptLog, AttemptLog) {
        let of_step =
            self.earlier_steps.iter().map(|stored| &stored.record).filter(|record| record.step == *step);
        let earlier = AttemptLog(of_step.flat_map(|record| record.attempts.0.iter().cloned()).collect());
        (
            earlier,
            self.lock_current_steps().get(step).map(|record| record.attempts.clone()).unwrap_or_default(),
        )
    }

    pub(super) fn request_key(&self, step: &StepName, prompt: &Prompt) -> Fingerprint {
        cache_key::request_key(&self.head.key, step, prompt)
    }

    /// Returns the key of an answer by `target`.
    pub(super) fn answer_key(&self, request_key: Fingerprint, target: &TargetName) -> Option<Fingerprint> {
        self.run.model_identities.get(target).map(|identity| cache_key::answer_key(request_key, identity))
    }

    /// Stores the record of a step. The future completes when it is durable; the record is stored even if the
    /// future is dropped.
    pub(super) fn save_step(
        &self,
        step: StepRecord,
    ) -> impl Future<Output = Result<(), CommitError>> + use<> {
        self.lock_current_steps().insert(step.step.clone(), step.clone());
        self.run.ledger.record(vec![self.run.record(self.head.clone(), vec![step], None)])
    }
}
