//! Tests of the concurrency limit, step by step.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(min: u32, start: u32, max: u32) -> ConcurrencySettings {
    let [min, start, max] = [min, start, max].map(|number| NonZeroU32::new(number).unwrap());
    ConcurrencySettings { min, start, max }
}

/// One round trip: as many calls as may be sent, all accepted, all answered a second later.
fn round_trip(concurrency: &mut ConcurrencyLimit, now: &mut Instant) {
    let mut tokens = Vec::new();
    while concurrency.has_capacity(false) {
        tokens.push(concurrency.record_sent(false, *now));
    }
    *now += SECOND;
    tokens.iter().for_each(|token| concurrency.record_accepted(*token, *now));
    tokens.iter().for_each(|token| _ = concurrency.release(*token, ConcurrencyOutcome::Answered, *now));
}

#[test]
fn the_limit_doubles_with_every_round_trip_up_to_its_maximum() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 2, 100));
    let mut now = Instant::now();
    let mut limits = Vec::new();
    for _ in 0..6 {
        round_trip(&mut concurrency, &mut now);
        limits.push(concurrency.limit());
    }
    // Then it waits once or twice for enough answers to compare.
    assert_eq!((limits[0], limits[1]), (4, 8));
    while concurrency.limit() < 100 && limits.len() < 20 {
        round_trip(&mut concurrency, &mut now);
        limits.push(concurrency.limit());
    }
    assert!(limits.len() <= 12, "{limits:?}");
}

#[test]
fn an_unused_limit_does_not_grow() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 32, 512));
    let mut now = Instant::now();
    for _ in 0..1_000 {
        let tokens: Vec<InFlightToken> = (0..25).map(|_| concurrency.record_sent(false, now)).collect();
        now += SECOND;
        tokens.iter().for_each(|token| concurrency.record_accepted(*token, now));
        tokens.iter().for_each(|token| _ = concurrency.release(*token, ConcurrencyOutcome::Answered, now));
    }
    assert_eq!(concurrency.limit(), 32);
}

/// Fills the limit, and rejects the last `count` attempts as overload.
fn overload_last(concurrency: &mut ConcurrencyLimit, count: usize, now: Instant) {
    let tokens: Vec<InFlightToken> =
        (0..concurrency.limit()).map(|_| concurrency.record_sent(false, now)).collect();
    for (number, token) in tokens.iter().rev().enumerate() {
        let outcome =
            if number < count { ConcurrencyOutcome::Throttled } else { ConcurrencyOutcome::Answered };
        concurrency.release(*token, outcome, now);
    }
}

#[test]
fn a_small_share_of_overload_lowers_nothing_and_sets_no_ceiling() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 100, 512));
    let mut now = Instant::now();
    for _ in 0..50 {
        overload_last(&mut concurrency, 5, now);
        now += SECOND;
        assert_eq!(concurrency.limit(), 100);
        assert!(concurrency.ceiling.is_none());
    }
}

#[test]
fn a_burst_lowers_the_limit_by_the_number_of_rejected_calls() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 100, 512));
    let now = Instant::now();
    overload_last(&mut concurrency, 60, now);
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (40, 0));
    // The 41st was the first that was rejected.
    assert_eq!(concurrency.ceiling.unwrap().at, 41);
}

#[test]
fn the_cause_of_a_reduction_is_overload_or_missing_responses() {
    for (outcome, cause) in [
        (ConcurrencyOutcome::Throttled, ReductionCause::Overload),
        (ConcurrencyOutcome::TimedOut, ReductionCause::NoResponse),
    ] {
        let mut concurrency = ConcurrencyLimit::new(settings(1, 100, 512));
        let now = Instant::now();
        let tokens: Vec<InFlightToken> = (0..100).map(|_| concurrency.record_sent(false, now)).collect();
        tokens.iter().rev().for_each(|token| {
            concurrency.release(*token, outcome, now);
        });
        assert!(concurrency.limit() < 100);
        assert_eq!(concurrency.reduction_cause(), cause);
    }
}

#[test]
fn overload_with_few_calls_in_flight_does_not_lower_the_limit() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 100, 512));
    let now = Instant::now();
    for _ in 0..50 {
        let token = concurrency.record_sent(false, now);
        concurrency.release(token, ConcurrencyOutcome::Throttled, now);
    }
    assert_eq!(concurrency.limit(), 100);
}

#[test]
fn a_ceiling_is_approached_at_once_and_later_exceeded_in_growing_steps() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 100, 512));
    let mut now = Instant::now();
    let tokens: Vec<InFlightToken> = (0..100).map(|_| concurrency.record_sent(false, now)).collect();
    // A rejected call had 70 others beside it: those were not too many.
    tokens[70..].iter().for_each(|token| _ = concurrency.release(*token, ConcurrencyOutcome::Throttled, now));
    tokens[..70].iter().for_each(|token| _ = concurrency.release(*token, ConcurrencyOutcome::Answered, now));
    assert_eq!((concurrency.limit(), concurrency.ceiling.unwrap().at), (70, 71));
    let mut limits = Vec::new();
    for _ in 0..6 {
        round_trip(&mut concurrency, &mut now);
        limits.push(concurrency.limit());
    }
    assert_eq!(limits, [71, 73, 77, 85, 101, 133]);
    assert!(concurrency.ceiling.is_none());
}

#[test]
fn a_ceiling_is_trusted_for_a_quarter_of_its_age() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 100, 512));
    let start = Instant::now();
    overload_last(&mut concurrency, 60, start);
    let held =
        |concurrency: &ConcurrencyLimit, now: Instant| concurrency.ceiling.unwrap().held_for(now).as_secs();
    assert_eq!(held(&concurrency, start), 1);
    for (age, holds) in [(20, 5), (200, 50), (2_000, 240)] {
        let now = start + SECOND * age;
        concurrency.limit = 50;
        overload_last(&mut concurrency, 10, now);
        assert_eq!((held(&concurrency, now), concurrency.ceiling.unwrap().at), (holds, 41));
    }
}

#[test]
fn a_ceiling_does_not_prevent_growth_from_the_minimum() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 16, 512));
    let mut now = Instant::now();
    for _ in 0..20 {
        overload_last(&mut concurrency, 16, now);
        now += SECOND;
    }
    assert_eq!(concurrency.limit(), 1);
    // After twenty seconds of rejections it grows again within a quarter of that time, and then ever faster.
    (0..16).for_each(|_| round_trip(&mut concurrency, &mut now));
    assert!(concurrency.limit() >= 100, "{}", concurrency.limit());
}

#[test]
fn after_an_outage_the_limit_restarts_at_an_eighth_and_recovers() {
    let mut concurrency = ConcurrencyLimit::new(settings(1, 80, 512));
    let mut now = Instant::now();
    let before: Vec<InFlightToken> = (0..80).map(|_| concurrency.record_sent(false, now)).collect();
    concurrency.restart_after_outage(now);
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (10, 80));
    for (number, token) in before.iter().enumerate() {
        concurrency.record_accepted(*token, now);
        let outcome = [ConcurrencyOutcome::Answered, ConcurrencyOutcome::Other][number % 2];
        concurrency.release(*token, outcome, now);
    }
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (10, 0));
    for limit in [20, 40, 80] {
        round_trip(&mut concurrency, &mut now);
        assert_eq!(concurrency.limit(), limit);
        // Another outage during the recovery does not lower its target.
        if limit == 20 {
            concurrency.restart_after_outage(now);
            assert_eq!(concurrency.limit(), 10);
            round_trip(&mut concurrency, &mut now);
        }
    }
}

#[test]
fn inconsistent_settings_are_clamped() {
    assert_eq!(ConcurrencyLimit::new(settings(1, 32, 10)).limit(), 10);
    assert_eq!(ConcurrencyLimit::new(settings(50, 32, 100)).limit(), 50);
    assert_eq!(ConcurrencyLimit::new(settings(50, 32, 10)).limit(), 50);
}

proptest! {
    #[test]
    fn in_any_history_the_bounds_hold_and_every_call_is_counted(
        (min, start, max) in (1u32..20, 1u32..100, 1u32..200),
        events in proptest::collection::vec((0u64..20_000, 0u8..8, 0usize..64), 1..600),
    ) {
        let mut concurrency = ConcurrencyLimit::new(settings(min, start, max));
        let mut now = Instant::now();
        // Each token with whether its call was accepted.
        let mut tokens = Vec::<(InFlightToken, bool)>::new();
        let max = max.max(min) as usize;
        let min = min as usize;
        for (pause, event, number) in events {
            now += Duration::from_millis(pause);
            let limit = concurrency.limit();
            match event {
                0 | 1 => while concurrency.has_capacity(false) && tokens.len() < limit {
                    tokens.push((concurrency.record_sent(false, now), false));
                },
                2 => tokens.push((concurrency.record_sent(false, now), false)),
                3 => for (token, accepted) in tokens.iter_mut().filter(|(_, accepted)| !accepted) {
                    concurrency.record_accepted(*token, now);
                    *accepted = true;
                },
                4 if number < 4 => concurrency.restart_after_outage(now),
                _ if tokens.is_empty() => {}
                _ => {
                    let (token, _) = tokens.swap_remove(number % tokens.len());
                    let outcome = match event {
                        5 => ConcurrencyOutcome::Throttled,
                        6 => ConcurrencyOutcome::TimedOut,
                        7 => ConcurrencyOutcome::Answered,
                        _ => ConcurrencyOutcome::Other,
                    };
                    concurrency.release(token, outcome, now);
                }
            }
            prop_assert!((min..=max).contains(&concurrency.limit()));
            prop_assert_eq!(concurrency.in_flight(), tokens.len());
        }
    }
}

#[test]
fn changed_bounds_keep_what_was_learned_within_them() {
    let mut limit = ConcurrencyLimit::new(settings(1, 32, 512));
    limit.set_bounds(settings(1, 8, 8));
    assert_eq!((limit.limit(), limit.max()), (8, 8));
    limit.set_bounds(settings(16, 32, 64));
    assert_eq!((limit.limit(), limit.max()), (32, 64));
    // What is in flight stays in flight.
    let now = Instant::now();
    let tokens: Vec<_> = (0..20).map(|_| limit.record_sent(false, now)).collect();
    limit.set_bounds(settings(1, 4, 4));
    assert_eq!((limit.in_flight(), limit.has_capacity(false)), (20, false));
    for token in tokens {
        limit.release(token, ConcurrencyOutcome::Answered, now);
    }
    assert_eq!((limit.in_flight(), limit.limit(), limit.has_capacity(false)), (0, 4, true));
}
