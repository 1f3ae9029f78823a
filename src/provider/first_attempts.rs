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
    /// Whether each failed for a reason that may not be its request's.
    ended: BTreeMap<u64, bool>,
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
    /// Notes that an attempt ended with an answer, or with a failure of this class.
    pub fn ended(&mut self, number: u64, failure: Option<Class>) {
        let mut one = AttemptCounts::default();
        one.count(failure);
        if one == AttemptCounts::default() {
            return;
        }
        self.ended.insert(number, one.failed > 0);
        if self.ended.len() > KEPT {
            self.ended.pop_first();
        }
    }

    /// Returns how those two went that left just before and just after the attempt of this number; `None` while that is
    /// not known, or no longer.
    pub fn around(&self, number: u64) -> Option<Neighbours> {
        let (before, failed_before) = self.ended.range(..number).next_back()?;
        let (_, failed_after) = self.ended.range(number.checked_add(1)?..).next()?;
        Some(Neighbours { before: *before, are_answered: !failed_before && !failed_after })
    }

    /// Returns how the latest `most` of those have ended that left from this number on.
    pub fn since(&self, number: u64, most: usize) -> AttemptCounts {
        let mut counts = AttemptCounts::default();
        for failed in self.ended.range(number..).rev().take(most).map(|(_, failed)| *failed) {
            let one = if failed { &mut counts.failed } else { &mut counts.answered };
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
        (0..KEPT as u64 + 10).for_each(|number| first.ended(number, None));
        assert_eq!((first.ended.len(), first.around(5)), (KEPT, None));
    }
}
