//! Counts the calls of a caller when they end, which is before its requests end.
//!
//! Only totals: the outcome of each call is in the attempt log of its request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::types::{Attempt, Class, Outcome};

/// The ended calls of one caller.
#[derive(Debug, Default)]
pub struct CallCounts {
    answered: AtomicU64,
    failed: AtomicU64,
    throttled: AtomicU64,
    superseded: AtomicU64,
}

/// A snapshot of [`CallCounts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallsEnded {
    /// Calls that returned a complete response.
    pub answered: u64,
    /// Calls that failed for another reason than a rate limit.
    pub failed: u64,
    /// Calls that failed because of a rate limit.
    pub throttled: u64,
    /// Calls aborted because another target answered first.
    pub superseded: u64,
}

impl CallCounts {
    /// Counts a call that has ended. A call that was not sent is ignored.
    pub(super) fn count(&self, attempt: &Attempt) {
        let counter = match &attempt.outcome {
            _ if attempt.key.is_none() => return,
            Outcome::Refused(_) | Outcome::Lost(_) => return,
            Outcome::Answered => &self.answered,
            Outcome::Superseded => &self.superseded,
            Outcome::Failed(failure) if failure.class == Class::RateLimit => &self.throttled,
            Outcome::Failed(_) | Outcome::BrokenOff => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Returns the current counts.
    pub fn snapshot(&self) -> CallsEnded {
        CallsEnded {
            answered: self.answered.load(Relaxed),
            failed: self.failed.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            superseded: self.superseded.load(Relaxed),
        }
    }
}

impl CallsEnded {
    /// Returns the number of calls.
    pub fn total(&self) -> u64 {
        self.answered + self.failed + self.throttled + self.superseded
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::Failure;

    fn attempt(key: Option<&str>, outcome: Outcome) -> Attempt {
        Attempt {
            target: "a/m".parse().unwrap(),
            key: key.map(Into::into),
            queue_time: Duration::ZERO,
            duration: Duration::ZERO,
            first_token: None,
            usage: None,
            cost: None,
            uncertain_cost: crate::types::NanoUsd(0),
            forced: false,
            hedged: false,
            counted_elsewhere: false,
            cache_savings: None,
            reasoning: None,
            outcome,
        }
    }

    #[test]
    fn a_sent_call_is_counted_once_by_its_outcome() {
        let counts = CallCounts::default();
        let failed = |class| Outcome::Failed(Failure::new(class, "no").into());
        for outcome in [Outcome::Answered, failed(Class::RateLimit), failed(Class::Timeout)] {
            counts.count(&attempt(Some("k"), outcome));
        }
        counts.count(&attempt(Some("k"), Outcome::Superseded));
        // A lost call and a rejected call were not sent.
        counts.count(&attempt(None, Outcome::Lost(Failure::new(Class::NetworkError, "no").into())));
        counts.count(&attempt(None, Outcome::Refused("its breaker is open".into())));
        let ended = counts.snapshot();
        assert_eq!(ended, CallsEnded { answered: 1, failed: 1, throttled: 1, superseded: 1 });
        assert_eq!(ended.total(), 4);
    }
}
