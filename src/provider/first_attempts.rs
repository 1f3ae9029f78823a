//! How the first attempts of requests at a target have ended, in the order in which they left.
//!
//! Repeated attempts are left out: a few requests that fail each time would make the target look as if it failed often.
//! Pure.

use std::collections::BTreeMap;

use crate::types::{AttemptCounts, Class, ItemOfRun};

/// First attempts that are remembered: those that left last.
const KEPT: usize = 16_384;

/// Attempts of other items that are looked at on each side of one: of those next to it another one may be of a request that
/// fails each time, too.
const NEXT: usize = 2;

/// First attempts of requests at one target, by the numbers under which they left their provider.
#[derive(Debug, Default)]
pub struct FirstAttempts {
    attempts: BTreeMap<u64, Attempt>,
    /// How many were answered.
    answered: u64,
    /// How many were answered when attempts failed, first ones or not, by their numbers.
    failed: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Attempt {
    item: ItemOfRun,
    end: End,
}

/// How an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is in flight. One that fails ends long before those next to it that are answered.
    Open,
    Answered,
    /// For a reason that may not be its request's.
    Failed,
}

/// What is known of the first attempts of other items that left just before and just after another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// One on each side was answered.
    Answered {
        /// The number of that before it.
        before: u64,
    },
    /// None was on one side.
    Failed,
}

impl FirstAttempts {
    /// Notes that an attempt leaves, of a request of that item.
    pub fn left(&mut self, number: u64, item: ItemOfRun) {
        self.attempts.insert(number, Attempt { item, end: End::Open });
        if self.attempts.len() > KEPT {
            self.attempts.pop_first();
        }
    }

    /// Notes that an attempt ended with an answer, or with a failure of this class. One that was cut off by its request's
    /// deadline has failed: the target may be slow or hang.
    pub fn ended(&mut self, number: u64, failure: Option<Class>) {
        let mut one = AttemptCounts::default();
        one.count(failure);
        let end = match (one.answered, one.failed, failure) {
            (0, 0, Some(Class::Deadline)) => End::Failed,
            (0, 0, _) => return self.says_nothing(number),
            (0, _, _) => End::Failed,
            _ => End::Answered,
        };
        self.answered += u64::from(end == End::Answered);
        if let Some(attempt) = self.attempts.get_mut(&number) {
            attempt.end = end;
        }
    }

    /// Notes that an attempt has failed, a first one or not.
    pub fn failed(&mut self, number: u64) {
        self.failed.insert(number, self.answered);
        if self.failed.len() > KEPT {
            self.failed.pop_first();
        }
    }

    /// Returns whether any was answered after the attempt of this number had failed.
    pub fn was_answered_after(&self, number: u64) -> bool {
        self.answered > self.failed.get(&number).copied().unwrap_or_default()
    }

    /// Notes that an attempt ended in a way that says nothing of the target.
    pub fn says_nothing(&mut self, number: u64) {
        self.attempts.remove(&number);
    }

    /// Returns how those went that left next to the attempt of this number, which is of `item`; `None` while that is not
    /// known, or no longer. The requests of one item fail for the same reasons: they do not count.
    pub fn around(&self, number: u64, item: ItemOfRun) -> Option<Neighbours> {
        let is_others = |attempt: &(&u64, &Attempt)| attempt.1.item != item;
        let before = self.attempts.range(..number).rev().filter(is_others);
        let after = self.attempts.range(number.checked_add(1)?..).filter(is_others);
        match (answered(before)?, answered(after)?) {
            (Some(before), Some(_)) => Some(Neighbours::Answered { before }),
            _ => Some(Neighbours::Failed),
        }
    }

    /// Returns how the latest `most` of those have ended that left from this number on.
    pub fn since(&self, number: u64, most: usize) -> AttemptCounts {
        let mut counts = AttemptCounts::default();
        let ends = self.attempts.range(number..).rev().map(|(_, attempt)| attempt.end);
        for end in ends.filter(|end| *end != End::Open).take(most) {
            let one = if end == End::Failed { &mut counts.failed } else { &mut counts.answered };
            *one += 1;
        }
        counts
    }
}

/// Returns the number of the first that was answered of the nearest; `None` while that is not known.
fn answered<'a>(nearest: impl Iterator<Item = (&'a u64, &'a Attempt)>) -> Option<Option<u64>> {
    let mut failed = 0;
    for (number, attempt) in nearest.take(NEXT) {
        match attempt.end {
            End::Open => return None,
            End::Answered => return Some(Some(*number)),
            End::Failed => failed += 1,
        }
    }
    // There may be more that have not left.
    (failed == NEXT).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Asker, RunId};

    fn of(rank: u64) -> ItemOfRun {
        Asker { run: RunId::default(), rank, ..Asker::default() }.item()
    }

    /// Attempts of other items: `a` is answered, `f` fails, `?` is in flight, `x` is the item's own and fails.
    fn attempts(ends: &str) -> FirstAttempts {
        let mut first = FirstAttempts::default();
        for (number, end) in (0..).zip(ends.chars()) {
            first.left(number, of(if end == 'x' { 1_000 } else { number }));
            match end {
                'a' => first.ended(number, None),
                'f' | 'x' => first.ended(number, Some(Class::ServerError)),
                _ => {}
            }
        }
        first
    }

    #[test]
    fn the_nearest_two_of_other_items_on_each_side_say_whether_the_target_worked_then() {
        let answered = |before| Some(Neighbours::Answered { before });
        for (ends, number, expected) in [
            ("aaxaa", 2, answered(1)),
            ("afxfa", 2, answered(0)),
            ("affxfa", 3, Some(Neighbours::Failed)),
            ("afxffa", 2, Some(Neighbours::Failed)),
            // Its own do not count.
            ("axxxxa", 2, answered(0)),
            // What is in flight may be answered yet.
            ("a?xa", 2, None),
            ("a?xff", 2, None),
            ("aax?", 2, None),
            ("aaxf?", 2, None),
            ("aaxf", 2, None),
            ("aax", 2, None),
            ("xaa", 0, None),
        ] {
            assert_eq!(attempts(ends).around(number, of(1_000)), expected, "{ends}");
        }
    }

    #[test]
    fn what_says_nothing_of_the_target_is_left_out() {
        let mut first = attempts("aax?a?");
        first.ended(3, Some(Class::Cancelled));
        first.says_nothing(5);
        assert_eq!(first.around(2, of(1_000)), Some(Neighbours::Answered { before: 1 }));
        assert_eq!(first.since(1, 9), AttemptCounts { answered: 2, failed: 1 });
        assert_eq!(first.since(0, 2), AttemptCounts { answered: 1, failed: 1 });
    }

    #[test]
    fn an_attempt_that_its_deadline_cut_off_has_failed() {
        let mut first = attempts("aax??");
        first.ended(3, Some(Class::Deadline));
        first.ended(4, Some(Class::Deadline));
        assert_eq!(first.around(2, of(1_000)), Some(Neighbours::Failed));
        assert_eq!(first.since(0, 9), AttemptCounts { answered: 2, failed: 3 });
    }

    #[test]
    fn the_attempts_that_left_longest_ago_are_forgotten() {
        let first = attempts(&"a".repeat(KEPT + 10));
        assert_eq!((first.attempts.len(), first.around(5, of(5))), (KEPT, None));
    }
}
