//! Reads a stored run: its lines, its report, its failures.
//!
//! Everything comes from the store, so it can be read at any time, even while the run is in progress. Sends no
//! requests.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::caps::{Cap, CapScope};
use super::failed_item::FailedItem;
use super::last_report::{LastReport, has_lost_session};
use super::output_line;
use super::report::{Report, RunOutcome};
use super::stats::RunStats;
use super::stored_steps;
use crate::pipeline::manifest::RunManifest;
use crate::sink::Line;
use crate::store::{
    Error, ItemNumber, RunNumber, RunState, RunTotals, Store, StoredItem, StoredRun, StoredStep,
};
use crate::types::{Class, ItemKey, NanoUsd, StepName};

/// Items that are read at once.
const PAGE_ITEMS: u32 = 500;

/// Returns the counts of a run's items that are in its input. Items that were removed from the input count only
/// for what they used.
///
/// # Errors
/// If the store cannot be read.
pub async fn input_totals(store: &dyn Store, run: &StoredRun) -> Result<RunTotals, Error> {
    let all = store.totals(run.number).await?;
    let missing_items = missing_ranges(run);
    if missing_items.is_empty() {
        return Ok(all);
    }
    Ok(all.without(store.item_counts(run.number, &missing_items).await?))
}

/// Returns the items that were not in the input when it was last read to its end, as ranges with both ends
/// included.
fn missing_ranges(run: &StoredRun) -> Vec<(i64, i64)> {
    let missing_items =
        outcome_field(run, "missing_items", "absent").cloned().map(serde_json::from_value).transpose();
    missing_items.ok().flatten().unwrap_or_default()
}

/// Returns the state of a run as a word. A run whose process ended without closing it has `crashed`.
pub fn state_word(store: &dyn Store, run: &StoredRun) -> &'static str {
    match run.state {
        RunState::Running if store.is_locked(run.number) => "running",
        RunState::Running if run.sessions == 0 => "empty",
        RunState::Running => "crashed",
        RunState::Completed
        | RunState::Stopped
        | RunState::Paused
        | RunState::IoFailed
        | RunState::Cancelled => run.state.as_str(),
    }
}

/// Returns why the last session of a run paused, and the class of the reason, if it paused.
pub fn pause_reason(run: &StoredRun) -> (Option<String>, Option<Class>) {
    if run.state != RunState::Paused {
        return (None, None);
    }
    let why = last_report_field(run, "paused").and_then(|why| serde_json::from_value(why).ok());
    let class = last_report_field(run, "paused_class").and_then(|class| serde_json::from_value(class).ok());
    (why, class)
}

/// Returns a field of the stored outcome by its name, or by the name that earlier builds used.
fn outcome_field<'a>(run: &'a StoredRun, name: &str, old_name: &str) -> Option<&'a Value> {
    run.outcome.get(name).or_else(|| run.outcome.get(old_name))
}

/// Returns a field of the report of a run's last session.
fn last_report_field(run: &StoredRun, key: &str) -> Option<Value> {
    run.outcome.get("report").and_then(|report| report.get(key)).cloned()
}

/// A stored run, for reading.
#[derive(Debug)]
pub struct History {
    store: Arc<dyn Store>,
    run: StoredRun,
    steps: Vec<StepName>,
    /// Items that were not in the input when it was last read to its end.
    missing_items: Vec<(i64, i64)>,
}

impl History {
    /// Looks a run up.
    ///
    /// # Errors
    /// If there is no such run, the store cannot be read, or rows of the run are missing.
    pub async fn of(store: Arc<dyn Store>, run: RunNumber) -> Result<Self, Error> {
        let run = store.run(run).await?;
        store.verify_rows(run.number).await?;
        Self::of_stored(store, run)
    }

    /// Reads a run without the check that all its rows are there, which counts them. For parts of a run.
    ///
    /// # Errors
    /// If what is stored of the run as a whole is damaged.
    pub fn of_stored(store: Arc<dyn Store>, run: StoredRun) -> Result<Self, Error> {
        let manifest = RunManifest::of_run(&run)?;
        let missing_items = missing_ranges(&run);
        Ok(Self { store, run, steps: manifest.steps.into_keys().collect(), missing_items })
    }

    /// Returns the run.
    pub fn run(&self) -> &StoredRun {
        &self.run
    }

    /// Returns the steps of its pipeline.
    pub fn steps(&self) -> &[StepName] {
        &self.steps
    }

    /// Calls `visit` with every started item, in the order in which they started, until it returns an error.
    ///
    /// # Errors
    /// Those of the store and of `visit`, and if a completed item lacks the result of a step.
    pub async fn items<E: From<Error>>(
        &self,
        mut visit: impl AsyncFnMut(&StoredItem) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = ItemNumber::default();
        loop {
            let page = self.page(after, PAGE_ITEMS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.head.number;
            for item in &page {
                self.verify(item)?;
                visit(item).await?;
            }
        }
    }

    /// Returns at most `max` started items after `after`, in the order in which they started.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn page(&self, after: ItemNumber, max: u32) -> Result<Vec<StoredItem>, Error> {
        self.store.items(self.run.number, after, max).await
    }

    /// Returns at most `max` failed items after `after`, in the order in which they started, including those that are
    /// not in the input any more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn failed_page(&self, after: ItemNumber, max: u32) -> Result<Vec<StoredItem>, Error> {
        self.store.failed(self.run.number, after, max).await
    }

    /// Returns the item with this key; `None` if no such item has started.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn item(&self, key: &ItemKey) -> Result<Option<StoredItem>, Error> {
        let found = self.store.look_up(self.run.number, std::slice::from_ref(key)).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// Returns the items with these keys, in their order; `None` for one that has not started.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn items_of(&self, keys: &[ItemKey]) -> Result<Vec<Option<StoredItem>>, Error> {
        self.store.look_up(self.run.number, keys).await
    }

    /// Returns the fields of an item; `None` if they are not stored.
    pub fn fields(&self, item: &StoredItem) -> Option<Value> {
        output_line::stored_fields(item)
    }

    /// Fails if a completed item lacks the result of a step.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the item and the step.
    pub fn verify(&self, item: &StoredItem) -> Result<(), Error> {
        stored_steps::verify(&*self.store, self.run.number, self.run.revision, self.steps.iter(), item)
    }

    /// Creates the output line of an item; `None` if it has not finished. An item that finished before the
    /// pipeline changed keeps its line until it finishes again.
    pub fn line(&self, item: &StoredItem) -> Option<Line> {
        output_line::from_stored(self.steps.iter(), item, item.head.line)
    }

    /// Returns whether an item finished before the pipeline changed. The next run repeats the requests that the
    /// change affects.
    pub fn is_outdated(&self, item: &StoredItem) -> bool {
        item.outcome.as_ref().is_some_and(|outcome| outcome.revision != self.run.revision)
    }

    /// Returns whether an item was in the input when it was last read to its end, or finished since.
    pub fn is_in_input(&self, item: ItemNumber) -> bool {
        let after = self.missing_items.partition_point(|(first, _)| *first <= item.0);
        self.missing_items[..after].last().is_none_or(|(_, last)| item.0 > *last)
    }

    /// Calls `visit` with every failed item of the input, in the order in which they started, until it returns
    /// an error.
    ///
    /// # Errors
    /// Those of the store and of `visit`.
    pub async fn failed_items<E: From<Error>>(
        &self,
        mut visit: impl AsyncFnMut(&StoredItem) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = ItemNumber::default();
        loop {
            let page = self.failed_page(after, PAGE_ITEMS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.head.number;
            for item in page.iter().filter(|item| self.is_in_input(item.head.number)) {
                visit(item).await?;
            }
        }
    }

    /// Returns why an item failed; `None` if it has not.
    pub fn failure(&self, item: &StoredItem) -> Option<FailedItem> {
        FailedItem::of(item)
    }

    /// Creates the report of all its sessions together. Its counts of items are those of the last session's own
    /// report, where that session counted all of them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn report(&self) -> Result<Report, Error> {
        let mut stats = RunStats::new(self.steps.iter().cloned());
        // Not with `items`: a future with its closure cannot be sent to another thread.
        let mut after = ItemNumber::default();
        loop {
            let page = self.page(after, PAGE_ITEMS).await?;
            let Some(last) = page.last() else { break };
            after = last.head.number;
            for item in &page {
                self.verify(item)?;
                self.count(item, &mut stats);
            }
        }
        let last = LastReport::of(&self.run);
        last.complete(&mut stats.items, &mut stats.calls);
        let is_active = self.store.is_locked(self.run.number);
        let run_outcome = match self.run.state {
            RunState::Completed => RunOutcome::Completed,
            RunState::Paused => RunOutcome::Paused,
            RunState::Running if is_active => RunOutcome::Running,
            RunState::Running | RunState::Stopped | RunState::Cancelled => RunOutcome::Interrupted,
            RunState::IoFailed => RunOutcome::IoFailed,
        };
        // Time between sessions does not count. A run that never ended a session has no other time.
        let active_seconds = outcome_field(&self.run, "duration_seconds", "seconds")
            .and_then(Value::as_f64)
            .filter(|seconds| *seconds > 0.0);
        let took = active_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let span = Duration::from_millis(self.run.updated_at.abs_diff(self.run.created_at));
        let mut report = stats.report(&self.run.metadata.name, run_outcome, took.unwrap_or(span));
        let recorded = self.store.spent_by(self.run.number).await?;
        let uncertain: u64 = recorded.values().map(|spend| spend.uncertain_cost.0).sum();
        report.run = Some(self.run.number);
        report.state = Some(state_word(&*self.store, &self.run));
        report.stored = true;
        report.lost_session = has_lost_session(&self.run, is_active);
        if report.lost_session || self.run.state == RunState::Running {
            report.duration_seconds = None;
            report.items_per_second = None;
        }
        report.unprocessed = last.unprocessed;
        report.unsaved = last.unsaved;
        report.first_reject = last.first_reject;
        report.unreplaced_output = last.unreplaced_output;
        report.input_error = last.input_error;
        report.output_error = last.output_error;
        report.store_error = last.store_error;
        report.uncertain_cost_usd = NanoUsd(uncertain).dollars();
        if run_outcome == RunOutcome::Paused {
            self.add_pause(&mut report);
        }
        Ok(report)
    }

    fn count(&self, item: &StoredItem, stats: &mut RunStats) {
        for StoredStep { record, .. } in &item.steps {
            stats.count_request(&record.step, &record.attempts, record.simulated);
            stats.cache.count(record);
        }
        if !self.is_in_input(item.head.number) {
            stats.items.missing_from_input += 1;
            return;
        }
        match &item.outcome {
            Some(outcome) => {
                let error = outcome.error.as_ref().map(|(step, failure)| (step, failure));
                stats.count_item(outcome.status, error, outcome.duration);
                // It keeps its line until the next run processes it.
                stats.items.not_processed += u64::from(self.is_outdated(item));
            }
            None if self.run.state == RunState::Paused => stats.items.paused += 1,
            None => stats.items.unfinished += 1,
        }
    }

    /// Adds why the last session paused, and the run's own cap. The caps of a day belong to the day of that
    /// session.
    fn add_pause(&self, report: &mut Report) {
        let (reason, class) = pause_reason(&self.run);
        report.paused = reason;
        report.paused_class = class;
        report.max_failures_reached = last_report_field(&self.run, "max_failures_reached")
            .and_then(|reached| reached.as_bool())
            .unwrap_or_default();
        let caps = last_report_field(&self.run, "caps")
            .and_then(|caps| serde_json::from_value::<Vec<Cap>>(caps).ok());
        report.caps = caps.into_iter().flatten().filter(|cap| cap.scope == CapScope::Run).collect();
    }
}
