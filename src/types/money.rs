//! Money, in whole billionths of a US dollar, so that a million small calls add up exactly.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use super::{Tokens, Usage};

/// Billionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub u64);

impl NanoUsd {
    /// Returns the amount in dollars, for showing only.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Returns what is left when `taken` is taken away; nothing when that is more.
    #[must_use]
    pub fn less(self, taken: Self) -> Self {
        Self(self.0.saturating_sub(taken.0))
    }
}

impl Add for NanoUsd {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }
}

impl AddAssign for NanoUsd {
    fn add_assign(&mut self, more: Self) {
        *self = *self + more;
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self(0), Add::add)
    }
}

impl fmt::Display for NanoUsd {
    /// Shows cents from ten cents up, and enough digits to see small sums below.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.0 >= 100_000_000 || self.0 == 0 { 2 } else { 6 };
        out.pad(&format!("${:.digits$}", self.dollars()))
    }
}

/// What a model's tokens cost, in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Tokens that the model reads.
    pub input: f64,
    /// Tokens that the model writes, reasoning included.
    pub output: f64,
    /// Tokens read from the provider's cache; `None` means as `input`.
    #[serde(default)]
    pub cached: Option<f64>,
    /// Tokens written to the provider's cache; `None` means as `input`.
    #[serde(default)]
    pub cache_write: Option<f64>,
}

impl Price {
    /// Returns what `usage` costs.
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let special = usage.cached.0.saturating_add(usage.cache_write.0);
        let plain = Tokens(usage.input.0.saturating_sub(special));
        [
            (plain, self.input),
            (usage.cached, self.cached.unwrap_or(self.input)),
            (usage.cache_write, self.cache_write.unwrap_or(self.input)),
            (usage.output, self.output),
        ]
        .into_iter()
        .map(|(tokens, dollars_per_million)| {
            // A thousandth of a dollar per million tokens is one nano-dollar a token.
            NanoUsd((tokens.0 as f64 * dollars_per_million * 1e3).round() as u64)
        })
        .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_charged_once_and_at_their_own_price() {
        let price = Price { input: 1.0, output: 5.0, cached: Some(0.1), cache_write: Some(1.25) };
        let usage = Usage {
            input: Tokens(1_000),
            cached: Tokens(600),
            cache_write: Tokens(100),
            output: Tokens(200),
            reasoning: Tokens(50),
        };
        // 300 plain + 600 cached + 100 written + 200 out, in nano-dollars.
        assert_eq!(price.cost(&usage), NanoUsd(300_000 + 60_000 + 125_000 + 1_000_000));
    }

    #[test]
    fn a_tenth_of_a_cent_is_still_seen() {
        assert_eq!(NanoUsd(1_234_000).to_string(), "$0.001234");
        assert_eq!(NanoUsd(2_500_000_000).to_string(), "$2.50");
    }
}
