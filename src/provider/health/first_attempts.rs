//! Results of the first attempts of requests at a target, in the order in which they were sent.
//!
//! Retries are not included: a few requests that always fail would make the target look as if it failed often.
//! Pure.

use std::collections::BTreeMap;

use crate::types::{AttemptCounts, Class, RunItem};

/// First attempts that are kept: the latest ones.
const MAX_ATTEMPTS: usize = 16_384;

/// Attempts of other items that are considered before and after an attempt. One is not enough, because its
/// request may always fail, too.
const NEIGHBOURS_PER_SIDE: usize = 2;

/// First attempts of requests at one target, by their sequence numbers at the provider.
#[derive(Debug, Default)]
pub struct FirstAttempts {
    attempts: BTreeMap<u64, Attempt>,
    /// The number of answered first attempts.
    answered: u64,
    /// For each failed attempt, first or not: the number of answered first attempts at that time.
    answered_at_failure: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Attempt {
    item: RunItem,
    status: Status,
}

/// The status of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// It is in flight. A failing attempt ends long before its neighbours are answered.
    InFlight,
    Answered,
    /// It failed for a reason that may not be specific to its request.
    Failed,
}

/// Results of the first attempts of other items that were sent just before and just after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// One attempt on each side was answered.
    Answered {
        /// The sequence number of the answered attempt before it.
        before: u64,
    },
    /// On at least one side, no attempt was answered.
    Failed,
}

impl FirstAttempts {
    /// Records that an attempt of a request of `item` was sent.
    pub fn record_sent(&mut self, number: u64, item: RunItem) {
        self.attempts.insert(number, Attempt { item, status: Status::InFlight });
        if self.attempts.len() > MAX_ATTEMPTS {
            self.attempts.pop_first();
        }
    }

    /// Records that an attempt ended with an answer, or with a failure of this class. An attempt that its
    /// request's deadline aborted counts as failed: the target may be slow or hang.
    pub fn record_end(&mut self, number: u64, failure: Option<Class>) {
        let mut counts = AttemptCounts::default();
        counts.count(failure);
        let status = match (counts.answered, counts.failed, failure) {
            (0, 0, Some(Class::Deadline)) => Status::Failed,
            (0, 0, _) => return self.discard(number),
            (0, _, _) => Status::Failed,
            _ => Status::Answered,
        };
        self.answered += u64::from(status == Status::Answered);
        if let Some(attempt) = self.attempts.get_mut(&number) {
            attempt.status = status;
        }
    }

    /// Records that an attempt failed, first or not.
    pub fn record_failure(&mut self, number: u64) {
        self.answered_at_failure.insert(number, self.answered);
        if self.answered_at_failure.len() > MAX_ATTEMPTS {
            self.answered_at_failure.pop_first();
        }
    }

    /// Returns whether a first attempt was answered after the attempt of this number had failed.
    pub fn was_answered_after(&self, number: u64) -> bool {
        self.answered > self.answered_at_failure.get(&number).copied().unwrap_or_default()
    }

    /// Removes an attempt whose end proves nothing about the target.
    pub fn discard(&mut self, number: u64) {
        self.attempts.remove(&number);
    }

    /// Returns the results of the neighbours of an attempt of `item`; `None` while they are not known, or no
    /// longer known. Other attempts of `item` are ignored, because requests of one item fail for the same
    /// reasons.
    pub fn neighbours_of(&self, number: u64, item: RunItem) -> Option<Neighbours> {
        let is_other_item = |attempt: &(&u64, &Attempt)| attempt.1.item != item;
        let before = self.attempts.range(..number).rev().filter(is_other_item);
        let after = self.attempts.range(number.checked_add(1)?..).filter(is_other_item);
        match (nearest_answered(before)?, nearest_answered(after)?) {
            (Some(before), Some(_)) => Some(Neighbours::Answered { before }),
            _ => Some(Neighbours::Failed),
        }
    }

    /// Counts the results of the latest attempts, at most `max`, that were sent from this number on.
    pub fn counts_since(&self, number: u64, max: usize) -> AttemptCounts {
        let mut counts = AttemptCounts::default();
        let statuses = self.attempts.range(number..).rev().map(|(_, attempt)| attempt.status);
        for status in statuses.filter(|status| *status != Status::InFlight).take(max) {
            let count = if status == Status::Failed { &mut counts.failed } else { &mut counts.answered };
            *count += 1;
        }
        counts
    }
}

/// Returns the number of the nearest answered attempt; `None` while that is not known.
fn nearest_answered<'a>(nearest: impl Iterator<Item = (&'a u64, &'a Attempt)>) -> Option<Option<u64>> {
    let mut failed = 0;
    for (number, attempt) in nearest.take(NEIGHBOURS_PER_SIDE) {
        match attempt.status {
            Status::InFlight => return None,
            Status::Answered => return Some(Some(*number)),
            Status::Failed => failed += 1,
        }
    }
    // Otherwise further attempts may follow.
    (failed == NEIGHBOURS_PER_SIDE).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{RequestContext, RunId};

    fn item(rank: u64) -> RunItem {
        RequestContext { run: RunId::default(), rank, ..RequestContext::default() }.item()
    }

    /// Attempts of other items: `a` is answered, `f` fails, `?` is in flight. `x` is of the item itself and fails.
    fn attempts(ends: &str) -> FirstAttempts {
        let mut first = FirstAttempts::default();
        for (number, end) in (0..).zip(ends.chars()) {
            first.record_sent(number, item(if end == 'x' { 1_000 } else { number }));
            match end {
                'a' => first.record_end(number, None),
                'f' | 'x' => first.record_end(number, Some(Class::ServerError)),
                _ => {}
            }
        }
        first
    }

    #[test]
    fn the_two_nearest_attempts_of_other_items_on_each_side_are_considered() {
        let answered = |before| Some(Neighbours::Answered { before });
        for (ends, number, expected) in [
            ("aaxaa", 2, answered(1)),
            ("afxfa", 2, answered(0)),
            ("affxfa", 3, Some(Neighbours::Failed)),
            ("afxffa", 2, Some(Neighbours::Failed)),
            // Other attempts of the item do not count.
            ("axxxxa", 2, answered(0)),
            // An attempt in flight may still be answered.
            ("a?xa", 2, None),
            ("a?xff", 2, None),
            ("aax?", 2, None),
            ("aaxf?", 2, None),
            ("aaxf", 2, None),
            ("aax", 2, None),
            ("xaa", 0, None),
        ] {
            assert_eq!(attempts(ends).neighbours_of(number, item(1_000)), expected, "{ends}");
        }
    }

    #[test]
    fn attempts_that_prove_nothing_about_the_target_are_ignored() {
        let mut first = attempts("aax?a?");
        first.record_end(3, Some(Class::Cancelled));
        first.discard(5);
        assert_eq!(first.neighbours_of(2, item(1_000)), Some(Neighbours::Answered { before: 1 }));
        assert_eq!(first.counts_since(1, 9), AttemptCounts { answered: 2, failed: 1 });
        assert_eq!(first.counts_since(0, 2), AttemptCounts { answered: 1, failed: 1 });
    }

    #[test]
    fn an_attempt_that_its_deadline_aborted_has_failed() {
        let mut first = attempts("aax??");
        first.record_end(3, Some(Class::Deadline));
        first.record_end(4, Some(Class::Deadline));
        assert_eq!(first.neighbours_of(2, item(1_000)), Some(Neighbours::Failed));
        assert_eq!(first.counts_since(0, 9), AttemptCounts { answered: 2, failed: 3 });
    }

    #[test]
    fn the_oldest_attempts_are_removed() {
        let first = attempts(&"a".repeat(MAX_ATTEMPTS + 10));
        assert_eq!((first.attempts.len(), first.neighbours_of(5, item(5))), (MAX_ATTEMPTS, None));
    }
}
