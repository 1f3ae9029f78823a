//! Token and cost totals of calls.

use std::ops::AddAssign;

use super::{Attempt, AttemptLog, Charged, NanoUsd, Outcome, Usage};

/// Token and cost totals of some calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// Calls that were sent.
    pub calls: u64,
    /// Failed calls that the provider may have charged.
    pub possibly_charged: u64,
    /// Tokens, as far as the providers reported them.
    pub tokens: Usage,
    /// The known cost.
    pub cost: NanoUsd,
    /// Calls of unknown cost: the price or the usage is unknown.
    pub calls_of_unknown_cost: u64,
}

impl UsageTotals {
    /// Returns the totals of the attempts.
    pub fn of(attempts: &AttemptLog) -> Self {
        let mut totals = Self::default();
        for attempt in &attempts.0 {
            totals.tokens += attempt.usage.unwrap_or_default();
            totals.cost += attempt.cost.unwrap_or_default();
            if attempt.counted_elsewhere {
                continue;
            }
            totals.calls += u64::from(attempt.key.is_some());
            totals.possibly_charged += u64::from(attempt.is_possibly_charged());
            totals.calls_of_unknown_cost += u64::from(attempt.cost.is_none() && !attempt.is_free());
        }
        totals
    }
}

impl AddAssign for UsageTotals {
    fn add_assign(&mut self, more: Self) {
        self.calls += more.calls;
        self.possibly_charged += more.possibly_charged;
        self.tokens += more.tokens;
        self.cost += more.cost;
        self.calls_of_unknown_cost += more.calls_of_unknown_cost;
    }
}

impl Attempt {
    /// Returns whether it cost nothing at any price, because it was rejected before any work.
    pub fn is_free(&self) -> bool {
        match &self.outcome {
            Outcome::Answered | Outcome::Superseded | Outcome::BrokenOff => false,
            Outcome::Failed(failure) | Outcome::Lost(failure) => {
                failure.charged == Charged::No && self.usage.is_none()
            }
            Outcome::Refused(_) => true,
        }
    }
}
