//! What an overview of the daemon shows, and what of it is remembered for a moment, so that many watchers cost as much as
//! one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::provider::Snapshot;
use crate::run::{Cap, Report};
use crate::store::{RunNumber, RunTotals, StoredRun};
use crate::types::{Class, ItemKey, StepName};

use super::history_samples::HistorySample;
use super::views::RunView;

/// How long an overview is used again.
const MAX_OVERVIEW_AGE: Duration = Duration::from_millis(900);

/// How long the failures are used again: they are read from the items of several runs.
const MAX_FAILURES_AGE: Duration = Duration::from_secs(10);

/// How many runs that have ended are remembered with their totals.
const MAX_TOTALS: usize = 1_000;

/// How many runs that have ended are remembered with their reports.
const MAX_REPORTS: usize = 16;

/// The daemon at one instant, as far as a caller may see it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Overview {
    /// The runs, the newest first: all that are in progress or paused, as far as they are not too many, and the latest.
    pub runs: Vec<CountedRun>,
    /// What concerns all callers; `None` for a caller that sees only its own runs.
    pub process: Option<ProcessView>,
}

/// A run with its counts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CountedRun {
    /// The run.
    pub run: RunView,
    /// The counts of its items; `None` while its progress has them.
    pub totals: Option<RunTotals>,
}

/// What concerns all callers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessView {
    /// What the operator should know, such as a faulty configuration.
    pub notices: Vec<String>,
    /// The providers.
    pub providers: Vec<Snapshot>,
    /// The caps of the day.
    pub caps: Vec<Cap>,
    /// What was spent today, UTC; `None` if it cannot be read.
    pub spent_today: Option<SpentToday>,
    /// The samples of the last hour, the oldest first.
    pub samples: Vec<HistorySample>,
    /// Why requests and items failed, by class.
    pub failures: Arc<Vec<FailureGroup>>,
}

/// What was spent today, in US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct SpentToday {
    /// The known cost.
    pub cost_usd: f64,
    /// The cost of calls that may have been charged and whose usage is unknown.
    pub uncertain_usd: f64,
}

/// The failures of one class.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailureGroup {
    /// The class.
    pub class: Class,
    /// Requests that failed since the daemon started.
    pub requests: u64,
    /// Items that failed in the latest sessions of the latest runs.
    pub items: u64,
    /// Whether there may be more such items: those of a run in progress are not all counted.
    pub has_more_items: bool,
    /// An item that failed; `None` if none was found.
    pub example: Option<FailureExample>,
}

/// An item that failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailureExample {
    /// Its run.
    pub run: RunNumber,
    /// Its key.
    pub key: ItemKey,
    /// The step that failed.
    pub step: Option<StepName>,
    /// What happened.
    pub message: String,
}

/// A run in detail.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunDetails {
    /// The run with its counts.
    pub summary: CountedRun,
    /// Its report; `None` while it is in progress, and after a crash until it is resumed.
    pub report: Option<Arc<Report>>,
    /// Why items failed, by class.
    pub failures: Vec<FailureGroup>,
}

/// What is remembered for a moment.
#[derive(Debug, Default)]
pub(super) struct OverviewCache {
    overview: tokio::sync::Mutex<Option<(Instant, Arc<Overview>)>>,
    failures: tokio::sync::Mutex<Option<(Instant, Arc<Vec<FailureGroup>>)>>,
    totals: Mutex<HashMap<RunNumber, (RunState, RunTotals)>>,
    reports: Mutex<Vec<(RunNumber, RunState, Arc<Report>)>>,
}

/// What changes when an ended run is resumed, retried or cancelled.
type RunState = (i64, i64, &'static str);

impl OverviewCache {
    /// Returns the overview for callers that see everything. While one caller makes it, the others wait.
    pub(super) async fn overview<E>(
        &self,
        make: impl Future<Output = Result<Overview, E>>,
    ) -> Result<Arc<Overview>, E> {
        let mut slot = self.overview.lock().await;
        let fresh = slot.as_ref().filter(|(at, _)| at.elapsed() < MAX_OVERVIEW_AGE);
        if let Some((_, overview)) = fresh {
            return Ok(overview.clone());
        }
        let overview = Arc::new(make.await?);
        *slot = Some((Instant::now(), overview.clone()));
        Ok(overview)
    }

    /// Returns the failures of the overview.
    pub(super) async fn failures(
        &self,
        make: impl Future<Output = Vec<FailureGroup>>,
    ) -> Arc<Vec<FailureGroup>> {
        let mut slot = self.failures.lock().await;
        let fresh = slot.as_ref().filter(|(at, _)| at.elapsed() < MAX_FAILURES_AGE);
        if let Some((_, failures)) = fresh {
            return failures.clone();
        }
        let failures = Arc::new(make.await);
        *slot = Some((Instant::now(), failures.clone()));
        failures
    }

    /// Returns the totals of a run that has ended, if they are remembered.
    pub(super) fn totals(&self, run: &StoredRun) -> Option<RunTotals> {
        let totals = lock(&self.totals);
        totals.get(&run.number).filter(|(state, _)| *state == state_of(run)).map(|(_, totals)| *totals)
    }

    pub(super) fn remember_totals(&self, run: &StoredRun, totals: RunTotals) {
        let mut remembered = lock(&self.totals);
        if remembered.len() >= MAX_TOTALS {
            remembered.clear();
        }
        remembered.insert(run.number, (state_of(run), totals));
    }

    /// Returns the report of a run that has ended, if it is remembered.
    pub(super) fn report(&self, run: &StoredRun) -> Option<Arc<Report>> {
        let reports = lock(&self.reports);
        let is_same = |number: &RunNumber, state: &RunState| *number == run.number && *state == state_of(run);
        reports.iter().find(|(number, state, _)| is_same(number, state)).map(|(_, _, report)| report.clone())
    }

    pub(super) fn remember_report(&self, run: &StoredRun, report: Arc<Report>) {
        let mut reports = lock(&self.reports);
        reports.retain(|(number, _, _)| *number != run.number);
        if reports.len() >= MAX_REPORTS {
            reports.remove(0);
        }
        reports.push((run.number, state_of(run), report));
    }
}

fn state_of(run: &StoredRun) -> RunState {
    (run.updated_at, run.sessions, run.state.as_str())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
