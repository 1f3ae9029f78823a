//! What is kept of a run's sessions beside its items: the last report, and the files that the run reads and writes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sink::{ReplaceableFile, WrittenFile};
use crate::store::KnownRun;
use crate::types::Class;

use super::capped::MaxCost;
use super::marks::Mark;

/// What is kept of a session's end.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Outcome {
    pub(super) report: Value,
    /// How long all sessions together were at work.
    pub(super) seconds: f64,
    /// What the files held of a run that is complete.
    pub(super) files: Vec<Mark>,
    /// Items that the input did not have when it was last read to its end: the first and the last of each group.
    pub(super) absent: Vec<(i64, i64)>,
    /// Pieces of the input that were no items, when it was last read to its end.
    pub(super) rejected: u64,
    /// The files that its sessions have written.
    pub(super) outputs: Vec<WrittenFile>,
    /// The files that its sessions did not write and were allowed to replace.
    pub(super) replaceable: Vec<ReplaceableFile>,
    /// The cap that was named last for the run.
    pub(super) max_cost: Option<MaxCost>,
    /// The classes of failed items that the last session asked again, where it asked those alone.
    pub(super) retry: Option<Vec<Class>>,
}

/// Returns what the last session noted; what cannot be read was written by another version.
pub(super) fn outcome_of(run: &KnownRun) -> Outcome {
    serde_json::from_value(run.outcome.clone()).unwrap_or_default()
}

/// Returns how many pieces of a run's input were no items, when that was last read to its end.
pub fn rejected_by(run: &KnownRun) -> u64 {
    outcome_of(run).rejected
}

/// Returns which failed items the last session of a run asked again, where it asked those alone.
pub fn retried_by(run: &KnownRun) -> Option<Vec<Class>> {
    outcome_of(run).retry
}

impl Outcome {
    /// Notes files that a session opens. What was known before stays known: until a successor takes its place, an
    /// earlier file is there.
    pub(super) fn open(&mut self, files: &[WrittenFile]) {
        for file in files {
            self.outputs.retain(|known| !known.is_same_file(file));
            self.outputs.push(file.clone());
        }
    }

    /// Notes files that a session may replace. A session that ends before it has replaced them leaves that to a later one.
    pub(super) fn allow(&mut self, files: Vec<ReplaceableFile>) {
        self.replaceable.retain(|known| files.iter().all(|file| file.path() != known.path()));
        self.replaceable.extend(files);
    }

    /// Notes the run's files at the end of a session that has opened `files`: one that was removed meanwhile is another
    /// now. Where a file could not be written, or was left as it was, only what was known before is the run's.
    pub(super) fn close(&mut self, files: &[WrittenFile], is_written: bool) {
        for file in files {
            let Ok(Some(now)) = WrittenFile::at(file.path()) else { continue };
            if is_written || self.outputs.iter().any(|known| known.is_same_file(&now)) {
                self.replace(now);
            }
        }
    }

    /// Notes a file in place of all others that were at its path.
    pub(super) fn replace(&mut self, file: WrittenFile) {
        self.outputs.retain(|known| known.path() != file.path() && !known.is_same_file(&file));
        self.replaceable.retain(|known| known.path() != file.path());
        self.outputs.push(file);
    }
}
