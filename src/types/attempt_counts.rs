//! Counts of attempts by how they ended.

use super::{Attribution, Class, TargetName};

/// An attempt of a request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The target of the attempt.
    pub target: TargetName,
    /// The number of the attempt among those that were sent to the provider of the target.
    pub number: u64,
}

/// Counts of the attempts at one target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Attempts that show that the target works: it answered, or it rejected a request because of the request
    /// itself.
    pub answered: u64,
    /// Attempts that failed for a reason that may lie outside the request.
    pub failed: u64,
}

impl AttemptCounts {
    /// Counts one attempt: `None` is an answer, `Some` is the class of the failure.
    pub fn count(&mut self, failure: Option<Class>) {
        match failure.map(|class| (class, class.attribution())) {
            // A target that is not found fails for every request.
            Some((Class::NotFound, _)) => self.failed += 1,
            None | Some((_, Attribution::Request)) => self.answered += 1,
            Some((_, Attribution::Attempt | Attribution::Limit | Attribution::Account)) => self.failed += 1,
            Some((_, Attribution::Router)) => {}
        }
    }

    /// Returns the difference to the `earlier` counts.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            answered: self.answered.saturating_sub(earlier.answered),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }

    /// Returns the sum of both counts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            answered: self.answered.saturating_add(other.answered),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}
