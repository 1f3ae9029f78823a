//! How the first attempts of requests at a target have ended, in the order in which they left.
//!
//! Repeated attempts are left out: a few requests that fail each time would make the target look as if it failed often.
//! Pure.

use std::collections::BTreeMap;

use crate::types::{AttemptCounts, Class};

/// First attempts that are remembered: those that left last.
const KEPT: usize = 16_384;

/// First attempts of requests at one target, by the numbers under which they left their provider.
#[derive(Debug, Default)]
pub struct FirstAttempts {
    attempts: BTreeMap<u64, End>,
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

/// The first attempts that left just before and just after another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbours {
    /// The number of the one before it.
    pub before: u64,
    /// Whether both were answered.
    pub are_answered: bool,
}

impl FirstAttempts {
    /// Notes that an attempt leaves.
    pub fn left(&mut self, number: u64) {
        self.attempts.insert(number, End::Open);
        if self.attempts.len() > KEPT {
            self.attempts.pop_first();
        }
    }

    /// Notes that an attempt ended with an answer, or with a failure of this class.
    pub fn ended(&mut self, number: u64, failure: Option<Class>) {
        let mut one = AttemptCounts::default();
        one.count(failure);
        if one == AttemptCounts::default() {
            return self.says_nothing(number);
        }
        if let Some(attempt) = self.attempts.get_mut(&number) {
            *attempt = if one.failed > 0 { End::Failed } else { End::Answered };
        }
    }

    /// Notes that an attempt ended in a way that says nothing of the target.
    pub fn says_nothing(&mut self, number: u64) {
        self.attempts.remove(&number);
    }

    /// Returns how those two went that left just before and just after the attempt of this number; `None` while that is
    /// not known, or no longer.
    pub fn around(&self, number: u64) -> Option<Neighbours> {
        let (before, end_before) = self.attempts.range(..number).next_back()?;
        let (_, end_after) = self.attempts.range(number.checked_add(1)?..).next()?;
        let ends = [*end_before, *end_after];
        let are_answered = ends == [End::Answered; 2];
        (!ends.contains(&End::Open)).then_some(Neighbours { before: *before, are_answered })
    }

    /// Returns how the latest `most` of those have ended that left from this number on.
    pub fn since(&self, number: u64, most: usize) -> AttemptCounts {
        let mut counts = AttemptCounts::default();
        let ended = self.attempts.range(number..).rev().filter(|(_, end)| **end != End::Open);
        for (_, end) in ended.take(most) {
            let one = if *end == End::Failed { &mut counts.failed } else { &mut counts.answered };
            *one += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attempts_that_left_next_to_one_say_whether_the_target_worked_then() {
        let mut first = FirstAttempts::default();
        for (number, failure) in
            [(1, None), (3, None), (6, None), (4, Some(Class::ServerError)), (8, Some(Class::Cancelled))]
        {
            first.left(number);
            first.ended(number, failure);
        }
        assert_eq!(
            [2, 5, 3, 7].map(|number| first.around(number).map(|around| around.are_answered)),
            [Some(true), Some(false), Some(false), None]
        );
        assert_eq!(first.since(2, 9), AttemptCounts { answered: 2, failed: 1 });
        assert_eq!(first.since(0, 2), AttemptCounts { answered: 1, failed: 1 });
    }

    #[test]
    fn the_attempts_that_left_longest_ago_are_forgotten() {
        let mut first = FirstAttempts::default();
        (0..KEPT as u64 + 10).for_each(|number| {
            first.left(number);
            first.ended(number, None);
        });
        assert_eq!((first.attempts.len(), first.around(5)), (KEPT, None));
    }

    #[test]
    fn what_is_next_to_an_attempt_is_not_known_before_it_has_ended() {
        let mut first = FirstAttempts::default();
        (1..=5).for_each(|number| first.left(number));
        // Those at 1 and 5 fail at once, and are not what left next to 3.
        first.ended(1, Some(Class::ServerError));
        first.ended(5, Some(Class::ServerError));
        first.ended(3, Some(Class::ServerError));
        assert_eq!(first.around(3), None);
        first.ended(2, None);
        first.ended(4, None);
        assert_eq!(first.around(3), Some(Neighbours { before: 2, are_answered: true }));
        first.left(6);
        first.says_nothing(6);
        assert_eq!(first.around(5), None);
    }
}
