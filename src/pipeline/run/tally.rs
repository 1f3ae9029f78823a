//! Counts what happens in a run. Its size depends on the pipeline, never on the number of items.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use indexmap::IndexMap;

use crate::types::{Attempt, Class, Failure, ItemStatus, NanoUsd, Outcome, StepName, Trail, Usage};

use super::report::{Calls, Ended, ErrorCount, Items, Part, Report, Times};

/// Everything a run has counted so far.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) items: Items,
    pub(super) calls: Calls,
    pub(super) tokens: Usage,
    pub(super) cost: NanoUsd,
    pub(super) practice: bool,
    pub(super) first_reject: Option<String>,
    unknown_cost: u64,
    item_times: Clock,
    steps: IndexMap<StepName, Share>,
    lanes: BTreeMap<String, Share>,
    errors: BTreeMap<Class, ErrorCount>,
    failed_calls: BTreeMap<Class, ErrorCount>,
}

#[derive(Debug)]
struct Share {
    calls: u64,
    failed: u64,
    took: Clock,
    waited: Clock,
    tokens: Usage,
    cost: NanoUsd,
    practice: bool,
}

/// Longest time that is told apart, in microseconds: thirty days.
const LONGEST: u64 = 30 * 24 * 60 * 60 * 1_000_000;

/// Times in microseconds, to three digits.
#[derive(Debug)]
struct Clock(Histogram<u64>);

impl Clock {
    fn new() -> Self {
        #[expect(clippy::expect_used, reason = "the only thing refused is more than five digits")]
        Self(Histogram::new(3).expect("three digits are accepted"))
    }

    fn add(&mut self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(LONGEST);
        // The histogram grows up to the longest time, so that recording cannot fail.
        let _ = self.0.record(microseconds);
    }

    fn times(&self) -> Times {
        let seconds = |microseconds: u64| microseconds as f64 / 1e6;
        let at = |quantile: f64| seconds(self.0.value_at_quantile(quantile));
        let (average, max) = (self.0.mean() / 1e6, seconds(self.0.max()));
        Times { average, p50: at(0.5), p95: at(0.95), p99: at(0.99), max }
    }
}

impl Share {
    fn new() -> Self {
        let (calls, failed, practice) = (0, 0, false);
        let (tokens, cost) = (Usage::default(), NanoUsd(0));
        Self { calls, failed, took: Clock::new(), waited: Clock::new(), tokens, cost, practice }
    }

    fn add(&mut self, attempt: &Attempt, practice: bool) {
        self.calls += 1;
        self.failed += u64::from(attempt.outcome != Outcome::Answered);
        self.took.add(attempt.took);
        self.waited.add(attempt.waited);
        self.tokens += attempt.usage.unwrap_or_default();
        self.cost += attempt.cost.unwrap_or_default();
        self.practice |= practice;
    }

    fn part(&self) -> Part {
        Part {
            calls: self.calls,
            failed: self.failed,
            seconds: self.took.times(),
            waited: self.waited.times(),
            tokens: self.tokens,
            cost_usd: self.cost.dollars(),
            practice: self.practice,
        }
    }
}

impl Tally {
    /// Makes an empty tally of a pipeline with these steps.
    pub(super) fn new(steps: impl IntoIterator<Item = StepName>) -> Self {
        Self {
            items: Items::default(),
            calls: Calls::default(),
            tokens: Usage::default(),
            cost: NanoUsd(0),
            practice: false,
            first_reject: None,
            unknown_cost: 0,
            item_times: Clock::new(),
            steps: steps.into_iter().map(|step| (step, Share::new())).collect(),
            lanes: BTreeMap::new(),
            errors: BTreeMap::new(),
            failed_calls: BTreeMap::new(),
        }
    }

    /// Counts one question of a step: every call that left for it.
    pub(super) fn question(&mut self, step: &StepName, trail: &Trail, practice: bool) {
        self.practice |= practice;
        self.calls.failovers += trail.failovers() as u64;
        self.calls.maybe_charged += trail.maybe_charged() as u64;
        for attempt in &trail.0 {
            let failure = match &attempt.outcome {
                Outcome::Refused(_) => continue,
                Outcome::Answered => None,
                Outcome::Failed(failure) => Some(failure),
            };
            self.call(step, attempt, failure, practice);
        }
    }

    fn call(&mut self, step: &StepName, attempt: &Attempt, failure: Option<&Failure>, practice: bool) {
        self.calls.made += 1;
        self.tokens += attempt.usage.unwrap_or_default();
        self.cost += attempt.cost.unwrap_or_default();
        match failure {
            None => {
                self.calls.answered += 1;
                self.unknown_cost += u64::from(attempt.cost.is_none());
            }
            Some(failure) => {
                self.calls.failed += 1;
                self.calls.throttled += u64::from(failure.class == Class::RateLimit);
                count(&mut self.failed_calls, failure.class, || {
                    format!("{}: {}", attempt.lane, failure.message)
                });
            }
        }
        if let Some(share) = self.steps.get_mut(step) {
            share.add(attempt, practice);
        }
        match self.lanes.get_mut(&attempt.lane.to_string()) {
            Some(share) => share.add(attempt, practice),
            None => {
                let mut share = Share::new();
                share.add(attempt, practice);
                self.lanes.insert(attempt.lane.to_string(), share);
            }
        }
    }

    /// Counts a question that is asked again because its answer failed the check.
    pub(super) fn reasked(&mut self) {
        self.calls.reasked += 1;
    }

    /// Counts an item that ended, and of what.
    pub(super) fn settled(
        &mut self,
        status: ItemStatus,
        error: Option<(&StepName, &Failure)>,
        took: Duration,
    ) {
        self.item_times.add(took);
        match status {
            ItemStatus::Completed => self.items.completed += 1,
            ItemStatus::Failed => self.items.failed += 1,
            ItemStatus::Skipped => self.items.skipped += 1,
        }
        if let Some((step, failure)) = error {
            count(&mut self.errors, failure.class, || format!("step {step}: {}", failure.message));
        }
    }

    /// Makes the report of a run that ended so after so long.
    pub(super) fn report(&self, pipeline: &str, ended: Ended, took: Duration) -> Report {
        let seconds = took.as_secs_f64();
        Report {
            pipeline: pipeline.to_owned(),
            ended,
            practice: self.practice,
            items: self.items,
            seconds,
            items_per_second: self.items.settled() as f64 / seconds.max(1e-9),
            item_seconds: self.item_times.times(),
            calls: self.calls,
            tokens: self.tokens,
            cost_usd: self.cost.dollars(),
            calls_of_unknown_cost: self.unknown_cost,
            steps: self.steps.iter().map(|(step, share)| (step.clone(), share.part())).collect(),
            lanes: self.lanes.iter().map(|(lane, share)| (lane.clone(), share.part())).collect(),
            errors: self.errors.clone(),
            failed_calls: self.failed_calls.clone(),
            first_reject: self.first_reject.clone(),
            output_error: None,
            reader_gone: false,
            input_error: None,
        }
    }
}

fn count(counts: &mut BTreeMap<Class, ErrorCount>, class: Class, example: impl FnOnce() -> String) {
    match counts.get_mut(&class) {
        Some(known) => known.count += 1,
        None => {
            counts.insert(class, ErrorCount { count: 1, example: example() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_three_digits() {
        let mut clock = Clock::new();
        (1..=1_000).for_each(|milliseconds| clock.add(Duration::from_millis(milliseconds)));
        clock.add(Duration::from_secs(7_200));
        let times = clock.times();
        let near = |seen: f64, meant: f64| (seen / meant - 1.0).abs() < 0.01;
        assert!(near(times.p50, 0.501) && near(times.p95, 0.951) && near(times.p99, 0.991), "{times:?}");
        assert!(near(times.max, 7_200.0) && near(times.average, 7_700.5 / 1_001.0), "{times:?}");
    }

    #[test]
    fn a_time_beyond_all_measure_still_counts() {
        let mut clock = Clock::new();
        clock.add(Duration::MAX);
        assert!(clock.times().max > 2_500_000.0);
    }
}
