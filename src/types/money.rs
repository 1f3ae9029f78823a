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
    /// Tokens written to the provider's cache for an hour; `None` means the price of `cache_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<f64>,
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
    /// As [`Price::cache_write_1h`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<f64>,
}

impl Price {
    /// Returns the cost of the `usage` of one attempt; `None` (unknown) if it exceeds
    /// [`NanoUsd::MAX_CREDIBLE_COST`].
    pub fn cost(&self, usage: &Usage) -> Option<NanoUsd> {
        let Self { input, output, cached, cache_write, cache_write_1h, long: _ } = match self.long {
            Some(long) if usage.input.0 > long.over => long.into(),
            Some(_) | None => *self,
        };
        let cache_tokens = usage.cached.0.saturating_add(usage.cache_write.0);
        let uncached = Tokens(usage.input.0.saturating_sub(cache_tokens));
        let written_1h = usage.cache_write_1h.min(usage.cache_write);
        let written_5m = Tokens(usage.cache_write.0.saturating_sub(written_1h.0));
        let cache_write = cache_write.unwrap_or(input);
        let parts = [
            (uncached, input),
            (usage.cached, cached.unwrap_or(input)),
            (written_5m, cache_write),
            (written_1h, cache_write_1h.unwrap_or(cache_write)),
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

impl From<LongPromptPrice> for Price {
    fn from(long: LongPromptPrice) -> Self {
        let LongPromptPrice { over: _, input, output, cached, cache_write, cache_write_1h } = long;
        Self { input, output, cached, cache_write, cache_write_1h, long: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(input: f64, output: f64) -> Price {
        Price { input, output, cached: None, cache_write: None, cache_write_1h: None, long: None }
    }

    #[test]
    fn cached_tokens_are_charged_once_and_at_their_own_price() {
        let price = Price { cached: Some(0.1), cache_write: Some(1.25), ..price(1.0, 5.0) };
        let usage = Usage {
            input: Tokens(1_000),
            cached: Tokens(600),
            cache_write: Tokens(100),
            cache_write_1h: Tokens(0),
            output: Tokens(200),
            reasoning: Tokens(50),
        };
        // 300 uncached + 600 cached + 100 written to the cache + 200 output, in nano-dollars.
        assert_eq!(price.cost(&usage), Some(NanoUsd(300_000 + 60_000 + 125_000 + 1_000_000)));
    }

    #[test]
    fn writes_for_an_hour_have_their_own_price() {
        let usage = Usage {
            input: Tokens(1_000),
            cache_write: Tokens(900),
            cache_write_1h: Tokens(400),
            ..Usage::default()
        };
        let of_both = Price { cache_write: Some(1.25), cache_write_1h: Some(2.0), ..price(1.0, 5.0) };
        // 100 uncached + 500 written for five minutes + 400 written for an hour.
        assert_eq!(of_both.cost(&usage), Some(NanoUsd(100_000 + 625_000 + 800_000)));
        let of_one = Price { cache_write: Some(1.25), ..price(1.0, 5.0) };
        assert_eq!(of_one.cost(&usage), Some(NanoUsd(100_000 + 1_125_000)));
        assert_eq!(price(1.0, 5.0).cost(&usage), Some(NanoUsd(1_000_000)));
        let long = LongPromptPrice {
            over: 999,
            input: 2.0,
            output: 10.0,
            cached: None,
            cache_write: Some(2.5),
            cache_write_1h: Some(4.0),
        };
        let of_long = Price { long: Some(long), ..of_both };
        assert_eq!(of_long.cost(&usage), Some(NanoUsd(200_000 + 1_250_000 + 1_600_000)));
        // More than was written at all is not charged.
        let clamped = Usage { cache_write_1h: Tokens(u64::MAX), ..usage };
        assert_eq!(of_both.cost(&clamped), Some(NanoUsd(100_000 + 1_800_000)));
    }

    #[test]
    fn a_long_prompt_raises_the_price_of_the_whole_call() {
        let long = LongPromptPrice {
            over: 1_000,
            input: 2.0,
            output: 7.5,
            cached: Some(0.2),
            cache_write: None,
            cache_write_1h: None,
        };
        let price = Price { long: Some(long), ..price(1.0, 5.0) };
        let usage = |input| Usage { input: Tokens(input), output: Tokens(10), ..Usage::default() };
        assert_eq!(price.cost(&usage(1_000)), Some(NanoUsd(1_000_000 + 50_000)));
        let cached = Usage { cached: Tokens(1_000), ..usage(1_001) };
        assert_eq!(price.cost(&cached), Some(NanoUsd(2_000 + 200_000 + 75_000)));
    }

    #[test]
    fn a_cost_that_is_not_credible_is_unknown() {
        let price = |input| price(input, 1.0);
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
