//! Money in whole billionths of a US dollar, so that the sum of many small amounts is exact.

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
    /// The highest credible cost of one attempt, $100,000. A 64-bit database column can then sum more than
    /// 90,000 attempts of this cost.
    #[doc(hidden)]
    pub const MAX_CREDIBLE_COST: Self = Self(100_000_000_000_000);

    /// Returns the amount in dollars, for display only.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Returns the difference, or zero if `other` is larger.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
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
    /// Shows whole cents for ten cents and more, and six decimals below.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.0 >= 100_000_000 || self.0 == 0 { 2 } else { 6 };
        out.pad(&format!("${:.digits$}", self.dollars()))
    }
}

/// The price of a model's tokens, in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input tokens.
    pub input: f64,
    /// Output tokens, reasoning included.
    pub output: f64,
    /// Tokens read from the provider's cache; `None` means the price of `input`.
    #[serde(default)]
    pub cached: Option<f64>,
    /// Tokens written to the provider's cache; `None` means the price of `input`.
    #[serde(default)]
    pub cache_write: Option<f64>,
    /// The price of the whole call if its prompt is long; `None` means the same price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongPromptPrice>,
}

/// The price of a call with a long prompt, in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongPromptPrice {
    /// This price applies if the prompt has more tokens than this, cached ones included.
    pub over: u64,
    /// As [`Price::input`].
    pub input: f64,
    /// As [`Price::output`].
    pub output: f64,
    /// As [`Price::cached`].
    #[serde(default)]
    pub cached: Option<f64>,
    /// As [`Price::cache_write`].
    #[serde(default)]
    pub cache_write: Option<f64>,
}

impl Price {
    /// Returns the cost of the `usage` of one attempt; `None` (unknown) if it exceeds
    /// [`NanoUsd::MAX_CREDIBLE_COST`].
    pub fn cost(&self, usage: &Usage) -> Option<NanoUsd> {
        let Self { input, output, cached, cache_write, long } = *self;
        let (input, output, cached, cache_write) = match long.filter(|long| usage.input.0 > long.over) {
            Some(long) => (long.input, long.output, long.cached, long.cache_write),
            None => (input, output, cached, cache_write),
        };
        let cache_tokens = usage.cached.0.saturating_add(usage.cache_write.0);
        let uncached = Tokens(usage.input.0.saturating_sub(cache_tokens));
        let parts = [
            (uncached, input),
            (usage.cached, cached.unwrap_or(input)),
            (usage.cache_write, cache_write.unwrap_or(input)),
            (usage.output, output),
        ];
        parts.into_iter().try_fold(NanoUsd(0), |sum, (tokens, dollars_per_million)| {
            // $0.001 per million tokens is one nano-dollar per token.
            let cost = (tokens.0 as f64 * dollars_per_million * 1e3).round();
            // Also false for NaN.
            let is_credible = cost <= NanoUsd::MAX_CREDIBLE_COST.0 as f64;
            let sum = sum + NanoUsd(if is_credible { cost as u64 } else { return None });
            (sum <= NanoUsd::MAX_CREDIBLE_COST).then_some(sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_charged_once_and_at_their_own_price() {
        let price = Price { input: 1.0, output: 5.0, cached: Some(0.1), cache_write: Some(1.25), long: None };
        let usage = Usage {
            input: Tokens(1_000),
            cached: Tokens(600),
            cache_write: Tokens(100),
            output: Tokens(200),
            reasoning: Tokens(50),
        };
        // 300 uncached + 600 cached + 100 written to the cache + 200 output, in nano-dollars.
        assert_eq!(price.cost(&usage), Some(NanoUsd(300_000 + 60_000 + 125_000 + 1_000_000)));
    }

    #[test]
    fn a_long_prompt_raises_the_price_of_the_whole_call() {
        let long =
            LongPromptPrice { over: 1_000, input: 2.0, output: 7.5, cached: Some(0.2), cache_write: None };
        let price = Price { input: 1.0, output: 5.0, cached: None, cache_write: None, long: Some(long) };
        let usage = |input| Usage { input: Tokens(input), output: Tokens(10), ..Usage::default() };
        assert_eq!(price.cost(&usage(1_000)), Some(NanoUsd(1_000_000 + 50_000)));
        let cached = Usage { cached: Tokens(1_000), ..usage(1_001) };
        assert_eq!(price.cost(&cached), Some(NanoUsd(2_000 + 200_000 + 75_000)));
    }

    #[test]
    fn a_cost_that_is_not_credible_is_unknown() {
        let price = |input| Price { input, output: 1.0, cached: None, cache_write: None, long: None };
        let usage = |tokens| Usage { input: Tokens(tokens), ..Usage::default() };
        assert_eq!(price(1.0).cost(&usage(u64::MAX)), None);
        assert_eq!(price(f64::MAX).cost(&usage(1)), None);
        assert_eq!(price(f64::INFINITY).cost(&usage(0)), None);
        assert_eq!(price(1.0).cost(&usage(100_000_000)), Some(NanoUsd(100_000_000_000)));
    }

    #[test]
    fn a_tenth_of_a_cent_is_displayed() {
        assert_eq!(NanoUsd(1_234_000).to_string(), "$0.001234");
        assert_eq!(NanoUsd(2_500_000_000).to_string(), "$2.50");
    }
}
