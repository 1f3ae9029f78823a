//! Reads a kept run again: its lines, its report, its failures.
//!
//! Everything comes from the store, so it can be read at any time, also while the run is at work. Asks nobody.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::line;
use super::money::{Cap, CapOf};
use super::report::{Ended, Report};
use super::tally::Tally;
use crate::pipeline::grounds::Grounds;
use crate::sink::Line;
use crate::store::{Error, ItemNumber, KnownItem, KnownRun, KnownStep, RunNumber, RunState, Store, Sums};
use crate::types::{Class, NanoUsd, StepName};

/// Items that are read at once.
const PAGE: u32 = 500;

/// Returns how many items of its input a run has; those that have left the input count for nothing but what they took.
///
/// # Errors
/// When the store cannot be read.
pub async fn sums_of_input(store: &dyn Store, run: &KnownRun) -> Result<Sums, Error> {
    let all = store.sums(run.number).await?;
    let absent = absent_from_input(run);
    if absent.is_empty() {
        return Ok(all);
    }
    Ok(all.without(store.counts(run.number, &absent).await?))
}

/// Returns the items that the input did not have when it was last read to its end: the first and the last of each group.
fn absent_from_input(run: &KnownRun) -> Vec<(i64, i64)> {
    let absent = run.outcome.get("absent").cloned().map(serde_json::from_value).transpose();
    absent.ok().flatten().unwrap_or_default()
}

/// Returns why the last session of a run paused, and the class of that, if it did.
pub fn pause_of(run: &KnownRun) -> (Option<String>, Option<Class>) {
    if run.state != RunState::Paused {
        return (None, None);
    }
    let why = last(run, "paused").and_then(|why| serde_json::from_value(why).ok());
    let class = last(run, "paused_class").and_then(|class| serde_json::from_value(class).ok());
    (why, class)
}

/// Returns a part of the report of a run's last session.
fn last(run: &KnownRun, key: &str) -> Option<Value> {
    run.outcome.get("report").and_then(|report| report.get(key)).cloned()
}

/// A kept run, to be read.
#[derive(Debug)]
pub struct History {
    store: Arc<dyn Store>,
    run: KnownRun,
    steps: Vec<StepName>,
    /// Items that the input did not have when it was last read to its end.
    absent: Vec<(i64, i64)>,
}

impl History {
    /// Looks a run up.
    ///
    /// # Errors
    /// When there is no such run, or the store cannot be read.
    pub async fn of(store: Arc<dyn Store>, run: RunNumber) -> Result<Self, Error> {
        let run = store.run(run).await?;
        let grounds = Grounds::of_run(&run)?;
        let absent = absent_from_input(&run);
        Ok(Self { store, run, steps: grounds.steps.into_keys().collect(), absent })
    }

    /// Returns the run.
    pub fn run(&self) -> &KnownRun {
        &self.run
    }

    /// Returns the steps of its pipeline.
    pub fn steps(&self) -> &[StepName] {
        &self.steps
    }

    /// Gives `take` every item that was begun, in that order, until it wants no more.
    ///
    /// # Errors
    /// Those of the store, and of `take`.
    pub async fn items<E: From<Error>>(
        &self,
        mut take: impl AsyncFnMut(&KnownItem) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = ItemNumber::default();
        loop {
            let page = self.store.items(self.run.number, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.head.number;
            for item in &page {
                take(item).await?;
            }
        }
    }

    /// Makes the output line of an item; `None` when it has not settled. One that settled before the pipeline
    /// changed keeps its line until it settles again.
    pub fn line(&self, item: &KnownItem) -> Option<Line> {
        line::earlier(self.steps.iter(), item, item.head.line)
    }

    /// Returns whether an item settled before the pipeline changed: the next run asks again what that reaches.
    pub fn is_outdated(&self, item: &KnownItem) -> bool {
        item.settled.as_ref().is_some_and(|settled| settled.edition != self.run.edition)
    }

    /// Returns whether the input had an item when it was last read to its end, or it settled since.
    pub fn is_in_input(&self, item: ItemNumber) -> bool {
        let after = self.absent.partition_point(|(first, _)| *first <= item.0);
        self.absent[..after].last().is_none_or(|(_, last)| item.0 > *last)
    }

    /// Gives `take` every item of the input that has failed, in the order in which they were begun, until it wants no more.
    ///
    /// # Errors
    /// Those of the store, and of `take`.
    pub async fn failed<E: From<Error>>(
        &self,
        mut take: impl AsyncFnMut(&KnownItem) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = ItemNumber::default();
        loop {
            let page = self.store.failed(self.run.number, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.head.number;
            for item in page.iter().filter(|item| self.is_in_input(item.head.number)) {
                take(item).await?;
            }
        }
    }

    /// Makes the report of all of its sessions together.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn report(&self) -> Result<Report, Error> {
        let mut tally = Tally::new(self.steps.iter().cloned());
        self.items(async |item: &KnownItem| {
            for KnownStep { record, .. } in &item.steps {
                tally.question(&record.step, &record.trail, record.practice);
            }
            if !self.is_in_input(item.head.number) {
                tally.items.gone += 1;
                return Ok(());
            }
            match item.settled.as_ref().filter(|settled| settled.edition == self.run.edition) {
                Some(settled) => {
                    let error = settled.error.as_ref().map(|(step, failure)| (step, failure));
                    tally.settled(settled.status, error, settled.took);
                }
                None if self.run.state == RunState::Paused => tally.items.paused += 1,
                None => tally.items.unfinished += 1,
            }
            Ok::<_, Error>(())
        })
        .await?;
        let ended = match self.run.state {
            RunState::Complete => Ended::Whole,
            RunState::Paused => Ended::Paused,
            RunState::Open | RunState::Stopped | RunState::Cancelled => Ended::Interrupted,
            RunState::Broken => Ended::Broken,
        };
        // The time that it was not at work is none of it. One that never ended a session has no other.
        let worked = self.run.outcome.get("seconds").and_then(Value::as_f64).filter(|seconds| *seconds > 0.0);
        let took = worked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let span = Duration::from_millis(self.run.touched.abs_diff(self.run.begun));
        let mut report = tally.report(&self.run.outline.name, ended, took.unwrap_or(span));
        let booked = self.store.spent_by(self.run.number).await?;
        let perhaps: u64 = booked.values().map(|booked| booked.perhaps.0).sum();
        (report.kept, report.perhaps_cost_usd) = (true, NanoUsd(perhaps).dollars());
        if ended == Ended::Paused {
            self.tell_pause(&mut report);
        }
        Ok(report)
    }

    /// Tells why the last session paused, and the run's own cap: those of a day belong to the day of that session.
    fn tell_pause(&self, report: &mut Report) {
        (report.paused, report.paused_class) = pause_of(&self.run);
        let caps = last(&self.run, "caps").and_then(|caps| serde_json::from_value::<Vec<Cap>>(caps).ok());
        report.caps = caps.into_iter().flatten().filter(|cap| cap.of == CapOf::Run).collect();
    }
}
