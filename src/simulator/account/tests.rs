//! Instants are made up: no test waits.

use std::num::NonZeroU64;

use proptest::prelude::*;

use super::*;
use crate::simulator::BucketSize;

fn limits(requests: u64, bucket: BucketSize) -> Limits {
    Limits { requests_per_minute: NonZeroU64::new(requests), bucket, ..Limits::default() }
}

const CALL: Cost = Cost { requests: 1, input: 10, output: 20 };

#[test]
fn a_minutes_bucket_admits_a_minute_at_once_and_then_one_by_one() {
    let start = Instant::now();
    let mut account = Account::new(&limits(60, BucketSize::Minute), start);
    assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 60);
    let refusal = account.admit(start, CALL).unwrap_err();
    assert_eq!((refusal.limit, refusal.used, refusal.requested), (60, 60, 1));
    assert_eq!(refusal.wait, Some(Duration::from_secs(1)));
    assert!(account.admit(start + Duration::from_millis(999), CALL).is_err());
    assert!(account.admit(start + Duration::from_secs(1), CALL).is_ok());
    assert!(account.admit(start + Duration::from_secs(1), CALL).is_err());
}

#[test]
fn a_seconds_bucket_admits_only_a_second_at_once() {
    let start = Instant::now();
    let mut account = Account::new(&limits(1_200, BucketSize::Second), start);
    assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 20);
    let half = start + Duration::from_millis(500);
    assert_eq!((0..100).filter(|_| account.admit(half, CALL).is_ok()).count(), 10);
    // A long pause gives no more than the bucket holds.
    let later = start + Duration::from_secs(3_600);
    assert_eq!((0..100).filter(|_| account.admit(later, CALL).is_ok()).count(), 20);
}

#[test]
fn a_refused_call_takes_nothing_from_any_bucket() {
    let start = Instant::now();
    let limits = Limits {
        requests_per_minute: NonZeroU64::new(10),
        output_tokens_per_minute: NonZeroU64::new(30),
        ..Limits::default()
    };
    let mut account = Account::new(&limits, start);
    assert!(account.admit(start, CALL).is_ok());
    assert_eq!(account.admit(start, CALL).unwrap_err().quantity, Quantity::OutputTokens);
    let [requests, tokens, input, output] = account.standing();
    assert_eq!(requests.unwrap().remaining, 9);
    assert_eq!(output.unwrap().remaining, 10);
    assert_eq!((tokens, input), (None, None));
}

#[test]
fn a_call_above_a_seconds_worth_waits_for_a_full_bucket_and_leaves_a_debt() {
    let start = Instant::now();
    let limits =
        Limits { tokens_per_minute: NonZeroU64::new(600), bucket: BucketSize::Second, ..Limits::default() };
    let mut account = Account::new(&limits, start);
    assert!(account.admit(start, CALL).is_ok());
    // 30 tokens out of a bucket of 10: 20 of debt, 10 for the next full bucket.
    assert_eq!(account.admit(start, CALL).unwrap_err().wait, Some(Duration::from_secs(3)));
    assert!(account.admit(start + Duration::from_secs(3), CALL).is_ok());
    let never = Cost::call(600, 1);
    assert_eq!(account.admit(start + Duration::from_secs(60), never).unwrap_err().wait, None);
}

#[test]
fn a_lower_limit_takes_hold_at_once() {
    let start = Instant::now();
    let mut account = Account::new(&limits(60, BucketSize::Minute), start);
    account.change(&limits(20, BucketSize::Minute), start);
    assert_eq!((0..100).filter(|_| account.admit(start, CALL).is_ok()).count(), 20);
    account.change(&Limits::default(), start);
    assert!((0..100).all(|_| account.admit(start, CALL).is_ok()));
}

#[test]
fn an_empty_start_admits_nothing_at_first() {
    let start = Instant::now();
    let empty = Limits { starts_full: false, ..limits(60, BucketSize::Minute) };
    let mut account = Account::new(&empty, start);
    assert!(account.admit(start, CALL).is_err());
    assert!(account.admit(start + Duration::from_secs(1), CALL).is_ok());
}

#[test]
fn what_is_written_later_makes_a_debt_and_the_next_call_waits_for_room() {
    let start = Instant::now();
    let limits = Limits { tokens_per_minute: NonZeroU64::new(60), ..Limits::default() };
    let mut account = Account::new(&limits, start);
    let call = Cost::call(10, 0);
    assert!(account.admit(start, call).is_ok());
    // 50 are left; the answer takes 80.
    account.write(start, 80);
    assert_eq!(account.standing()[1].unwrap().remaining, 0);
    let refusal = account.admit(start, call).unwrap_err();
    assert_eq!((refusal.used, refusal.wait), (60, Some(Duration::from_secs(40))));
    assert!(account.admit(start + Duration::from_secs(40), call).is_ok());
}

#[test]
fn a_call_whose_answer_is_not_written_yet_finds_no_room_in_an_empty_bucket() {
    let start = Instant::now();
    let limits = Limits { output_tokens_per_minute: NonZeroU64::new(60), ..Limits::default() };
    let mut account = Account::new(&limits, start);
    let call = Cost::call(10, 0);
    // Nothing is written while the calls come: a vendor that counts what is written admits them all.
    assert!((0..1_000).all(|_| account.admit(start, call).is_ok()));
    account.write(start, 60);
    assert_eq!(account.admit(start, call).unwrap_err().wait, Some(Duration::from_secs(1)));
    assert!(account.admit(start + Duration::from_secs(1), call).is_ok());
}

#[test]
fn others_take_their_part_while_the_limit_is_told_unchanged() {
    let start = Instant::now();
    let others = |others| Limits { others_per_minute: others, ..limits(600, BucketSize::Second) };
    let mut account = Account::new(&others(400), start);
    let admitted = |seconds: std::ops::Range<u64>, account: &mut Account| {
        let tries = (seconds.start * 100..seconds.end * 100).map(|at| start + Duration::from_millis(at * 10));
        tries.filter(|now| account.admit(*now, CALL).is_ok()).count()
    };
    // A bucket of ten, and 200 a minute.
    assert!((209..=211).contains(&admitted(0..60, &mut account)));
    assert_eq!(account.standing()[0].unwrap().limit, 600);
    account.change(&others(900), start + Duration::from_secs(60));
    // They may leave what is in the bucket.
    assert!(admitted(60..120, &mut account) <= 1);
    account.change(&others(0), start + Duration::from_secs(120));
    assert!((599..=601).contains(&admitted(120..180, &mut account)));
}

proptest! {
    #[test]
    fn no_window_ever_admits_more_than_the_bucket_and_the_time_allow(
        limit in 1u64..5_000,
        by_second in any::<bool>(),
        pauses in prop::collection::vec(0u64..200, 1..300),
    ) {
        let bucket = if by_second { BucketSize::Second } else { BucketSize::Minute };
        let start = Instant::now();
        let mut account = Account::new(&limits(limit, bucket), start);
        let capacity = (limit as f64 * if by_second { 1.0 / 60.0 } else { 1.0 }).max(1.0);
        let (mut now, mut admitted) = (start, 0.0);
        for pause in pauses {
            now += Duration::from_millis(pause);
            match account.admit(now, CALL) {
                Ok(()) => admitted += 1.0,
                Err(refusal) => prop_assert!(refusal.wait.unwrap() > Duration::ZERO),
            }
            let allowed = capacity + (now - start).as_secs_f64() * limit as f64 / 60.0;
            prop_assert!(admitted <= allowed + 0.001, "{} of {}", admitted, allowed);
        }
    }
}
