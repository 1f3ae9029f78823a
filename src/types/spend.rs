//! Known and uncertain cost of calls.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::AddAssign;

use super::{AttemptLog, NanoUsd, ProviderName};

/// The cost of some calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spend {
    /// The known cost.
    pub cost: NanoUsd,
    /// The amount reserved for calls that ended without a report of their usage and may have been charged.
    pub uncertain_cost: NanoUsd,
}

impl Spend {
    /// Returns the sum of both, which counts against a budget.
    pub fn total(self) -> NanoUsd {
        self.cost + self.uncertain_cost
    }

    /// Returns the difference to `other`, or zero where `other` is larger.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            cost: self.cost.saturating_sub(other.cost),
            uncertain_cost: self.uncertain_cost.saturating_sub(other.uncertain_cost),
        }
    }

    /// Returns the cost of the attempts, summed by provider.
    pub fn by_provider(attempts: &AttemptLog) -> BTreeMap<ProviderName, Self> {
        let mut sums = BTreeMap::<ProviderName, Self>::new();
        for attempt in &attempts.0 {
            let spend =
                Self { cost: attempt.cost.unwrap_or_default(), uncertain_cost: attempt.uncertain_cost };
            if spend != Self::default() {
                *sums.entry(attempt.target.provider.clone()).or_default() += spend;
            }
        }
        sums
    }
}

impl AddAssign for Spend {
    fn add_assign(&mut self, more: Self) {
        self.cost += more.cost;
        self.uncertain_cost += more.uncertain_cost;
    }
}

impl Sum for Spend {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, more| {
            sum += more;
            sum
        })
    }
}
