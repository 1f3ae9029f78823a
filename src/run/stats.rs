//! Statistics of a run. Their size depends on the pipeline, never on the number of items.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;

use crate::types::{Attempt, AttemptLog, Class, Failure, ItemStatus, Outcome, StepName, Usage};

use super::cache_totals::CacheTotals;
use super::group_stats::{Cost, GroupStats, LatencyHistogram};
use super::report::{Calls, ErrorCount, Items, Report, RunOutcome};

/// Creates the report of a run without items.
#[cfg(test)]
pub(crate) fn empty_report(pipeline: &str, outcome: RunOutcome, took: Duration) -> Report {
    RunStats::new(std::iter::empty()).report(pipeline, outcome, took)
}

/// Everything that a run has counted so far.
#[derive(Debug)]
pub(super) struct RunStats {
    pub(super) items: Items,
    pub(super) calls: Calls,
    pub(super) tokens: Usage,
    pub(super) cost: Cost,
    pub(super) simulated: bool,
    pub(super) first_reject: Option<String>,
    /// What the answer cache answered, and the requests that were sent.
    pub(super) cache: CacheTotals,
    item_times: LatencyHistogram,
    steps: IndexMap<StepName, GroupStats>,
    targets: BTreeMap<String, GroupStats>,
    errors: BTreeMap<Class, ErrorCount>,
    failed_calls: BTreeMap<Class, ErrorCount>,
}

impl RunStats {
    /// Creates empty statistics of a pipeline with these steps.
    pub(super) fn new(steps: impl IntoIterator<Item = StepName>) -> Self {
        Self {
            items: Items::default(),
            calls: Calls::default(),
            tokens: Usage::default(),
            cost: Cost::default(),
            simulated: false,
            first_reject: None,
            cache: CacheTotals::default(),
            item_times: LatencyHistogram::new(),
            steps: steps.into_iter().map(|step| (step, GroupStats::new())).collect(),
            targets: BTreeMap::new(),
            errors: BTreeMap::new(),
            failed_calls: BTreeMap::new(),
        }
    }

    /// Counts one request of a step, with all attempts that were sent for it.
    pub(super) fn count_request(&mut self, step: &StepName, attempts: &AttemptLog, simulated: bool) {
        self.simulated |= simulated;
        if attempts.0.iter().any(|attempt| attempt.counted_elsewhere) {
            return self.count_joined_request(step, attempts, simulated);
        }
        self.calls.failovers += attempts.failovers() as u64;
        self.calls.possibly_charged += attempts.possibly_charged_without_answer() as u64;
        self.calls.hedged += attempts.hedges() as u64;
        self.calls.forced += attempts.forced() as u64;
        self.calls.lost += attempts.lost() as u64;
        for attempt in &attempts.0 {
            let failure = match &attempt.outcome {
                Outcome::Refused(_) => continue,
                Outcome::Answered | Outcome::Superseded => None,
                Outcome::BrokenOff => Some(Failure::new(Class::Cancelled, "broken off: everything stopped")),
                Outcome::Lost(failure) => {
                    self.cost.add(attempt);
                    count(&mut self.failed_calls, failure.class, || example(attempt, failure));
                    continue;
                }
                Outcome::Failed(failure) => Some(Failure::clone(failure)),
            };
            self.count_attempt(step, attempt, failure.as_ref(), simulated);
        }
    }

    /// Counts a request some of whose calls are counted with other requests.
    fn count_joined_request(&mut self, step: &StepName, attempts: &AttemptLog, simulated: bool) {
        let attempts = attempts.0.iter().cloned();
        let (shares, own): (Vec<_>, Vec<_>) = attempts.partition(|attempt| attempt.counted_elsewhere);
        for share in &shares {
            self.add_share(step, share, simulated);
        }
        self.count_request(step, &AttemptLog(own), simulated);
    }

    /// Adds the part of a request in a call that another request counts.
    fn add_share(&mut self, step: &StepName, share: &Attempt, simulated: bool) {
        // A call that was not sent has neither.
        if share.key.is_none() {
            return;
        }
        self.tokens += share.usage.unwrap_or_default();
        self.cost.add(share);
        let of_target = self.targets.entry(share.target.to_string()).or_insert_with(GroupStats::new);
        for group in self.steps.get_mut(step).into_iter().chain([of_target]) {
            group.add_share(share, simulated);
        }
    }

    fn count_attempt(
        &mut self,
        step: &StepName,
        attempt: &Attempt,
        failure: Option<&Failure>,
        simulated: bool,
    ) {
        self.calls.sent += 1;
        self.tokens += attempt.usage.unwrap_or_default();
        self.cost.add(attempt);
        match failure {
            None if attempt.outcome == Outcome::Superseded => self.calls.superseded += 1,
            None => self.calls.answered += 1,
            Some(failure) => {
                self.calls.failed += 1;
                self.calls.throttled += u64::from(failure.class == Class::RateLimit);
                count(&mut self.failed_calls, failure.class, || example(attempt, failure));
            }
        }
        if let Some(group) = self.steps.get_mut(step) {
            group.add(attempt, simulated);
        }
        match self.targets.get_mut(&attempt.target.to_string()) {
            Some(group) => group.add(attempt, simulated),
            None => {
                let mut group = GroupStats::new();
                group.add(attempt, simulated);
                self.targets.insert(attempt.target.to_string(), group);
            }
        }
    }

    /// Counts a retry after an answer that failed validation.
    pub(super) fn count_validation_retry(&mut self) {
        self.calls.validation_retries += 1;
    }

    /// Counts requests that were lost. How many of their attempts were sent is unknown.
    pub(super) fn count_lost(&mut self, requests: u64) {
        self.calls.possibly_charged += requests;
    }

    /// Counts a finished item and its error.
    pub(super) fn count_item(
        &mut self,
        status: ItemStatus,
        error: Option<(&StepName, &Failure)>,
        took: Duration,
    ) {
        self.item_times.add(took);
        self.items.count_finished(status);
        if let Some((step, failure)) = error {
            count(&mut self.errors, failure.class, || format!("step {step}: {}", failure.message));
        }
    }

    /// Returns how many items have failed, by class.
    pub(super) fn failed_items(&self) -> BTreeMap<Class, u64> {
        self.errors.iter().map(|(class, errors)| (*class, errors.count)).collect()
    }

    /// Counts an item that an earlier session finished, and whether any of its answers is simulated.
    pub(super) fn count_stored_item(&mut self, status: ItemStatus, simulated: bool) {
        self.simulated |= simulated;
        self.items.count_finished_before(status);
    }

    /// Creates the report of a run with this outcome and duration.
    pub(super) fn report(&self, pipeline: &str, outcome: RunOutcome, took: Duration) -> Report {
        let seconds = took.as_secs_f64();
        Report {
            run: None,
            pipeline: pipeline.to_owned(),
            outcome,
            state: None,
            lost_session: false,
            simulated: self.simulated,
            items: self.items,
            duration_seconds: Some(seconds),
            items_per_second: Some(
                self.items.finished().saturating_sub(self.items.finished_before) as f64 / seconds.max(1e-9),
            ),
            item_duration_seconds: self.item_times.summary(),
            calls: self.calls,
            tokens: self.tokens,
            cost_usd: self.cost.dollars(),
            cache_saved_usd: self.cost.cache_saved_dollars(),
            cache: self.cache.report(),
            calls_of_unknown_cost: self.cost.unknown(),
            superseded_cost_usd: self.superseded_dollars(),
            uncertain_cost_usd: 0.0,
            caps: Vec::new(),
            paused: None,
            paused_class: None,
            max_failures_reached: false,
            stored: false,
            steps: self.steps.iter().map(|(step, group)| (step.clone(), group.report())).collect(),
            targets: self.targets.iter().map(|(target, group)| (target.clone(), group.report())).collect(),
            errors: self.errors.clone(),
            failed_calls: self.failed_calls.clone(),
            first_reject: self.first_reject.clone(),
            output_error: None,
            unreplaced_output: None,
            output_closed: false,
            unprocessed: None,
            store_error: None,
            unsaved: None,
            input_error: None,
            input_advice: None,
        }
    }

    /// Returns what superseded attempts may have cost; `None` if that is unknown for one of their targets.
    fn superseded_dollars(&self) -> Option<f64> {
        let superseded = self.targets.values().filter(|group| group.has_superseded());
        // An empty sum is negative zero.
        superseded.map(GroupStats::superseded_dollars).sum::<Option<f64>>().map(|dollars| dollars + 0.0)
    }

    /// Returns the mean duration of an attempt in seconds; 0 before the first one.
    pub(super) fn call_seconds(&self) -> f64 {
        let (calls, seconds) = self
            .targets
            .values()
            .map(GroupStats::attempts_and_seconds)
            .fold((0, 0.0), |sum, time| (sum.0 + time.0, sum.1 + time.1));
        seconds / f64::max(calls as f64, 1.0)
    }
}

/// Returns where and why an attempt failed, and with which key if the key is the cause.
fn example(attempt: &Attempt, failure: &Failure) -> String {
    let target = &attempt.target;
    let message = &failure.message;
    match (&attempt.key, failure.class) {
        (Some(key), Class::Auth | Class::Quota) => format!("{target} (key: {key}): {message}"),
        _ => format!("{target}: {message}"),
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
    use crate::run::report::GroupReport;
    use crate::types::{NanoUsd, Savings};

    fn attempt(took: u64, cost: Option<u64>, outcome: Outcome) -> Attempt {
        Attempt {
            target: "claude/haiku".parse().unwrap(),
            key: Some("env:KEY".into()),
            queue_time: Duration::ZERO,
            duration: Duration::from_millis(took),
            first_token: None,
            usage: None,
            cost: cost.map(NanoUsd),
            uncertain_cost: NanoUsd(0),
            forced: false,
            hedged: false,
            counted_elsewhere: false,
            cache_savings: None,
            reasoning: None,
            outcome,
        }
    }

    fn report_of(attempts: Vec<Attempt>) -> Report {
        let mut stats = RunStats::new(["summary".into()]);
        stats.count_request(&"summary".into(), &AttemptLog(attempts), false);
        stats.count_item(ItemStatus::Completed, None, Duration::from_secs(90));
        stats.report("email", RunOutcome::Completed, Duration::from_secs(100))
    }

    #[test]
    fn times_are_reported_as_measured() {
        let calls = (1..=100).map(|call| attempt(call * 100, None, Outcome::Answered)).collect();
        let report = report_of(calls);
        let near = |is: f64, should: f64| (is / should - 1.0).abs() < 0.002;
        let times = report.targets["claude/haiku"].duration_seconds;
        assert!(near(times.average, 5.05) && near(times.p50, 5.0), "{times:?}");
        assert!(near(times.p99, 9.9) && near(times.max, 10.0), "{times:?}");
        assert!(near(report.item_duration_seconds.max, 90.0), "{:?}", report.item_duration_seconds);
    }

    #[test]
    fn a_call_for_several_requests_is_counted_once_and_each_part_of_its_cost_is_added() {
        let step = StepName::from("vector");
        let mut stats = RunStats::new([step.clone()]);
        // The part of a request may arrive before the request that counts the call.
        for (counted_elsewhere, cost) in [(true, Some(5)), (false, Some(7)), (true, Some(9)), (true, None)] {
            let part = Attempt { counted_elsewhere, ..attempt(10, cost, Outcome::Answered) };
            stats.count_request(&step, &AttemptLog(vec![part]), false);
        }
        let report = stats.report("search", RunOutcome::Completed, Duration::from_secs(1));
        assert_eq!((report.calls.sent, report.calls.answered, report.calls_of_unknown_cost), (1, 1, 0));
        assert_eq!(report.cost_usd, Some(NanoUsd(21).dollars()));
        let groups = [&report.steps["vector"], &report.targets["claude/haiku"]];
        assert!(groups.iter().all(|group| (group.calls, group.cost_usd) == (1, report.cost_usd)));
    }

    #[test]
    fn an_unknown_cost_is_not_zero() {
        let report = report_of(vec![attempt(1, None, Outcome::Answered)]);
        assert_eq!((report.cost_usd, report.calls_of_unknown_cost), (None, 1));
        assert_eq!(report.targets["claude/haiku"].cost_usd, None);
    }

    #[test]
    fn a_partly_known_cost_is_reported_with_the_unknown_attempts() {
        let report = report_of(vec![
            attempt(1, Some(2_000_000), Outcome::Answered),
            attempt(1, None, Outcome::Failed(Failure::new(Class::Timeout, "slow").maybe_charged().into())),
        ]);
        assert_eq!((report.cost_usd, report.calls_of_unknown_cost), (Some(0.002), 1));
    }

    #[test]
    fn what_the_cache_saves_is_summed_and_absent_if_it_was_not_used() {
        let of = |savings: Option<i64>| Attempt {
            cache_savings: savings.map(Savings),
            ..attempt(1, Some(1), Outcome::Answered)
        };
        let report = report_of(vec![of(Some(-250_000)), of(None), of(Some(900_000))]);
        assert_eq!(report.cache_saved_usd, Some(0.000_65));
        assert_eq!(report.steps["summary"].cache_saved_usd, Some(0.000_65));
        assert_eq!(report.targets["claude/haiku"].cache_saved_usd, Some(0.000_65));
        assert_eq!(report_of(vec![of(Some(-250_000))]).cache_saved_usd, Some(-0.000_25));
        let unused = serde_json::to_value(report_of(vec![of(None)])).unwrap();
        assert_eq!(
            (unused.get("cache_saved_usd"), unused["steps"]["summary"].get("cache_saved_usd")),
            (None, None)
        );
    }

    #[test]
    fn a_lost_attempt_is_counted_neither_as_sent_nor_as_charged() {
        let died = Outcome::Lost(Failure::new(Class::NetworkError, "its actor died").into());
        let lost = Attempt { key: None, ..attempt(0, None, died) };
        let report = report_of(vec![lost, attempt(1, Some(2_000_000), Outcome::Answered)]);
        let Calls { sent, answered, failed, possibly_charged, lost, .. } = report.calls;
        assert_eq!((sent, answered, failed, possibly_charged, lost), (1, 1, 0, 0, 1));
        assert_eq!((report.cost_usd, report.calls_of_unknown_cost), (Some(0.002), 0));
        assert_eq!(report.failed_calls[&Class::NetworkError].count, 1);
    }

    #[test]
    fn a_hedged_attempt_is_not_a_failover() {
        let hedge = Attempt {
            target: "gemini/flash".parse().unwrap(),
            hedged: true,
            ..attempt(1, Some(1), Outcome::Answered)
        };
        let report = report_of(vec![attempt(9, None, Outcome::Superseded), hedge]);
        let Calls { sent, answered, possibly_charged, failovers, hedged, .. } = report.calls;
        assert_eq!((sent, answered, possibly_charged, failovers, hedged), (2, 1, 0, 0, 1));
    }

    #[test]
    fn a_superseded_attempt_has_not_failed_and_may_have_cost_the_average() {
        let answered = |cost| attempt(1, Some(cost), Outcome::Answered);
        let report =
            report_of(vec![answered(2_000_000), answered(4_000_000), attempt(9, None, Outcome::Superseded)]);
        let Calls { sent, failed, superseded, .. } = report.calls;
        assert_eq!((sent, failed, superseded, report.targets["claude/haiku"].failed), (3, 0, 1, 0));
        assert!(report.failed_calls.is_empty(), "{:?}", report.failed_calls);
        assert_eq!((report.cost_usd, report.superseded_cost_usd), (Some(0.006), Some(0.003)));
    }

    #[test]
    fn a_missing_price_is_distinguished_from_a_missing_usage() {
        let unpriced = Attempt { usage: Some(Usage::default()), ..attempt(1, None, Outcome::Answered) };
        let report = report_of(vec![unpriced.clone(), unpriced, attempt(1, None, Outcome::Answered)]);
        let GroupReport { calls_without_price, calls_without_usage, .. } = report.targets["claude/haiku"];
        assert_eq!((calls_without_price, calls_without_usage, report.calls_of_unknown_cost), (2, 1, 3));
    }

    #[test]
    fn an_attempt_that_was_rejected_before_any_work_costs_nothing() {
        let refused = Outcome::Failed(Failure::new(Class::RateLimit, "slow down").into());
        let report = report_of(vec![attempt(1, None, refused)]);
        assert_eq!((report.cost_usd, report.calls_of_unknown_cost), (Some(0.0), 0));
    }
}
