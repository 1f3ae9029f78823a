//! The log of one step of an item: its attempts, and where its answer comes from. Stores it if answers are stored.

use std::borrow::Cow;

use serde_json::Value;
use tokio::time::Instant;

use super::answer_cache::CachedRequest;
use super::job::Job;
use super::persistence::ItemPersistence;
use crate::ledger::CommitError;
use crate::pipeline::definition::Step;
use crate::pipeline::item_state::ItemState;
use crate::pipeline::step_request::AnswerCheck;
use crate::store::{CachedAnswer, FileStamp, StepRecord, StepState, StoredStep};
use crate::telemetry::{NestedSpan, record_error};
use crate::types::{Attempt, AttemptLog, Class, Failure, Fingerprint, Outcome, Prompt, StepName, TargetName};

/// What happened to one step.
#[derive(Debug, Clone, Default)]
pub(super) struct StepLog {
    pub(super) attempts: AttemptLog,
    /// Attempts of earlier sessions.
    pub(super) earlier_attempts: AttemptLog,
    /// Whether a simulated provider answered.
    pub(super) simulated: bool,
    /// Key of the request, if answers are stored and it was sent or its answer restored.
    pub(super) request_key: Option<Fingerprint>,
    /// Key of the answer, if it is stored.
    pub(super) answer_key: Option<Fingerprint>,
    /// Key of the request in the answer cache, if its answer is added to it.
    pub(super) cache_request: Option<Fingerprint>,
    /// Key of the answer in the answer cache, if it is added to it or taken from it.
    pub(super) cache_key: Option<Fingerprint>,
    /// The attempt of another item or run whose answer was taken from the answer cache, if no request was sent.
    pub(super) reused: Option<Box<Attempt>>,
    /// Whether all of this is durable.
    pub(super) is_stored: bool,
    /// The earlier session whose answer was still valid, if no request was sent.
    pub(super) restored_from: Option<i64>,
    /// The attempt that gave a restored answer.
    pub(super) answered_by: Option<Attempt>,
    /// Files that were attached to the request.
    pub(super) files: Vec<FileStamp>,
    /// When its first request was sent.
    pub(super) started: Option<Instant>,
    /// Its span, from its first request until it has ended.
    pub(super) span: Option<NestedSpan>,
}

impl StepLog {
    /// Creates the log of a step, with the attempts that are already stored.
    pub(super) fn new(persistence: Option<&ItemPersistence>, step: &StepName) -> Self {
        let attempt_logs = persistence.map(|persistence| persistence.attempt_logs(step));
        let (earlier_attempts, attempts) = attempt_logs.unwrap_or_default();
        Self { earlier_attempts, attempts, ..Self::default() }
    }

    /// Returns the attempt that gave the answer, if there is one.
    pub(super) fn answering(&self) -> Option<&Attempt> {
        self.answered_by.as_ref().or_else(|| self.attempts.answered_attempt())
    }

    /// Ends its span, with the class of its failure if it failed.
    pub(super) fn end_span(&mut self, failure: Option<Class>) {
        if let (Some(span), Some(class)) = (self.span.take(), failure) {
            record_error(span.own(), class.as_str());
        }
    }

    /// Returns every attempt of all sessions.
    pub(super) fn all_attempts(&self) -> Cow<'_, AttemptLog> {
        if self.earlier_attempts.0.is_empty() {
            return Cow::Borrowed(&self.attempts);
        }
        Cow::Owned(AttemptLog(self.earlier_attempts.0.iter().chain(&self.attempts.0).cloned().collect()))
    }

    /// Takes over a stored answer instead of sending a request. If a record of this session has it, that record
    /// stays; otherwise it is recorded again with the final record of the item.
    pub(super) fn restore(&mut self, stored: &StoredStep, is_of_this_session: bool) {
        self.simulated = stored.record.simulated;
        self.answer_key = stored.record.answer_key;
        self.reused = stored.record.reused.clone().filter(|_| is_of_this_session);
        self.is_stored = is_of_this_session;
        self.restored_from =
            (!is_of_this_session).then(|| stored.record.restored_from.unwrap_or(stored.session));
        self.answered_by.clone_from(&stored.answered_by);
    }

    /// Takes over an answer of the answer cache instead of sending a request: `target` of the route would give the same.
    pub(super) fn reuse(
        &mut self,
        persistence: &ItemPersistence,
        target: &TargetName,
        cached: &CachedAnswer,
    ) {
        let answered_by = Attempt { target: target.clone(), ..cached.answered_by.clone() };
        self.simulated = cached.simulated;
        self.answer_key = self.request_key.and_then(|request| persistence.answer_key(request, target));
        self.cache_key = Some(cached.key);
        self.reused = Some(Box::new(answered_by.clone()));
        self.answered_by = Some(answered_by);
    }

    /// Returns the keys under which the answer cache may have the answer to the request of `step`; `None` if it is sent in
    /// any case.
    pub(super) fn cached_request(&self, persistence: &ItemPersistence, step: &Step) -> Option<CachedRequest> {
        persistence.run.cache.keys(self.cache_request?, persistence.targets(&step.route))
    }

    /// Returns a stored answer to the same request, if a model gave it that the request would go to now.
    pub(super) fn restore_answer(
        &mut self,
        persistence: Option<&ItemPersistence>,
        step: &Step,
        prompt: &Prompt,
        files: Vec<FileStamp>,
    ) -> Option<Value> {
        let persistence = persistence?;
        let request_key = persistence.request_key(&step.name, prompt);
        self.request_key = Some(request_key);
        self.cache_request = persistence.run.cache.request_key(&persistence.run.scope, step, prompt);
        self.files = files;
        let stored = persistence.find_answer(step, request_key)?;
        self.restore(&stored, persistence.is_of_this_session(&stored));
        if !self.is_stored {
            persistence.mark_restored(&stored);
        }
        Some(stored.record.answer)
    }

    /// Adds the attempts of a request that has ended.
    pub(super) fn add_attempts(&mut self, attempts: &AttemptLog, simulated: bool) {
        self.simulated |= simulated;
        self.attempts.0.extend_from_slice(&attempts.0);
    }

    /// Adds the attempts of a request that will be sent again, and stores them if answers are stored.
    pub(super) fn store_for_resend(
        &mut self,
        persistence: Option<&ItemPersistence>,
        step: &StepName,
        attempts: &AttemptLog,
    ) {
        self.attempts.0.extend_from_slice(&attempts.0);
        if let Some(persistence) = persistence.filter(|_| attempts.calls() > 0) {
            // They may have been charged. No step depends on this record.
            drop(persistence.save_step(self.unanswered(step, None)));
        }
    }

    /// Stores the attempts of a deferred request. It is sent again when the run is resumed.
    pub(super) fn store_deferred(
        &mut self,
        persistence: Option<&ItemPersistence>,
        step: &StepName,
        attempts: &AttemptLog,
        simulated: bool,
    ) {
        let is_rejected = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Refused(_));
        if let Some(persistence) = persistence.filter(|_| !attempts.0.iter().all(is_rejected)) {
            self.add_attempts(attempts, simulated);
            // Nothing depends on this record before the run ends, and the run waits for it.
            drop(persistence.save_step(self.unanswered(step, None)));
        }
    }

    /// Creates the record of the step without an answer.
    fn unanswered(&self, step: &StepName, failure: Option<Failure>) -> StepRecord {
        StepRecord {
            step: step.clone(),
            state: if failure.is_some() { StepState::Failed } else { StepState::Open },
            answer_key: None,
            answer: Value::Null,
            failure,
            simulated: self.simulated,
            attempts: self.attempts.clone(),
            restored_from: None,
            files: Vec::new(),
            reused: None,
            cache_key: None,
        }
    }

    /// Creates the record of the step with its answer.
    pub(super) fn answered(&self, step: &StepName, answer: Value) -> StepRecord {
        StepRecord {
            step: step.clone(),
            state: StepState::Answered,
            answer_key: self.answer_key,
            answer,
            failure: None,
            simulated: self.simulated,
            attempts: self.attempts.clone(),
            restored_from: None,
            files: self.files.clone(),
            reused: self.reused.clone(),
            cache_key: self.cache_key,
        }
    }
}

/// Stores the result of a request, and waits until it is durable if other steps depend on it. A result that ends
/// the item is stored with the final record of the item.
pub(super) async fn store_result(
    state: &mut ItemState<StepLog>,
    job: &Job,
    step: usize,
    check: &AnswerCheck,
    target: Option<&TargetName>,
) -> Result<(), CommitError> {
    let Some(persistence) = &job.persistence else { return Ok(()) };
    let name = &job.pipeline.steps()[step].name;
    let is_item_finished = state.is_finished();
    let log = state.data_mut(step);
    let failure = match check {
        AnswerCheck::Accepted => {
            log.answer_key = log
                .request_key
                .zip(target)
                .and_then(|(request_key, target)| persistence.answer_key(request_key, target));
            log.cache_key = log
                .cache_request
                .zip(target)
                .and_then(|(request, target)| persistence.run.cache.answer_key(request, target));
            if is_item_finished {
                return Ok(());
            }
            let answer = state.answer(step).cloned().unwrap_or_default();
            let log = state.data_mut(step);
            log.is_stored = true;
            return persistence.save_step(log.answered(name, answer)).await;
        }
        AnswerCheck::Retry(_) => None,
        AnswerCheck::Failed(failure) => Some(failure.clone()),
    };
    log.answer_key = None;
    log.cache_key = None;
    if !is_item_finished {
        // Nothing depends on this record, but it was paid for. If the ledger has failed, the next answer reports
        // it.
        drop(persistence.save_step(log.unanswered(name, failure)));
    }
    Ok(())
}
