//! The attempts at one target that have no response headers yet, and those that hang.
//!
//! An attempt *hangs* once a later attempt has shown that the target works again after an outage: no response
//! is expected. It no longer counts against the concurrency limit, although it is in flight until its timeout.
//! Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::BreakerToken;
use crate::types::StepName;

use crate::provider::call::DispatchSignal;

/// An attempt without response headers.
#[derive(Debug, Clone)]
pub(in crate::provider) struct PendingAttempt {
    pub(in crate::provider) sent_at: Instant,
    pub(in crate::provider) breaker_token: BreakerToken,
    pub(in crate::provider) step: Option<StepName>,
    /// The signal that its request observes.
    pub(in crate::provider) signal: Option<Arc<DispatchSignal>>,
}

/// The attempts without response headers, by number.
#[derive(Debug, Default)]
pub(in crate::provider) struct PendingAttempts {
    waiting: BTreeMap<u64, PendingAttempt>,
    /// Attempts that exceeded their timeout.
    overdue: BTreeMap<u64, PendingAttempt>,
    hung: HashSet<u64>,
}

impl PendingAttempts {
    /// Adds a sent attempt.
    pub(in crate::provider) fn insert(&mut self, number: u64, attempt: PendingAttempt) {
        self.waiting.insert(number, attempt);
    }

    /// Removes an attempt that has response headers or has ended. Returns it if it had none and does not hang.
    pub(in crate::provider) fn remove(&mut self, number: u64) -> Option<PendingAttempt> {
        self.waiting.remove(&number).or_else(|| self.overdue.remove(&number))
    }

    /// Returns the number of the oldest attempt that is not overdue.
    pub(in crate::provider) fn oldest_pending(&self) -> Option<u64> {
        self.waiting.keys().next().copied()
    }

    /// Returns when the oldest attempt that is not overdue was sent.
    pub(in crate::provider) fn oldest_sent_at(&self) -> Option<Instant> {
        self.waiting.values().next().map(|attempt| attempt.sent_at)
    }

    /// Returns the number of attempts without response headers, including those that hang.
    #[cfg(test)]
    pub(in crate::provider) fn len(&self) -> usize {
        self.waiting.len() + self.overdue.len() + self.hung.len()
    }

    /// Marks attempts that exceeded their timeout as overdue and returns them, each once.
    pub(in crate::provider) fn mark_overdue(
        &mut self,
        timeout: impl Fn(&PendingAttempt) -> Duration,
        now: Instant,
    ) -> Vec<PendingAttempt> {
        let is_overdue = |_: &u64, attempt: &mut PendingAttempt| {
            now.saturating_duration_since(attempt.sent_at) >= timeout(attempt)
        };
        let overdue: Vec<(u64, PendingAttempt)> = self.waiting.extract_if(.., is_overdue).collect();
        let attempts = overdue.iter().map(|(_, attempt)| attempt.clone()).collect();
        self.overdue.extend(overdue);
        attempts
    }

    /// Marks the attempts that were sent before this number as hung. Returns how many.
    pub(in crate::provider) fn mark_hung_before(&mut self, number: u64) -> usize {
        let waiting = self.waiting.extract_if(..number, |_, _| true);
        let hanging = waiting.chain(self.overdue.extract_if(..number, |_, _| true));
        let before = self.hung.len();
        for (number, attempt) in hanging {
            attempt.signal.iter().for_each(|signal| signal.mark_hanging());
            self.hung.insert(number);
        }
        self.hung.len() - before
    }

    /// Removes a hung attempt. Returns whether it was one.
    pub(in crate::provider) fn remove_hung(&mut self, number: u64) -> bool {
        self.hung.remove(&number)
    }
}
