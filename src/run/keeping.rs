//! What a run keeps: hands answers and settlements to the ledger, and finds those of earlier sessions again.
//!
//! Without one a run keeps nothing, and nothing else about it is different.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::task::JoinError;

use super::item::Job;
use super::load_attachment::is_as_it_was;
use super::met::MetItems;
use super::walked::Walked;
use crate::ledger::{Ledger, Unkept};
use crate::pipeline::shaped;
use crate::pipeline::walk::StepEnd;
use crate::store::{
    Error, ItemHead, ItemNumber, KnownItem, KnownStep, Record, RunNumber, Session, SettledRecord, StepRecord,
    StepState,
};
use crate::types::{
    Class, Failure, Fingerprint, ItemKey, ItemStatus, LaneName, Prompt, RouteName, StepName, Trail,
};

/// Where a run keeps what must survive.
#[derive(Debug)]
pub struct Keeping {
    /// Who commits it.
    pub ledger: Ledger,
    /// The run's number in the store.
    pub run: RunNumber,
    /// Its present session.
    pub session: Session,
    /// Whether the fields of every item are kept, or of failed ones only.
    pub keep_inputs: bool,
    /// Whether only failed items are asked, of one of these classes or of any where none is named: every other item
    /// keeps its line.
    pub retry: Option<Vec<Class>>,
    /// The items that the input had so far.
    pub met: Mutex<MetItems>,
    /// The items whose line was handed to the writer.
    pub lined: Mutex<MetItems>,
    /// Items that the input did not have when it was last read to its end: the first and the last of each group.
    pub absent: Vec<(i64, i64)>,
    /// Whether the source has only a part of the run's items.
    pub partly: bool,
    /// Items that the run had before, where its whole input is read now.
    pub had: u64,
    /// Whether an earlier session was answered.
    pub had_answers: bool,
    /// The fingerprint of each lane's model.
    pub voices: HashMap<LaneName, Fingerprint>,
    /// The lanes of each route.
    pub routes: HashMap<RouteName, Vec<LaneName>>,
}

/// What is to be done with an item that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has settled, and its line is made again.
    Settled,
    /// It settled when it, or the pipeline, was another; it keeps that line, because only failed items are asked now.
    SettledOtherwise,
    /// It has never settled, and only failed items are asked now.
    Left,
    /// It is asked.
    Asked,
}

/// What is known of an item that comes.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) item: KnownItem,
    /// Whether the files that were attached to its questions are as they were.
    pub(super) files_hold: bool,
}

/// One item, as far as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) keeping: Arc<Keeping>,
    pub(super) head: Arc<ItemHead>,
    /// What earlier sessions left of its steps.
    earlier: Vec<KnownStep>,
    /// What this one has kept: a second life of the item goes on from there.
    fresh: Mutex<HashMap<StepName, StepRecord>>,
    /// Answers of earlier sessions that are valid still.
    recalled: Mutex<HashMap<StepName, KnownStep>>,
}

impl Keeping {
    /// Returns what is known of the items of these keys, in their order. Asks nobody while the run is new.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn look_up(&self, keys: &[ItemKey]) -> Result<Vec<Option<Known>>, Error> {
        if self.session.last_item == ItemNumber(0) {
            return Ok(keys.iter().map(|_| None).collect());
        }
        let found = self.ledger.store().look_up(self.run, keys).await?;
        let have_files = found.iter().flatten().any(|item| settling(item).any(|step| !step.files.is_empty()));
        let check = move || found.into_iter().map(|item| item.map(Known::of)).collect();
        if !have_files {
            return Ok(check());
        }
        match tokio::task::spawn_blocking(check).await.map_err(JoinError::try_into_panic) {
            Ok(known) => Ok(known),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is going: nobody waits for this any more.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    /// Returns what is to be done with an item that comes.
    pub(super) fn standing(&self, known: Option<&Known>, content: Fingerprint) -> Standing {
        let settled = known.and_then(|known| Some((known, known.item.settled.as_ref()?)));
        let is_of_now = settled.is_some_and(|(known, settled)| self.is_of_now(known, settled, content));
        let is_due = |classes: &[Class], settled: &SettledRecord| {
            let class = settled.error.as_ref().map(|(_, failure)| failure.class);
            let is_one = classes.is_empty() || class.is_some_and(|class| classes.contains(&class));
            settled.status == ItemStatus::Failed && is_one
        };
        match (&self.retry, settled) {
            (Some(classes), Some((_, settled))) if is_due(classes, settled) => Standing::Asked,
            (_, Some(_)) if is_of_now => Standing::Settled,
            (Some(_), Some(_)) => Standing::SettledOtherwise,
            (Some(_), None) => Standing::Left,
            (None, _) => Standing::Asked,
        }
    }

    /// Returns whether an item is the same still as when it settled, and so are the pipeline and the files that were
    /// attached.
    fn is_of_now(&self, known: &Known, settled: &SettledRecord, content: Fingerprint) -> bool {
        // Where an earlier version did not say which session settled it, it is walked again: every answer that is
        // valid is recalled.
        let is_whole = settled.session.is_some() || settled.status == ItemStatus::Failed;
        settled.edition == self.session.edition
            && is_whole
            && known.item.head.content == content
            && known.files_hold
    }

    /// Notes that the line of an item is handed to the writer.
    pub(super) fn has_line(&self, item: ItemNumber) {
        self.lined.lock().unwrap_or_else(PoisonError::into_inner).insert(item);
    }

    /// Returns whether an item that has settled is in the input, as far as that is known, and has no line yet.
    pub(super) fn lacks_line(&self, item: ItemNumber) -> bool {
        let has_line = self.lined.lock().unwrap_or_else(PoisonError::into_inner).contains(item);
        !has_line && !self.absent.iter().any(|(first, last)| (*first..=*last).contains(&item.0))
    }

    /// Notes that the input has an item.
    pub(super) fn meet(&self, item: ItemNumber) {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(item);
    }

    fn record(&self, item: Arc<ItemHead>, steps: Vec<StepRecord>, settled: Option<SettledRecord>) -> Record {
        Record { run: self.run, session: self.session.session, item, steps, settled }
    }
}

impl Known {
    /// Compares the attached files with what they were, which asks the file system.
    fn of(item: KnownItem) -> Self {
        let files_hold = settling(&item).flat_map(|step| &step.files).all(is_as_it_was);
        Self { item, files_hold }
    }
}

/// Returns the records that make up the line of an item.
fn settling(item: &KnownItem) -> impl Iterator<Item = &StepRecord> {
    let session = item.settled.as_ref().and_then(|settled| settled.session);
    item.steps.iter().filter(move |step| Some(step.session) == session).map(|step| &step.record)
}

impl Kept {
    pub(super) fn new(keeping: Arc<Keeping>, head: Arc<ItemHead>, earlier: Vec<KnownStep>) -> Self {
        Self { keeping, head, earlier, fresh: Mutex::default(), recalled: Mutex::default() }
    }

    fn fresh(&self) -> MutexGuard<'_, HashMap<StepName, StepRecord>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the answer that an earlier session had to the same question by a model that would be asked now.
    pub(super) fn recall(
        &self,
        step: &StepName,
        route: &RouteName,
        question: Fingerprint,
    ) -> Option<KnownStep> {
        let lanes = self.keeping.routes.get(route)?;
        let voices = lanes.iter().filter_map(|lane| self.keeping.voices.get(lane));
        let valid: Vec<_> = voices.map(|voice| shaped::answer(question, *voice)).collect();
        let fits = |record: &StepRecord| {
            record.step == *step
                && record.state == StepState::Answered
                && record.shaped.is_some_and(|shaped| valid.contains(&shaped))
        };
        let session = self.keeping.session.session;
        let fresh = self.fresh().get(step).filter(|record| fits(record)).cloned();
        let fresh = fresh.map(|record| {
            let answered_by = record.trail.answering().cloned();
            KnownStep { session, record, answered_by }
        });
        fresh.or_else(|| self.earlier.iter().rev().find(|step| fits(&step.record)).cloned())
    }

    /// Notes that the answer of an earlier session is valid still.
    pub(super) fn note_recalled(&self, known: &KnownStep) {
        let mut recalled = self.recalled.lock().unwrap_or_else(PoisonError::into_inner);
        recalled.insert(known.record.step.clone(), known.clone());
    }

    /// Returns how a step has ended in this session, or that an earlier one has its answer; `None` before its end.
    pub(super) fn ended(&self, step: &StepName) -> Option<KnownStep> {
        let fresh = self.fresh().get(step).cloned();
        if let Some(record) = fresh.filter(|record| record.state != StepState::Open) {
            let answered_by = record.trail.answering().cloned();
            return Some(KnownStep { session: self.keeping.session.session, record, answered_by });
        }
        self.recalled.lock().unwrap_or_else(PoisonError::into_inner).get(step).cloned()
    }

    /// Returns whether `known` is a record of this session.
    pub(super) fn is_of_this_session(&self, known: &KnownStep) -> bool {
        known.session == self.keeping.session.session
    }

    /// Returns what earlier sessions attempted for a step, and what this one has.
    pub(super) fn trails(&self, step: &StepName) -> (Trail, Trail) {
        let of_step = self.earlier.iter().map(|known| &known.record).filter(|record| record.step == *step);
        let earlier = Trail(of_step.flat_map(|record| record.trail.0.iter().cloned()).collect());
        (earlier, self.fresh().get(step).map(|record| record.trail.clone()).unwrap_or_default())
    }

    pub(super) fn question(&self, step: &StepName, prompt: &Prompt) -> Fingerprint {
        shaped::question(&self.head.key, step, prompt)
    }

    /// Returns the fingerprint of an answer by `lane`.
    pub(super) fn shaped(&self, question: Fingerprint, lane: &LaneName) -> Option<Fingerprint> {
        self.keeping.voices.get(lane).map(|voice| shaped::answer(question, *voice))
    }

    /// Keeps what became of a step; returns when that is durable. It is kept also if nobody waits.
    pub(super) fn keep(&self, step: StepRecord) -> impl Future<Output = Result<(), Unkept>> + use<> {
        self.fresh().insert(step.step.clone(), step.clone());
        self.keeping.ledger.record(vec![self.keeping.record(self.head.clone(), vec![step], None)])
    }

    /// Makes the record of an item that has settled, with all of its steps that are not kept yet.
    pub(super) fn settlement(&self, job: &Job, walked: &Walked, lives: u64) -> Record {
        let settled = &walked.settled;
        let steps: Vec<_> = job.pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let ends = steps.iter().zip(settled.steps.iter().zip(&walked.spent));
        let fresh = ends.filter(|(_, (_, spent))| !spent.kept);
        let steps = fresh.filter_map(|(step, (end, spent))| {
            let (state, answer, failure) = match end {
                StepEnd::Answered => (
                    StepState::Answered,
                    settled.answers.get(step.as_str()).cloned().unwrap_or_default(),
                    None,
                ),
                StepEnd::Failed(failure) => (StepState::Failed, Value::Null, Some(failure.clone())),
                StepEnd::Skipped => (StepState::Skipped, Value::Null, None),
                StepEnd::Unfinished if spent.trail.0.is_empty() => return None,
                StepEnd::Unfinished => (StepState::Open, Value::Null, None),
            };
            // An answer that was valid still is recorded again, as that of the session that has it: what no longer
            // counts is not the last record of its step then.
            let recalled = spent.recalled.filter(|_| state == StepState::Answered);
            // A failure is that of these files too: of others the item is asked again.
            let is_asked = matches!(state, StepState::Answered | StepState::Failed);
            let files = if is_asked { spent.files.clone() } else { Vec::new() };
            let (shaped, practice, trail) = (spent.shaped, spent.practice, spent.trail.clone());
            let step = step.clone();
            Some(StepRecord { step, state, shaped, answer, failure, practice, trail, recalled, files })
        });
        let edition = self.keeping.session.edition;
        let session = Some(self.keeping.session.session);
        let record = SettledRecord {
            status: settled.status,
            error: settled.error.clone(),
            took: walked.took,
            lives,
            edition,
            session,
        };
        let mut head = self.head.clone();
        if settled.status == ItemStatus::Failed && head.input.is_none() {
            // To be tried again without its source.
            Arc::make_mut(&mut head).input = Some(job.item.value.to_string().into());
        }
        self.keeping.record(head, steps.collect(), Some(record))
    }
}

/// Makes the record of a step that is not answered, or not yet.
pub(super) fn unanswered(
    step: StepName,
    failure: Option<Failure>,
    practice: bool,
    trail: Trail,
) -> StepRecord {
    let state = if failure.is_some() { StepState::Failed } else { StepState::Open };
    StepRecord {
        step,
        state,
        shaped: None,
        answer: Value::Null,
        failure,
        practice,
        trail,
        recalled: None,
        files: Vec::new(),
    }
}
