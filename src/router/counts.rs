//! Counts the calls of an asker as they end, which is before its questions do.
//!
//! Forgets which call it was: what became of each stands in the trail of its question.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::types::{Attempt, Class, Outcome};

/// The calls of one asker that have ended so far.
#[derive(Debug, Default)]
pub struct CallCounts {
    answered: AtomicU64,
    failed: AtomicU64,
    throttled: AtomicU64,
    beaten: AtomicU64,
}

/// What [`CallCounts`] had counted at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallsEnded {
    /// Calls that brought a whole reply.
    pub answered: u64,
    /// Calls that failed, those that were throttled left out.
    pub failed: u64,
    /// Calls that were answered with a rate limit.
    pub throttled: u64,
    /// Calls broken off because another lane had answered.
    pub beaten: u64,
}

impl CallCounts {
    /// Counts a call that has left and ended.
    pub(super) fn count(&self, attempt: &Attempt) {
        let counter = match &attempt.outcome {
            _ if attempt.key.is_none() => return,
            Outcome::Refused(_) | Outcome::Lost(_) => return,
            Outcome::Answered => &self.answered,
            Outcome::Superseded => &self.beaten,
            Outcome::Failed(failure) if failure.class == Class::RateLimit => &self.throttled,
            Outcome::Failed(_) | Outcome::BrokenOff => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Returns what was counted so far.
    pub fn so_far(&self) -> CallsEnded {
        CallsEnded {
            answered: self.answered.load(Relaxed),
            failed: self.failed.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            beaten: self.beaten.load(Relaxed),
        }
    }
}

impl CallsEnded {
    /// Returns how many calls there were.
    pub fn all(&self) -> u64 {
        self.answered + self.failed + self.throttled + self.beaten
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::Failure;

    fn attempt(key: Option<&str>, outcome: Outcome) -> Attempt {
        Attempt {
            lane: "a/m".parse().unwrap(),
            key: key.map(Into::into),
            waited: Duration::ZERO,
            took: Duration::ZERO,
            first_token: None,
            usage: None,
            cost: None,
            perhaps: crate::types::NanoUsd(0),
            forced: false,
            hedge: false,
            outcome,
        }
    }

    #[test]
    fn a_call_that_left_is_counted_once_by_how_it_ended() {
        let counts = CallCounts::default();
        let failed = |class| Outcome::Failed(Failure::new(class, "no"));
        for outcome in [Outcome::Answered, failed(Class::RateLimit), failed(Class::Timeout)] {
            counts.count(&attempt(Some("k"), outcome));
        }
        counts.count(&attempt(Some("k"), Outcome::Superseded));
        // One of whom nobody knows, and one that did not leave.
        counts.count(&attempt(None, Outcome::Lost(Failure::new(Class::NetworkError, "no"))));
        counts.count(&attempt(None, Outcome::Refused("its breaker is open".into())));
        let ended = counts.so_far();
        assert_eq!(ended, CallsEnded { answered: 1, failed: 1, throttled: 1, beaten: 1 });
        assert_eq!(ended.all(), 4);
    }
}
