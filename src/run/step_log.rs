//! The log of one step of an item: its attempts, and where its answer comes from.

use std::borrow::Cow;

use super::job::Job;
use crate::store::{FileStamp, StoredStep};
use crate::types::{Attempt, AttemptLog, Fingerprint};

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
    /// Whether all of this is durable.
    pub(super) is_stored: bool,
    /// The earlier session whose answer was still valid, if no request was sent.
    pub(super) restored_from: Option<i64>,
    /// The attempt that gave a restored answer.
    pub(super) answered_by: Option<Attempt>,
    /// Files that were attached to the request.
    pub(super) files: Vec<FileStamp>,
}

/// Returns a log for each step of an item, with the attempts that are already stored.
pub(super) fn step_logs(job: &Job) -> Vec<StepLog> {
    let logs = job.pipeline.steps().iter().map(|step| {
        let attempt_logs = job.persistence.as_ref().map(|persistence| persistence.attempt_logs(&step.name));
        let (earlier_attempts, attempts) = attempt_logs.unwrap_or_default();
        StepLog { earlier_attempts, attempts, ..StepLog::default() }
    });
    logs.collect()
}

impl StepLog {
    /// Returns the attempt that gave the answer, if there is one.
    pub(super) fn answering(&self) -> Option<&Attempt> {
        self.answered_by.as_ref().or_else(|| self.attempts.answered_attempt())
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
        self.is_stored = is_of_this_session;
        self.restored_from =
            (!is_of_this_session).then(|| stored.record.restored_from.unwrap_or(stored.session));
        self.answered_by.clone_from(&stored.answered_by);
    }
}
