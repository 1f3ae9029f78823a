//! The runs on which the daemon works now.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::run::Progress;
use crate::runtime::RunControl;
use crate::store::RunNumber;

/// How long the progress of a run may take: it is published ten times a second.
const MAX_PROGRESS_WAIT: Duration = Duration::from_millis(500);

/// The runs on which the daemon works, and why others could not be resumed or ended.
#[derive(Debug, Default)]
pub(super) struct OpenRuns {
    state: Mutex<State>,
    /// Signals that a run is not open any more.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<RunNumber, RunControl>,
    /// Why open runs are being held: their calls in flight are finishing.
    held: HashMap<RunNumber, String>,
    problems: BTreeMap<RunNumber, String>,
}

impl OpenRuns {
    pub(super) fn insert(&self, run: RunNumber, control: RunControl) {
        let mut state = self.lock();
        state.problems.remove(&run);
        state.open.insert(run, control);
    }

    pub(super) fn remove(&self, run: RunNumber) {
        {
            let mut state = self.lock();
            state.open.remove(&run);
            state.held.remove(&run);
        }
        self.ended.notify_waiters();
    }

    /// Records why an open run is being held.
    pub(super) fn set_held(&self, run: RunNumber, why: String) {
        let mut state = self.lock();
        if state.open.contains_key(&run) {
            state.held.insert(run, why);
        }
    }

    /// Waits until a run is not open.
    pub(super) async fn ended(&self, run: RunNumber) {
        loop {
            let ended = self.ended.notified();
            if !self.lock().open.contains_key(&run) {
                return;
            }
            ended.await;
        }
    }

    /// Waits until no run is open.
    pub(super) async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.lock().open.is_empty() {
                return;
            }
            ended.await;
        }
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

    /// Returns the runs that could not be resumed, or whose end could not be stored.
    pub(super) fn with_problems(&self) -> Vec<RunNumber> {
        self.lock().problems.keys().copied().collect()
    }

    pub(super) fn forget(&self, run: RunNumber) {
        self.lock().problems.remove(&run);
    }

    /// Returns why a run could not be resumed, why its end could not be stored, or why it is being held.
    pub(super) fn problem(&self, run: RunNumber) -> Option<String> {
        let state = self.lock();
        state.problems.get(&run).or_else(|| state.held.get(&run)).cloned()
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
