//! What is stored of a run's sessions besides its items: the last report, and the files that the run reads and
//! writes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::run::{Unprocessed, is_last_session_lost};
use crate::sink::{ReplaceableFile, RowLayout, WrittenFile};
use crate::store::StoredRun;
use crate::types::{Class, ScopeName, TargetName};

use super::budgets::MaxCost;
use super::file_digest::FileDigest;

/// The stored outcome of a run's sessions.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredOutcome {
    /// The last session that stored its end: 0 before the first, `None` if an earlier version stored it.
    pub(super) session: Option<i64>,
    /// Whether a session before the present one did not store its end.
    pub(super) lost_session: bool,
    /// The report of that last session.
    pub(super) report: Value,
    /// The part of the input that no session has started. A session that only retries does not change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unprocessed: Option<Unprocessed>,
    /// The duration of all sessions together.
    #[serde(alias = "seconds")]
    pub(super) duration_seconds: f64,
    /// The digests of the files of a completed run.
    pub(super) files: Vec<FileDigest>,
    /// Items that were missing from the input when it was last read to its end: the first and the last of each
    /// range.
    #[serde(alias = "absent")]
    pub(super) missing_items: Vec<(i64, i64)>,
    /// Lines of the input that were not valid items, when it was last read to its end.
    pub(super) rejected: u64,
    /// The files that the sessions have written.
    pub(super) outputs: Vec<WrittenFile>,
    /// The files that the sessions did not write and may replace.
    pub(super) replaceable: Vec<ReplaceableFile>,
    /// The cap that was last set for the run.
    pub(super) max_cost: Option<MaxCost>,
    /// The scope that was last set for the run; empty for none.
    #[serde(skip_serializing_if = "ScopeName::is_empty")]
    pub(super) scope: ScopeName,
    /// Whether the run was begun although another one existed, so that every request is sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) fresh: bool,
    /// Targets whose model a reload has changed during a session. Their answers are of more than one model, so the next
    /// session counts the model as changed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) changed_models: BTreeSet<TargetName>,
    /// The classes of failed items that the last session processed again, if it processed only those.
    pub(super) retry: Option<Vec<Class>>,
    /// What the columns of the results are made from; `None` if only earlier versions worked on the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layout: Option<RowLayout>,
}

/// Returns the stored outcome of a run; the default if another version wrote it in a form that cannot be read.
pub(super) fn stored_outcome(run: &StoredRun) -> StoredOutcome {
    if run.outcome.is_null() {
        return StoredOutcome::of_new_run();
    }
    serde_json::from_value(run.outcome.clone()).unwrap_or_default()
}

/// Returns the stored outcome of a run whose next session is about to begin.
pub(super) fn outcome_before_session(run: &StoredRun) -> StoredOutcome {
    let mut outcome = stored_outcome(run);
    if is_last_session_lost(run) {
        outcome.lost_session = true;
        outcome.unprocessed = Some(Unprocessed::UNKNOWN);
    }
    outcome
}

/// Returns what the columns of a run's results are made from; `None` if only earlier versions worked on the run.
pub(super) fn stored_layout(run: &StoredRun) -> Option<RowLayout> {
    stored_outcome(run).layout
}

/// Returns how many lines of a run's input were rejected, when it was last read to its end.
pub fn rejected_count(run: &StoredRun) -> u64 {
    stored_outcome(run).rejected
}

/// Returns the classes of failed items that the last session of a run processed again, if it processed only
/// those.
pub fn retried_classes(run: &StoredRun) -> Option<Vec<Class>> {
    stored_outcome(run).retry
}

impl StoredOutcome {
    /// Returns the outcome of a run without a session.
    pub(super) fn of_new_run() -> Self {
        Self { session: Some(0), ..Self::default() }
    }

    /// Records what the columns of the results are made from, and returns whether that is new. Fields of the input that are
    /// not known now stay as they were; an input that is read again may have others.
    pub(super) fn set_layout(&mut self, mut layout: RowLayout, is_partial: bool) -> bool {
        let before = self.layout.take();
        let known = before.as_ref().and_then(|before| before.fields.clone());
        if layout.fields.is_none() || is_partial && known.is_some() {
            layout.fields = known;
            if let Some(fields) = layout.fields.as_mut().filter(|_| !is_partial) {
                fields.has_more = true;
            }
        }
        let is_new = before.as_ref() != Some(&layout);
        self.layout = Some(layout);
        is_new
    }

    /// Records files that a session opens. The files of earlier sessions stay recorded: an earlier file exists
    /// until it is replaced.
    pub(super) fn record_opened(&mut self, files: &[WrittenFile]) {
        for file in files {
            // A file that this session begins in another way may still have its earlier beginning.
            self.outputs.retain(|known| !known.is_same_file(file) || !known.begins_like(file));
            self.outputs.push(file.clone());
        }
    }

    /// Records files that a session may replace. If it ends before it has replaced them, a later session may.
    pub(super) fn record_replaceable(&mut self, files: Vec<ReplaceableFile>) {
        self.replaceable.retain(|known| files.iter().all(|file| file.path() != known.path()));
        self.replaceable.extend(files);
    }

    /// Records the run's files at the end of a session that has opened `files`; a file that was removed in the
    /// meantime has another identity now. Where a file was not written, only a file that was recorded before
    /// belongs to the run. `lengths` are those of what was written.
    pub(super) fn record_closed(
        &mut self,
        files: &[WrittenFile],
        is_written: bool,
        lengths: &[(PathBuf, u64)],
    ) {
        for file in files {
            let Ok(Some(now)) = WrittenFile::at(file.path()) else { continue };
            let known = self.outputs.iter().find(|known| known.is_same_file(&now));
            match known {
                _ if is_written => {
                    let length = lengths.iter().find(|(path, _)| path == file.path());
                    let bytes = length.map(|(_, bytes)| *bytes);
                    self.replace_at_path(now.with_beginning_of(file).with_bytes(bytes));
                }
                Some(known) => {
                    let now = now.with_beginning_of(known).with_bytes(known.bytes());
                    self.replace_at_path(now);
                }
                None => {}
            }
        }
    }

    /// Records a file in place of all others at its path.
    pub(super) fn replace_at_path(&mut self, file: WrittenFile) {
        self.outputs.retain(|known| known.path() != file.path() && !known.is_same_file(&file));
        self.replaceable.retain(|known| known.path() != file.path());
        self.outputs.push(file);
    }
}
