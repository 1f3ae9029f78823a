//! What calls took of tokens and money, summed up.

use std::ops::AddAssign;

use super::{Attempt, Charged, NanoUsd, Outcome, Trail, Usage};

/// What some calls took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls that left this machine.
    pub calls: u64,
    /// Failed calls that the provider may have charged for.
    pub maybe_charged: u64,
    /// Tokens, as far as the providers told them.
    pub tokens: Usage,
    /// Money, as far as it is known.
    pub cost: NanoUsd,
    /// Calls that cost nobody knows what: no price, or no usage.
    pub unknown: u64,
}

impl Spent {
    /// Sums up what the attempts of `trail` took.
    pub fn of(trail: &Trail) -> Self {
        let mut all = Self {
            calls: trail.calls() as u64,
            maybe_charged: trail.maybe_charged() as u64,
            ..Self::default()
        };
        for attempt in &trail.0 {
            all.tokens += attempt.usage.unwrap_or_default();
            match attempt.cost {
                Some(cost) => all.cost += cost,
                None => all.unknown += u64::from(!attempt.is_free()),
            }
        }
        all
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, more: Self) {
        self.calls += more.calls;
        self.maybe_charged += more.maybe_charged;
        self.tokens += more.tokens;
        self.cost += more.cost;
        self.unknown += more.unknown;
    }
}

impl Attempt {
    /// Returns whether it cost nothing whatever the price is: it was refused before any work.
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
