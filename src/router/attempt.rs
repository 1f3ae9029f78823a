//! What is written into the trail of an ask.
//!
//! Plain data; decides nothing.

use std::time::Duration;

use crate::provider::{Refused, Replied};
use crate::types::{Attempt, Class, Failure, KeyLabel, LaneName, NanoUsd, Outcome, Reply, Trail};

use super::out::Gone;

/// Splits a call that came back into its line and what it brought.
pub(super) fn came_back(lane: &LaneName, hedge: bool, replied: Replied) -> (Attempt, Result<Reply, Failure>) {
    let Replied { number: _, key, waited, probe: _, forced, took, first_token, cost, perhaps, result } =
        replied;
    let (usage, outcome) = match &result {
        Ok(reply) => (reply.usage, Outcome::Answered),
        Err(failure) => (failure.usage.as_deref().copied(), Outcome::Failed(failure.clone())),
    };
    let blank = attempt(lane, Some(key.label().clone()), waited, outcome);
    (Attempt { took, first_token, usage, cost, perhaps, forced, hedge, ..blank }, result)
}

/// Writes down a call that was broken off because another lane had answered.
pub(super) fn beaten(lane: &LaneName, hedge: bool, gone: Gone) -> Attempt {
    left(lane, hedge, gone, Outcome::Superseded)
}

/// Writes down a call that was out when its time was up, and did not come back a moment later either.
pub(super) fn late(lane: &LaneName, hedge: bool, gone: Gone) -> (Attempt, Failure) {
    let failure = Failure::new(Class::Deadline, "no answer came before the deadline").maybe_charged();
    (left(lane, hedge, gone, Outcome::Failed(failure.clone())), failure)
}

/// Writes down a call that was broken off because its asker stops.
pub(super) fn stopped(lane: &LaneName, hedge: bool, gone: Gone, failure: &Failure) -> Attempt {
    left(lane, hedge, gone, Outcome::Failed(failure.clone()))
}

/// Writes down a call that has left and of whose end nothing is known.
fn left(lane: &LaneName, hedge: bool, gone: Gone, outcome: Outcome) -> Attempt {
    let blank = attempt(lane, Some(gone.key), gone.waited, outcome);
    Attempt { took: gone.took, perhaps: gone.likely, hedge, ..blank }
}

/// Writes down a call that a panic cost before it left.
pub(super) fn lost(lane: &LaneName, hedge: bool, waited: Duration, failure: &Failure) -> Attempt {
    Attempt { hedge, ..attempt(lane, None, waited, Outcome::Lost(failure.clone())) }
}

/// Writes down a refusal. A lane that refuses again and again while an ask waits for it is one line of the
/// trail.
pub(super) fn note_refusal(trail: &mut Trail, lane: &LaneName, refused: &Refused, waited: Duration) {
    let outcome = Outcome::Refused(refused.to_string().into());
    let same = |known: &&mut Attempt| known.lane == *lane && known.outcome == outcome;
    match trail.0.iter_mut().rev().find(same) {
        Some(known) => known.waited += waited,
        None => trail.0.push(attempt(lane, None, waited, outcome)),
    }
}

fn attempt(lane: &LaneName, key: Option<KeyLabel>, waited: Duration, outcome: Outcome) -> Attempt {
    Attempt {
        lane: lane.clone(),
        key,
        waited,
        took: Duration::ZERO,
        first_token: None,
        usage: None,
        cost: None,
        perhaps: NanoUsd(0),
        forced: false,
        hedge: false,
        outcome,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::provider::KeyId;

    #[test]
    fn a_call_that_left_through_an_open_breaker_says_so() {
        let replied = Replied {
            number: 1,
            key: KeyId::first("k".into()),
            waited: Duration::ZERO,
            probe: false,
            forced: true,
            took: Duration::from_secs(1),
            first_token: None,
            cost: None,
            perhaps: NanoUsd(0),
            result: Err(Failure::new(Class::ServerError, "still down")),
        };
        let (attempt, _) = came_back(&"a/m".parse().unwrap(), false, replied);
        let told = "a/m: left although its breaker was open: no other lane was left";
        assert_eq!((attempt.forced, attempt.note().as_deref()), (true, Some(told)));
    }

    #[test]
    fn a_lane_whose_retries_are_spent_is_told_once_whatever_comes_between() {
        let (mut trail, lane) = (Trail::default(), "a/m".parse().unwrap());
        let other: LaneName = "b/m".parse().unwrap();
        for _ in 0..10 {
            let spent = Refused::RetriesSpent { until: Instant::now() };
            note_refusal(&mut trail, &lane, &spent, Duration::from_secs(1));
            let failed = Outcome::Failed(Failure::new(Class::ServerError, "down"));
            trail.0.push(attempt(&other, Some("k".into()), Duration::ZERO, failed));
        }
        let refusals: Vec<_> = trail.0.iter().filter(|attempt| attempt.lane == lane).collect();
        assert_eq!((refusals.len(), refusals[0].waited), (1, Duration::from_secs(10)));
    }
}
