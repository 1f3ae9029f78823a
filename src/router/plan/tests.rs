//! What a plan does next, failure by failure.

use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const KEY: (KeyLeft, Probe) = (KeyLeft(true), Probe(false));
const NO_KEY: (KeyLeft, Probe) = (KeyLeft(false), Probe(false));

/// Lanes of a provider each.
fn apart(lanes: usize) -> impl Iterator<Item = Candidate> {
    (0..lanes).map(|lane| Candidate { provider: format!("p{lane}").into(), context: None })
}

/// Lanes of these providers.
fn of(providers: &[&str]) -> (Plan, Instant) {
    let lanes = providers.iter().map(|name| Candidate { provider: (*name).into(), context: None });
    planned(lanes, RetrySettings::default())
}

fn planned(lanes: impl IntoIterator<Item = Candidate>, retry: RetrySettings) -> (Plan, Instant) {
    let now = Instant::now();
    (Plan::new(lanes, retry, now + Duration::from_secs(600)), now)
}

fn plan(lanes: usize) -> (Plan, Instant) {
    planned(apart(lanes), RetrySettings::default())
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
                assert_eq!(gave.failure.class, class);
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
    let (mut plan, mut now) = plan(1);
    for _ in 0..50 {
        while let Step::Wait(until) = plan.next(now, 0.0) {
            now = until;
        }
        plan.failed(0, failure(Class::RateLimit), KEY, now, 0.0);
    }
    assert!(matches!(plan.next(now, 0.0), Step::Wait(_)));
}

#[test]
fn when_every_breaker_is_open_it_waits_for_the_first() {
    let (mut plan, now) = plan(2);
    let at = |seconds| Some(now + Duration::from_secs(seconds));
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.refused(0, &Refused::Open { until: at(20) }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
    plan.refused(1, &Refused::Open { until: at(8) }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Wait(now + Duration::from_secs(8)));
    assert_eq!(plan.next(now + Duration::from_secs(8), 0.0), Step::Call(1));
}

#[test]
fn a_lane_that_failed_is_tried_again_before_one_whose_breaker_is_open_for_long() {
    let (mut plan, now) = plan(2);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.refused(0, &Refused::Open { until: Some(now + Duration::from_secs(60)) }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
    plan.failed(1, failure(Class::NetworkError), KEY, now, 0.0);
    let Step::Wait(until) = plan.next(now, 0.0) else { panic!("not the time for anything else") };
    assert!(until < now + Duration::from_secs(5), "{:?}", until - now);
    assert_eq!(plan.next(until, 0.0), Step::Call(1));
}

/// Goes on with a plan whose every further call fails with `class`, and returns the lanes that were called.
fn rest(plan: &mut Plan, mut now: Instant, class: Class) -> Vec<usize> {
    let mut calls = Vec::new();
    loop {
        match plan.next(now, 0.0) {
            Step::Call(lane) => {
                calls.push(lane);
                plan.failed(lane, failure(class), KEY, now, 0.0);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(_) => return calls,
        }
    }
}

#[test]
fn a_silent_lane_is_asked_again_only_when_the_others_are_spent_for_all_rounds() {
    let (mut plan, now) = plan(2);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.failed(0, failure(Class::Timeout), KEY, now, 0.0);
    assert_eq!(rest(&mut plan, now, Class::ServerError), [1, 1, 1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_silent_lane_is_not_asked_again_while_another_waits_for_its_breaker() {
    let (mut plan, now) = plan(2);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.failed(0, failure(Class::Timeout), KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
    let until = now + Duration::from_secs(60);
    plan.refused(1, &Refused::Open { until: Some(until) }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Wait(until));
    assert_eq!(plan.next(until, 0.0), Step::Call(1));
    // No round was spent on waiting.
    plan.failed(1, failure(Class::NetworkError), KEY, until, 0.0);
    assert_eq!(rest(&mut plan, until, Class::NetworkError), [1, 1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_silent_lane_is_asked_again_when_the_others_come_back_too_late() {
    let (mut plan, now) = plan(2);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.failed(0, failure(Class::Timeout), KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
    plan.refused(1, &Refused::Open { until: Some(now + Duration::from_secs(3_600)) }, now, 0.0);
    let Step::Wait(until) = plan.next(now, 0.0) else { panic!("it gives up") };
    assert_eq!(plan.next(until, 0.0), Step::Call(0));
}

#[test]
fn lanes_that_are_all_silent_are_asked_in_rounds() {
    assert_eq!(calls(1, Class::Timeout).len(), 6);
    let two = calls(2, Class::Timeout);
    assert_eq!((two[..2].to_vec(), two.contains(&1)), (vec![0, 1], true));
    assert!(two.iter().filter(|lane| **lane == 0).count() >= 3, "{two:?}");
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
                plan.refused(lane, &Refused::NeverAnswered(failure(Class::NetworkError)), now, 0.5);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(gave) => {
                assert_eq!((gave.failure.class, refusals), (Class::NetworkError, 3));
                return assert!(now - start < Duration::from_secs(10), "{:?}", now - start);
            }
        }
    }
}

/// Goes on with a plan whose lanes all refuse as `refused` says, and returns when it gave up, and why.
fn refused_by_all(plan: &mut Plan, mut now: Instant, refused: &Refused) -> (Instant, Failure) {
    loop {
        match plan.next(now, 0.5) {
            Step::Call(lane) => plan.refused(lane, refused, now, 0.5),
            Step::Wait(until) => now = until,
            Step::GiveUp(gave) => return (now, gave.failure),
        }
    }
}

#[test]
fn an_ask_whose_providers_are_all_gone_hears_so_within_seconds() {
    let gone = failure(Class::Internal);
    for lanes in [1, 3] {
        let (mut plan, start) = plan(lanes);
        let (end, gave) = refused_by_all(&mut plan, start, &Refused::Gone(gone.clone()));
        assert_eq!(gave, gone);
        assert!(end - start < Duration::from_secs(10), "{:?}", end - start);
    }
}

#[test]
fn a_provider_that_is_being_restarted_is_waited_for() {
    let (mut plan, start) = plan(1);
    let (end, gave) = refused_by_all(&mut plan, start, &Refused::Down);
    assert_eq!(gave.class, Class::Deadline);
    assert!(end - start > Duration::from_secs(595), "{:?}", end - start);
}

#[test]
fn a_provider_that_is_gone_neither_holds_up_the_failure_of_the_others_nor_covers_it() {
    let (mut plan, start) = plan(2);
    let (mut now, mut calls) = (start, 0);
    let gave = loop {
        match plan.next(now, 0.5) {
            Step::Call(0) => plan.refused(0, &Refused::Gone(failure(Class::Internal)), now, 0.5),
            Step::Call(lane) => {
                calls += 1;
                plan.failed(lane, failure(Class::ServerError), NO_KEY, now, 0.5);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(gave) => break gave.failure,
        }
    };
    assert_eq!((gave.class, calls), (Class::ServerError, 6));
    assert!(now - start < Duration::from_secs(20), "{:?}", now - start);
}

#[test]
fn a_wait_beyond_the_deadline_gives_up_at_once() {
    let now = Instant::now();
    let mut plan = Plan::new(apart(1), RetrySettings::default(), now + Duration::from_secs(5));
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.refused(0, &Refused::Busy { until: now + Duration::from_secs(60) }, now, 0.0);
    assert!(matches!(plan.next(now, 0.0), Step::GiveUp(end) if end.failure.class == Class::Deadline));
}

#[test]
fn a_question_counts_as_a_retry_once_its_provider_has_failed_it() {
    for (class, retry) in [
        (Class::ServerError, true),
        (Class::NetworkError, true),
        (Class::Timeout, true),
        (Class::Unreadable, true),
        (Class::RateLimit, false),
        (Class::Quota, false),
        (Class::Auth, false),
        (Class::NotFound, false),
        (Class::TooLong, false),
    ] {
        let (mut plan, now) = of(&["a", "a", "b"]);
        assert!(!plan.is_retry(0));
        plan.failed(0, failure(class), KEY, now, 0.0);
        // The other model of the same provider as well, and never another provider's.
        let is_retry = [0, 1, 2].map(|lane| plan.is_retry(lane));
        assert_eq!(is_retry, [retry, retry, false], "{class}");
    }
    let (mut plan, now) = of(&["a"]);
    plan.refused(0, &Refused::Open { until: None }, now, 0.0);
    assert!(!plan.is_retry(0), "it never left");
}

#[test]
fn spent_retries_cost_no_attempt_and_send_the_ask_elsewhere() {
    let (mut plan, now) = plan(2);
    let until = now + Duration::from_secs(7);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.failed(0, failure(Class::ServerError), KEY, now, 0.0);
    let Step::Wait(now) = plan.next(now, 0.0) else { panic!("it does not back off") };
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.refused(0, &Refused::RetriesSpent { until }, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
    plan.failed(1, failure(Class::ApiError), KEY, now, 0.0);
    assert!(matches!(plan.next(now, 0.0), Step::GiveUp(_)));
}

#[test]
fn spent_retries_are_waited_for_where_there_is_no_other_lane() {
    let (mut plan, now) = plan(1);
    let until = now + Duration::from_secs(7);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    for _ in 0..20 {
        plan.refused(0, &Refused::RetriesSpent { until }, now, 0.0);
        assert_eq!(plan.next(now, 0.0), Step::Wait(until));
        assert_eq!(plan.next(until, 0.0), Step::Call(0));
    }
    // Those who wait for the same instant come one after another.
    plan.refused(0, &Refused::RetriesSpent { until }, now, 1.0);
    assert_eq!(plan.next(now, 0.0), Step::Wait(until + Duration::from_millis(250)));
}

#[test]
fn a_lane_is_alone_when_no_other_could_take_the_call_now() {
    let well = |_: usize| true;
    let (single, now) = plan(1);
    assert!(single.is_alone(0, now, well) && single.is_last(0));
    let (two, now) = plan(2);
    assert!(!two.is_alone(0, now, well) && !two.is_last(0));
    assert!(two.is_alone(0, now, |lane| lane != 1), "the other is not well");
    assert!(!two.is_last(0), "but may be later");
    let after = |event: &dyn Fn(&mut Plan, Instant)| {
        let (mut plan, now) = plan(2);
        event(&mut plan, now);
        (plan.is_alone(0, now, well), plan.is_last(0))
    };
    let until = now + Duration::from_secs(60);
    let refused = Refused::Open { until: Some(until) };
    assert_eq!(after(&|plan, now| plan.refused(1, &refused, now, 0.0)), (true, false));
    assert_eq!(after(&|plan, now| plan.failed(1, failure(Class::Quota), NO_KEY, now, 0.0)), (true, true));
    assert_eq!(after(&|plan, now| plan.failed(1, failure(Class::Timeout), KEY, now, 0.0)), (true, true));
    assert_eq!(
        after(&|plan, now| plan.failed(1, failure(Class::NetworkError), KEY, now, 0.0)),
        (true, false)
    );
    assert_eq!(after(&|plan, now| plan.failed(1, failure(Class::RateLimit), KEY, now, 0.0)), (false, false));
}

#[test]
fn a_long_wait_that_a_provider_asks_for_is_waited_for_only_where_nobody_else_is_there() {
    for class in [Class::RateLimit, Class::Overloaded, Class::ServerError] {
        let asks = |seconds| Failure { retry_after: Some(Duration::from_secs(seconds)), ..failure(class) };
        let (mut two, now) = plan(2);
        assert_eq!(two.next(now, 0.0), Step::Call(0));
        two.failed(0, asks(60), KEY, now, 0.0);
        assert_eq!(two.next(now, 0.0), Step::Call(1), "{class}");
        two.failed(1, failure(Class::NotFound), KEY, now, 0.0);
        assert_eq!(two.next(now, 0.0), Step::Wait(now + Duration::from_secs(60)), "{class}");
        assert_eq!(two.next(now + Duration::from_secs(60), 0.0), Step::Call(0), "{class}");
        let (mut short, now) = plan(2);
        assert_eq!(short.next(now, 0.0), Step::Call(0));
        short.failed(0, asks(2), KEY, now, 0.0);
        let soon = short.next(now, 0.0);
        let stays = class == Class::RateLimit && soon == Step::Call(0);
        assert!(stays || soon == Step::Wait(now + Duration::from_secs(2)), "{class}: {soon:?}");
    }
}

#[test]
fn an_absurd_wait_is_not_believed() {
    let (mut plan, now) = plan(1);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    let years = Failure { retry_after: Some(Duration::MAX), ..failure(Class::ServerError) };
    plan.failed(0, years, KEY, now, 1.0);
    assert_eq!(plan.next(now, 0.0), Step::Wait(now + Duration::from_millis(500)));
}

#[test]
fn a_prompt_that_is_too_long_goes_to_lanes_that_may_take_more() {
    let takes = |tokens: [u64; 4]| {
        let context = tokens.map(NonZeroU64::new);
        let lanes = context.map(|context| Candidate { provider: "p".into(), context });
        let (mut plan, now) = planned(lanes, RetrySettings::default());
        rest(&mut plan, now, Class::TooLong)
    };
    // Zero is not known.
    assert_eq!(takes([8_000, 4_000, 8_000, 200_000]), [0, 3]);
    assert_eq!(takes([8_000, 0, 8_000, 4_000]), [0, 1]);
    assert_eq!(takes([0, 4_000, 8_000, 0]), [0, 1, 2, 3]);
}

#[test]
fn a_prompt_is_not_too_long_while_a_lane_that_may_take_it_is_out() {
    for class in [Class::NetworkError, Class::ServerError, Class::Overloaded, Class::Quota, Class::Auth] {
        for first in [0, 1] {
            let (mut plan, mut now) = plan(2);
            let end = loop {
                match plan.next(now, 0.5) {
                    Step::Call(lane) => {
                        let failed = if lane == first { class } else { Class::TooLong };
                        plan.failed(lane, failure(failed), NO_KEY, now, 0.5);
                    }
                    Step::Wait(until) => now = until,
                    Step::GiveUp(end) => break end,
                }
            };
            assert_eq!((end.failure.class, end.lane), (class, Some(first)), "{class}");
        }
    }
    let (mut plan, now) = plan(2);
    plan.failed(1, failure(Class::TooLong), NO_KEY, now, 0.0);
    plan.refused(0, &Refused::Open { until: Some(now + Duration::from_hours(1)) }, now, 0.0);
    let Step::GiveUp(end) = plan.next(now, 0.0) else { panic!("it waits") };
    assert_eq!((end.failure.class, end.lane), (Class::Deadline, None), "its breaker is open");
}

#[test]
fn a_refusal_is_final_unless_another_lane_may_be_asked() {
    assert_eq!(calls(3, Class::ContentFilter), [0]);
    let retry = RetrySettings { failover_refusals: true, ..RetrySettings::default() };
    let (mut plan, now) = planned(apart(3), retry);
    assert_eq!(rest(&mut plan, now, Class::ContentFilter), [0, 1, 2]);
    let (mut plan, now) = planned(apart(3), retry);
    assert_eq!(rest(&mut plan, now, Class::ApiError), [0], "nothing else is a refusal");
}

#[test]
fn a_lane_of_another_provider_is_asked_beside_before_one_of_the_same() {
    let (mut plan, now) = of(&["a", "a", "b", "c", "c"]);
    assert_eq!(plan.beside(0, now), [2, 3, 4, 1]);
    plan.failed(2, failure(Class::Timeout), KEY, now, 0.0);
    plan.refused(3, &Refused::Open { until: None }, now, 0.0);
    plan.close(4, failure(Class::ApiError));
    assert_eq!(plan.beside(0, now), [1]);
}

#[test]
fn a_lane_beside_counts_among_the_lanes_of_an_ask() {
    let retry = RetrySettings { lanes_per_ask: std::num::NonZeroU32::MIN, ..RetrySettings::default() };
    let (plan, now) = planned(apart(2), retry);
    assert!(plan.beside(0, now).is_empty());
}

#[test]
fn what_a_lane_beside_takes_for_the_callers_fault_closes_that_lane_only() {
    let (mut plan, now) = plan(2);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    plan.close(1, failure(Class::ApiError));
    assert!(!plan.is_over());
    plan.failed(0, failure(Class::ServerError), KEY, now, 0.0);
    assert!(rest(&mut plan, now, Class::ServerError).iter().all(|lane| *lane == 0));
}

#[test]
fn when_both_of_two_calls_fail_the_plan_has_learnt_both() {
    let (mut plan, now) = plan(3);
    assert_eq!(plan.next(now, 0.0), Step::Call(0));
    assert_eq!(plan.beside(0, now)[0], 1);
    plan.failed(1, failure(Class::NetworkError), KEY, now, 0.0);
    plan.failed(0, failure(Class::NetworkError), KEY, now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(2));
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
                        4 => plan.refused(lane, &Refused::Open { until: None }, now, 0.5),
                        5 => plan.refused(lane, &Refused::Down, now, 0.5),
                        8 => plan.refused(lane, &Refused::Gone(failure(Class::Internal)), now, 0.5),
                        6 => plan.refused(lane, &Refused::Busy { until: now }, now, 0.5),
                        7 => plan.failed(lane, failure(Class::Timeout), (KeyLeft(true), Probe(true)), now, 0.5),
                        _ => plan.failed(lane, failure(Class::Unreadable), KEY, now, 0.5),
                    }
                }
            }
        }
        prop_assert!(false, "the plan never ends: {calls:?}");
    }
}

#[test]
fn a_lane_that_never_takes_it_does_not_put_off_the_other_ones_next_round() {
    let (mut plan, mut now) = plan(2);
    let (mut calls, start) = (0, now);
    loop {
        match plan.next(now, 0.5) {
            Step::Call(0) => plan.refused(0, &Refused::Down, now, 0.5),
            Step::Call(lane) => {
                calls += 1;
                plan.failed(lane, failure(Class::NetworkError), NO_KEY, now, 0.5);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(_) => break,
        }
    }
    // One in each of three rounds; the waits between are those of the back-off.
    assert!(calls >= 3, "{calls} calls");
    assert!(now - start >= Duration::from_secs(2));
}

#[test]
fn a_lane_that_keeps_asking_to_come_again_is_left_for_one_that_is_free() {
    let (mut plan, mut now) = plan(2);
    let mut throttled = failure(Class::RateLimit);
    throttled.retry_after = Some(Duration::from_millis(100));
    let mut lanes = Vec::new();
    while lanes.len() < 5 {
        match plan.next(now, 0.5) {
            Step::Call(lane) => {
                lanes.push(lane);
                plan.failed(lane, throttled.clone(), KEY, now, 0.5);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(gave) => panic!("{gave:?}"),
        }
    }
    assert_eq!(lanes, [0, 0, 0, 0, 1]);
}

fn no_money(all: bool) -> Refused {
    Refused::Budget { failure: failure(Class::Budget), all }
}

#[test]
fn a_provider_whose_money_is_spent_sends_the_ask_elsewhere_and_a_run_whose_is_ends_it() {
    let (mut plan, now) = plan(3);
    plan.refused(0, &no_money(false), now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::Call(1));
    plan.refused(1, &Refused::Busy { until: now }, now, 0.0);
    plan.refused(2, &no_money(true), now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::GiveUp(failure(Class::Budget).into()));
}

#[test]
fn an_ask_ends_for_want_of_money_only_where_no_lane_is_left_that_could_answer_without() {
    let (mut both, now) = plan(2);
    both.refused(0, &Refused::NoKey(failure(Class::Auth)), now, 0.0);
    both.refused(1, &no_money(false), now, 0.0);
    assert_eq!(both.next(now, 0.0), Step::GiveUp(End { failure: failure(Class::Budget), lane: Some(1) }));
    let (mut other, mut now) = plan(2);
    other.refused(0, &no_money(false), now, 0.0);
    loop {
        match other.next(now, 0.0) {
            Step::Call(lane) => {
                assert_eq!(lane, 1);
                other.failed(1, failure(Class::ServerError), KEY, now, 0.0);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(why) => return assert_eq!(why.failure, failure(Class::ServerError)),
        }
    }
}

#[test]
fn the_end_of_an_ask_names_the_lane_whose_failure_it_is_whatever_others_said() {
    let (mut plan, now) = plan(2);
    plan.refused(0, &Refused::NoKey(failure(Class::Auth)), now, 0.0);
    plan.refused(1, &Refused::NoKey(failure(Class::Auth)), now, 0.0);
    assert_eq!(plan.next(now, 0.0), Step::GiveUp(End { failure: failure(Class::Auth), lane: Some(0) }));

    let (mut late, now) = self::plan(1);
    let after = now + Duration::from_secs(601);
    assert!(matches!(late.next(after, 0.0), Step::GiveUp(End { lane: None, .. })));
}

#[test]
fn a_request_that_a_target_has_no_room_for_goes_to_others_whatever_their_size_and_ends_where_there_is_none() {
    for class in [Class::RateLimit, Class::TooLong] {
        let same = apart(2).map(|lane| Candidate { context: NonZeroU64::new(8_000), ..lane });
        let (mut plan, now) = planned(same, RetrySettings::default());
        let no_room = failure(class).reaching(Scope::Target);
        assert_eq!(plan.next(now, 0.5), Step::Call(0));
        plan.failed(0, no_room.clone(), NO_KEY, now, 0.5);
        assert_eq!(plan.next(now, 0.5), Step::Call(1), "{class}");
        plan.failed(1, no_room.clone(), NO_KEY, now, 0.5);
        assert_eq!(plan.next(now, 0.5), Step::GiveUp(End { failure: no_room, lane: Some(1) }));
    }
}

#[test]
fn a_request_that_is_limited_again_and_again_leaves_more_and_more_room_for_others() {
    let (mut plan, start) = plan(1);
    let mut now = start;
    let mut times = Vec::new();
    while times.len() < 10 {
        match plan.next(now, 0.5) {
            Step::Call(_) => {
                times.push((now - start).as_secs());
                plan.failed(0, failure(Class::RateLimit), NO_KEY, now, 0.5);
            }
            Step::Wait(until) => now = until,
            Step::GiveUp(gave) => panic!("{gave:?}"),
        }
    }
    // Once as soon as its provider takes it, which holds its calls back itself.
    assert_eq!(times[..2], [0; 2]);
    assert!(times[9] >= 20, "{times:?}");
}
