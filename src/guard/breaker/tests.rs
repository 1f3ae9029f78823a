//! Tests of the breaker: scenarios, and properties over random histories.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn opened() -> (Breaker, Instant) {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let now = Instant::now();
    for _ in 0..5 {
        let token = breaker.admit(now, false).unwrap();
        breaker.record_failure(token, now, 1.0);
    }
    (breaker, now)
}

#[test]
fn five_consecutive_failures_open_the_breaker() {
    let (mut breaker, now) = opened();
    assert_eq!(breaker.state(now), BreakerState::Open);
    assert_eq!(breaker.admit(now, false), Err(Some(now + Duration::from_secs(5))));
}

#[test]
fn random_failures_do_not_open_the_breaker_and_an_outage_does() {
    for share in [0.0, 0.02, 0.2, 0.4] {
        let mut breaker = Breaker::new(BreakerSettings::default());
        let mut now = Instant::now();
        let mut random = fastrand::Rng::with_seed(1);
        let mut openings = 0;
        let mut was_open = false;
        let mut call = |breaker: &mut Breaker, fails: bool| {
            now += Duration::from_millis(100);
            if let Ok(token) = breaker.admit(now, true) {
                if fails {
                    breaker.record_failure(token, now, 0.0)
                } else {
                    _ = breaker.record_success(token, now)
                }
            }
            breaker.trip_reason() == Some(TripReason::ConsecutiveFailures)
        };
        for _ in 0..50_000 {
            let is_open = call(&mut breaker, random.f64() < share);
            openings += u32::from(is_open && !was_open);
            was_open = is_open;
        }
        assert!(openings <= 2, "{share}: {openings} times");
        let failures = (1..100).find(|_| call(&mut breaker, true));
        assert!(failures.is_some_and(|failures| failures <= 20), "{share}: after {failures:?}");
    }
}

#[test]
fn a_few_fast_failures_beside_many_calls_in_flight_are_no_streak() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let now = Instant::now();
    let tokens: Vec<BreakerToken> = (0..64).map(|_| breaker.admit(now, false).unwrap()).collect();
    for token in &tokens[..10] {
        breaker.record_failure(*token, now, 1.0);
    }
    assert_eq!(breaker.state(now), BreakerState::Closed);
    // A target that is down fails them all.
    for token in &tokens[10..20] {
        breaker.record_failure(*token, now, 1.0);
    }
    assert_eq!(breaker.state(now), BreakerState::Open);
}

#[test]
fn a_failure_rate_of_one_half_opens_the_breaker_after_twenty_calls() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let now = Instant::now();
    for call in 0..20 {
        assert_eq!(breaker.state(now), BreakerState::Closed, "after {call} calls");
        let token = breaker.admit(now, false).unwrap();
        if call % 2 == 0 {
            _ = breaker.record_success(token, now)
        } else {
            breaker.record_failure(token, now, 1.0)
        }
    }
    assert_eq!(breaker.state(now), BreakerState::Open);
}

#[test]
fn failures_older_than_the_window_expire() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let start = Instant::now();
    for call in 0..100u32 {
        let now = start + Duration::from_secs(20) * call;
        let token = breaker.admit(now, false).unwrap();
        if call % 2 == 0 {
            _ = breaker.record_success(token, now)
        } else {
            breaker.record_failure(token, now, 1.0)
        }
    }
    assert_eq!(breaker.state(start + Duration::from_secs(2_000)), BreakerState::Closed);
}

#[test]
fn exactly_one_probe_is_admitted() {
    let (mut breaker, now) = opened();
    let due = now + Duration::from_secs(5);
    assert!(!breaker.would_admit(now) && breaker.would_admit(due));
    let probe = breaker.admit(due, false).unwrap();
    assert_eq!((breaker.admit(due, false), breaker.would_admit(due)), (Err(None), false));
    breaker.release(probe);
    assert!(breaker.would_admit(due) && breaker.admit(due, false).is_ok());
    assert_eq!(breaker.admit(due, false), Err(None));
}

#[test]
fn a_failed_probe_triples_the_open_duration_up_to_its_maximum() {
    let (mut breaker, now) = opened();
    let due = now + Duration::from_secs(5);
    let probe = breaker.admit(due, false).unwrap();
    breaker.record_failure(probe, due, 1.0);
    assert_eq!(breaker.admit(due, false), Err(Some(due + Duration::from_secs(10))));
}

#[test]
fn a_stale_failure_does_not_reopen_the_breaker() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let now = Instant::now();
    let stale: Vec<BreakerToken> = (0..10).map(|_| breaker.admit(now, false).unwrap()).collect();
    for token in &stale[..5] {
        breaker.record_failure(*token, now, 1.0);
    }
    let due = now + Duration::from_secs(5);
    let probe = breaker.admit(due, false).unwrap();
    breaker.record_success(probe, due);
    for token in &stale[5..] {
        breaker.record_failure(*token, due, 1.0);
    }
    assert_eq!(breaker.state(due), BreakerState::Closed);
}

/// A breaker opened by its failure rate.
fn impaired() -> (Breaker, Instant) {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let now = Instant::now();
    for call in 0..20 {
        let token = breaker.admit(now, false).unwrap();
        if call % 2 == 0 {
            _ = breaker.record_success(token, now)
        } else {
            breaker.record_failure(token, now, 1.0)
        }
    }
    assert_eq!(
        (breaker.state(now), breaker.trip_reason()),
        (BreakerState::Open, Some(TripReason::FailureRate))
    );
    (breaker, now)
}

#[test]
fn twenty_fast_failures_beside_hundreds_of_calls_in_flight_do_not_open_the_breaker() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let now = Instant::now();
    let tokens: Vec<BreakerToken> = (0..512).map(|_| breaker.admit(now, false).unwrap()).collect();
    // A twentieth fails at once; the answers take longer.
    tokens[..26].iter().for_each(|token| breaker.record_failure(*token, now, 1.0));
    assert_eq!(breaker.state(now), BreakerState::Closed);
    tokens[26..].iter().for_each(|token| _ = breaker.record_success(*token, now));
    assert_eq!(breaker.state(now), BreakerState::Closed);
}

#[test]
fn a_call_without_other_targets_is_admitted_if_the_target_is_only_impaired() {
    let (mut breaker, now) = impaired();
    assert_eq!(breaker.check(now, true), Ok(()));
    let forced = breaker.admit(now, true).unwrap();
    assert!(forced.is_forced() && !forced.is_probe());
    assert!(breaker.admit(now, false).is_err());
    // Beside a probe, too; if a probe is due, the call is the probe.
    let due = now + Duration::from_secs(5);
    assert!(breaker.admit(due, true).unwrap().is_probe());
    assert!(breaker.admit(due, true).unwrap().is_forced());
    assert_eq!(breaker.admit(due, false), Err(None));
}

#[test]
fn a_call_without_other_targets_waits_if_the_target_is_down() {
    let (mut breaker, now) = opened();
    assert_eq!(breaker.trip_reason(), Some(TripReason::ConsecutiveFailures));
    assert_eq!(breaker.admit(now, true), Err(Some(now + Duration::from_secs(5))));
}

#[test]
fn forced_calls_that_all_fail_mark_the_target_as_down() {
    let (mut breaker, now) = impaired();
    for _ in 0..4 {
        let forced = breaker.admit(now, true).unwrap();
        breaker.record_failure(forced, now, 1.0);
    }
    let forced = breaker.admit(now, true).unwrap();
    assert!(!breaker.record_success(forced, now));
    assert_eq!(
        (breaker.state(now), breaker.trip_reason()),
        (BreakerState::Open, Some(TripReason::FailureRate))
    );
    for _ in 0..5 {
        let forced = breaker.admit(now, true).unwrap();
        breaker.record_failure(forced, now, 1.0);
    }
    assert_eq!(breaker.trip_reason(), Some(TripReason::ConsecutiveFailures));
    assert_eq!(breaker.admit(now, true), Err(Some(now + Duration::from_secs(5))));
}

#[test]
fn a_forced_call_of_an_earlier_outage_is_stale() {
    let (mut breaker, now) = impaired();
    let stale: Vec<BreakerToken> = (0..40).map(|_| breaker.admit(now, true).unwrap()).collect();
    let due = now + Duration::from_secs(5);
    let probe = breaker.admit(due, false).unwrap();
    assert!(breaker.record_success(probe, due));
    stale[..20].iter().for_each(|token| breaker.record_failure(*token, due, 1.0));
    for call in 0..20 {
        let token = breaker.admit(due, false).unwrap();
        if call % 2 == 0 {
            _ = breaker.record_success(token, due)
        } else {
            breaker.record_failure(token, due, 1.0)
        }
    }
    stale[20..].iter().for_each(|token| breaker.record_failure(*token, due, 1.0));
    assert_eq!(breaker.trip_reason(), Some(TripReason::FailureRate));
}

#[test]
fn a_wait_that_the_provider_requests_only_extends_the_open_state() {
    let (mut breaker, now) = opened();
    let after = |seconds| now + Duration::from_secs(seconds);
    breaker.extend_open_until(after(2));
    assert_eq!(breaker.admit(now, false), Err(Some(after(5))));
    breaker.extend_open_until(after(60));
    breaker.extend_open_until(after(30));
    assert_eq!(breaker.admit(now, false), Err(Some(after(60))));
    let probe = breaker.admit(after(60), false).unwrap();
    // The provider requests a wait while the probe is in flight, and the probe has no outcome: the next one waits.
    breaker.extend_open_until(after(90));
    breaker.release(probe);
    assert_eq!(breaker.admit(after(61), false), Err(Some(after(90))));
    let probe = breaker.admit(after(90), false).unwrap();
    breaker.extend_open_until(after(600));
    assert!(breaker.record_success(probe, after(90)), "a success closes it anyway");
    breaker.extend_open_until(after(900));
    assert!(breaker.admit(after(91), false).is_ok());
}

/// One step of the property below.
#[derive(Debug, Clone, Copy)]
enum Step {
    Admit { is_only_option: bool },
    Succeed,
    Fail,
    Release,
    ExtendOpen,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step, usize)>> {
    let step = prop::sample::select(vec![
        Step::Admit { is_only_option: false },
        Step::Admit { is_only_option: false },
        Step::Admit { is_only_option: true },
        Step::Succeed,
        Step::Fail,
        Step::Fail,
        Step::Release,
        Step::ExtendOpen,
    ]);
    prop::collection::vec((0u64..8_000, step, 0usize..1_000), 1..400)
}

/// The observable state of a breaker.
fn observe(breaker: &Breaker, now: Instant) -> impl PartialEq + std::fmt::Debug + use<> {
    let later = [0, 1, 10, 100, 1_000].map(|seconds| {
        let then = now + Duration::from_secs(seconds);
        (breaker.state(then), breaker.check(then, false), breaker.check(then, true))
    });
    (breaker.trip_reason(), later)
}

/// Simulates a minute in which every admitted attempt fails at once; returns when they were sent.
fn outage(jitters: &[f64]) -> (Breaker, Vec<Duration>) {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let start = Instant::now();
    let mut now = start;
    let mut sent = Vec::new();
    let mut jitters = jitters.iter().cycle();
    while now < start + Duration::from_secs(60) {
        match breaker.admit(now, false) {
            Ok(token) => {
                sent.push(now - start);
                breaker.record_failure(token, now, *jitters.next().unwrap());
            }
            Err(until) => now = until.unwrap(),
        }
    }
    (breaker, sent)
}

proptest! {
    #[test]
    fn an_outage_of_a_minute_costs_eleven_attempts_and_its_end_is_detected_within_ten_seconds(
        jitters in prop::collection::vec(0.0..1.0, 1..20),
    ) {
        let (breaker, sent) = outage(&jitters);
        // The first overload response is not counted if it lowers the concurrency limit, which makes twelve.
        prop_assert!(sent.len() <= 11, "{sent:?}");
        let limit = Duration::from_secs(10);
        prop_assert!(sent.windows(2).all(|pair| pair[1] - pair[0] <= limit), "{sent:?}");
        let end = Instant::now() + Duration::from_secs(60);
        prop_assert!(breaker.open_until(end).is_none_or(|until| until <= end + limit));
    }

    #[test]
    fn an_unresponsive_provider_is_probed_ten_seconds_after_the_last_probe_was_sent(
        jitters in prop::collection::vec(0.0..1.0, 1..20),
        detection_seconds in 5u64..=10,
    ) {
        let mut breaker = Breaker::new(BreakerSettings::default());
        let start = Instant::now();
        let mut now = start;
        let mut sent = Vec::new();
        let mut jitters = jitters.iter().cycle();
        while now < start + Duration::from_secs(60) {
            match breaker.admit(now, false) {
                Ok(token) => {
                    sent.push(now);
                    let sent_at = now;
                    now += Duration::from_secs(detection_seconds);
                    breaker.record_unresponsive(token, sent_at, now, *jitters.next().unwrap());
                }
                Err(until) => now = until.unwrap(),
            }
        }
        // The first call was no probe: it was found unresponsive, and the open state followed.
        let gaps = sent[1..].windows(2).map(|pair| pair[1] - pair[0]);
        prop_assert!(gaps.max() <= Some(Duration::from_secs(10)), "{sent:?}");
        prop_assert!(sent.len() <= 12, "{sent:?}");
    }

    #[test]
    fn in_any_history_one_probe_decides(events in steps()) {
        let mut breaker = Breaker::new(BreakerSettings::default());
        let mut now = Instant::now();
        let mut tokens: Vec<BreakerToken> = Vec::new();
        let mut wait_until = now;
        for (pause, step, number) in events {
            now += Duration::from_millis(pause);
            if let Step::Admit { is_only_option } = step {
                let expected = breaker.check(now, is_only_option);
                let token = breaker.admit(now, is_only_option);
                prop_assert_eq!(expected, token.map(|_| ()));
                tokens.extend(token);
            } else if let Step::ExtendOpen = step {
                let until = now + Duration::from_millis(number as u64 * 200);
                if breaker.state(now) != BreakerState::Closed { wait_until = wait_until.max(until) }
                let before = breaker.check(now, false);
                breaker.extend_open_until(until);
                let shorter = matches!((before, breaker.check(now, false)),
                    (Err(Some(before)), Err(Some(after))) if after < before);
                prop_assert!(!shorter && (before.is_ok() || breaker.check(now, false).is_err()));
            } else if !tokens.is_empty() {
                let token = tokens.swap_remove(number % tokens.len());
                let is_stale = breaker.is_stale(token);
                let before = observe(&breaker, now);
                match step {
                    Step::Succeed => {
                        let closed = breaker.record_success(token, now);
                        prop_assert_eq!(closed, token.is_probe() && !is_stale);
                        prop_assert!(!closed || breaker.state(now) == BreakerState::Closed);
                    }
                    Step::Fail => breaker.record_failure(token, now, number as f64 / 1_000.0),
                    _ => breaker.release(token),
                }
                // Neither stale nor forced outcomes change the state; forced ones may mark the target as
                // down.
                let trip_reason = breaker.trip_reason();
                let after = observe(&breaker, now);
                prop_assert!(!is_stale || before == after, "{before:?} {after:?}");
                let is_down = trip_reason == Some(TripReason::ConsecutiveFailures);
                prop_assert!(!token.is_forced() || before == after || is_down);
            }
            let probes = tokens.iter().filter(|token| token.is_probe() && !breaker.is_stale(**token)).count();
            prop_assert!(probes <= 1);
            let probing = breaker.check(now, false) == Err(None);
            prop_assert_eq!(probes == 1, probing);
            // No wait is longer than the maximum open duration, unless the provider requested it.
            if let Err(Some(until)) = breaker.check(now, false) {
                prop_assert!(until <= wait_until.max(now + BreakerSettings::default().max_open_duration));
            }
            prop_assert_eq!(breaker.trip_reason().is_none(), breaker.state(now) == BreakerState::Closed);
        }
        // In the end it admits a call again, and the success of that call closes it.
        for token in tokens { breaker.release(token) }
        now = wait_until.max(now) + Duration::from_secs(121);
        let token = breaker.admit(now, false).unwrap();
        prop_assert_eq!(breaker.record_success(token, now), token.is_probe());
        prop_assert_eq!(breaker.state(now), BreakerState::Closed);
    }
}

#[test]
fn an_unresponsive_target_is_avoided_until_it_sends_a_response() {
    let mut breaker = Breaker::new(BreakerSettings::default());
    let now = Instant::now();
    let token = breaker.admit(now, false).unwrap();
    breaker.record_unresponsive(token, now, now, 1.0);
    assert_eq!(
        (breaker.state(now), breaker.trip_reason()),
        (BreakerState::Open, Some(TripReason::Unresponsive))
    );
    assert!(breaker.admit(now, true).unwrap().is_forced(), "there is no other target");
    // Its outcome is stale, but a response is not.
    assert!(!breaker.record_success(token, now));
    assert!(!breaker.record_response(), "no probe had been unresponsive");
    assert_eq!((breaker.state(now), breaker.trip_reason()), (BreakerState::Closed, None));
    let token = breaker.admit(now, false).unwrap();
    breaker.record_unresponsive(token, now, now, 1.0);
    let probe = breaker.admit(now + Duration::from_secs(5), false).unwrap();
    breaker.record_unresponsive(probe, now + Duration::from_secs(5), now + Duration::from_secs(10), 1.0);
    assert!(breaker.record_response(), "a probe was unresponsive, too");
}

#[test]
fn an_unresponsive_probe_reopens_the_breaker() {
    let (mut breaker, now) = opened();
    let later = now + Duration::from_secs(5);
    let probe = breaker.admit(later, false).unwrap();
    assert!(probe.is_probe());
    breaker.record_unresponsive(probe, later, later, 1.0);
    assert_eq!(breaker.admit(later, false), Err(Some(later + Duration::from_secs(10))));
    // Slow, but working.
    assert!(breaker.record_success(probe, later));
    assert_eq!(breaker.state(later), BreakerState::Closed);
}
