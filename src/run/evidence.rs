//! Decides whether the cause of a failure is the request itself, or the provider, a limit or the account.
//!
//! If a request fails while others are answered at the same targets, the request itself is the cause, unless
//! chance explains the failures. A failed attempt of the request counts as evidence only if the target worked at
//! that time: first attempts of other items that were sent just before and just after it were answered (one of
//! the nearest two on each side), and another attempt after it was answered.
//!
//! If a fraction `f` of the others' first attempts fails, a request with nothing wrong fails `n` more times after
//! its first failure with the probability `f^n`. If this is below one in a billion, the failure is attributed to
//! the request. `f` is estimated as `(failed + 1) / (failed + answered + 2)` (Laplace's rule of succession), so
//! few attempts prove little. Repeated attempts of others do not count: a few requests that fail every time
//! would look like a target that fails often. Without a single success of others nothing is proven, because an
//! outage looks the same. The evidence of a request is kept until it has its final result.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::provider::{FirstAttempts, Neighbours};
use crate::types::{
    Attempt, AttemptCounts, Attribution, Class, Outcome, RequestError, RunItem, Scope, TargetName,
};

/// The probability below which repeated failures are not explained by chance. A run of a million requests tests
/// each of them.
const MAX_CHANCE_PROBABILITY: f64 = 1e-9;

/// First attempts of others, sent before the first failure of the request, that count for the failure rate of
/// the target.
const OTHERS_BEFORE_FIRST_FAILURE: u64 = 200;

/// Most first attempts of others that count for the failure rate of a target.
const MAX_OTHER_ATTEMPTS: usize = 2_000;

/// Evidence about one request that has failed.
#[derive(Debug)]
pub(super) struct Evidence {
    item: RunItem,
    /// How often it failed.
    returns: u32,
    /// Its failed attempts, by target.
    failed: BTreeMap<TargetName, Vec<FailedAttempt>>,
    /// Results of the first attempts of others, by target.
    others: BTreeMap<TargetName, AttemptCounts>,
}

/// A failed attempt.
#[derive(Debug)]
struct FailedAttempt {
    /// Its number among the attempts sent to its provider.
    number: u64,
    /// Whether it timed out instead of returning a failure.
    timed_out: bool,
    /// The first attempts of others that were sent next to it, once they are known.
    neighbours: Option<Neighbours>,
}

impl Evidence {
    /// Creates the evidence of a request of this item, with nothing known.
    pub(super) fn new(item: RunItem) -> Self {
        Self { item, returns: 0, failed: BTreeMap::new(), others: BTreeMap::new() }
    }

    /// Records that the request failed with `error`; `time_limit` is how long the request may take. Returns
    /// whether the class of the failure is the request's own in any case.
    pub(super) fn record_failure(&mut self, error: &RequestError, time_limit: Duration) -> bool {
        self.returns = self.returns.saturating_add(1);
        let class = error.failure.class;
        match class.attribution() {
            // The router has found that others are answered and that the request is refused after any wait.
            Attribution::Limit if error.failure.scope == Scope::Target => true,
            Attribution::Request if class != Class::NotFound => true,
            Attribution::Router if class != Class::Deadline => {
                // If an actor is gone, every request fails.
                error.attempts.calls() > 0 || error.attempts.lost() > 0 || error.target.is_none()
            }
            Attribution::Request
            | Attribution::Router
            | Attribution::Attempt
            | Attribution::Limit
            | Attribution::Account => {
                self.record_attempts(error, time_limit);
                false
            }
        }
    }

    fn record_attempts(&mut self, error: &RequestError, time_limit: Duration) {
        let failed_outcomes =
            error.attempts.0.iter().filter(|attempt| matches!(attempt.outcome, Outcome::Failed(_)));
        for (attempt, failed) in failed_outcomes.zip(&error.failed_attempts) {
            if is_evidence(attempt, time_limit) {
                let timed_out = matches!(&attempt.outcome, Outcome::Failed(failure)
                    if matches!(failure.class, Class::Timeout | Class::Deadline));
                let failed_attempt = FailedAttempt { number: failed.number, timed_out, neighbours: None };
                self.failed.entry(failed.target.clone()).or_default().push(failed_attempt);
            }
        }
    }

    /// Returns the targets that have failed the request.
    pub(super) fn targets(&self) -> impl Iterator<Item = TargetName> + use<> {
        self.failed.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    /// Updates the evidence with the results of others at a target. What was known before is kept.
    pub(super) fn compare(&mut self, target: &TargetName, first: &FirstAttempts) {
        let Some(failed) = self.failed.get_mut(target) else { return };
        let Some(earliest) = failed.iter().map(|attempt| attempt.number).min() else { return };
        let others =
            first.counts_since(earliest.saturating_sub(OTHERS_BEFORE_FIRST_FAILURE), MAX_OTHER_ATTEMPTS);
        if others.answered + others.failed > 0 {
            self.others.insert(target.clone(), others);
        }
        for attempt in failed.iter_mut().filter(|attempt| attempt.neighbours.is_none()) {
            // When a target goes down, it breaks off attempts that were sent long before; attempts sent next to
            // them were already answered.
            if attempt.timed_out || first.was_answered_after(attempt.number) {
                attempt.neighbours = first.neighbours_of(attempt.number, self.item);
            }
        }
    }

    /// Returns whether the request itself is the cause of its failures, as far as is known.
    pub(super) fn is_proven(&self) -> bool {
        let others = self.others.values().copied().fold(AttemptCounts::default(), AttemptCounts::plus);
        let AttemptCounts { answered, failed } = others;
        let own_failures = self.failed_while_others_were_answered();
        if answered == 0 || own_failures < 2 {
            return false;
        }
        let failure_rate = (failed + 1) as f64 / (failed.saturating_add(answered) + 2) as f64;
        failure_rate.powi(i32::try_from(own_failures - 1).unwrap_or(i32::MAX)) < MAX_CHANCE_PROBABILITY
    }

    /// Returns whether others were answered when the request failed, so that the provider worked then.
    pub(super) fn is_suspected(&self) -> bool {
        self.failed_while_others_were_answered() > 0
    }

    /// Returns how often it failed.
    pub(super) fn returns(&self) -> u32 {
        self.returns
    }

    fn failed_while_others_were_answered(&self) -> usize {
        let of_target = |failed: &Vec<FailedAttempt>| {
            // Several failures between the same two answers count once: the provider may have been down between
            // those answers.
            let distinct_gaps: BTreeSet<u64> = failed
                .iter()
                .filter_map(|attempt| match attempt.neighbours? {
                    Neighbours::Answered { before } => Some(before),
                    Neighbours::Failed => None,
                })
                .collect();
            distinct_gaps.len()
        };
        self.failed.values().map(of_target).sum()
    }
}

/// Returns whether an attempt counts as evidence: it failed, and not because most of its time was spent in the
/// queue. A request that is too long for one target shows nothing about whether another target is out.
fn is_evidence(attempt: &Attempt, time_limit: Duration) -> bool {
    match &attempt.outcome {
        Outcome::Failed(failure) if failure.class == Class::Deadline => attempt.duration * 2 >= time_limit,
        Outcome::Failed(failure) if failure.class == Class::TooLong => false,
        Outcome::Failed(_) => attempt.key.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{self, AttemptLog, Failure, NanoUsd, RequestContext};

    const TIME: Duration = Duration::from_mins(10);

    fn target() -> TargetName {
        "a/m".parse().unwrap()
    }

    /// A request error with failed attempts of these numbers.
    fn failed_request(class: Class, numbers: &[u64]) -> RequestError {
        let failure = Failure::new(class, "x");
        let attempt = Attempt {
            target: target(),
            key: Some("k".into()),
            queue_time: Duration::ZERO,
            duration: Duration::ZERO,
            first_token: None,
            usage: None,
            cost: None,
            uncertain_cost: NanoUsd(0),
            forced: false,
            hedged: false,
            outcome: Outcome::Failed(failure.clone()),
        };
        let failed = numbers.iter().map(|number| types::FailedAttempt { target: target(), number: *number });
        RequestError {
            target: Some(target()),
            attempts: AttemptLog(vec![attempt; numbers.len()]),
            failed_attempts: failed.collect(),
            ..RequestError::from(failure)
        }
    }

    /// The item of the request under test.
    fn own_item() -> RunItem {
        RunItem::default()
    }

    /// Records the first attempt of another item.
    fn end(first: &mut FirstAttempts, number: u64, failure: Option<Class>) {
        let of_another = RequestContext { rank: number + 1, ..RequestContext::default() };
        first.record_sent(number, of_another.item());
        first.record_end(number, failure);
    }

    /// First attempts of others: of each hundred this many fail, evenly spread. The numbers in `left_out`
    /// belong to the request itself.
    fn others(numbers: std::ops::Range<u64>, fail_of_hundred: u64, left_out: &[u64]) -> FirstAttempts {
        let mut first = FirstAttempts::default();
        for number in numbers.filter(|number| !left_out.contains(number)) {
            let fails = number % 100 < fail_of_hundred;
            end(&mut first, number, fails.then_some(Class::ServerError));
        }
        first
    }

    fn is_proven(evidence: &mut Evidence, error: &RequestError, first: &FirstAttempts) -> bool {
        let is_own = evidence.record_failure(error, TIME);
        evidence.compare(&target(), first);
        is_own || evidence.is_proven()
    }

    #[test]
    fn a_request_that_fails_while_others_succeed_fails_for_its_own_reasons() {
        let numbers = [10, 20, 30, 40, 50, 60];
        for class in [Class::ServerError, Class::Timeout, Class::Unreadable, Class::RateLimit, Class::Auth] {
            let others = others(1..70, 0, &numbers);
            assert!(
                is_proven(&mut Evidence::new(own_item()), &failed_request(class, &numbers), &others),
                "{class}"
            );
        }
    }

    #[test]
    fn requests_that_fail_each_time_do_not_hide_each_other() {
        // Twenty of 500 fail, each eight times; of each only the first attempt counts for the others.
        let numbers = [30, 90, 150, 210, 270, 330, 390, 450];
        let first = others(1..500, 4, &numbers);
        let error = failed_request(Class::ServerError, &numbers);
        assert!(is_proven(&mut Evidence::new(own_item()), &error, &first));
    }

    #[test]
    fn a_request_that_fails_while_all_others_fail_is_not_blamed() {
        let mut evidence = Evidence::new(own_item());
        for round in 1..100 {
            let numbers: Vec<u64> = (0..6).map(|attempt| round * 100 + attempt * 10).collect();
            let others = others(0..round * 100 + 90, 100, &numbers);
            assert!(!is_proven(&mut evidence, &failed_request(Class::ServerError, &numbers), &others));
        }
    }

    #[test]
    fn a_request_that_fails_when_an_outage_begins_is_not_suspected_for_answers_before_and_after_it() {
        // Up to 100 all are answered, then ten fail before the breaker opens, and from 200 on all are answered
        // again.
        let mut first = others(1..100, 0, &[]);
        (100..110)
            .filter(|number| *number != 104)
            .for_each(|number| end(&mut first, number, Some(Class::ServerError)));
        (200..400).for_each(|number| end(&mut first, number, None));
        let mut evidence = Evidence::new(own_item());
        // In the meantime it is sent as the probe twice.
        assert!(!is_proven(&mut evidence, &failed_request(Class::ServerError, &[104, 111, 112]), &first));
        assert!(!evidence.is_suspected());
    }

    #[test]
    fn an_attempt_that_is_broken_off_when_a_target_goes_down_is_not_suspected() {
        let mut first = others(1..100, 0, &[95]);
        first.record_failure(95);
        let is_suspected = |first: &FirstAttempts, class| {
            let mut evidence = Evidence::new(own_item());
            assert!(!is_proven(&mut evidence, &failed_request(class, &[95]), first));
            evidence.is_suspected()
        };
        assert!(!is_suspected(&first, Class::NetworkError));
        // An attempt that timed out was not answered while others next to it were.
        assert!(is_suspected(&first, Class::Timeout));
        end(&mut first, 200, None);
        assert!(is_suspected(&first, Class::NetworkError));
    }

    #[test]
    fn nothing_is_proven_without_other_requests_and_earlier_evidence_is_kept() {
        let mut evidence = Evidence::new(own_item());
        let mut first = others(1..40, 0, &[10, 20]);
        assert!(!is_proven(&mut evidence, &failed_request(Class::ServerError, &[10, 20]), &first));
        assert!(evidence.is_suspected());
        for round in 0..50 {
            let single_failure = failed_request(Class::ServerError, &[100 + round]);
            assert!(!is_proven(&mut evidence, &single_failure, &first), "{round}");
        }
        // Failures between the same two answers of others count as one.
        end(&mut first, 200, None);
        assert!(!is_proven(
            &mut Evidence::new(own_item()),
            &failed_request(Class::ServerError, &[100, 101, 102]),
            &first
        ));
        (201..300).filter(|number| number % 10 > 0).for_each(|number| end(&mut first, number, None));
        assert!(is_proven(&mut evidence, &failed_request(Class::ServerError, &[210, 220, 230]), &first));
    }

    #[test]
    fn a_request_too_long_for_a_busy_target_proves_nothing_while_another_target_is_out() {
        let mut evidence = Evidence::new(own_item());
        for round in 1..100 {
            let mut error = failed_request(Class::NetworkError, &[round * 10, round * 10 + 5]);
            error.attempts.0.iter_mut().for_each(|attempt| {
                attempt.outcome = Outcome::Failed(Failure::new(Class::TooLong, "x"));
            });
            assert!(!is_proven(&mut evidence, &error, &others(0..2_000, 0, &[])), "{round}");
        }
    }

    #[test]
    fn an_attempt_cut_off_after_a_long_wait_in_the_queue_proves_nothing() {
        let at_deadline = |number: u64, took: Duration| {
            let mut error = failed_request(Class::Deadline, &[number]);
            error.attempts.0[0].duration = took;
            error
        };
        let mut evidence = Evidence::new(own_item());
        let others = others(0..2_000, 0, &[]);
        for round in 1..9 {
            assert!(!is_proven(&mut evidence, &at_deadline(round * 10, Duration::from_mins(4)), &others));
        }
        for number in [100, 110, 120] {
            assert!(!is_proven(&mut evidence, &at_deadline(number, Duration::from_mins(6)), &others));
        }
        assert!(is_proven(&mut evidence, &at_deadline(130, Duration::from_mins(6)), &others));
    }

    #[test]
    fn a_request_that_was_never_sent_proves_nothing_and_its_own_failure_classes_prove_it_at_once() {
        let mut evidence = Evidence::new(own_item());
        let none = FirstAttempts::default();
        assert!(!is_proven(&mut evidence, &failed_request(Class::Deadline, &[]), &none));
        assert!(!is_proven(&mut evidence, &failed_request(Class::Auth, &[]), &none));
        for class in [Class::TooLong, Class::ApiError, Class::ContentFilter, Class::Truncated] {
            assert!(is_proven(&mut Evidence::new(own_item()), &failed_request(class, &[1]), &none));
        }
    }

    proptest! {
        /// Requests with nothing wrong, at targets that fail at random, are hardly ever judged to be the cause of
        /// their failures.
        #[test]
        fn chance_alone_is_rarely_judged_as_a_requests_own_failure(seed in any::<u64>(), failure_rate in 0.0..0.9_f64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut first = FirstAttempts::default();
            let mut number = 0;
            let mut misjudged = 0;
            for _ in 0..1_000 {
                let mut evidence = Evidence::new(own_item());
                loop {
                    // One round: until an answer or six failures. Others make ten first attempts for each of
                    // its attempts.
                    let mut failed = Vec::new();
                    let mut answered = false;
                    while failed.len() < 6 && !answered {
                        number += 1;
                        let own_number = number;
                        answered = random.f64() >= failure_rate;
                        failed.push(own_number);
                        for _ in 0..10 {
                            number += 1;
                            end(&mut first, number, (random.f64() < failure_rate).then_some(Class::ServerError));
                        }
                    }
                    if answered {
                        break;
                    }
                    if is_proven(&mut evidence, &failed_request(Class::ServerError, &failed), &first) {
                        misjudged += 1;
                        break;
                    }
                }
            }
            prop_assert!(misjudged <= 3, "{misjudged} of 1,000 at {failure_rate}");
        }
    }
}
