//! Counts what happens in a run. Its size depends on the pipeline, never on the number of items.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;

use crate::types::{Attempt, Class, Failure, ItemStatus, Outcome, StepName, Trail, Usage};

use super::report::{Calls, Ended, ErrorCount, Items, Report};
use super::share::{Clock, Cost, Share};

/// Everything a run has counted so far.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) items: Items,
    pub(super) calls: Calls,
    pub(super) tokens: Usage,
    pub(super) cost: Cost,
    pub(super) practice: bool,
    pub(super) first_reject: Option<String>,
    item_times: Clock,
    steps: IndexMap<StepName, Share>,
    lanes: BTreeMap<String, Share>,
    errors: BTreeMap<Class, ErrorCount>,
    failed_calls: BTreeMap<Class, ErrorCount>,
}

impl Tally {
    /// Makes an empty tally of a pipeline with these steps.
    pub(super) fn new(steps: impl IntoIterator<Item = StepName>) -> Self {
        Self {
            items: Items::default(),
            calls: Calls::default(),
            tokens: Usage::default(),
            cost: Cost::default(),
            practice: false,
            first_reject: None,
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
        self.calls.maybe_charged += trail.charged_in_vain() as u64;
        self.calls.hedged += trail.hedges() as u64;
        self.calls.forced += trail.forced() as u64;
        self.calls.lost += trail.lost() as u64;
        for attempt in &trail.0 {
            let failure = match &attempt.outcome {
                Outcome::Refused(_) => continue,
                Outcome::Answered | Outcome::Superseded => None,
                Outcome::BrokenOff => Some(Failure::new(Class::Cancelled, "broken off: everything stopped")),
                Outcome::Lost(failure) => {
                    self.cost.add(attempt);
                    count(&mut self.failed_calls, failure.class, || example(attempt, failure));
                    continue;
                }
                Outcome::Failed(failure) => Some(failure.clone()),
            };
            self.call(step, attempt, failure.as_ref(), practice);
        }
    }

    fn call(&mut self, step: &StepName, attempt: &Attempt, failure: Option<&Failure>, practice: bool) {
        self.calls.made += 1;
        self.tokens += attempt.usage.unwrap_or_default();
        self.cost.add(attempt);
        match failure {
            None if attempt.outcome == Outcome::Superseded => self.calls.beaten += 1,
            None => self.calls.answered += 1,
            Some(failure) => {
                self.calls.failed += 1;
                self.calls.throttled += u64::from(failure.class == Class::RateLimit);
                count(&mut self.failed_calls, failure.class, || example(attempt, failure));
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

    /// Counts questions that died half-way: nobody knows how many of their calls were made.
    pub(super) fn lost(&mut self, questions: u64) {
        self.calls.maybe_charged += questions;
    }

    /// Counts an item that ended, and of what.
    pub(super) fn settled(
        &mut self,
        status: ItemStatus,
        error: Option<(&StepName, &Failure)>,
        took: Duration,
    ) {
        self.item_times.add(took);
        self.items.count_settled(status);
        if let Some((step, failure)) = error {
            count(&mut self.errors, failure.class, || format!("step {step}: {}", failure.message));
        }
    }

    /// Counts an item that an earlier session settled, and whether any of its answers is made up.
    pub(super) fn settled_before(&mut self, status: ItemStatus, practice: bool) {
        self.practice |= practice;
        self.items.count_settled_before(status);
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
            items_per_second: self.items.settled().saturating_sub(self.items.settled_before) as f64
                / seconds.max(1e-9),
            item_seconds: self.item_times.times(),
            calls: self.calls,
            tokens: self.tokens,
            cost_usd: self.cost.dollars(),
            calls_of_unknown_cost: self.cost.unknown(),
            beaten_cost_usd: self.beaten_dollars(),
            perhaps_cost_usd: 0.0,
            caps: Vec::new(),
            paused: None,
            paused_class: None,
            kept: false,
            steps: self.steps.iter().map(|(step, share)| (step.clone(), share.part())).collect(),
            lanes: self.lanes.iter().map(|(lane, share)| (lane.clone(), share.part())).collect(),
            errors: self.errors.clone(),
            failed_calls: self.failed_calls.clone(),
            first_reject: self.first_reject.clone(),
            output_error: None,
            output_left_before: None,
            reader_gone: false,
            not_begun: None,
            store_error: None,
            unkept: None,
            input_error: None,
        }
    }

    /// Returns what beaten calls may have cost; `None` when that is not known of one of their lanes.
    fn beaten_dollars(&self) -> Option<f64> {
        let beaten = self.lanes.values().filter(|share| share.has_beaten());
        // A sum of nothing is less than zero by its sign.
        beaten.map(Share::beaten_dollars).sum::<Option<f64>>().map(|dollars| dollars + 0.0)
    }

    /// Returns how long a call takes on average, in seconds; 0 before there was one.
    pub(super) fn call_seconds(&self) -> f64 {
        let (calls, seconds) =
            self.lanes.values().map(Share::time).fold((0, 0.0), |sum, time| (sum.0 + time.0, sum.1 + time.1));
        seconds / f64::max(calls as f64, 1.0)
    }
}

/// Says where and why a call failed, and with which key where the key is at fault.
fn example(attempt: &Attempt, failure: &Failure) -> String {
    let (lane, message) = (&attempt.lane, &failure.message);
    match (&attempt.key, failure.class) {
        (Some(key), Class::Auth | Class::Quota) => format!("{lane} (key: {key}): {message}"),
        _ => format!("{lane}: {message}"),
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
    use crate::run::report::Part;
    use crate::types::NanoUsd;

    fn attempt(took: u64, cost: Option<u64>, outcome: Outcome) -> Attempt {
        Attempt {
            lane: "claude/haiku".parse().unwrap(),
            key: Some("env:KEY".into()),
            waited: Duration::ZERO,
            took: Duration::from_millis(took),
            first_token: None,
            usage: None,
            cost: cost.map(NanoUsd),
            perhaps: NanoUsd(0),
            forced: false,
            hedge: false,
            outcome,
        }
    }

    fn report_of(attempts: Vec<Attempt>) -> Report {
        let mut tally = Tally::new(["summary".into()]);
        tally.question(&"summary".into(), &Trail(attempts), false);
        tally.settled(ItemStatus::Completed, None, Duration::from_secs(90));
        tally.report("email", Ended::Whole, Duration::from_secs(100))
    }

    #[test]
    fn times_are_those_that_were_measured() {
        let calls = (1..=100).map(|call| attempt(call * 100, None, Outcome::Answered)).collect();
        let report = report_of(calls);
        let near = |is: f64, should: f64| (is / should - 1.0).abs() < 0.002;
        let times = report.lanes["claude/haiku"].seconds;
        assert!(near(times.average, 5.05) && near(times.p50, 5.0), "{times:?}");
        assert!(near(times.p99, 9.9) && near(times.max, 10.0), "{times:?}");
        assert!(near(report.item_seconds.max, 90.0), "{:?}", report.item_seconds);
    }

    #[test]
    fn a_cost_that_nobody_knows_is_not_nothing() {
        let report = report_of(vec![attempt(1, None, Outcome::Answered)]);
        assert_eq!((report.cost_usd, report.calls_of_unknown_cost), (None, 1));
        assert_eq!(report.lanes["claude/haiku"].cost_usd, None);
    }

    #[test]
    fn a_cost_that_is_known_in_part_is_told_as_that() {
        let report = report_of(vec![
            attempt(1, Some(2_000_000), Outcome::Answered),
            attempt(1, None, Outcome::Failed(Failure::new(Class::Timeout, "slow").maybe_charged())),
        ]);
        assert_eq!((report.cost_usd, report.calls_of_unknown_cost), (Some(0.002), 1));
    }

    #[test]
    fn a_call_that_is_lost_is_neither_said_to_have_left_nor_to_be_paid() {
        let died = Outcome::Lost(Failure::new(Class::NetworkError, "its actor died"));
        let lost = Attempt { key: None, ..attempt(0, None, died) };
        let report = report_of(vec![lost, attempt(1, Some(2_000_000), Outcome::Answered)]);
        let Calls { made, answered, failed, maybe_charged, lost, .. } = report.calls;
        assert_eq!((made, answered, failed, maybe_charged, lost), (1, 1, 0, 0, 1));
        assert_eq!((report.cost_usd, report.calls_of_unknown_cost), (Some(0.002), 0));
        assert_eq!(report.failed_calls[&Class::NetworkError].count, 1);
    }

    #[test]
    fn a_lane_that_was_asked_beside_another_is_no_failover() {
        let beside = Attempt {
            lane: "gemini/flash".parse().unwrap(),
            hedge: true,
            ..attempt(1, Some(1), Outcome::Answered)
        };
        let report = report_of(vec![attempt(9, None, Outcome::Superseded), beside]);
        let Calls { made, answered, maybe_charged, failovers, hedged, .. } = report.calls;
        assert_eq!((made, answered, maybe_charged, failovers, hedged), (2, 1, 0, 0, 1));
    }

    #[test]
    fn a_call_that_was_beaten_has_not_failed_and_may_have_cost_what_others_did() {
        let answered = |cost| attempt(1, Some(cost), Outcome::Answered);
        let report =
            report_of(vec![answered(2_000_000), answered(4_000_000), attempt(9, None, Outcome::Superseded)]);
        let Calls { made, failed, beaten, .. } = report.calls;
        assert_eq!((made, failed, beaten, report.lanes["claude/haiku"].failed), (3, 0, 1, 0));
        assert!(report.failed_calls.is_empty(), "{:?}", report.failed_calls);
        assert_eq!((report.cost_usd, report.beaten_cost_usd), (Some(0.006), Some(0.003)));
    }

    #[test]
    fn a_price_that_is_missing_is_told_from_a_usage_that_is() {
        let unpriced = Attempt { usage: Some(Usage::default()), ..attempt(1, None, Outcome::Answered) };
        let report = report_of(vec![unpriced.clone(), unpriced, attempt(1, None, Outcome::Answered)]);
        let Part { calls_without_price, calls_without_usage, .. } = report.lanes["claude/haiku"];
        assert_eq!((calls_without_price, calls_without_usage, report.calls_of_unknown_cost), (2, 1, 3));
    }

    #[test]
    fn a_call_that_was_refused_before_any_work_costs_nothing() {
        let refused = Outcome::Failed(Failure::new(Class::RateLimit, "slow down"));
        let report = report_of(vec![attempt(1, None, refused)]);
        assert_eq!((report.cost_usd, report.calls_of_unknown_cost), (Some(0.0), 0));
    }
}
