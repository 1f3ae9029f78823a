//! What a run keeps: hands answers and settlements to the ledger, and finds those of earlier sessions again.
//!
//! Without one a run keeps nothing, and nothing else about it is different.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::item::{Job, Walked};
use crate::ledger::{Ledger, Unkept};
use crate::pipeline::shaped;
use crate::pipeline::walk::StepEnd;
use crate::store::{
    Error, ItemHead, ItemNumber, KnownItem, Record, RunNumber, Session, SettledRecord, StepRecord, StepState,
};
use crate::types::{Failure, Fingerprint, ItemKey, ItemStatus, LaneName, Prompt, RouteName, StepName, Trail};

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
    /// Whether failed items are asked again.
    pub retry: bool,
    /// Items that the run had before, where its whole input is read now.
    pub had: u64,
    /// The fingerprint of each lane's model.
    pub voices: HashMap<LaneName, Fingerprint>,
    /// The lanes of each route.
    pub routes: HashMap<RouteName, Vec<LaneName>>,
}

/// One item, as far as it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) keeping: Arc<Keeping>,
    pub(super) head: Arc<ItemHead>,
    /// What earlier sessions left of its steps.
    earlier: Vec<StepRecord>,
    /// What this one has kept: a second life of the item goes on from there.
    fresh: Mutex<HashMap<StepName, StepRecord>>,
}

impl Keeping {
    /// Returns what is known of the items of these keys, in their order. Asks nobody while the run is new.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn look_up(&self, keys: &[ItemKey]) -> Result<Vec<Option<KnownItem>>, Error> {
        if self.session.last_item == ItemNumber(0) {
            return Ok(keys.iter().map(|_| None).collect());
        }
        self.ledger.store().look_up(self.run, keys).await
    }

    /// Returns whether an item that has settled before counts as that: it is the same still, and so is the
    /// pipeline.
    pub(super) fn still_holds(&self, known: &KnownItem, content: Fingerprint) -> bool {
        let settled = known.settled.as_ref();
        let holds = |settled: &SettledRecord| {
            settled.edition == self.session.edition && !(self.retry && settled.status == ItemStatus::Failed)
        };
        settled.is_some_and(holds) && known.head.content == content
    }

    fn record(&self, item: Arc<ItemHead>, steps: Vec<StepRecord>, settled: Option<SettledRecord>) -> Record {
        Record { run: self.run, session: self.session.session, item, steps, settled }
    }
}

impl Kept {
    pub(super) fn new(keeping: Arc<Keeping>, head: Arc<ItemHead>, earlier: Vec<StepRecord>) -> Self {
        Self { keeping, head, earlier, fresh: Mutex::default() }
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
    ) -> Option<StepRecord> {
        let lanes = self.keeping.routes.get(route)?;
        let voices = lanes.iter().filter_map(|lane| self.keeping.voices.get(lane));
        let valid: Vec<_> = voices.map(|voice| shaped::answer(question, *voice)).collect();
        let fits = |record: &&StepRecord| {
            record.step == *step
                && record.state == StepState::Answered
                && record.shaped.is_some_and(|shaped| valid.contains(&shaped))
        };
        let fresh = self.fresh().get(step).filter(fits).cloned();
        fresh.or_else(|| self.earlier.iter().rev().find(fits).cloned())
    }

    /// Returns what earlier sessions attempted for a step, and what this one has.
    pub(super) fn trails(&self, step: &StepName) -> (Trail, Trail) {
        let of_step = self.earlier.iter().filter(|record| record.step == *step);
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
            let (shaped, practice, trail) = (spent.shaped, spent.practice, spent.trail.clone());
            Some(StepRecord { step: step.clone(), state, shaped, answer, failure, practice, trail })
        });
        let edition = self.keeping.session.edition;
        let record = SettledRecord {
            status: settled.status,
            error: settled.error.clone(),
            took: walked.took,
            lives,
            edition,
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
    StepRecord { step, state, shaped: None, answer: Value::Null, failure, practice, trail }
}
