//! The runs on which the daemon works now.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::run::Progress;
use crate::runtime::RunControl;
use crate::store::RunNumber;

/// How long the progress of a run may take: it is published ten times a second.
const MAX_PROGRESS_WAIT: Duration = Duration::from_millis(500);

/// The runs on which the daemon works, and why others could not be resumed.
#[derive(Debug, Default)]
pub(super) struct OpenRuns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: HashMap<RunNumber, RunControl>,
    problems: BTreeMap<RunNumber, String>,
}

impl OpenRuns {
    pub(super) fn insert(&self, run: RunNumber, control: RunControl) {
        let mut state = self.lock();
        state.problems.remove(&run);
        state.open.insert(run, control);
    }

    pub(super) fn remove(&self, run: RunNumber) {
        self.lock().open.remove(&run);
    }

    pub(super) fn control(&self, run: RunNumber) -> Option<RunControl> {
        self.lock().open.get(&run).cloned()
    }

    pub(super) fn numbers(&self) -> Vec<RunNumber> {
        self.lock().open.keys().copied().collect()
    }

    pub(super) fn set_problem(&self, run: RunNumber, problem: String) {
        self.lock().problems.insert(run, problem);
    }

    pub(super) fn forget(&self, run: RunNumber) {
        let mut state = self.lock();
        state.open.remove(&run);
        state.problems.remove(&run);
    }

    pub(super) fn problem(&self, run: RunNumber) -> Option<String> {
        self.lock().problems.get(&run).cloned()
    }

    /// Returns the present progress of a run; `None` if it is not open.
    pub(super) async fn progress(&self, run: RunNumber) -> Option<Progress> {
        let mut updates = self.control(run)?.updates()?;
        // The first value may be older than the last watcher. If the run ends meanwhile, the last value is right.
        drop(timeout(MAX_PROGRESS_WAIT, updates.changed()).await);
        let progress = updates.borrow().clone();
        Some(progress)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
