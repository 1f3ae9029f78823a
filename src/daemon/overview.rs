//! An overview of the daemon for people: its runs, its providers, money, load and failures.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::clock;
use crate::run::{History, failed_items_by_class, input_totals};
use crate::store::{ItemNumber, RunFilter, RunNumber, RunState, RunTotals, StoredRun};
use crate::telemetry::{Samples, table};
use crate::types::{Class, Day};

use super::caller::Caller;
use super::daemon::Daemon;
use super::error::Error;
use super::history_samples::Reading;
use super::overview_view::{
    CountedRun, FailureExample, FailureGroup, Overview, ProcessView, RunDetails, SpentToday,
};
use super::page_size::PageSize;
use super::run_command::IDENTITY_PREFIX;
use super::runs::is_visible;

/// How many of the latest runs an overview has.
const LATEST_RUNS: usize = 20;

/// How many runs in progress, and how many paused ones, an overview has.
const MAX_UNFINISHED_RUNS: usize = 50;

/// How many runs are read for a caller that sees only its own.
const MAX_READ_RUNS: u32 = 500;

/// In how many of the latest runs failed items are looked for.
const RUNS_WITH_FAILURES: usize = 10;

impl Daemon {
    /// Returns an overview of what the caller may see.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn overview(&self, caller: &Caller) -> Result<Arc<Overview>, Error> {
        let daemon = self.clone();
        let caller = caller.clone();
        let sees_all = caller.sees_all;
        // On the runtime of the actors, because the caller's may have no timers.
        let work =
            async move { self.pointsman().work(async move { daemon.make_overview(&caller).await }).await? };
        if sees_all { self.overview_cache().overview(work).await } else { work.await.map(Arc::new) }
    }

    /// Returns a run in detail.
    ///
    /// # Errors
    /// If there is none, or the caller may not see it.
    pub async fn run_details(&self, run: RunNumber, caller: &Caller) -> Result<RunDetails, Error> {
        let (stored, _) = self.stored_run(run, caller).await?;
        let daemon = self.clone();
        self.pointsman().work(async move { daemon.make_details(stored).await }).await?
    }

    /// Adds a sample to the history of the last hour.
    pub(super) fn record_sample(&self) {
        let samples = self.pointsman().metric_samples();
        self.history_samples().record(Reading::of(&samples, Instant::now()), clock::milliseconds());
    }

    async fn make_overview(&self, caller: &Caller) -> Result<Overview, Error> {
        let runs = self.overview_runs(caller).await?;
        let summaries = join_all(runs.iter().map(|run| self.summary(run))).await;
        let summaries: Result<Vec<CountedRun>, Error> = summaries.into_iter().collect();
        let process = if caller.sees_all { Some(self.process_view(&runs).await) } else { None };
        Ok(Overview { runs: summaries?, process })
    }

    async fn make_details(&self, stored: StoredRun) -> Result<RunDetails, Error> {
        // Before the rows are read: what is read after its end is final.
        let is_open = self.open_runs().control(stored.number).is_some();
        let summary = self.summary(&stored).await?;
        // A report reads all items, so it is not made again and again while they change.
        let report = if is_open || stored.state == RunState::Running {
            None
        } else if let Some(report) = self.overview_cache().report(&stored) {
            Some(report)
        } else {
            let history = History::of(self.store().clone(), stored.number).await?;
            let report = Arc::new(history.report().await?);
            self.overview_cache().remember_report(history.run(), report.clone());
            Some(report)
        };
        let mut failures = self.failed_items(std::slice::from_ref(&stored)).await;
        if let Some(report) = &report {
            for (class, error) in &report.errors {
                let group = failures.entry(*class).or_insert_with(|| empty_group(*class));
                group.items = error.count;
                group.has_more_items = false;
            }
        }
        Ok(RunDetails { summary, report, failures: sorted(failures) })
    }

    /// Returns the runs of an overview, the newest first.
    async fn overview_runs(&self, caller: &Caller) -> Result<Vec<StoredRun>, Error> {
        let wanted = [
            (None, LATEST_RUNS),
            (Some(RunState::Running), MAX_UNFINISHED_RUNS),
            (Some(RunState::Paused), MAX_UNFINISHED_RUNS),
        ];
        let mut runs = BTreeMap::new();
        for (state, max) in wanted {
            let to_read = u32::try_from(max).unwrap_or(MAX_READ_RUNS);
            let filter = RunFilter {
                state,
                identity_prefix: Some(IDENTITY_PREFIX.to_owned()),
                max: if caller.sees_all { to_read } else { MAX_READ_RUNS },
                ..RunFilter::default()
            };
            let page = self.store().runs_page(&filter).await?;
            let visible = page.into_iter().filter(|run| is_visible(run, caller)).take(max);
            runs.extend(visible.map(|run| (run.number, run)));
        }
        Ok(runs.into_values().rev().collect())
    }

    async fn summary(&self, stored: &StoredRun) -> Result<CountedRun, Error> {
        let run = self.view(stored).await?;
        if run.progress.is_some() {
            return Ok(CountedRun { run, totals: None });
        }
        Ok(CountedRun { run, totals: Some(self.totals(stored).await?) })
    }

    /// Returns the counts of a run that is not open, from the rows of its items.
    pub(super) async fn totals(&self, stored: &StoredRun) -> Result<RunTotals, Error> {
        if let Some(totals) = self.overview_cache().totals(stored) {
            return Ok(totals);
        }
        let totals = input_totals(&**self.store(), stored).await?;
        if stored.state != RunState::Running {
            self.overview_cache().remember_totals(stored, totals);
        }
        Ok(totals)
    }

    async fn process_view(&self, runs: &[StoredRun]) -> ProcessView {
        let mut notices = Vec::new();
        if self.is_stopping() {
            notices.push("The daemon is stopping. It takes no more work.".to_owned());
        }
        if let Some(fault) = self.reload_fault() {
            notices.push(format!("The configuration is faulty, and the one before it is in use: {fault}"));
        }
        let today = Day::at(clock::milliseconds());
        let spent = self.spending(today, today, &[]).await;
        let spent_today = spent.ok().map(|rows| match rows.first() {
            Some(row) => SpentToday { cost_usd: row.cost_usd, uncertain_usd: row.uncertain_usd },
            None => SpentToday::default(),
        });
        ProcessView {
            notices,
            providers: self.providers(),
            caps: self.caps(),
            spent_today,
            samples: self.history_samples().all(),
            failures: self.overview_cache().failures(self.failures(runs)).await,
        }
    }

    /// Returns the failures of all requests, and of the items of these runs.
    async fn failures(&self, runs: &[StoredRun]) -> Vec<FailureGroup> {
        let mut groups = self.failed_items(runs).await;
        for (class, requests) in failed_requests(&self.pointsman().metric_samples()) {
            groups.entry(class).or_insert_with(|| empty_group(class)).requests = requests;
        }
        sorted(groups)
    }

    /// Returns the failed items of the first of these runs. What cannot be read is left out.
    async fn failed_items(&self, runs: &[StoredRun]) -> BTreeMap<Class, FailureGroup> {
        let mut groups = BTreeMap::<Class, FailureGroup>::new();
        for run in runs.iter().take(RUNS_WITH_FAILURES) {
            let counts = failed_items_by_class(run);
            let is_counted = counts.is_some();
            for (class, count) in counts.unwrap_or_default() {
                groups.entry(class).or_insert_with(|| empty_group(class)).items += count;
            }
            let Ok(history) = History::of_stored(self.store().clone(), run.clone()) else { continue };
            let max = PageSize::first().items();
            let Ok(failed) = history.failed_page(ItemNumber::default(), max).await else { continue };
            let has_more = !is_counted && failed.len() >= max as usize;
            for item in failed.iter().filter_map(|item| history.failure(item)) {
                let Some(class) = item.class else { continue };
                let group = groups.entry(class).or_insert_with(|| empty_group(class));
                group.items += u64::from(!is_counted);
                group.has_more_items |= has_more;
                group.example.get_or_insert(FailureExample {
                    run: run.number,
                    key: item.key,
                    step: item.step,
                    message: item.message,
                });
            }
        }
        groups
    }
}

fn empty_group(class: Class) -> FailureGroup {
    FailureGroup { class, requests: 0, items: 0, has_more_items: false, example: None }
}

/// Returns the groups with failures, the most frequent first.
fn sorted(groups: BTreeMap<Class, FailureGroup>) -> Vec<FailureGroup> {
    let mut groups: Vec<FailureGroup> = groups
        .into_values()
        .filter(|group| group.requests > 0 || group.items > 0 || group.example.is_some())
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.requests.max(group.items)));
    groups
}

/// Returns the number of requests that failed since the start, by class.
fn failed_requests(samples: &Samples) -> Vec<(Class, u64)> {
    let counts = samples.counters(&table::REQUESTS).filter(|(_, count)| *count > 0);
    let by_class = counts.filter_map(|(labels, count)| {
        let outcome = labels.first()?;
        let class = Class::ALL.into_iter().find(|class| class.as_str() == outcome)?;
        Some((class, count))
    });
    by_class.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_failed_are_counted_by_class_and_those_that_were_answered_are_not() {
        let mut samples = Samples::default();
        samples.counter(&table::REQUESTS, &["answered"], 9);
        samples.counter(&table::REQUESTS, &["timeout"], 2);
        samples.counter(&table::REQUESTS, &["auth"], 0);
        assert_eq!(failed_requests(&samples), [(Class::Timeout, 2)]);
    }

    #[test]
    fn the_most_frequent_class_is_first_and_one_without_failures_is_left_out() {
        let group =
            |class: Class, requests: u64, items: u64| FailureGroup { requests, items, ..empty_group(class) };
        let groups = [group(Class::Auth, 1, 0), group(Class::Timeout, 0, 5), group(Class::Quota, 0, 0)];
        let sorted = sorted(groups.into_iter().map(|group| (group.class, group)).collect());
        assert_eq!(sorted.iter().map(|group| group.class).collect::<Vec<_>>(), [Class::Timeout, Class::Auth]);
    }
}
