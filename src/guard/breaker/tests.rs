//! The breaker's stories, and what holds whatever happens.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn opened() -> (Breaker, Instant) {
    let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
    for _ in 0..5 {
        let pass = breaker.admit(now, false).unwrap();
        breaker.failed(pass, now, 1.0);
    }
    (breaker, now)
}

#[test]
fn five_failures_in_a_row_open_it() {
    let (mut breaker, now) = opened();
    assert_eq!(breaker.state(now), BreakerState::Open);
    assert_eq!(breaker.admit(now, false), Err(Some(now + Duration::from_secs(5))));
}

#[test]
fn a_lane_that_fails_often_at_random_is_not_taken_for_down_and_opens_when_it_is() {
    for share in [0.0, 0.02, 0.2, 0.4] {
        let (mut breaker, mut now) = (Breaker::new(BreakerSettings::default()), Instant::now());
        let mut random = fastrand::Rng::with_seed(1);
        let (mut opened, mut was_open) = (0, false);
        let mut call = |breaker: &mut Breaker, fails: bool| {
            now += Duration::from_millis(100);
            if let Ok(pass) = breaker.admit(now, true) {
                if fails { breaker.failed(pass, now, 0.0) } else { _ = breaker.succeeded(pass, now) }
            }
            breaker.trouble() == Some(Trouble::Row)
        };
        for _ in 0..50_000 {
            let is_open = call(&mut breaker, random.f64() < share);
            opened += u32::from(is_open && !was_open);
            was_open = is_open;
        }
        assert!(opened <= 2, "{share}: {opened} times");
        let failures = (1..100).find(|_| call(&mut breaker, true));
        assert!(failures.is_some_and(|failures| failures <= 20), "{share}: after {failures:?}");
    }
}

#[test]
fn a_few_fast_failures_beside_many_calls_still_out_are_no_row() {
    let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
    let out: Vec<Pass> = (0..64).map(|_| breaker.admit(now, false).unwrap()).collect();
    for pass in &out[..10] {
        breaker.failed(*pass, now, 1.0);
    }
    assert_eq!(breaker.state(now), BreakerState::Closed);
    // A lane that is dead fails them all.
    for pass in &out[10..20] {
        breaker.failed(*pass, now, 1.0);
    }
    assert_eq!(breaker.state(now), BreakerState::Open);
}

#[test]
fn one_failure_in_two_opens_it_after_twenty_calls() {
    let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
    for call in 0..20 {
        assert_eq!(breaker.state(now), BreakerState::Closed, "after {call} calls");
        let pass = breaker.admit(now, false).unwrap();
        if call % 2 == 0 { _ = breaker.succeeded(pass, now) } else { breaker.failed(pass, now, 1.0) }
    }
    assert_eq!(breaker.state(now), BreakerState::Open);
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let (mut breaker, start) = (Breaker::new(BreakerSettings::default()), Instant::now());
    for call in 0..100u32 {
        let now = start + Duration::from_secs(20) * call;
        let pass = breaker.admit(now, false).unwrap();
        if call % 2 == 0 { _ = breaker.succeeded(pass, now) } else { breaker.failed(pass, now, 1.0) }
    }
    assert_eq!(breaker.state(start + Duration::from_secs(2_000)), BreakerState::Closed);
}

#[test]
fn exactly_one_probe_passes() {
    let (mut breaker, now) = opened();
    let due = now + Duration::from_secs(5);
    assert!(!breaker.would_admit(now) && breaker.would_admit(due));
    let probe = breaker.admit(due, false).unwrap();
    assert_eq!((breaker.admit(due, false), breaker.would_admit(due)), (Err(None), false));
    breaker.said_nothing(probe);
    assert!(breaker.would_admit(due) && breaker.admit(due, false).is_ok());
    assert_eq!(breaker.admit(due, false), Err(None));
}

#[test]
fn a_probe_that_fails_triples_the_pause_up_to_its_most() {
    let (mut breaker, now) = opened();
    let due = now + Duration::from_secs(5);
    let probe = breaker.admit(due, false).unwrap();
    breaker.failed(probe, due, 1.0);
    assert_eq!(breaker.admit(due, false), Err(Some(due + Duration::from_secs(10))));
}

#[test]
fn a_late_failure_does_not_reopen_it() {
    let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
    let late: Vec<Pass> = (0..10).map(|_| breaker.admit(now, false).unwrap()).collect();
    for pass in &late[..5] {
        breaker.failed(*pass, now, 1.0);
    }
    let due = now + Duration::from_secs(5);
    let probe = breaker.admit(due, false).unwrap();
    breaker.succeeded(probe, due);
    for pass in &late[5..] {
        breaker.failed(*pass, due, 1.0);
    }
    assert_eq!(breaker.state(due), BreakerState::Closed);
}

/// A breaker that has opened by its share of failures.
fn ill() -> (Breaker, Instant) {
    let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
    for call in 0..20 {
        let pass = breaker.admit(now, false).unwrap();
        if call % 2 == 0 { _ = breaker.succeeded(pass, now) } else { breaker.failed(pass, now, 1.0) }
    }
    assert_eq!((breaker.state(now), breaker.trouble()), (BreakerState::Open, Some(Trouble::Share)));
    (breaker, now)
}

#[test]
fn twenty_fast_failures_beside_hundreds_of_calls_still_out_are_no_share() {
    let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
    let out: Vec<Pass> = (0..512).map(|_| breaker.admit(now, false).unwrap()).collect();
    // A twentieth fails at once; the answers take their time.
    out[..26].iter().for_each(|pass| breaker.failed(*pass, now, 1.0));
    assert_eq!(breaker.state(now), BreakerState::Closed);
    out[26..].iter().for_each(|pass| _ = breaker.succeeded(*pass, now));
    assert_eq!(breaker.state(now), BreakerState::Closed);
}

#[test]
fn a_call_that_has_nowhere_else_to_go_passes_where_the_lane_is_only_ill() {
    let (mut breaker, now) = ill();
    assert_eq!(breaker.check(now, true), Ok(()));
    let forced = breaker.admit(now, true).unwrap();
    assert!(forced.is_forced() && !forced.is_probe());
    assert!(breaker.admit(now, false).is_err());
    // Beside a probe, too; when one is due, it is the probe.
    let due = now + Duration::from_secs(5);
    assert!(breaker.admit(due, true).unwrap().is_probe());
    assert!(breaker.admit(due, true).unwrap().is_forced());
    assert_eq!(breaker.admit(due, false), Err(None));
}

#[test]
fn a_call_that_has_nowhere_else_to_go_waits_where_the_lane_is_down() {
    let (mut breaker, now) = opened();
    assert_eq!(breaker.trouble(), Some(Trouble::Row));
    assert_eq!(breaker.admit(now, true), Err(Some(now + Duration::from_secs(5))));
}

#[test]
fn forced_calls_that_all_fail_show_that_the_lane_is_down() {
    let (mut breaker, now) = ill();
    for _ in 0..4 {
        let forced = breaker.admit(now, true).unwrap();
        breaker.failed(forced, now, 1.0);
    }
    let forced = breaker.admit(now, true).unwrap();
    assert!(!breaker.succeeded(forced, now));
    assert_eq!((breaker.state(now), breaker.trouble()), (BreakerState::Open, Some(Trouble::Share)));
    for _ in 0..5 {
        let forced = breaker.admit(now, true).unwrap();
        breaker.failed(forced, now, 1.0);
    }
    assert_eq!(breaker.trouble(), Some(Trouble::Row));
    assert_eq!(breaker.admit(now, true), Err(Some(now + Duration::from_secs(5))));
}

#[test]
fn a_forced_call_of_an_outage_that_is_over_says_nothing_of_the_next() {
    let (mut breaker, now) = ill();
    let late: Vec<Pass> = (0..40).map(|_| breaker.admit(now, true).unwrap()).collect();
    let due = now + Duration::from_secs(5);
    let probe = breaker.admit(due, false).unwrap();
    assert!(breaker.succeeded(probe, due));
    late[..20].iter().for_each(|pass| breaker.failed(*pass, due, 1.0));
    for call in 0..20 {
        let pass = breaker.admit(due, false).unwrap();
        if call % 2 == 0 { _ = breaker.succeeded(pass, due) } else { breaker.failed(pass, due, 1.0) }
    }
    late[20..].iter().for_each(|pass| breaker.failed(*pass, due, 1.0));
    assert_eq!(breaker.trouble(), Some(Trouble::Share));
}

#[test]
fn a_wait_that_the_provider_asks_for_is_only_ever_longer() {
    let (mut breaker, now) = opened();
    let after = |seconds| now + Duration::from_secs(seconds);
    breaker.not_before(after(2));
    assert_eq!(breaker.admit(now, false), Err(Some(after(5))));
    breaker.not_before(after(60));
    breaker.not_before(after(30));
    assert_eq!(breaker.admit(now, false), Err(Some(after(60))));
    let probe = breaker.admit(after(60), false).unwrap();
    // Told while the probe is out, and the probe says nothing: the next one waits.
    breaker.not_before(after(90));
    breaker.said_nothing(probe);
    assert_eq!(breaker.admit(after(61), false), Err(Some(after(90))));
    let probe = breaker.admit(after(90), false).unwrap();
    breaker.not_before(after(600));
    assert!(breaker.succeeded(probe, after(90)), "a success closes it all the same");
    breaker.not_before(after(900));
    assert!(breaker.admit(after(91), false).is_ok());
}

/// What a step of the property below does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Admit { alone: bool },
    Succeed,
    Fail,
    SayNothing,
    NotBefore,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step, usize)>> {
    let step = prop::sample::select(vec![
        Step::Admit { alone: false },
        Step::Admit { alone: false },
        Step::Admit { alone: true },
        Step::Succeed,
        Step::Fail,
        Step::Fail,
        Step::SayNothing,
        Step::NotBefore,
    ]);
    prop::collection::vec((0u64..8_000, step, 0usize..1_000), 1..400)
}

/// All of a breaker's state that anybody can see.
fn seen(breaker: &Breaker, now: Instant) -> impl PartialEq + std::fmt::Debug + use<> {
    let later = [0, 1, 10, 100, 1_000].map(|seconds| {
        let then = now + Duration::from_secs(seconds);
        (breaker.state(then), breaker.check(then, false), breaker.check(then, true))
    });
    (breaker.trouble(), later)
}

/// Plays a minute in which every attempt that is let through fails at once; returns when they left.
fn outage(jitters: &[f64]) -> (Breaker, Vec<Duration>) {
    let (mut breaker, start) = (Breaker::new(BreakerSettings::default()), Instant::now());
    let (mut now, mut left, mut jitters) = (start, Vec::new(), jitters.iter().cycle());
    while now < start + Duration::from_secs(60) {
        match breaker.admit(now, false) {
            Ok(pass) => {
                left.push(now - start);
                breaker.failed(pass, now, *jitters.next().unwrap());
            }
            Err(until) => now = until.unwrap(),
        }
    }
    (breaker, left)
}

proptest! {
    #[test]
    fn an_outage_of_a_minute_costs_twelve_attempts_and_its_end_is_seen_within_ten_seconds(
        jitters in prop::collection::vec(0.0..1.0, 1..20),
    ) {
        let (breaker, left) = outage(&jitters);
        prop_assert!(left.len() <= 12, "{left:?}");
        let limit = Duration::from_secs(10);
        prop_assert!(left.windows(2).all(|pair| pair[1] - pair[0] <= limit), "{left:?}");
        let end = Instant::now() + Duration::from_secs(60);
        prop_assert!(breaker.rests_until(end).is_none_or(|until| until <= end + limit));
    }

    #[test]
    fn a_silent_provider_is_probed_ten_seconds_after_the_last_probe_left(
        jitters in prop::collection::vec(0.0..1.0, 1..20),
        patience in 5u64..=10,
    ) {
        let (mut breaker, start) = (Breaker::new(BreakerSettings::default()), Instant::now());
        let (mut now, mut left, mut jitters) = (start, Vec::new(), jitters.iter().cycle());
        while now < start + Duration::from_secs(60) {
            match breaker.admit(now, false) {
                Ok(pass) => {
                    left.push(now);
                    let since = now;
                    now += Duration::from_secs(patience);
                    breaker.silent(pass, since, now, *jitters.next().unwrap());
                }
                Err(until) => now = until.unwrap(),
            }
        }
        // The first was no probe: its silence is noticed, and then there is a pause.
        let gaps = left[1..].windows(2).map(|pair| pair[1] - pair[0]);
        prop_assert!(gaps.max() <= Some(Duration::from_secs(10)), "{left:?}");
        prop_assert!(left.len() <= 12, "{left:?}");
    }

    #[test]
    fn whatever_happens_one_probe_decides(events in steps()) {
        let (mut breaker, mut now) = (Breaker::new(BreakerSettings::default()), Instant::now());
        let mut out: Vec<Pass> = Vec::new();
        let mut told = now;
        for (pause, step, number) in events {
            now += Duration::from_millis(pause);
            if let Step::Admit { alone } = step {
                let expected = breaker.check(now, alone);
                let pass = breaker.admit(now, alone);
                prop_assert_eq!(expected, pass.map(|_| ()));
                out.extend(pass);
            } else if let Step::NotBefore = step {
                let until = now + Duration::from_millis(number as u64 * 200);
                if breaker.state(now) != BreakerState::Closed { told = told.max(until) }
                let before = breaker.check(now, false);
                breaker.not_before(until);
                let shorter = matches!((before, breaker.check(now, false)),
                    (Err(Some(before)), Err(Some(after))) if after < before);
                prop_assert!(!shorter && (before.is_ok() || breaker.check(now, false).is_err()));
            } else if !out.is_empty() {
                let pass = out.swap_remove(number % out.len());
                let (late, before) = (breaker.is_late(pass), seen(&breaker, now));
                match step {
                    Step::Succeed => {
                        let closed = breaker.succeeded(pass, now);
                        prop_assert_eq!(closed, pass.is_probe() && !late);
                        prop_assert!(!closed || breaker.state(now) == BreakerState::Closed);
                    }
                    Step::Fail => breaker.failed(pass, now, number as f64 / 1_000.0),
                    _ => breaker.said_nothing(pass),
                }
                // Neither what comes late nor what was forced moves it; at most it is known to be down.
                let (trouble, after) = (breaker.trouble(), seen(&breaker, now));
                prop_assert!(!late || before == after, "{before:?} {after:?}");
                prop_assert!(!pass.is_forced() || before == after || trouble == Some(Trouble::Row));
            }
            let probes = out.iter().filter(|pass| pass.is_probe() && !breaker.is_late(**pass)).count();
            prop_assert!(probes <= 1);
            let probing = breaker.check(now, false) == Err(None);
            prop_assert_eq!(probes == 1, probing);
            // No wait is longer than the longest pause, unless we were told so.
            if let Err(Some(until)) = breaker.check(now, false) {
                prop_assert!(until <= told.max(now + BreakerSettings::default().max_open_duration));
            }
            prop_assert_eq!(breaker.trouble().is_none(), breaker.state(now) == BreakerState::Closed);
        }
        // Whatever happened, it lets a call through again in the end, and that one's success closes it.
        for pass in out { breaker.said_nothing(pass) }
        now = told.max(now) + Duration::from_secs(121);
        let pass = breaker.admit(now, false).unwrap();
        prop_assert_eq!(breaker.succeeded(pass, now), pass.is_probe());
        prop_assert_eq!(breaker.state(now), BreakerState::Closed);
    }
}

#[test]
fn a_silent_lane_is_left_for_others_and_a_word_brings_it_back() {
    let (mut breaker, now) = (Breaker::new(BreakerSettings::default()), Instant::now());
    let pass = breaker.admit(now, false).unwrap();
    breaker.silent(pass, now, now, 1.0);
    assert_eq!((breaker.state(now), breaker.trouble()), (BreakerState::Open, Some(Trouble::Silence)));
    assert!(breaker.admit(now, true).unwrap().is_forced(), "nobody else is there");
    // Its end is old news, but a word is not.
    assert!(!breaker.succeeded(pass, now));
    assert!(!breaker.spoke(), "it was only a pause");
    assert_eq!((breaker.state(now), breaker.trouble()), (BreakerState::Closed, None));
    let pass = breaker.admit(now, false).unwrap();
    breaker.silent(pass, now, now, 1.0);
    let probe = breaker.admit(now + Duration::from_secs(5), false).unwrap();
    breaker.silent(probe, now + Duration::from_secs(5), now + Duration::from_secs(10), 1.0);
    assert!(breaker.spoke(), "a probe had found it silent, too");
}

#[test]
fn a_probe_that_hears_nothing_reopens_it() {
    let (mut breaker, now) = opened();
    let later = now + Duration::from_secs(5);
    let probe = breaker.admit(later, false).unwrap();
    assert!(probe.is_probe());
    breaker.silent(probe, later, later, 1.0);
    assert_eq!(breaker.admit(later, false), Err(Some(later + Duration::from_secs(10))));
    // Slow, but well.
    assert!(breaker.succeeded(probe, later));
    assert_eq!(breaker.state(later), BreakerState::Closed);
}
