//! Money that is written down: what calls cost, and what others may have cost.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::AddAssign;

use super::{NanoUsd, ProviderName, Trail};

/// Money of some calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Booked {
    /// What is known to have been spent.
    pub cost: NanoUsd,
    /// What calls may have cost that ended without a word on what they used: what was reserved for them.
    pub perhaps: NanoUsd,
}

impl Booked {
    /// Returns both together, which is what counts against a cap.
    pub fn all(self) -> NanoUsd {
        self.cost + self.perhaps
    }

    /// Returns what it is more than `other`.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self { cost: self.cost.less(other.cost), perhaps: self.perhaps.less(other.perhaps) }
    }

    /// Sums up what the attempts of `trail` cost, by provider.
    pub fn by_provider(trail: &Trail) -> BTreeMap<ProviderName, Self> {
        let mut sums = BTreeMap::<ProviderName, Self>::new();
        for attempt in &trail.0 {
            let booked = Self { cost: attempt.cost.unwrap_or_default(), perhaps: attempt.perhaps };
            if booked != Self::default() {
                *sums.entry(attempt.lane.provider.clone()).or_default() += booked;
            }
        }
        sums
    }
}

impl AddAssign for Booked {
    fn add_assign(&mut self, more: Self) {
        self.cost += more.cost;
        self.perhaps += more.perhaps;
    }
}

impl Sum for Booked {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, more| {
            sum += more;
            sum
        })
    }
}
