//! The result of an item, and the record that the store keeps of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::job::Job;
use super::persistence::ItemPersistence;
use super::step_log::StepLog;
use crate::pipeline::item_state::{ItemOutcome, StepEnd, StepOutcome};
use crate::store::{OutcomeRecord, Record, StepRecord, StepState};
use crate::types::{Failure, ItemStatus, NanoUsd, StepName};

/// How an item ended, and what it used.
#[derive(Debug)]
pub(super) struct ItemResult {
    pub(super) status: ItemStatus,
    /// The failure of the item, and its step.
    pub(super) error: Option<(StepName, Failure)>,
    /// The result of each step, in the order of the pipeline.
    pub(super) steps: Vec<StepResult>,
    pub(super) took: Duration,
    /// Requests that ended.
    pub(super) requests: u64,
}

/// How a step of an item ended, and its log, including validation retries.
pub(super) type StepResult = StepEnd<StepLog>;

impl ItemResult {
    /// Creates the result of an item whose steps ended with `outcome`.
    pub(super) fn new(outcome: ItemOutcome<StepLog>, took: Duration, requests: u64) -> Self {
        let ItemOutcome { status, error, steps } = outcome;
        Self { status, error, steps, took, requests }
    }

    /// Returns the known cost.
    pub(super) fn cost(&self) -> NanoUsd {
        let attempts = self.steps.iter().flat_map(|step| &step.data.attempts.0);
        attempts.filter_map(|attempt| attempt.cost).fold(NanoUsd(0), |sum, cost| sum + cost)
    }

    /// Returns how many answers of earlier sessions were used instead of a request.
    pub(super) fn restored_answers(&self) -> u64 {
        let is_restored =
            |step: &&StepResult| step.outcome == StepOutcome::Answered && step.data.restored_from.is_some();
        self.steps.iter().filter(is_restored).count() as u64
    }

    /// Returns how many answers were taken from the answer cache, and what their requests had cost.
    pub(super) fn cached_answers(&self) -> (u64, NanoUsd) {
        let answered = self.steps.iter().filter(|step| step.outcome == StepOutcome::Answered);
        let reused: Vec<_> = answered.filter_map(|step| step.data.reused.as_deref()).collect();
        let saved = reused.iter().filter_map(|attempt| attempt.cost).fold(NanoUsd(0), |sum, cost| sum + cost);
        (reused.len() as u64, saved)
    }

    /// Creates the record of the item, with all its steps that are not stored yet; `None` if results are not
    /// stored.
    pub(super) fn record(&self, job: &Job, incarnations: u64) -> Option<Record> {
        let persistence = job.persistence.as_ref()?;
        let unsaved = self.steps.iter().filter(|step| !step.data.is_stored);
        let steps = unsaved.filter_map(StepResult::record);
        let record = OutcomeRecord {
            status: self.status,
            error: self.error.clone(),
            duration: self.took,
            incarnations,
            revision: persistence.run.session.revision,
            session: Some(persistence.run.session.number),
        };
        let mut head = persistence.head.clone();
        if self.status == ItemStatus::Failed && head.input.is_none() {
            // So that it can be retried without its source.
            Arc::make_mut(&mut head).input = Some(job.item.value.to_string().into());
        }
        Some(persistence.run.record(head, steps.collect(), Some(record)))
    }

    /// Returns the result of an item whose actor died permanently. A step that had ended in an earlier
    /// incarnation keeps its result, if answers are stored.
    pub(super) fn died(job: &Job, failure: Failure, took: Duration) -> Self {
        let persistence = job.persistence.as_ref();
        let names = job.pipeline.steps().iter().map(|step| step.name.clone());
        let steps: Vec<_> = names.map(|name| StepResult::of_dead_item(persistence, name)).collect();
        let is_unfinished = |step: &&StepResult| step.outcome == StepOutcome::Unfinished;
        let failed_step = steps.iter().find(is_unfinished).or(steps.first());
        let error = failed_step.map(|step| (step.name.clone(), failure));
        Self { status: ItemStatus::Failed, error, steps, took, requests: 0 }
    }
}

impl StepResult {
    /// Returns the result of a step whose item died. What is stored of it is kept.
    fn of_dead_item(persistence: Option<&ItemPersistence>, name: StepName) -> Self {
        let mut log = StepLog::new(persistence, &name);
        let ended = persistence.and_then(|persistence| Some((persistence, persistence.ended(&name)?)));
        let Some((persistence, stored)) = ended else {
            return Self { name, outcome: StepOutcome::Unfinished, answer: Value::Null, data: log };
        };
        log.restore(&stored, persistence.is_of_this_session(&stored));
        let StepRecord { state, answer, failure, files, .. } = stored.record;
        log.files = files;
        let (outcome, answer) = match (state, failure) {
            (StepState::Answered, _) => (StepOutcome::Answered, answer),
            (StepState::Failed, Some(failure)) => (StepOutcome::Failed(failure), Value::Null),
            (StepState::Skipped, _) => (StepOutcome::Skipped, Value::Null),
            (StepState::Failed | StepState::Open, _) => (StepOutcome::Unfinished, Value::Null),
        };
        Self { name, outcome, answer, data: log }
    }

    /// Creates the record of the step; `None` if nothing was requested for it.
    fn record(&self) -> Option<StepRecord> {
        let log = &self.data;
        let (state, answer, failure) = match &self.outcome {
            StepOutcome::Answered => (StepState::Answered, self.answer.clone(), None),
            StepOutcome::Failed(failure) => (StepState::Failed, Value::Null, Some(failure.clone())),
            StepOutcome::Skipped => (StepState::Skipped, Value::Null, None),
            StepOutcome::Unfinished if log.attempts.0.is_empty() => return None,
            StepOutcome::Unfinished => (StepState::Open, Value::Null, None),
        };
        // A restored answer is recorded again for the current session, so that an outdated record is not the
        // last one of the step.
        let restored_from = log.restored_from.filter(|_| state == StepState::Answered);
        let is_answered = state == StepState::Answered;
        // A failure depends on these files too: with other files the item is processed again.
        let has_ended = matches!(state, StepState::Answered | StepState::Failed);
        Some(StepRecord {
            step: self.name.clone(),
            state,
            answer_key: log.answer_key,
            answer,
            failure,
            simulated: log.simulated,
            attempts: log.attempts.clone(),
            restored_from,
            files: if has_ended { log.files.clone() } else { Vec::new() },
            reused: log.reused.clone().filter(|_| is_answered && restored_from.is_none()),
            cache_key: log.cache_key.filter(|_| is_answered && restored_from.is_none()),
        })
    }
}
