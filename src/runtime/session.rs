//! One session of a stored run, from its beginning until its outcome is stored.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use serde_json::Value;

use crate::guard::SharedBudget;
use crate::run::{Report, RunOutcome, RunPersistence, Unprocessed};
use crate::sink::{StepColumns, WrittenFile, WrittenLength};
use crate::store::{self, CacheLimits, RunLock, RunNumber, RunState, Store};
use crate::types::{InputFields, ProviderName, Spend, error_chain};

use super::budgets::record_missing_spend;
use super::file_digest::{self, InputFile};
use super::outcome::StoredOutcome;

/// How a session ended.
pub(super) enum SessionEnd {
    /// The run ended and has a report.
    Reported(Box<Report>),
    /// Without a report: the run's actor did not start, or failed before it could make one.
    NoReport(RunOutcome),
}

impl SessionEnd {
    fn ended(&self) -> RunOutcome {
        match self {
            Self::Reported(report) => report.outcome,
            Self::NoReport(ended) => *ended,
        }
    }

    /// Returns how many items were new or changed and not processed.
    fn items_left(&self) -> u64 {
        match self {
            Self::Reported(report) => report.items.not_processed,
            Self::NoReport(_) => 0,
        }
    }
}

/// An active session, which holds the run's lock.
#[derive(Debug)]
pub(super) struct ActiveSession {
    pub(super) persistence: Arc<RunPersistence>,
    pub(super) store: Arc<dyn Store>,
    pub(super) files: Vec<PathBuf>,
    /// The file that it reads.
    pub(super) input: Option<InputFile>,
    /// The lengths of the files that it writes.
    pub(super) written_lengths: Vec<WrittenLength>,
    /// The run's state when all items of the source have finished.
    pub(super) state_when_completed: RunState,
    /// The stored outcome of earlier sessions and of the beginning of this one.
    pub(super) outcome: StoredOutcome,
    /// The columns of the answers that this session gets.
    pub(super) own_steps: Vec<StepColumns>,
    /// The files that this session writes.
    pub(super) outputs: Vec<WrittenFile>,
    /// Whether its source has only a part of its items.
    pub(super) is_partial: bool,
    /// The spend of earlier sessions.
    pub(super) spent_before: BTreeMap<ProviderName, Spend>,
    /// What the answer cache may contain at its end.
    pub(super) cache_limits: CacheLimits,
    pub(super) _lock: RunLock,
}

impl ActiveSession {
    /// Sets the file from which items are read, and the lengths of the files that are written.
    pub(super) fn set_files(&mut self, input: Option<InputFile>, written_lengths: Vec<WrittenLength>) {
        self.input = input;
        self.written_lengths = written_lengths;
    }

    /// Stores the outcome and the spend of the run before its lock is released.
    ///
    /// # Errors
    /// The cause, as text.
    pub(super) async fn close(
        self,
        ending: SessionEnd,
        was_cancelled: bool,
        budget: &SharedBudget,
    ) -> Result<(), String> {
        // The outcome is stored even if the spend cannot be recorded.
        let recorded = self.record_spend(budget).await;
        let store = self.store.clone();
        let limits = self.cache_limits;
        let stored = self
            .store_outcome(&ending, was_cancelled)
            .await
            .map_err(|error| error_chain(&error))
            .and(recorded);
        if let Err(error) = store.prune_cache(limits).await {
            let error = error_chain(&error);
            tracing::warn!(%error, "the answer cache cannot be pruned");
        }
        // The database file is then complete without its journal. If this fails, the journal still has the rest.
        drop(store.checkpoint().await);
        stored
    }

    /// Records the spend that is not in any item's record. This also works after the ledger has failed: a batch that
    /// it could not write is not stored, and no other batch is under way.
    async fn record_spend(&self, budget: &SharedBudget) -> Result<(), String> {
        // Records that are not committed yet would be counted twice.
        let flushed = self.persistence.ledger.flush().await;
        let recorded = record_missing_spend(
            &*self.store,
            self.persistence.run,
            &self.persistence.scope,
            budget,
            &self.spent_before,
        )
        .await;
        flushed.map_err(|error| error.to_string())?;
        recorded.map_err(|error| error_chain(&error))
    }

    async fn store_outcome(self, ending: &SessionEnd, was_cancelled: bool) -> Result<(), store::Error> {
        let state = match ending.ended() {
            RunOutcome::Completed if ending.items_left() > 0 => RunState::Stopped,
            RunOutcome::Completed => self.state_when_completed,
            RunOutcome::Limited => RunState::Stopped,
            RunOutcome::Interrupted if was_cancelled => RunState::Cancelled,
            // A session that ends is not running.
            RunOutcome::Interrupted | RunOutcome::Running => RunState::Stopped,
            RunOutcome::Paused => RunState::Paused,
            RunOutcome::IoFailed => RunState::IoFailed,
        };
        let absent = self.missing_items(ending.ended());
        let rejected = self.rejected_records(ending);
        let input_fields = self.input_fields(ending.ended());
        let unprocessed = self.unprocessed(ending);
        let lengths: Vec<(PathBuf, u64)> =
            self.written_lengths.iter().map(|written| (written.path().to_owned(), written.bytes())).collect();
        let files = if state == RunState::Completed {
            let files = self.files;
            let input = self.input;
            let lengths = self.written_lengths;
            // Without digests a later start reads the whole input and writes the output again; nothing else is
            // different.
            tokio::task::spawn_blocking(move || file_digest::digests_of(&files, input.as_ref(), &lengths))
                .await
                .ok()
                .flatten()
                .unwrap_or_default()
        } else {
            Vec::new()
        };
        let (report, seconds, is_written) = match ending {
            SessionEnd::Reported(report) => {
                let text = serde_json::to_value(report).unwrap_or_default();
                let is_written = report.output_error.is_none() && report.unreplaced_output.is_none();
                (text, report.duration_seconds.unwrap_or_default(), is_written)
            }
            SessionEnd::NoReport(_) => (Value::Null, 0.0, false),
        };
        let seconds = self.outcome.duration_seconds + seconds;
        let own_steps = self.own_steps;
        let has_report = matches!(ending, SessionEnd::Reported(_));
        let mut outcome = self.outcome;
        outcome.record_closed(&self.outputs, is_written, &lengths);
        let StoredOutcome { outputs, replaceable, max_cost, scope, fresh, lost_session, mut layout, .. } =
            outcome;
        let retry = self.persistence.retry_classes.clone();
        if let (Some(layout), Some(fields)) = (&mut layout, input_fields) {
            layout.fields = Some(fields);
            if retry.is_none() {
                // No item has an answer of an earlier version any more.
                layout.steps = own_steps;
            }
        }
        // Without a report, the duration and the last calls of the session are not known.
        let lost_session = lost_session || !has_report;
        let changed_models = self.persistence.model_identities.changed();
        let outcome = StoredOutcome {
            changed_models,
            session: Some(self.persistence.session.number),
            lost_session,
            report,
            unprocessed,
            duration_seconds: seconds,
            files,
            missing_items: absent,
            rejected,
            outputs,
            replaceable,
            max_cost,
            scope,
            fresh,
            retry,
            layout,
        };
        let outcome = serde_json::to_value(outcome).unwrap_or_default();
        self.store.finish_session(self.persistence.run, state, &outcome).await
    }

    /// Returns the items that are missing from the input, as far as that is known now.
    fn missing_items(&self, ended: RunOutcome) -> Vec<(i64, i64)> {
        let seen_items = self.persistence.seen_items.lock().unwrap_or_else(PoisonError::into_inner);
        if ended == RunOutcome::Completed && !self.is_partial {
            seen_items.missing_ranges(self.persistence.session.last_item)
        } else {
            seen_items.still_missing(&self.outcome.missing_items)
        }
    }

    /// Returns the fields of the items of the input, if it was read to its end.
    fn input_fields(&self, ended: RunOutcome) -> Option<InputFields> {
        if ended != RunOutcome::Completed || self.is_partial {
            return None;
        }
        let fields =
            self.persistence.input_fields.lock().unwrap_or_else(PoisonError::into_inner).fields(false);
        // An input without items has columns, too, if it is a table.
        (!fields.names.is_empty()).then_some(fields)
    }

    /// Returns the part of the input that no session has started, as far as that is known now.
    fn unprocessed(&self, ending: &SessionEnd) -> Option<Unprocessed> {
        match ending {
            SessionEnd::Reported(report) if report.unprocessed.is_some() => report.unprocessed,
            SessionEnd::Reported(report) if report.outcome == RunOutcome::Completed && !self.is_partial => {
                None
            }
            // It processed only failed items.
            SessionEnd::Reported(_) => self.outcome.unprocessed,
            SessionEnd::NoReport(_) => Some(Unprocessed::UNKNOWN),
        }
    }

    /// Returns how many records of the input were rejected, as far as that is known now.
    fn rejected_records(&self, ending: &SessionEnd) -> u64 {
        match ending {
            SessionEnd::Reported(report) if report.outcome == RunOutcome::Completed && !self.is_partial => {
                report.items.rejected
            }
            SessionEnd::Reported(_) | SessionEnd::NoReport(_) => self.outcome.rejected,
        }
    }

    pub(super) fn run(&self) -> RunNumber {
        self.persistence.run
    }
}
