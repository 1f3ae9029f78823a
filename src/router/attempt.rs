//! Entries of the attempt log of a request.
//!
//! Plain data, no decisions.

use std::time::Duration;

use crate::provider::{CallResult, Rejection};
use crate::types::{Attempt, AttemptLog, Class, Completion, Failure, KeyLabel, NanoUsd, Outcome, TargetName};

use super::pending_call::AbortedCall;

/// Splits the result of a call into its log entry and its completion or failure.
pub(super) fn record_reply(
    target: &TargetName,
    hedge: bool,
    call: CallResult,
) -> (Attempt, Result<Completion, Failure>) {
    let CallResult {
        number: _,
        key,
        waited,
        is_probe: _,
        is_forced,
        took,
        first_token,
        cost,
        cache_savings,
        uncertain_cost,
        result,
    } = call;
    let (usage, outcome) = match &result {
        Ok(completion) => (completion.usage, Outcome::Answered),
        Err(failure) => (failure.usage.as_deref().copied(), Outcome::Failed(failure.clone().into())),
    };
    let base = new_attempt(target, Some(key.label().clone()), waited, outcome);
    (
        Attempt {
            duration: took,
            first_token,
            usage,
            cost,
            cache_savings,
            uncertain_cost,
            forced: is_forced,
            hedged: hedge,
            ..base
        },
        result,
    )
}

/// Returns the entry of a call that was aborted because another target answered first.
pub(super) fn record_superseded(target: &TargetName, hedge: bool, call: AbortedCall) -> Attempt {
    record_aborted(target, hedge, call, Outcome::Superseded)
}

/// Returns the entry and the failure of a call that was in flight at its deadline and for the grace period after
/// it.
pub(super) fn record_timed_out(target: &TargetName, hedge: bool, call: AbortedCall) -> (Attempt, Failure) {
    let failure =
        Failure::new(Class::Deadline, "no response was received before the deadline").maybe_charged();
    (record_aborted(target, hedge, call, Outcome::Failed(failure.clone().into())), failure)
}

/// Returns the entry of a call that was aborted because the caller stops.
pub(super) fn record_stopped(
    target: &TargetName,
    hedge: bool,
    call: AbortedCall,
    failure: &Failure,
) -> Attempt {
    record_aborted(target, hedge, call, Outcome::Failed(failure.clone().into()))
}

/// Returns the entry of a call that was sent and whose end is unknown.
fn record_aborted(target: &TargetName, hedge: bool, call: AbortedCall, outcome: Outcome) -> Attempt {
    let base = new_attempt(target, Some(call.key), call.waited, outcome);
    Attempt { duration: call.took, uncertain_cost: call.uncertain_cost, hedged: hedge, ..base }
}

/// Returns the entry of a call that was lost in a panic before it was sent.
pub(super) fn record_lost(target: &TargetName, hedge: bool, waited: Duration, failure: &Failure) -> Attempt {
    Attempt { hedged: hedge, ..new_attempt(target, None, waited, Outcome::Lost(failure.clone().into())) }
}

/// Records a rejection. Repeated rejections by one target for the same reason are one entry, with the sum of their
/// waits.
pub(super) fn record_rejection(
    log: &mut AttemptLog,
    target: &TargetName,
    rejection: &Rejection,
    waited: Duration,
) {
    let outcome = Outcome::Refused(rejection.to_string().into());
    let is_same = |entry: &&mut Attempt| entry.target == *target && entry.outcome == outcome;
    match log.0.iter_mut().rev().find(is_same) {
        Some(entry) => entry.queue_time += waited,
        None => log.0.push(new_attempt(target, None, waited, outcome)),
    }
}

fn new_attempt(target: &TargetName, key: Option<KeyLabel>, waited: Duration, outcome: Outcome) -> Attempt {
    Attempt {
        target: target.clone(),
        key,
        queue_time: waited,
        duration: Duration::ZERO,
        first_token: None,
        usage: None,
        cost: None,
        cache_savings: None,
        uncertain_cost: NanoUsd(0),
        forced: false,
        hedged: false,
        counted_elsewhere: false,
        reasoning: None,
        outcome,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::provider::KeyId;

    #[test]
    fn a_call_that_an_open_breaker_admitted_has_a_note() {
        let call = CallResult {
            number: 1,
            key: KeyId::first("k".into()),
            waited: Duration::ZERO,
            is_probe: false,
            is_forced: true,
            took: Duration::from_secs(1),
            first_token: None,
            cost: None,
            cache_savings: None,
            uncertain_cost: NanoUsd(0),
            result: Err(Failure::new(Class::ServerError, "still down")),
        };
        let (attempt, _) = record_reply(&"a/m".parse().unwrap(), false, call);
        let note = "a/m: sent although its breaker was open: no other target was left";
        assert_eq!((attempt.forced, attempt.note().as_deref()), (true, Some(note)));
    }

    #[test]
    fn repeated_rejections_of_one_target_are_one_entry_even_with_others_between() {
        let mut log = AttemptLog::default();
        let target: TargetName = "a/m".parse().unwrap();
        let other: TargetName = "b/m".parse().unwrap();
        for _ in 0..10 {
            let rejection = Rejection::RetryBudgetExhausted { until: Instant::now() };
            record_rejection(&mut log, &target, &rejection, Duration::from_secs(1));
            let failed = Outcome::Failed(Failure::new(Class::ServerError, "down").into());
            log.0.push(new_attempt(&other, Some("k".into()), Duration::ZERO, failed));
        }
        let rejections: Vec<_> = log.0.iter().filter(|attempt| attempt.target == target).collect();
        assert_eq!((rejections.len(), rejections[0].queue_time), (1, Duration::from_secs(10)));
    }
}
