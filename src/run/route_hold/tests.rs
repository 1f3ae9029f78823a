//! Holds of a route.

use super::super::hold::{MIN_HOLD_BEFORE_FAILING_SUSPECTED, PROBE_BACKOFF};
use super::*;
use crate::types::Class;

/// A route with one request that has failed.
fn one_failed(class: Class, answered: u64, now: Instant) -> (RouteHold, RequestState) {
    let mut route = RouteHold::default();
    let mut request = route.open_request();
    route.mark_returned(&mut request);
    route.set_suspected(&mut request, false);
    fail(&mut route, &mut request, class, answered, now);
    (route, request)
}

fn fail(route: &mut RouteHold, request: &mut RequestState, class: Class, answered: u64, now: Instant) {
    fail_with(route, request, &Failure::new(class, "x"), (answered, false), None, now);
}

fn report<'a>(failure: &'a Failure, attempt: Option<&'a FailedAttempt>) -> FailureReport<'a> {
    FailureReport {
        failure,
        target: None,
        attempt,
        is_lasting: false,
        answered: 0,
        oldest_pending: None,
        can_start_items: true,
    }
}

fn fail_with(
    route: &mut RouteHold,
    request: &mut RequestState,
    failure: &Failure,
    (answered, is_lasting): (u64, bool),
    oldest_pending: Option<Instant>,
    now: Instant,
) {
    route.mark_returned(request);
    route.set_suspected(request, false);
    let report = FailureReport { answered, is_lasting, oldest_pending, ..report(failure, None) };
    route.record_failure(request, report, (now, 0.5));
}

fn outage(retry_at: Option<Instant>, is_named: bool) -> Option<(Outage, Option<TargetName>)> {
    let failure = Failure::new(Class::Quota, "spent");
    Some((
        Outage {
            failure,
            retry_at,
            is_probing: false,
            is_retry_at_binding: is_named,
            can_recover: true,
            is_shown_by_one_request: false,
        },
        Some("a/m".parse().unwrap()),
    ))
}

#[test]
fn one_request_at_a_time_probes_and_the_first_answer_ends_the_hold() {
    let now = Instant::now();
    let (mut route, _request) = one_failed(Class::ServerError, 7, now);
    let mut other = route.open_request();
    fail(&mut route, &mut other, Class::ServerError, 7, now);
    let positions = [route.enqueue(1, false), route.enqueue(1, false)];
    let ResendDecision::WaitUntil(at) = route.decide(positions[0], false, now) else { panic!("not waiting") };
    assert!(at >= now + Duration::from_secs(1) && at <= now + Duration::from_secs(4));
    assert_eq!(
        positions.map(|position| route.decide(position, false, at)),
        [ResendDecision::Probe, ResendDecision::WaitForChange]
    );
    assert!(!route.update(None, 7, true, at), "nothing was answered");
    route.resend_finished(ResendDecision::Probe, false);
    assert!(route.update(None, 8, true, at));
    assert_eq!(route.decide(positions[1], false, at), ResendDecision::Send);
}

#[test]
fn the_request_that_failed_least_often_and_longest_ago_is_the_probe() {
    let now = Instant::now();
    let (mut route, _request) = one_failed(Class::ServerError, 0, now);
    let late = now + Duration::from_mins(5);
    let [often, later, first] = [(3, 0), (1, 1), (1, 2)].map(|(returns, _)| route.enqueue(returns, false));
    let order = [later, first, often];
    assert_eq!(
        [often, first].map(|position| route.decide(position, false, late)),
        [ResendDecision::WaitForChange; 2]
    );
    for position in order {
        assert_eq!(route.decide(position, false, late), ResendDecision::Probe);
        route.resend_finished(ResendDecision::Probe, false);
    }
}

#[test]
fn requests_that_failed_while_others_were_answered_probe_after_those_that_did_not() {
    let now = Instant::now();
    let (mut route, _request) = one_failed(Class::ServerError, 0, now);
    let late = now + Duration::from_mins(5);
    let suspected = [0; 5].map(|_| route.enqueue(1, true));
    let others = [3, 4].map(|returns| route.enqueue(returns, false));
    let often = route.enqueue(1 + SUSPECTED_RETURNS + 1, false);
    for position in others.into_iter().chain(suspected).chain([often]) {
        assert_eq!(route.decide(position, false, late), ResendDecision::Probe);
        route.resend_finished(ResendDecision::Probe, false);
    }
}

#[test]
fn requests_that_have_not_failed_and_new_items_probe_before_failed_ones() {
    let now = Instant::now();
    let (mut route, _request) = one_failed(Class::ServerError, 0, now);
    let position = route.enqueue(1, false);
    let retry_at = route.hold().unwrap().retry_at;
    assert!(!route.should_start_item(now));
    assert_eq!(
        route.decide(position, true, retry_at),
        ResendDecision::WaitUntil(retry_at + FRESH_REQUEST_HEAD_START)
    );
    assert!(route.should_start_item(retry_at) && !route.should_start_item(retry_at), "once per retry time");
    let fresh = route.open_request();
    assert_eq!(
        route.decide(position, false, retry_at),
        ResendDecision::WaitUntil(retry_at + FRESH_REQUEST_HEAD_START)
    );
    route.close_request(&fresh);
    assert_eq!(route.decide(position, false, retry_at), ResendDecision::Probe);
}

#[test]
fn the_requests_of_a_failed_joined_call_count_as_one_failure() {
    let now = Instant::now();
    let mut route = RouteHold::default();
    let mut requests: Vec<RequestState> = (0..40).map(|_| route.open_request()).collect();
    let failure = Failure::new(Class::ServerError, "x");
    let calls = [1, 2, 3].map(|number| FailedAttempt { target: "a/m".parse().unwrap(), number });
    let mut fail_joined = |route: &mut RouteHold, members: std::ops::Range<usize>, call: &FailedAttempt| {
        for request in &mut requests[members] {
            route.mark_returned(request);
            route.record_failure(request, report(&failure, Some(call)), (now, 0.5));
        }
    };
    fail_joined(&mut route, 0..10, &calls[0]);
    fail_joined(&mut route, 10..20, &calls[1]);
    assert_eq!((route.streak.failures, route.hold().is_some()), (2, false));
    fail_joined(&mut route, 20..30, &calls[2]);
    assert_eq!(route.hold().map(|hold| hold.failures), Some(1), "three calls have failed");
}

#[test]
fn one_failed_request_does_not_start_a_hold_while_others_are_in_flight() {
    let mut route = RouteHold::default();
    let now = Instant::now();
    let mut requests: Vec<RequestState> = (0..40).map(|_| route.open_request()).collect();
    let lasting = Failure::new(Class::NotFound, "x");
    let oldest = Some(now);
    for _ in 0..50 {
        fail_with(&mut route, &mut requests[0], &lasting, (0, true), None, now);
        assert!(route.hold().is_none(), "a single request, however often it fails");
    }
    for request in &mut requests[1..11] {
        fail_with(&mut route, request, &lasting, (0, true), oldest, now);
        assert!(route.hold().is_none(), "earlier attempts are pending");
    }
    // Their answers have arrived.
    fail_with(&mut route, &mut requests[11], &lasting, (1, false), None, now);
    fail_with(&mut route, &mut requests[12], &lasting, (1, false), None, now);
    assert!(route.hold().is_none());
    fail_with(&mut route, &mut requests[13], &lasting, (1, false), None, now);
    assert!(route.hold().is_some_and(|hold| hold.is_recoverable));
}

#[test]
fn a_lasting_failure_ends_the_session_once_three_requests_or_all_have_failed_for_it() {
    let now = Instant::now();
    let lasting = Failure::new(Class::NotFound, "x");
    let mut route = RouteHold::default();
    let mut pauses = Vec::new();
    let mut requests: Vec<RequestState> = (0..40).map(|_| route.open_request()).collect();
    for request in &mut requests {
        fail_with(&mut route, request, &lasting, (0, true), None, now);
        pauses.push(route.hold().is_some_and(|hold| hold.must_end_session(None, now)));
    }
    assert_eq!(pauses.iter().position(|pauses| *pauses), Some(2));
    let mut only = RouteHold::default();
    let mut request = only.open_request();
    only.mark_returned(&mut request);
    only.set_suspected(&mut request, false);
    let alone = FailureReport {
        failure: &lasting,
        target: None,
        attempt: None,
        is_lasting: true,
        answered: 0,
        oldest_pending: None,
        can_start_items: false,
    };
    only.record_failure(&mut request, alone, (now, 0.5));
    assert!(only.hold().unwrap().must_end_session(None, now));
}

#[test]
fn after_a_hold_each_answer_allows_more_requests_to_be_resent() {
    let now = Instant::now();
    let (mut route, request) = one_failed(Class::ServerError, 0, now);
    assert!(route.update(None, 1, true, now));
    let positions: Vec<ResendPosition> = (0..20).map(|_| route.enqueue(1, false)).collect();
    let sent = |route: &mut RouteHold| {
        positions
            .iter()
            .filter(|position| route.decide(**position, true, now) == ResendDecision::Send)
            .count()
    };
    assert_eq!(sent(&mut route), 1);
    route.resend_finished(ResendDecision::Send, true);
    assert_eq!(sent(&mut route), 1);
    (0..4).for_each(|_| route.resend_finished(ResendDecision::Send, true));
    assert!(sent(&mut route) >= 4);
    route.close_request(&request);
}

#[test]
fn requests_that_failed_while_others_were_answered_fail_finally_when_only_they_are_left() {
    let now = Instant::now();
    let mut route = RouteHold::default();
    let mut requests = [route.open_request(), route.open_request()];
    let why = Failure::new(Class::ServerError, "x");
    let report = FailureReport {
        failure: &why,
        target: None,
        attempt: None,
        is_lasting: false,
        answered: 9,
        oldest_pending: None,
        can_start_items: false,
    };
    for request in &mut requests {
        route.mark_returned(request);
        route.set_suspected(request, true);
        route.record_failure(request, report, (now, 0.5));
    }
    let late = now + MIN_HOLD_BEFORE_FAILING_SUSPECTED;
    assert!(!route.fail_suspected(false, None, late), "too few failures");
    let late = late.max(route.hold().unwrap().retry_at) + Duration::from_mins(1);
    route.record_failure(&mut requests[0], report, (late, 0.5));
    route.record_failure(&mut requests[1], report, (late, 0.5));
    let clean = route.open_request();
    assert!(!route.fail_suspected(false, None, late), "a request that has not failed is in flight");
    route.close_request(&clean);
    assert!(!route.fail_suspected(true, None, late), "items can start");
    assert!(!route.fail_suspected(false, None, now), "too early");
    let position = route.enqueue(1, false);
    assert!(
        route.fail_suspected(false, None, late)
            && route.decide(position, false, late) == ResendDecision::Fail
    );
    assert!(!route.hold().unwrap().must_end_session(Some(Duration::ZERO), late));
}

#[test]
fn an_answer_that_was_in_flight_does_not_end_a_hold_while_no_target_is_usable() {
    let mut route = RouteHold::default();
    let now = Instant::now();
    route.open_request();
    let at = now + Duration::from_secs(9);
    assert!(!route.update(outage(Some(at), false), 7, true, now));
    assert!(!route.update(outage(Some(at), false), 12, true, now));
    let position = route.enqueue(1, false);
    assert_eq!(route.decide(position, false, now), ResendDecision::WaitUntil(at + FRESH_REQUEST_HEAD_START));
    assert!(route.update(None, 13, true, now));
}

#[test]
fn no_request_is_sent_while_the_provider_probes_itself_and_one_is_sent_afterwards() {
    let now = Instant::now();
    let (mut route, _request) = one_failed(Class::ServerError, 3, now);
    let probed_outage = |is_probed| {
        let (outage, target) = outage(None, false).unwrap();
        Some((Outage { is_probing: is_probed, ..outage }, target))
    };
    let position = route.enqueue(1, false);
    let late = now + Duration::from_mins(5);
    route.update(probed_outage(true), 3, true, late);
    assert_eq!(
        route.decide(position, false, late),
        ResendDecision::WaitUntil(late + TARGET_PROBE_POLL_INTERVAL)
    );
    route.update(probed_outage(false), 3, true, late);
    assert_eq!(route.decide(position, false, late), ResendDecision::Probe);
}

#[test]
fn a_hold_whose_outage_has_ended_is_probed_at_once() {
    let now = Instant::now();
    let (mut route, _request) = one_failed(Class::Auth, 3, now);
    route.update(outage(Some(now + Duration::from_secs(300)), false), 3, true, now);
    assert!(route.update(None, 3, true, now) && route.hold().is_some(), "nothing was answered");
    let position = route.enqueue(1, false);
    assert_eq!(route.decide(position, false, now), ResendDecision::Probe);
}

#[test]
fn a_route_without_open_requests_does_not_hold() {
    let mut route = RouteHold::default();
    let now = Instant::now();
    route.update(outage(None, false), 0, true, now);
    assert!(route.hold().is_none());
    let mut request = route.open_request();
    fail(&mut route, &mut request, Class::NetworkError, 0, now);
    route.close_request(&request);
    assert!(route.update(None, 0, true, now) && route.hold().is_none());
}

#[test]
fn a_hold_ends_the_session_once_it_has_exceeded_its_limit_or_is_known_to() {
    let now = Instant::now();
    let max = Some(Duration::from_secs(600));
    let (mut route, _request) = one_failed(Class::ServerError, 0, now);
    let late = now + Duration::from_secs(600);
    let hold = route.hold().unwrap().clone();
    assert_eq!([hold.must_end_session(max, now), hold.must_end_session(max, late)], [false, true]);
    assert!(!hold.must_end_session(None, late));
    route.update(outage(Some(now + Duration::from_secs(900)), true), 0, true, now);
    assert!(route.hold().unwrap().must_end_session(max, now));
    assert!(!route.hold().unwrap().must_end_session(None, now));
    route.update(outage(Some(now + Duration::from_secs(900)), false), 0, true, now);
    assert!(!route.hold().unwrap().must_end_session(max, now), "an estimate is not enough");
}

#[test]
fn an_absurd_wait_is_not_used_as_the_retry_time() {
    for wait in [Duration::MAX, Duration::from_secs(u64::MAX / 4), Duration::from_hours(24)] {
        let mut route = RouteHold::default();
        let now = Instant::now();
        let mut request = route.open_request();
        let absurd = Failure { retry_after: Some(wait), ..Failure::new(Class::RateLimit, "x") };
        fail_with(&mut route, &mut request, &absurd, (0, false), None, now);
        let hold = route.hold().unwrap();
        assert!(hold.provider_retry_at.is_none() && hold.retry_at <= now + PROBE_BACKOFF.max, "{wait:?}");
        assert!(!hold.must_end_session(Some(Duration::from_mins(10)), now));
    }
}

#[test]
fn probes_that_fail_become_less_frequent() {
    let mut now = Instant::now();
    let started = now;
    let (mut route, mut request) = one_failed(Class::ServerError, 0, now);
    let mut probes = 0;
    let mut position = route.enqueue(1, false);
    while now < started + Duration::from_mins(10) {
        match route.decide(position, false, now) {
            ResendDecision::WaitUntil(at) => now = at,
            ResendDecision::Probe => {
                probes += 1;
                fail(&mut route, &mut request, Class::ServerError, 0, now);
                route.resend_finished(ResendDecision::Probe, false);
                position = route.enqueue(probes, false);
            }
            decision => panic!("{decision:?}"),
        }
    }
    assert!((10..=30).contains(&probes), "{probes}");
}

#[test]
fn a_refusal_of_one_request_ends_no_run_that_has_others() {
    let now = Instant::now();
    let refused = |is_shown_by_one_request| {
        let (outage, target) = outage(Some(now + Duration::from_secs(5)), false)?;
        Some((Outage { can_recover: false, is_shown_by_one_request, ..outage }, target))
    };
    let must_end = |route: &RouteHold| route.hold().unwrap().must_end_session(None, now);
    let mut route = RouteHold::default();
    let _first = route.open_request();
    route.update(refused(true), 0, true, now);
    assert!(!must_end(&route), "an item that has not started may be answered");
    route.update(refused(true), 0, false, now);
    assert!(must_end(&route), "there is no other request");
    let _second = route.open_request();
    route.update(refused(true), 0, false, now);
    assert!(!must_end(&route), "the other request may be answered");
    route.update(refused(false), 0, true, now);
    assert!(must_end(&route), "another request was refused as well");
}
