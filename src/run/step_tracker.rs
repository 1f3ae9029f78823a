//! Logs what the steps of one item used, and stores it if answers are stored.

use std::sync::Arc;

use serde_json::Value;

use super::job::Job;
use super::persistence::unanswered_record;
use super::step_log::{StepLog, step_logs};
use crate::ledger::CommitError;
use crate::pipeline::item_state::ItemState;
use crate::pipeline::step_request::AnswerCheck;
use crate::store::{FileStamp, StepRecord, StepState};
use crate::types::{Attempt, AttemptLog, Outcome, Prompt, TargetName};

/// The steps of an item in progress.
pub(super) struct StepTracker {
    job: Arc<Job>,
    logs: Vec<StepLog>,
}

impl StepTracker {
    pub(super) fn new(job: Arc<Job>) -> Self {
        Self { logs: step_logs(&job), job }
    }

    /// Returns the log of every step.
    pub(super) fn into_logs(self) -> Vec<StepLog> {
        self.logs
    }

    /// Returns a stored answer to the same request, if a model gave it that the request would go to now.
    pub(super) fn restore(&mut self, step: usize, prompt: &Prompt, files: Vec<FileStamp>) -> Option<Value> {
        let persistence = self.job.persistence.as_ref()?;
        let definition = &self.job.pipeline.steps()[step];
        let request_key = persistence.request_key(&definition.name, prompt);
        let log = &mut self.logs[step];
        log.request_key = Some(request_key);
        log.files = files;
        let stored = persistence.find_answer(&definition.name, &definition.route, request_key)?;
        log.restore(&stored, persistence.is_of_this_session(&stored));
        if !log.is_stored {
            persistence.mark_restored(&stored);
        }
        Some(stored.record.answer)
    }

    /// Adds the attempts of a request that has ended.
    pub(super) fn add_attempts(&mut self, step: usize, attempts: &AttemptLog, simulated: bool) {
        let log = &mut self.logs[step];
        log.simulated |= simulated;
        log.attempts.0.extend_from_slice(&attempts.0);
    }

    /// Adds the attempts of a request that will be sent again, and stores them if answers are stored.
    pub(super) fn store_for_resend(&mut self, step: usize, attempts: &AttemptLog) {
        let log = &mut self.logs[step];
        log.attempts.0.extend_from_slice(&attempts.0);
        let Some(persistence) = self.job.persistence.as_ref().filter(|_| attempts.calls() > 0) else {
            return;
        };
        let name = self.job.pipeline.steps()[step].name.clone();
        // They may have been charged. No step depends on this record.
        drop(persistence.save_step(unanswered_record(name, None, log.simulated, log.attempts.clone())));
    }

    /// Stores the attempts of a deferred request. It is sent again when the run is resumed.
    pub(super) fn store_deferred(&mut self, step: usize, attempts: &AttemptLog, simulated: bool) {
        let is_rejected = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Refused(_));
        let Some(persistence) = self.job.persistence.as_ref().filter(|_| !attempts.0.iter().all(is_rejected))
        else {
            return;
        };
        let name = self.job.pipeline.steps()[step].name.clone();
        let log = &mut self.logs[step];
        log.simulated |= simulated;
        log.attempts.0.extend_from_slice(&attempts.0);
        // Nothing depends on this record before the run ends, and the run waits for it.
        drop(persistence.save_step(unanswered_record(name, None, log.simulated, log.attempts.clone())));
    }

    /// Stores the result of a request, and waits until it is durable if other steps depend on it. A result that
    /// ends the item is stored with the final record of the item.
    pub(super) async fn store_result(
        &mut self,
        step: usize,
        next: &AnswerCheck,
        target: Option<&TargetName>,
        state: &ItemState,
    ) -> Result<(), CommitError> {
        let Some(persistence) = &self.job.persistence else { return Ok(()) };
        let name = self.job.pipeline.steps()[step].name.clone();
        let log = &mut self.logs[step];
        log.answer_key = match next {
            AnswerCheck::Accepted => log
                .request_key
                .zip(target)
                .and_then(|(request_key, target)| persistence.answer_key(request_key, target)),
            AnswerCheck::Retry(_) | AnswerCheck::Failed(_) => None,
        };
        if state.is_finished() {
            return Ok(());
        }
        let simulated = log.simulated;
        let attempts = log.attempts.clone();
        match next {
            AnswerCheck::Accepted => {
                let answer = state.answer(step).cloned().unwrap_or_default();
                log.is_stored = true;
                let record = StepRecord {
                    step: name,
                    state: StepState::Answered,
                    answer_key: log.answer_key,
                    answer,
                    failure: None,
                    simulated,
                    attempts,
                    restored_from: None,
                    files: log.files.clone(),
                };
                persistence.save_step(record).await
            }
            // Nothing depends on this record, but it was paid for. If the ledger has failed, the next answer
            // reports it.
            AnswerCheck::Retry(_) => {
                drop(persistence.save_step(unanswered_record(name, None, simulated, attempts)));
                Ok(())
            }
            AnswerCheck::Failed(failure) => {
                drop(persistence.save_step(unanswered_record(
                    name,
                    Some(failure.clone()),
                    simulated,
                    attempts,
                )));
                Ok(())
            }
        }
    }
}
