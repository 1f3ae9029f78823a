//! Tests of account limits. The tests compute instants and do not wait.

use std::time::Duration;

use std::num::NonZeroU64;

use proptest::prelude::*;

use super::*;
use crate::simulator::BucketSize;

fn limits(requests: u64, bucket: BucketSize) -> AccountLimits {
    AccountLimits { requests_per_minute: NonZeroU64::new(requests), bucket, ..AccountLimits::default() }
}

const CALL: Cost = Cost { requests: 1, input: 10, uncounted_input: 0, output: 20 };

#[test]
fn a_minute_bucket_admits_the_limit_of_a_minute_at_once_and_then_one_call_per_interval() {
    let start = Instant::now();
    let mut account = Account::new(&limits(60, BucketSize::Minute), start);
    assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 60);
    let rejection = account.admit(start, CALL).unwrap_err();
    assert_eq!((rejection.limit, rejection.used, rejection.requested), (60, 60, 1));
    assert_eq!(rejection.wait, Some(Duration::from_secs(1)));
    assert!(account.admit(start + Duration::from_millis(999), CALL).is_err());
    assert!(account.admit(start + Duration::from_secs(1), CALL).is_ok());
    assert!(account.admit(start + Duration::from_secs(1), CALL).is_err());
}

#[test]
fn a_second_bucket_admits_only_the_limit_of_a_second_at_once() {
    let start = Instant::now();
    let mut account = Account::new(&limits(1_200, BucketSize::Second), start);
    assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 20);
    let half = start + Duration::from_millis(500);
    assert_eq!((0..100).filter(|_| account.admit(half, CALL).is_ok()).count(), 10);
    // A long pause refills the bucket only up to its capacity.
    let later = start + Duration::from_secs(3_600);
    assert_eq!((0..100).filter(|_| account.admit(later, CALL).is_ok()).count(), 20);
}

#[test]
fn a_rejected_call_consumes_nothing() {
    let start = Instant::now();
    let limits = AccountLimits {
        requests_per_minute: NonZeroU64::new(10),
        output_tokens_per_minute: NonZeroU64::new(30),
        ..AccountLimits::default()
    };
    let mut account = Account::new(&limits, start);
    assert!(account.admit(start, CALL).is_ok());
    assert_eq!(account.admit(start, CALL).unwrap_err().limit_kind, LimitKind::OutputTokens);
    let [requests, tokens, input, output] = account.limit_statuses();
    assert_eq!(requests.unwrap().remaining, 9);
    assert_eq!(output.unwrap().remaining, 10);
    assert_eq!((tokens, input), (None, None));
}

#[test]
fn a_call_larger_than_the_capacity_needs_a_full_bucket_and_leaves_a_negative_level() {
    let start = Instant::now();
    let limits = AccountLimits {
        tokens_per_minute: NonZeroU64::new(600),
        bucket: BucketSize::Second,
        ..AccountLimits::default()
    };
    let mut account = Account::new(&limits, start);
    assert!(account.admit(start, CALL).is_ok());
    // After 30 tokens from a capacity of 10 the level is -20. The next call needs a level of 10.
    assert_eq!(account.admit(start, CALL).unwrap_err().wait, Some(Duration::from_secs(3)));
    assert!(account.admit(start + Duration::from_secs(3), CALL).is_ok());
    let too_large = Cost::for_call(600, 1);
    assert_eq!(account.admit(start + Duration::from_secs(60), too_large).unwrap_err().wait, None);
}

#[test]
fn a_lower_limit_applies_at_once() {
    let start = Instant::now();
    let mut account = Account::new(&limits(60, BucketSize::Minute), start);
    account.set_limits(&limits(20, BucketSize::Minute), start);
    assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 20);
    account.set_limits(&AccountLimits::default(), start);
    assert!((0..100).all(|_| account.admit(start, CALL).is_ok()));
}

#[test]
fn an_initially_empty_bucket_admits_nothing_at_first() {
    let start = Instant::now();
    let starts_empty = AccountLimits { starts_full: false, ..limits(60, BucketSize::Minute) };
    let mut account = Account::new(&starts_empty, start);
    assert!(account.admit(start, CALL).is_err());
    assert!(account.admit(start + Duration::from_secs(1), CALL).is_ok());
}

#[test]
fn output_tokens_can_make_the_level_negative_and_delay_the_next_call() {
    let start = Instant::now();
    let limits = AccountLimits { tokens_per_minute: NonZeroU64::new(60), ..AccountLimits::default() };
    let mut account = Account::new(&limits, start);
    let call = Cost::for_call(10, 0);
    assert!(account.admit(start, call).is_ok());
    // 50 tokens remain, and the answer has 80.
    account.charge_output(start, 80);
    assert_eq!(account.limit_statuses()[1].unwrap().remaining, 0);
    let rejection = account.admit(start, call).unwrap_err();
    assert_eq!((rejection.used, rejection.wait), (60, Some(Duration::from_secs(40))));
    assert!(account.admit(start + Duration::from_secs(40), call).is_ok());
}

#[test]
fn a_call_without_output_yet_is_rejected_at_an_empty_bucket() {
    let start = Instant::now();
    let limits = AccountLimits { output_tokens_per_minute: NonZeroU64::new(60), ..AccountLimits::default() };
    let mut account = Account::new(&limits, start);
    let call = Cost::for_call(10, 0);
    // No output is generated yet: a vendor that counts generated tokens admits all calls.
    assert!((0..1_000).all(|_| account.admit(start, call).is_ok()));
    account.charge_output(start, 60);
    assert_eq!(account.admit(start, call).unwrap_err().wait, Some(Duration::from_secs(1)));
    assert!(account.admit(start + Duration::from_secs(1), call).is_ok());
}

#[test]
fn background_requests_consume_the_limit_but_do_not_change_the_reported_limit() {
    let start = Instant::now();
    let with_background =
        |others| AccountLimits { background_requests_per_minute: others, ..limits(600, BucketSize::Second) };
    let mut account = Account::new(&with_background(400), start);
    let count_admitted = |seconds: std::ops::Range<u64>, account: &mut Account| {
        let attempts =
            (seconds.start * 100..seconds.end * 100).map(|at| start + Duration::from_millis(at * 10));
        attempts.filter(|now| account.admit(*now, CALL).is_ok()).count()
    };
    // The capacity is 10, and the refill is 200 a minute.
    assert!((209..=211).contains(&count_admitted(0..60, &mut account)));
    assert_eq!(account.limit_statuses()[0].unwrap().limit, 600);
    account.set_limits(&with_background(900), start + Duration::from_secs(60));
    // The rest of the bucket may still be used.
    assert!(count_admitted(60..120, &mut account) <= 1);
    account.set_limits(&with_background(0), start + Duration::from_secs(120));
    assert!((599..=601).contains(&count_admitted(120..180, &mut account)));
}

proptest! {
    #[test]
    fn admitted_calls_never_exceed_the_capacity_plus_the_refill(
        limit in 1u64..5_000,
        by_second in any::<bool>(),
        pauses in prop::collection::vec(0u64..200, 1..300),
    ) {
        let bucket = if by_second { BucketSize::Second } else { BucketSize::Minute };
        let start = Instant::now();
        let mut account = Account::new(&limits(limit, bucket), start);
        let capacity = (limit as f64 * if by_second { 1.0 / 60.0 } else { 1.0 }).max(1.0);
        let mut now = start;
        let mut admitted = 0.0;
        for pause in pauses {
            now += Duration::from_millis(pause);
            match account.admit(now, CALL) {
                Ok(()) => admitted += 1.0,
                Err(rejection) => prop_assert!(rejection.wait.unwrap() > Duration::ZERO),
            }
            let allowed = capacity + (now - start).as_secs_f64() * limit as f64 / 60.0;
            prop_assert!(admitted <= allowed + 0.001, "{} of {}", admitted, allowed);
        }
    }
}
