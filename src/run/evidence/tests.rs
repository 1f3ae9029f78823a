//! Requests that fail for their own reasons, and requests that do not.

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
        counted_elsewhere: false,
        cache_savings: None,
        reasoning: None,
        outcome: Outcome::Failed(failure.clone().into()),
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
fn a_call_that_was_not_sent_is_no_evidence_and_a_request_that_no_target_can_express_fails_for_its_own_reasons()
 {
    let mut error = failed_request(Class::ServerError, &[10]);
    let refused = Attempt {
        target: "b/m".parse().unwrap(),
        key: None,
        outcome: Outcome::Refused("no seed".into()),
        ..error.attempts.0[0].clone()
    };
    error.attempts.0.insert(0, refused);
    let mut evidence = Evidence::new(own_item());
    assert!(!evidence.record_failure(&error, TIME));
    assert_eq!(evidence.targets().collect::<Vec<_>>(), [target()]);
    let inexpressible = Failure::new(Class::ApiError, "no seed").with_scope(FailureScope::Target);
    assert!(Evidence::new(own_item()).record_failure(&inexpressible.into(), TIME));
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
            attempt.outcome = Outcome::Failed(Failure::new(Class::TooLong, "x").into());
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
