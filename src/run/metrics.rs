//! Metrics of runs, by pipeline. They outlive the runs that they count.
//!
//! A run looks its counts up once, when it is created, and then only adds to them. The names of pipelines come from the
//! caller, so only the first ones have counts of their own; all others share one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::pipeline::definition::Pipeline;
use crate::telemetry::{Bounds, Histogram, Samples, table};
use crate::types::{ItemStatus, NanoUsd};

/// Number of pipelines with counts of their own.
const MAX_PIPELINES: usize = 100;

/// Number of steps of a pipeline with counts of their own.
const MAX_STEPS: usize = 100;

/// The label of all other pipelines, and of all other steps of a pipeline.
const OTHER: &str = "other";

/// The metrics of all runs of a Pointsman. A clone counts together with the original.
#[derive(Debug, Clone, Default)]
pub struct RunMetrics(Arc<Mutex<BTreeMap<String, Arc<PipelineMetrics>>>>);

/// The counts of all runs of one pipeline.
#[derive(Debug)]
struct PipelineMetrics {
    completed: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    rejected: AtomicU64,
    restored_answers: AtomicU64,
    cache_hits: AtomicU64,
    /// In billionths of a US dollar.
    cache_saved: AtomicU64,
    validation_retries: AtomicU64,
    holds: AtomicU64,
    items_in_progress: AtomicU64,
    runs_holding: AtomicU64,
    item_times: Histogram,
    step_times: Mutex<BTreeMap<String, Arc<Histogram>>>,
}

/// Where one run counts.
#[derive(Debug, Clone)]
pub(super) struct RunCounts {
    pipeline: Arc<PipelineMetrics>,
    /// In the order of the pipeline.
    step_times: Vec<Arc<Histogram>>,
}

/// An item in progress. It counts as one until it is dropped.
#[derive(Debug)]
pub(super) struct ItemInProgress(Arc<PipelineMetrics>);

/// A run that holds. It counts as one until it is dropped.
#[derive(Debug)]
pub(super) struct RunHolding(Arc<PipelineMetrics>);

impl RunMetrics {
    /// Returns where a run of `pipeline` counts.
    pub(super) fn counts_of(&self, pipeline: &Pipeline) -> RunCounts {
        self.counts_of_steps(pipeline.name(), pipeline.steps().iter().map(|step| step.name.as_str()))
    }

    fn counts_of_steps<'a>(&self, pipeline: &str, steps: impl Iterator<Item = &'a str>) -> RunCounts {
        let pipeline = bounded_entry(&mut lock(&self.0), pipeline, MAX_PIPELINES, PipelineMetrics::new);
        let mut known_steps = lock(&pipeline.step_times);
        let new_times = || Histogram::new(Bounds::SECONDS);
        let step_times = steps.map(|step| bounded_entry(&mut known_steps, step, MAX_STEPS, new_times));
        let step_times = step_times.collect();
        drop(known_steps);
        RunCounts { pipeline, step_times }
    }

    /// Reports the counts of all pipelines.
    pub(crate) fn report_metrics(&self, samples: &mut Samples) {
        let pipelines = lock(&self.0).clone();
        for (name, pipeline) in &pipelines {
            pipeline.report_metrics(name, samples);
        }
    }
}

impl PipelineMetrics {
    fn new() -> Self {
        Self {
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            restored_answers: AtomicU64::new(0),
            cache_hits: AtomicU64::new(0),
            cache_saved: AtomicU64::new(0),
            validation_retries: AtomicU64::new(0),
            holds: AtomicU64::new(0),
            items_in_progress: AtomicU64::new(0),
            runs_holding: AtomicU64::new(0),
            item_times: Histogram::new(Bounds::SECONDS),
            step_times: Mutex::default(),
        }
    }

    fn report_metrics(&self, name: &str, samples: &mut Samples) {
        let items = [
            ("completed", &self.completed),
            ("failed", &self.failed),
            ("skipped", &self.skipped),
            ("rejected", &self.rejected),
        ];
        for (status, count) in items {
            samples.counter(&table::ITEMS, &[name, status], count.load(Relaxed));
        }
        samples.histogram(&table::ITEM_SECONDS, &[name], self.item_times.snapshot());
        for (step, times) in lock(&self.step_times).iter() {
            samples.histogram(&table::STEP_SECONDS, &[name, step.as_str()], times.snapshot());
        }
        samples.counter(&table::ANSWERS_RESTORED, &[name], self.restored_answers.load(Relaxed));
        samples.counter(&table::CACHE_HITS, &[name], self.cache_hits.load(Relaxed));
        let saved = NanoUsd(self.cache_saved.load(Relaxed)).dollars();
        samples.real_counter(&table::CACHE_SAVED_USD, &[name], saved);
        samples.counter(&table::VALIDATION_RETRIES, &[name], self.validation_retries.load(Relaxed));
        samples.counter(&table::HOLDS, &[name], self.holds.load(Relaxed));
        samples.gauge(&table::ITEMS_IN_PROGRESS, &[name], self.items_in_progress.load(Relaxed) as f64);
        samples.gauge(&table::RUNS_HOLDING, &[name], self.runs_holding.load(Relaxed) as f64);
    }
}

impl RunCounts {
    /// Counts an item that has started, until the returned value is dropped.
    pub(super) fn start_item(&self) -> ItemInProgress {
        self.pipeline.items_in_progress.fetch_add(1, Relaxed);
        ItemInProgress(self.pipeline.clone())
    }

    /// Counts an item that has finished in this session, and its answers that were restored from the store.
    pub(super) fn count_item(&self, status: ItemStatus, took: Duration, restored_answers: u64) {
        let count = match status {
            ItemStatus::Completed => &self.pipeline.completed,
            ItemStatus::Failed => &self.pipeline.failed,
            ItemStatus::Skipped => &self.pipeline.skipped,
        };
        count.fetch_add(1, Relaxed);
        self.pipeline.item_times.record(took);
        self.pipeline.restored_answers.fetch_add(restored_answers, Relaxed);
    }

    /// Counts answers that were taken from the answer cache, whose requests had cost `saved`.
    pub(super) fn count_cache_hits(&self, (answers, saved): (u64, NanoUsd)) {
        self.pipeline.cache_hits.fetch_add(answers, Relaxed);
        self.pipeline.cache_saved.fetch_add(saved.0, Relaxed);
    }

    /// Counts a piece of the input that is not an item.
    pub(super) fn count_rejected(&self) {
        self.pipeline.rejected.fetch_add(1, Relaxed);
    }

    /// Counts a retry after an answer that failed validation.
    pub(super) fn count_validation_retry(&self) {
        self.pipeline.validation_retries.fetch_add(1, Relaxed);
    }

    /// Counts a step that has ended, by its index in the pipeline.
    pub(super) fn count_step(&self, step: usize, took: Duration) {
        if let Some(times) = self.step_times.get(step) {
            times.record(took);
        }
    }

    /// Counts a hold that has begun. The run counts as holding until the returned value is dropped.
    pub(super) fn begin_hold(&self) -> RunHolding {
        self.pipeline.holds.fetch_add(1, Relaxed);
        self.pipeline.runs_holding.fetch_add(1, Relaxed);
        RunHolding(self.pipeline.clone())
    }
}

impl Drop for ItemInProgress {
    fn drop(&mut self) {
        self.0.items_in_progress.fetch_sub(1, Relaxed);
    }
}

impl Drop for RunHolding {
    fn drop(&mut self) {
        self.0.runs_holding.fetch_sub(1, Relaxed);
    }
}

/// Returns the entry of `name`, which is created if there are fewer than `max`; else that of all others.
fn bounded_entry<T>(
    entries: &mut BTreeMap<String, Arc<T>>,
    name: &str,
    max: usize,
    create: impl FnOnce() -> T,
) -> Arc<T> {
    let has_own_entry = entries.len() < max || entries.contains_key(name);
    let name = if has_own_entry { name } else { OTHER };
    entries.entry(name.to_owned()).or_insert_with(|| Arc::new(create())).clone()
}

/// A panic while the lock was held leaves complete entries.
fn lock<T>(entries: &Mutex<T>) -> MutexGuard<'_, T> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::text_of;

    fn text(metrics: &RunMetrics) -> String {
        let mut samples = Samples::default();
        metrics.report_metrics(&mut samples);
        text_of(&samples)
    }

    fn counts(metrics: &RunMetrics, pipeline: &str) -> RunCounts {
        metrics.counts_of_steps(pipeline, ["first", "second"].into_iter())
    }

    #[track_caller]
    fn assert_has_line(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }

    #[test]
    fn runs_of_one_pipeline_count_together_and_their_counts_stay_after_their_end() {
        let metrics = RunMetrics::default();
        for status in [ItemStatus::Completed, ItemStatus::Completed, ItemStatus::Failed] {
            let run = counts(&metrics, "mail");
            let item = run.start_item();
            run.count_step(1, Duration::from_millis(200));
            run.count_item(status, Duration::from_secs(2), 3);
            run.count_cache_hits((2, NanoUsd(250_000_000)));
            drop(item);
        }
        counts(&metrics, "news").count_rejected();
        let text = text(&metrics);
        for line in [
            r#"pointsman_items_total{pipeline="mail",status="completed"} 2"#,
            r#"pointsman_items_total{pipeline="mail",status="failed"} 1"#,
            r#"pointsman_items_total{pipeline="mail",status="skipped"} 0"#,
            r#"pointsman_items_total{pipeline="news",status="rejected"} 1"#,
            r#"pointsman_item_duration_seconds_sum{pipeline="mail"} 6.0"#,
            r#"pointsman_step_duration_seconds_count{pipeline="mail",step="first"} 0"#,
            r#"pointsman_step_duration_seconds_count{pipeline="mail",step="second"} 3"#,
            r#"pointsman_restored_answers_total{pipeline="mail"} 9"#,
            r#"pointsman_cache_hits_total{pipeline="mail"} 6"#,
            r#"pointsman_cache_saved_usd_total{pipeline="mail"} 0.75"#,
        ] {
            assert_has_line(&text, line);
        }
    }

    #[test]
    fn items_in_progress_and_holding_runs_are_counted_until_they_end() {
        let metrics = RunMetrics::default();
        let run = counts(&metrics, "mail");
        let items = [run.start_item(), run.start_item()];
        let hold = run.begin_hold();
        let during = text(&metrics);
        assert_has_line(&during, r#"pointsman_items_in_progress{pipeline="mail"} 2.0"#);
        assert_has_line(&during, r#"pointsman_holding_runs{pipeline="mail"} 1.0"#);
        drop((items, hold));
        let after = text(&metrics);
        assert_has_line(&after, r#"pointsman_items_in_progress{pipeline="mail"} 0.0"#);
        assert_has_line(&after, r#"pointsman_holding_runs{pipeline="mail"} 0.0"#);
        assert_has_line(&after, r#"pointsman_holds_total{pipeline="mail"} 1"#);
    }

    #[test]
    fn the_numbers_of_pipelines_and_of_steps_are_bounded_and_the_rest_counts_as_other() {
        let metrics = RunMetrics::default();
        let steps: Vec<String> = (0..300).map(|step| format!("step {step}")).collect();
        for number in 0..300 {
            let name = format!("pipeline {number}");
            let run = metrics.counts_of_steps(&name, steps.iter().map(String::as_str));
            run.count_rejected();
            (0..steps.len()).for_each(|step| run.count_step(step, Duration::from_secs(1)));
        }
        // A pipeline with counts of its own keeps them.
        counts(&metrics, "pipeline 7").count_rejected();
        let text = text(&metrics);
        let rejected = text.lines().filter(|line| line.contains(r#"status="rejected""#)).count();
        assert_eq!(rejected, MAX_PIPELINES + 1);
        let steps_of_first =
            |line: &&str| line.starts_with(r#"pointsman_step_duration_seconds_count{pipeline="pipeline 0","#);
        assert_eq!(text.lines().filter(steps_of_first).count(), MAX_STEPS + 1);
        for line in [
            r#"pointsman_items_total{pipeline="pipeline 7",status="rejected"} 2"#,
            r#"pointsman_items_total{pipeline="other",status="rejected"} 200"#,
            r#"pointsman_step_duration_seconds_count{pipeline="pipeline 0",step="other"} 200"#,
        ] {
            assert_has_line(&text, line);
        }
    }
}
