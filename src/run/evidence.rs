//! Decides whether the cause of a failure is the request itself, or the provider, a limit or the account.
//!
//! If a request fails while others are answered at the same targets, the request itself is the cause, unless
//! chance explains the failures. A failed attempt of the request counts as evidence only if the target worked at
//! that time: first attempts of other items that were sent just before and just after it were answered (one of
//! the nearest two on each side), and another attempt after it was answered.
//!
//! If a fraction `f` of the others' first attempts fails, a request with nothing wrong fails `n` more times after
//! its first failure with the probability `f^n`. If this is below one in a billion, the failure is attributed to
//! the request. `f` is estimated as `(failed + 1) / (failed + answered + 2)` (Laplace's rule of succession), so
//! few attempts prove little. Repeated attempts of others do not count: a few requests that fail every time
//! would look like a target that fails often. Without a single success of others nothing is proven, because an
//! outage looks the same. The evidence of a request is kept until it has its final result.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::provider::{FirstAttempts, Neighbours};
use crate::types::{
    Attempt, AttemptCounts, Attribution, Class, FailureScope, Outcome, RequestError, RunItem, TargetName,
};

/// The probability below which repeated failures are not explained by chance. A run of a million requests tests
/// each of them.
const MAX_CHANCE_PROBABILITY: f64 = 1e-9;

/// First attempts of others, sent before the first failure of the request, that count for the failure rate of
/// the target.
const OTHERS_BEFORE_FIRST_FAILURE: u64 = 200;

/// Most first attempts of others that count for the failure rate of a target.
const MAX_OTHER_ATTEMPTS: usize = 2_000;

/// Evidence about one request that has failed.
#[derive(Debug)]
pub(super) struct Evidence {
    item: RunItem,
    /// How often it failed.
    returns: u32,
    /// Its failed attempts, by target.
    failed: BTreeMap<TargetName, Vec<FailedAttempt>>,
    /// Results of the first attempts of others, by target.
    others: BTreeMap<TargetName, AttemptCounts>,
}

/// A failed attempt.
#[derive(Debug)]
struct FailedAttempt {
    /// Its number among the attempts sent to its provider.
    number: u64,
    /// Whether it timed out instead of returning a failure.
    timed_out: bool,
    /// The first attempts of others that were sent next to it, once they are known.
    neighbours: Option<Neighbours>,
}

impl Evidence {
    /// Creates the evidence of a request of this item, with nothing known.
    pub(super) fn new(item: RunItem) -> Self {
        Self { item, returns: 0, failed: BTreeMap::new(), others: BTreeMap::new() }
    }

    /// Records that the request failed with `error`; `time_limit` is how long the request may take. Returns
    /// whether the class of the failure is the request's own in any case.
    pub(super) fn record_failure(&mut self, error: &RequestError, time_limit: Duration) -> bool {
        self.returns = self.returns.saturating_add(1);
        let class = error.failure.class;
        match class.attribution() {
            // The router has found that others are answered and that the request is refused after any wait.
            Attribution::Limit if error.failure.scope == FailureScope::Target => true,
            Attribution::Request if class != Class::NotFound => true,
            Attribution::Router if class != Class::Deadline => {
                // If an actor is gone, every request fails.
                error.attempts.calls() > 0 || error.attempts.lost() > 0 || error.target.is_none()
            }
            Attribution::Request
            | Attribution::Router
            | Attribution::Attempt
            | Attribution::Limit
            | Attribution::Account => {
                self.record_attempts(error, time_limit);
                false
            }
        }
    }

    fn record_attempts(&mut self, error: &RequestError, time_limit: Duration) {
        let failed_outcomes =
            error.attempts.0.iter().filter(|attempt| matches!(attempt.outcome, Outcome::Failed(_)));
        for (attempt, failed) in failed_outcomes.zip(&error.failed_attempts) {
            if is_evidence(attempt, time_limit) {
                let timed_out = matches!(&attempt.outcome, Outcome::Failed(failure)
                    if matches!(failure.class, Class::Timeout | Class::Deadline));
                let failed_attempt = FailedAttempt { number: failed.number, timed_out, neighbours: None };
                self.failed.entry(failed.target.clone()).or_default().push(failed_attempt);
            }
        }
    }

    /// Returns the targets that have failed the request.
    pub(super) fn targets(&self) -> impl Iterator<Item = TargetName> + use<> {
        self.failed.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    /// Updates the evidence with the results of others at a target. What was known before is kept.
    pub(super) fn compare(&mut self, target: &TargetName, first: &FirstAttempts) {
        let Some(failed) = self.failed.get_mut(target) else { return };
        let Some(earliest) = failed.iter().map(|attempt| attempt.number).min() else { return };
        let others =
            first.counts_since(earliest.saturating_sub(OTHERS_BEFORE_FIRST_FAILURE), MAX_OTHER_ATTEMPTS);
        if others.answered + others.failed > 0 {
            self.others.insert(target.clone(), others);
        }
        for attempt in failed.iter_mut().filter(|attempt| attempt.neighbours.is_none()) {
            // When a target goes down, it breaks off attempts that were sent long before; attempts sent next to
            // them were already answered.
            if attempt.timed_out || first.was_answered_after(attempt.number) {
                attempt.neighbours = first.neighbours_of(attempt.number, self.item);
            }
        }
    }

    /// Returns whether the request itself is the cause of its failures, as far as is known.
    pub(super) fn is_proven(&self) -> bool {
        let others = self.others.values().copied().fold(AttemptCounts::default(), AttemptCounts::plus);
        let AttemptCounts { answered, failed } = others;
        let own_failures = self.failed_while_others_were_answered();
        if answered == 0 || own_failures < 2 {
            return false;
        }
        let failure_rate = (failed + 1) as f64 / (failed.saturating_add(answered) + 2) as f64;
        failure_rate.powi(i32::try_from(own_failures - 1).unwrap_or(i32::MAX)) < MAX_CHANCE_PROBABILITY
    }

    /// Returns whether others were answered when the request failed, so that the provider worked then.
    pub(super) fn is_suspected(&self) -> bool {
        self.failed_while_others_were_answered() > 0
    }

    /// Returns how often it failed.
    pub(super) fn returns(&self) -> u32 {
        self.returns
    }

    fn failed_while_others_were_answered(&self) -> usize {
        let of_target = |failed: &Vec<FailedAttempt>| {
            // Several failures between the same two answers count once: the provider may have been down between
            // those answers.
            let distinct_gaps: BTreeSet<u64> = failed
                .iter()
                .filter_map(|attempt| match attempt.neighbours? {
                    Neighbours::Answered { before } => Some(before),
                    Neighbours::Failed => None,
                })
                .collect();
            distinct_gaps.len()
        };
        self.failed.values().map(of_target).sum()
    }
}

/// Returns whether an attempt counts as evidence: it failed, and not because most of its time was spent in the
/// queue. A request that is too long for one target shows nothing about whether another target is out.
fn is_evidence(attempt: &Attempt, time_limit: Duration) -> bool {
    match &attempt.outcome {
        Outcome::Failed(failure) if failure.class == Class::Deadline => attempt.duration * 2 >= time_limit,
        Outcome::Failed(failure) if failure.class == Class::TooLong => false,
        Outcome::Failed(_) => attempt.key.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
