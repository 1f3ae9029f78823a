//! How attempts have ended, by number.
//!
//! Plain data.

use super::{Class, LaneName, Whose};

/// An attempt of a request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// At which target.
    pub target: LaneName,
    /// Its number among the attempts that have left for the target's provider.
    pub number: u64,
}

/// How attempts at a target have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Attempts that showed that the target works: it answered, or refused a request for the request's own reason.
    pub answered: u64,
    /// Attempts that failed for a reason that may not be the request's.
    pub failed: u64,
}

impl AttemptCounts {
    /// Counts an attempt that ended with an answer, or with a failure of this class.
    pub fn count(&mut self, failure: Option<Class>) {
        match failure.map(|class| (class, class.whose())) {
            // A target that is not found works for no request.
            Some((Class::NotFound, _)) => self.failed += 1,
            None | Some((_, Whose::Request)) => self.answered += 1,
            Some((_, Whose::Attempt | Whose::Limit | Whose::Account)) => self.failed += 1,
            Some((_, Whose::Ours)) => {}
        }
    }

    /// Returns what came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            answered: self.answered.saturating_sub(earlier.answered),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }

    /// Returns both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            answered: self.answered.saturating_add(other.answered),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}
