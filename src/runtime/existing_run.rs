//! Finds a stored run, locks it and compares it with the present configuration.

use crate::pipeline::RunManifest;
use crate::run::input_totals;
use crate::store::{RunLock, RunNumber, RunState, RunTotals, StoredRun};

use super::error::Error;
use super::file_digest;
use super::outcome::stored_outcome;
use super::resume_options::ResumeOptions;

/// The suffix of a simulated run's identity.
pub(super) const SIMULATED_SUFFIX: &str = " (simulated)";

/// The suffix that an earlier version wrote.
const LEGACY_SIMULATED_SUFFIX: &str = " (practice)";

/// A stored run that is locked by this process.
#[derive(Debug)]
pub(super) struct ExistingRun {
    pub(super) run: StoredRun,
    pub(super) lock: RunLock,
    /// The totals of all its items.
    pub(super) totals: RunTotals,
    /// The totals of the items in its present input, as far as that is known.
    pub(super) input_totals: RunTotals,
    /// Whether a change affects items, so that finished items are processed again.
    pub(super) restarts_items: bool,
    pub(super) is_up_to_date: bool,
    pub(super) notes: Vec<String>,
}

impl ResumeOptions {
    /// Returns the run to resume; `None` if a new run begins, for example because the last one was cancelled.
    pub(super) async fn find_run(&self) -> Result<Option<RunNumber>, Error> {
        if let Some(run) = self.run {
            return Ok(Some(run));
        }
        let found = if self.force_new { None } else { self.store.find_latest(&self.identity).await? };
        Ok(found.filter(|run| run.state != RunState::Cancelled).map(|run| run.number))
    }

    /// Locks an existing run, and compares its manifest with the present one. `attaches` is whether its items
    /// attach files.
    pub(super) async fn open_existing(
        &self,
        run: RunNumber,
        manifest: &RunManifest,
        attaches: bool,
    ) -> Result<ExistingRun, Error> {
        let store = &self.store;
        let lock = store.lock(run)?;
        // Read under the lock: another process may have accepted changes since the run was found.
        let run = store.run(run).await?;
        let is_simulated = self.identity.ends_with(SIMULATED_SUFFIX);
        match (is_simulated, was_simulated(&run)) {
            (true, false) => return Err(Error::RealRun(run.number)),
            (false, true) => return Err(Error::SimulatedRun(run.number)),
            (true, true) | (false, false) => {}
        }
        store.verify_rows(run.number).await?;
        let before = RunManifest::of_run(&run)?.with_changed_models(&stored_outcome(&run).changed_models);
        let changes = before.diff(manifest);
        let totals = store.totals(run.number).await?;
        let input_totals = input_totals(&**store, &run).await?;
        let mut notes = Vec::new();
        if !changes.is_empty() && !self.accept_changes {
            let answered = store.answer_counts(run.number).await?;
            if changes.may_discard(&answered, totals.finished(), &before, manifest) {
                return Err(Error::Changed {
                    run: run.number,
                    finished: totals.finished(),
                    answers: answered.values().sum(),
                    still_valid: changes.count_valid_answers(&answered, &before, manifest),
                    changes: Box::new(changes),
                    has_earlier_versions: run.revision > 1,
                });
            }
            let number = run.number;
            notes.push(format!(
                "run {number} has changed since it began: {changes}; every answer stays valid"
            ));
        }
        // Attached files are compared item by item.
        let is_as_before = run.state == RunState::Completed
            && changes.is_empty()
            && run.metadata.command == self.command
            && !attaches;
        let is_up_to_date = is_as_before && files_unchanged(&run).await;
        Ok(ExistingRun {
            run,
            lock,
            totals,
            input_totals,
            restarts_items: changes.affects_finished_items(),
            is_up_to_date,
            notes,
        })
    }
}

/// Returns whether a run's answers are simulated.
pub(super) fn was_simulated(run: &StoredRun) -> bool {
    run.identity.ends_with(SIMULATED_SUFFIX) || run.identity.ends_with(LEGACY_SIMULATED_SUFFIX)
}

/// Returns whether the files of a completed run are unchanged.
async fn files_unchanged(run: &StoredRun) -> bool {
    let outcome = stored_outcome(run);
    let unchanged = move || !outcome.files.is_empty() && file_digest::all_match(&outcome.files);
    tokio::task::spawn_blocking(unchanged).await.unwrap_or(false)
}
