//! The attempts at one target that have had no word yet, and those of them that hang.
//!
//! An attempt *hangs* once one that left later has shown that the target works again after an outage: nothing
//! is to be expected of it. It takes no room from others, although it is in flight until its time is up. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Pass;
use crate::types::StepName;

use super::call::Departure;

/// An attempt without a word.
#[derive(Debug, Clone)]
pub(super) struct Unheard {
    pub(super) left: Instant,
    pub(super) pass: Pass,
    pub(super) step: Option<StepName>,
    /// What its request sees of it.
    pub(super) departure: Option<Arc<Departure>>,
}

/// The attempts without a word, by their number.
#[derive(Debug, Default)]
pub(super) struct AllUnheard {
    waiting: BTreeMap<u64, Unheard>,
    /// Those that have been out for longer than the patience for them.
    overdue: BTreeMap<u64, Unheard>,
    hung: HashSet<u64>,
}

impl AllUnheard {
    /// Notes that an attempt has left.
    pub(super) fn left(&mut self, number: u64, attempt: Unheard) {
        self.waiting.insert(number, attempt);
    }

    /// Forgets an attempt that had a word, or has ended. Returns it where it had none so far and does not hang.
    pub(super) fn remove(&mut self, number: u64) -> Option<Unheard> {
        self.waiting.remove(&number).or_else(|| self.overdue.remove(&number))
    }

    /// Returns the number of the oldest that is not overdue.
    pub(super) fn oldest_waiting(&self) -> Option<u64> {
        self.waiting.keys().next().copied()
    }

    /// Returns when the oldest left that is not overdue.
    pub(super) fn oldest_left(&self) -> Option<Instant> {
        self.waiting.values().next().map(|attempt| attempt.left)
    }

    /// Returns how many have had no word, whether they hang or not.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.overdue.len() + self.hung.len()
    }

    /// Returns those that have become overdue, each once.
    pub(super) fn become_overdue(
        &mut self,
        patience: impl Fn(&Unheard) -> Duration,
        now: Instant,
    ) -> Vec<Unheard> {
        let is_overdue =
            |_: &u64, attempt: &mut Unheard| now.saturating_duration_since(attempt.left) >= patience(attempt);
        let overdue: Vec<(u64, Unheard)> = self.waiting.extract_if(.., is_overdue).collect();
        let attempts = overdue.iter().map(|(_, attempt)| attempt.clone()).collect();
        self.overdue.extend(overdue);
        attempts
    }

    /// Notes that those hang that left before the attempt of this number. Returns how many.
    pub(super) fn hang_before(&mut self, number: u64) -> usize {
        let waiting = self.waiting.extract_if(..number, |_, _| true);
        let hang = waiting.chain(self.overdue.extract_if(..number, |_, _| true));
        let before = self.hung.len();
        for (number, attempt) in hang {
            attempt.departure.iter().for_each(|departure| departure.hang());
            self.hung.insert(number);
        }
        self.hung.len() - before
    }

    /// Forgets an attempt that hangs. Returns whether it did.
    pub(super) fn remove_hung(&mut self, number: u64) -> bool {
        self.hung.remove(&number)
    }
}
