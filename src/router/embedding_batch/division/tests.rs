//! Divisions of simulated requests.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::types::{Attempt, AttemptLog, Failure};

/// What a division has done.
struct Divided {
    requests: usize,
    /// Members that were answered.
    answered: BTreeSet<usize>,
    /// Members that failed alone.
    alone: BTreeSet<usize>,
}

/// Divides a request with so many members. `end` is how the request for a group ends.
fn divide(members: usize, kind: DivisionKind, end: impl Fn(&[usize]) -> GroupEnd) -> Divided {
    let mut division = Division::new(members, kind);
    let mut divided = Divided { requests: 0, answered: BTreeSet::new(), alone: BTreeSet::new() };
    loop {
        let wave = division.next_wave();
        if wave.is_empty() {
            return divided;
        }
        for group in wave {
            divided.requests += 1;
            let ended = end(&group);
            if ended == GroupEnd::Answered {
                divided.answered.extend(&group);
            } else if group.len() == 1 {
                divided.alone.extend(&group);
            }
            division.record(group, ended);
        }
    }
}

/// The most requests that the division of so many members may take.
fn most_requests(members: usize) -> usize {
    members + 2 * members.next_power_of_two().trailing_zeros() as usize
}

/// Returns how the request for a group ends if these members let it fail.
fn bad(members: &[usize], failure: GroupEnd) -> impl Fn(&[usize]) -> GroupEnd {
    let members: BTreeSet<usize> = members.iter().copied().collect();
    move |group| {
        if group.iter().any(|member| members.contains(member)) { failure } else { GroupEnd::Answered }
    }
}

#[test]
fn one_bad_input_fails_alone_wherever_it_is() {
    for failure in [GroupEnd::Alike, GroupEnd::Outage, GroupEnd::Failed] {
        for members in [2, 3, 7, 64, 100] {
            for member in 0..members {
                let divided = divide(members, DivisionKind::Search, bad(&[member], failure));
                assert_eq!(divided.alone, BTreeSet::from([member]), "{failure:?} {members}");
                assert_eq!(divided.answered.len(), members - 1);
                assert!(divided.requests <= 16, "{} of {members}", divided.requests);
            }
        }
    }
}

#[test]
fn an_outage_takes_two_more_requests() {
    for members in [2, 3, 2_048] {
        let divided = divide(members, DivisionKind::Search, |_| GroupEnd::Outage);
        assert_eq!((divided.requests, divided.answered.len()), (2, 0));
        assert_eq!(divided.alone.len(), 2);
    }
}

#[test]
fn an_outage_that_begins_during_the_division_ends_it() {
    // The probes are answered.
    let divided = divide(2_048, DivisionKind::Search, |group| {
        if group.len() == 1 { GroupEnd::Answered } else { GroupEnd::Outage }
    });
    assert!(divided.requests <= FIRST_PROBES + 2 * MAX_UNANSWERED, "{}", divided.requests);
}

#[test]
fn a_defect_of_all_requests_takes_eight_more_requests() {
    for members in [8, 64, 2_048] {
        let divided = divide(members, DivisionKind::Search, |_| GroupEnd::Alike);
        assert_eq!((divided.requests, divided.alone.len()), (COMMON_FAILURES, COMMON_FAILURES));
    }
}

#[test]
fn two_bad_inputs_at_the_ends_fail_alone() {
    let divided = divide(64, DivisionKind::Search, bad(&[0, 63], GroupEnd::Alike));
    assert_eq!((divided.alone, divided.answered.len()), (BTreeSet::from([0, 63]), 62));
}

#[test]
fn a_server_that_accepts_fewer_inputs_answers_all() {
    let accepts = |group: &[usize]| if group.len() <= 16 { GroupEnd::Answered } else { GroupEnd::Alike };
    let divided = divide(64, DivisionKind::Search, accepts);
    assert_eq!(divided.answered.len(), 64);
    assert!(divided.requests <= 8, "{}", divided.requests);
}

#[test]
fn the_members_of_a_lost_request_are_sent_alone_once() {
    let divided = divide(30, DivisionKind::Alone, bad(&[3], GroupEnd::Lost));
    assert_eq!((divided.requests, divided.answered.len()), (30, 29));
    assert_eq!(divided.alone, BTreeSet::from([3]));
    let part_lost = divide(30, DivisionKind::Search, |group| match group {
        [5] => GroupEnd::Alike,
        [_] => GroupEnd::Answered,
        _ => GroupEnd::Lost,
    });
    assert_eq!((part_lost.answered.len(), part_lost.alone.len()), (29, 1));
}

/// Returns the error of a request that was sent or not.
fn error(failure: Failure, was_sent: bool) -> RequestError {
    let attempt = r#"{"target":"a/m","key":"k","queue_time":{"secs":0,"nanos":0},"duration":{"secs":0,"nanos":0},
        "outcome":"answered"}"#;
    let attempt: Attempt = serde_json::from_str(attempt).unwrap();
    RequestError { attempts: AttemptLog(vec![attempt; usize::from(was_sent)]), ..failure.into() }
}

#[test]
fn a_request_is_divided_if_one_input_may_be_the_reason() {
    let division = |class, was_sent| division_of(&error(Failure::new(class, "x"), was_sent));
    for class in Class::ALL {
        let of_sent = matches!(
            class,
            Class::TooLong
                | Class::ContentFilter
                | Class::ApiError
                | Class::ServerError
                | Class::Unreadable
                | Class::Timeout
        );
        assert_eq!(division(class, true), of_sent.then_some(DivisionKind::Search), "{class}");
    }
    assert_eq!(division(Class::Internal, false), Some(DivisionKind::Alone));
    for class in [Class::ApiError, Class::ServerError, Class::Unreadable, Class::Timeout] {
        assert_eq!(division(class, false), None, "{class}");
    }
    let refused = Failure::new(Class::RateLimit, "x").with_scope(FailureScope::Target);
    assert_eq!(division_of(&error(refused, true)), Some(DivisionKind::Search));
    let ignored = Failure::new(Class::ApiError, "x").with_cause(Cause::DimensionsIgnored);
    assert_eq!(division_of(&error(ignored, true)), None, "it is the same for every input");
}

#[test]
fn a_part_is_compared_with_the_whole() {
    let failed = |class, message: &str| error(Failure::new(class, message), true);
    let whole = failed(Class::ApiError, "no dimensions");
    let end = |class, message| failed_end(&failed(class, message), &whole);
    assert_eq!(end(Class::ApiError, "no dimensions"), GroupEnd::Alike);
    assert_eq!(end(Class::ApiError, "input 7"), GroupEnd::Failed);
    assert_eq!(end(Class::TooLong, "no dimensions"), GroupEnd::Failed);
    for class in [Class::ServerError, Class::RateLimit, Class::Auth, Class::Deadline, Class::NotFound] {
        assert_eq!(end(class, "no dimensions"), GroupEnd::Outage, "{class}");
    }
    let over_budget = error(Failure::new(Class::Budget, "the call is too expensive"), false);
    assert_eq!(failed_end(&over_budget, &whole), GroupEnd::Failed, "a part of it may fit");
    let lost = error(Failure::new(Class::Internal, "x"), false);
    assert_eq!(failed_end(&lost, &whole), GroupEnd::Lost);
    let too_long = failed(Class::TooLong, "too long");
    assert_eq!(failed_end(&too_long, &too_long), GroupEnd::Failed, "it is that of one input");
}

proptest! {
    #[test]
    fn each_good_input_is_answered_and_the_requests_are_bounded(
        members in 2..300_usize,
        bad_members in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let bad_members: BTreeSet<usize> = bad_members.iter().map(|index| index.index(members)).collect();
        let all: Vec<usize> = bad_members.iter().copied().collect();
        let divided = divide(members, DivisionKind::Search, bad(&all, GroupEnd::Failed));
        prop_assert_eq!(&divided.alone, &bad_members);
        prop_assert_eq!(divided.answered.len(), members - bad_members.len());
        prop_assert!(divided.requests <= most_requests(members), "{}", divided.requests);
    }

    #[test]
    fn any_outcome_takes_a_bounded_number_of_requests(
        members in 2..300_usize,
        kind in prop_oneof![Just(DivisionKind::Search), Just(DivisionKind::Alone)],
        ends in prop::collection::vec(0..6_usize, 1..50),
    ) {
        let all = [
            GroupEnd::Answered,
            GroupEnd::Alike,
            GroupEnd::Outage,
            GroupEnd::Failed,
            GroupEnd::Lost,
            GroupEnd::Gone,
        ];
        let divided = divide(members, kind, |group| all[ends[(group[0] + 7 * group.len()) % ends.len()]]);
        prop_assert!(divided.requests <= most_requests(members), "{}", divided.requests);
    }
}
