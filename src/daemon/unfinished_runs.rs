//! The runs of the daemon that have not ended: how many are in which state, and which of them an operator reads about.

use std::cmp::Reverse;

use futures_util::future::try_join_all;
use serde::Serialize;

use crate::run::{WaitingForScope, state_word};
use crate::store::{RunFilter, RunNumber, RunState, Store, StoredRun};
use crate::types::Class;

use super::daemon::Daemon;
use super::error::Error;
use super::run_command::IDENTITY_PREFIX;

/// How many runs are read at once.
const PAGE_RUNS: u32 = 500;

/// How many runs are listed.
const MAX_LISTED: usize = 20;

/// The states of a run that has not ended. In each of them it continues, or waits for an operator.
const UNFINISHED: [RunState; 4] =
    [RunState::Running, RunState::Paused, RunState::Stopped, RunState::IoFailed];

/// A run that has not ended, and what it waits for.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct UnfinishedRun {
    /// Its number.
    #[cfg_attr(feature = "server", schema(value_type = i64))]
    pub run: RunNumber,
    /// The name of its pipeline.
    pub pipeline: String,
    /// `running`, `holding`, `paused`, `stopped`, `io_error`, `crashed` or `empty`.
    pub state: &'static str,
    /// Why it holds, is paused, ended as an I/O error, or could not be resumed.
    pub reason: Option<String>,
    /// The class of that reason.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub class: Option<Class>,
    /// Set if its requests wait for the limits of its scope.
    #[cfg_attr(feature = "server", schema(value_type = Option<Object>))]
    pub waiting_for_scope: Option<WaitingForScope>,
}

/// How many runs are in which state, as the store has it. A run that holds is running here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StoredCounts {
    pub(super) running: usize,
    pub(super) paused: usize,
    pub(super) stopped: usize,
    pub(super) io_error: usize,
    /// Their process ended without closing them.
    pub(super) crashed: usize,
}

impl StoredCounts {
    pub(super) fn of(store: &dyn Store, runs: &[StoredRun]) -> Self {
        let mut counts = Self::default();
        for run in runs {
            let count = match run.state {
                RunState::Running if is_crashed(store, run) => &mut counts.crashed,
                RunState::Running => &mut counts.running,
                RunState::Paused => &mut counts.paused,
                RunState::Stopped => &mut counts.stopped,
                RunState::IoFailed => &mut counts.io_error,
                RunState::Completed | RunState::Cancelled => continue,
            };
            *count += 1;
        }
        counts
    }

    /// Returns the number of runs on which nothing works and which wait for no user.
    pub(super) fn stuck(&self) -> usize {
        self.stopped + self.io_error + self.crashed
    }
}

/// Returns whether the process of a run in progress has ended, possibly before its first session.
fn is_crashed(store: &dyn Store, run: &StoredRun) -> bool {
    matches!(state_word(store, run), "crashed" | "empty")
}

/// Returns how urgent a run is for an operator: the lowest number first.
fn urgency(store: &dyn Store, run: &StoredRun) -> u8 {
    match run.state {
        RunState::Stopped | RunState::IoFailed => 0,
        RunState::Running if is_crashed(store, run) => 0,
        RunState::Paused => 1,
        RunState::Running => 2,
        RunState::Completed | RunState::Cancelled => 3,
    }
}

impl Daemon {
    /// Returns the runs of the daemon that have not ended.
    pub(super) async fn unfinished_runs(&self) -> Result<Vec<StoredRun>, Error> {
        let mut found: Vec<StoredRun> = Vec::new();
        for state in UNFINISHED {
            let mut filter = RunFilter {
                state: Some(state),
                identity_prefix: Some(IDENTITY_PREFIX.to_owned()),
                max: PAGE_RUNS,
                ..RunFilter::default()
            };
            loop {
                let page = self.store().runs_page(&filter).await?;
                filter.before = page.last().map(|run| run.number);
                let is_last = page.len() < PAGE_RUNS as usize;
                found.extend(page);
                if is_last {
                    break;
                }
            }
        }
        // A run whose state changed meanwhile is counted once.
        found.sort_by_key(|run| Reverse(run.number));
        found.dedup_by_key(|run| run.number);
        Ok(found)
    }

    /// Returns what the most urgent of these runs wait for: first those that nothing continues, then those that wait for
    /// their user, each the newest first.
    pub(super) async fn most_urgent(&self, mut runs: Vec<StoredRun>) -> Result<Vec<UnfinishedRun>, Error> {
        let store = self.store();
        runs.sort_by_cached_key(|run| (urgency(&**store, run), Reverse(run.number)));
        runs.truncate(MAX_LISTED);
        // Together: each run in progress takes a moment to publish its progress.
        let views = try_join_all(runs.iter().map(|run| self.view(run))).await?;
        let listed = views.into_iter().map(|view| UnfinishedRun {
            run: view.run,
            pipeline: view.pipeline,
            state: view.state,
            reason: view.reason,
            class: view.class,
            waiting_for_scope: view.progress.and_then(|progress| progress.waiting_for_scope),
        });
        Ok(listed.collect())
    }
}
