//! The files that a run has written.

use std::path::Path;

use crate::pipeline::{Pipeline, Step};
use crate::run::RunOutput;
use crate::sink::{OutputOwner, StepColumns, WrittenFile, WrittenLength};
use crate::store::{RunNumber, Store, StoredRun};
use crate::types::ResponseFormat;

use super::error::Error;
use super::existing_run::was_simulated;
use super::outcome::stored_outcome;
use super::pointsman::Pointsman;

impl Pointsman {
    /// Returns the owner of the output of a run of `pipeline` that is not stored: it owns no existing file. For a
    /// stored run see [`PreparedRun::owner`](super::PreparedRun::owner).
    #[doc(hidden)]
    pub fn owner(&self, pipeline: &Pipeline) -> OutputOwner {
        OutputOwner::default().simulated(self.is_simulated(pipeline))
    }
}

/// Returns the owner of the output of a stored run.
pub fn owner_of(run: &StoredRun) -> OutputOwner {
    OutputOwner::of(stored_outcome(run).outputs).simulated(was_simulated(run))
}

/// Records that the file at `path` now has lines of `run`, so that the run may replace it. An active run records
/// its files itself.
///
/// # Errors
/// If another process works on the run, the file cannot be read, or the store cannot be written.
pub async fn record_written(store: &dyn Store, run: RunNumber, path: &Path) -> Result<(), Error> {
    let _lock = store.lock(run)?;
    let known = store.run(run).await?;
    let mut outcome = stored_outcome(&known);
    let unread = |source| Error::System { what: "reading the output again", source };
    if let Some(file) = WrittenFile::at(path).map_err(unread)? {
        outcome.replace_at_path(file.with_present_content().map_err(unread)?);
    }
    // Writing a copy of its lines does not count as activity of the run.
    Ok(store.record_outcome(run, &serde_json::to_value(outcome).unwrap_or_default()).await?)
}

/// Returns the columns of the answers of a pipeline.
pub(super) fn step_columns(pipeline: &Pipeline) -> Vec<StepColumns> {
    let columns = |step: &Step| match step.response_format() {
        ResponseFormat::Json(schema) => StepColumns::of_schema(step.name.clone(), &schema),
        ResponseFormat::Text | ResponseFormat::Choice(_) => StepColumns::new(step.name.clone()),
    };
    pipeline.steps().iter().map(columns).collect()
}

/// Returns the files that `output` writes.
pub(super) fn output_files(output: &RunOutput) -> Vec<WrittenFile> {
    let rejects = output.rejects.as_ref().and_then(|rejects| rejects.file());
    output.lines.file().into_iter().chain(rejects).cloned().collect()
}

/// Returns the lengths that the files of `output` should have at the end.
pub(super) fn written_lengths(output: &RunOutput) -> Vec<WrittenLength> {
    let rejects = output.rejects.as_ref().and_then(|rejects| rejects.written_length());
    output.lines.written_length().into_iter().chain(rejects).collect()
}
