//! Which files a run has written.

use std::path::Path;

use crate::pipeline::Pipeline;
use crate::run::Output;
use crate::sink::{Owner, WrittenFile};
use crate::store::{KnownRun, RunNumber, Store};

use super::error::Error;
use super::keep::was_simulated;
use super::outcome::outcome_of;
use super::pointsman::Pointsman;

impl Pointsman {
    /// Returns who writes the output of a run of `pipeline` that is not kept: it owns no file that is there. Of one
    /// that is kept, see [`Kept::owner`](super::Kept::owner).
    pub fn owner(&self, pipeline: &Pipeline) -> Owner {
        Owner::default().simulated(self.is_simulated(pipeline))
    }
}

/// Returns who writes the output of a run that is kept.
pub fn owner_of(run: &KnownRun) -> Owner {
    Owner::of(outcome_of(run).outputs).simulated(was_simulated(run))
}

/// Notes that the file at `path` now holds lines of `run`, so that the run may write it again. A run that is at work
/// notes its files itself.
///
/// # Errors
/// When another process is at work on the run, the file cannot be read, or the store not be written.
pub async fn note_written(store: &dyn Store, run: RunNumber, path: &Path) -> Result<(), Error> {
    let _lock = store.lock(run)?;
    let known = store.run(run).await?;
    let mut outcome = outcome_of(&known);
    let unread = |source| Error::System { what: "reading the output again", source };
    if let Some(file) = WrittenFile::at(path).map_err(unread)? {
        outcome.replace(file);
    }
    // A copy of its lines changes nothing of the run: its time stays.
    Ok(store.note(run, &serde_json::to_value(outcome).unwrap_or_default()).await?)
}

/// Returns the files that `output` writes.
pub(super) fn opened(output: &Output) -> Vec<WrittenFile> {
    let rejects = output.rejects.as_ref().and_then(|rejects| rejects.file());
    output.lines.file().into_iter().chain(rejects).cloned().collect()
}
