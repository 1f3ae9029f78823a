//! What a plan does next, failure by failure.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const KEY: (KeyLeft, Probe) = (KeyLeft(true), Probe(false));
const NO_KEY: (KeyLeft, Probe) = (KeyLeft(false), Probe(false));

fn plan(lanes: usize) -> (Plan, Instant) {
    let now = Instant::now();
    (Plan::new(lanes, RetrySettings::default(), now + Duration::from_secs(600)), now)
}

fn failure(class: Class) -> Failure {
    Failure::new(class, "as planned")
}

/// Plays a plan whose every call fails with `class`, and returns the lanes that were called.
fn calls(lanes: usize, class: Class) -> Vec<usize> {
    let (mut plan, mut now) = plan(lanes);
    let mut calls = Vec::new();
    loop {
        match plan.next(now, 0.5) {
            Step::Call(lane) => {
                calls.push(lane);
                plan.failed(lane, failure(class), NO_KEY, now, 0.5);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(gave) => {
                assert_eq!(gave.class, class);
                return calls;
            }
        }
    }
}

#[test]
fn a_server_error_is_tried_again_once_and_then_elsewhere() {
    assert_eq!(calls(2, Class::ServerError)[..4], [0, 0, 1, 1]);
}

#[test]
fn a_broken_connection_goes_elsewhere_at_once() {
    assert_eq!(calls(2, Class::NetworkError)[..2], [0, 1]);
}

#[test]
fn a_single_lane_is_tried_in_several_rounds() {
    assert_eq!(calls(1, Class::NetworkError).len(), 6);
}

#[test]
fn the_callers_fault_is_never_tried_again() {
    assert_eq!(calls(3, Class::ApiError), [0]);
}

#[test]
fn a_model_that_does_not_exist_is_asked_once_in_all_rounds() {
    assert_eq!(calls(2, Class::NotFound), [0, 1]);
}

#[test]
fn a_spent_key_makes_room_for_the_next_key_of_the_same_lane() {
    let (mut plan, now) = plan(2);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.failed(0, failure(Class::Quota), KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.failed(0, failure(Class::Quota), NO_KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
}

#[test]
fn being_throttled_costs_no_attempt() {
    let (mut plan, now) = plan(1);
    for _ in 0..50 {
        assert_eq!(plan.next(now, 0.0), Step::Call(0));
        plan.failed(0, failure(Class::RateLimit), KEY, now, 0.0);
    }
}

#[test]
fn when_every_breaker_is_open_it_waits_for_the_first() {
    let (mut plan, now) = plan(2);
    let at = |seconds| Some(now + Duration::from_secs(seconds));
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.refused(0, &Refused::Open { until: at(20) }, now);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
    plan.refused(1, &Refused::Open { until: at(8) }, now);
    assert_eq!(plan.next(now, 0.0), Step::Wait(now + Duration::from_secs(8)));
    assert_eq!(plan.next(now + Duration::from_secs(8), 0.0), Step::Call(1));
}

#[test]
fn a_lane_that_failed_is_tried_again_before_one_whose_breaker_is_open_for_long() {
    let (mut plan, now) = plan(2);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.refused(0, &Refused::Open { until: Some(now + Duration::from_secs(60)) }, now);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
    plan.failed(1, failure(Class::NetworkError), KEY, now, 0.0);
    let Step::Wait(until) = plan.next(now, 0.0) else { panic!("not the time for anything else") };
    assert!(until < now + Duration::from_secs(5), "{:?}", until - now);
    assert_eq!(plan.next(until, 0.0), Step::Call(1));
}

#[test]
fn a_silent_lane_is_asked_again_only_after_the_others() {
    let (mut plan, mut now) = plan(2);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.failed(0, failure(Class::Timeout), KEY, now, 0.0);
    let mut calls = Vec::new();
    while calls.len() < 5 {
        match plan.next(now, 0.0) {
            Step::Call(lane) => {
                calls.push(lane);
                plan.failed(lane, failure(Class::ServerError), KEY, now, 0.0);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(failure) => panic!("{failure}"),
        }
    }
    assert_eq!(calls, [1, 1, 1, 1, 0]);
}

#[test]
fn a_probe_costs_its_ask_no_attempt() {
    let (mut plan, mut now) = plan(1);
    for _ in 0..20 {
        assert_eq!(plan.next(now, 0.0), Step::Call(0));
        plan.failed(0, failure(Class::NetworkError), (KeyLeft(true), Probe(true)), now, 0.0);
        let Step::Wait(until) = plan.next(now, 0.0) else { panic!("it gives up") };
        now = until;
    }
}

#[test]
fn a_lane_that_has_never_answered_is_not_waited_for_until_the_deadline() {
    let (mut plan, start) = plan(1);
    let (mut now, mut refusals) = (start, 0);
    loop {
        match plan.next(now, 0.5) {
            Step::Call(lane) => {
                refusals += 1;
                plan.refused(lane, &Refused::NeverAnswered(failure(Class::NetworkError)), now);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(gave) => {
                assert_eq!((gave.class, refusals), (Class::NetworkError, 3));
                return assert!(now - start < Duration::from_secs(10), "{:?}", now - start);
            }
        }
    }
}

#[test]
fn a_wait_beyond_the_deadline_gives_up_at_once() {
    let now = Instant::now();
    let mut plan = Plan::new(1, RetrySettings::default(), now + Duration::from_secs(5));
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.refused(0, &Refused::Busy { until: now + Duration::from_secs(60) }, now);
    assert!(matches!(plan.next(now, 0.0), Step::GiveUp(failure) if failure.class == Class::Deadline));
}

proptest! {
    #[test]
    fn every_plan_ends_and_keeps_its_deadline(
        lanes in 1usize..5,
        events in proptest::collection::vec((0u8..9, 0u64..5_000), 0..400),
    ) {
        let (mut plan, start) = plan(lanes);
        let (mut now, mut events) = (start, events.into_iter());
        let mut calls = vec![0; lanes];
        for _ in 0..100_000 {
            match plan.next(now, 0.5) {
                Step::Wait(until) => {
                    prop_assert!(until > now && until < start + Duration::from_secs(600));
                    now = until;
                }
                Step::GiveUp(_) => return Ok(()),
                Step::Call(lane) => {
                    calls[lane] += 1;
                    let (event, took) = events.next().unwrap_or((0, 10));
                    now += Duration::from_millis(took);
                    match event {
                        0 => plan.failed(lane, failure(Class::ServerError), KEY, now, 0.5),
                        1 => plan.failed(lane, failure(Class::NetworkError), KEY, now, 0.5),
                        2 => plan.failed(lane, failure(Class::Timeout), KEY, now, 0.5),
                        3 => plan.failed(lane, failure(Class::Auth), NO_KEY, now, 0.5),
                        4 => plan.refused(lane, &Refused::Open { until: None }, now),
                        5 => plan.refused(lane, &Refused::Down, now),
                        6 => plan.refused(lane, &Refused::Busy { until: now }, now),
                        7 => plan.failed(lane, failure(Class::Timeout), (KeyLeft(true), Probe(true)), now, 0.5),
                        _ => plan.failed(lane, failure(Class::Unreadable), KEY, now, 0.5),
                    }
                }
            }
        }
        prop_assert!(false, "the plan never ends: {calls:?}");
    }
}
