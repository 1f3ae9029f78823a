//! Money that a provider's cache saves.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use super::{NanoUsd, Price, Tokens, Usage};

/// Billionths of a US dollar that were saved; negative if writing to a cache cost more than reading from it saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Savings(pub i64);

impl Savings {
    /// Returns the amount in dollars, for display only.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add for Savings {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }
}

impl AddAssign for Savings {
    fn add_assign(&mut self, more: Self) {
        *self = *self + more;
    }
}

impl Price {
    /// Returns what the provider's cache saved in one attempt: the cost of the same tokens without cache, less the cost.
    /// `None` if the cache was not used or a cost exceeds [`NanoUsd::MAX_CREDIBLE_COST`].
    pub fn cache_savings(&self, usage: &Usage) -> Option<Savings> {
        let Usage { cached, cache_write, .. } = *usage;
        if cached == Tokens(0) && cache_write == Tokens(0) {
            return None;
        }
        let uncached =
            Usage { cached: Tokens(0), cache_write: Tokens(0), cache_write_1h: Tokens(0), ..*usage };
        let amount = |cost: NanoUsd| i64::try_from(cost.0).ok();
        let without = amount(self.cost(&uncached)?)?;
        let with = amount(self.cost(usage)?)?;
        Some(Savings(without.saturating_sub(with)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LongPromptPrice;

    fn price() -> Price {
        Price {
            input: 1.0,
            output: 5.0,
            cached: Some(0.1),
            cache_write: Some(1.25),
            cache_write_1h: Some(2.0),
            long: None,
        }
    }

    fn usage(cached: u64, cache_write: u64, cache_write_1h: u64) -> Usage {
        Usage {
            cached: Tokens(cached),
            cache_write: Tokens(cache_write),
            cache_write_1h: Tokens(cache_write_1h),
            ..Usage::new(Tokens(10_000), Tokens(100))
        }
    }

    #[test]
    fn reading_saves_the_difference_of_the_prices_and_writing_costs_it() {
        assert_eq!(price().cache_savings(&usage(1000, 0, 0)), Some(Savings(900_000)));
        assert_eq!(price().cache_savings(&usage(0, 1000, 0)), Some(Savings(-250_000)));
        assert_eq!(price().cache_savings(&usage(0, 1000, 1000)), Some(Savings(-1_000_000)));
        assert_eq!(price().cache_savings(&usage(1000, 1000, 0)), Some(Savings(650_000)));
        assert_eq!(price().cache_savings(&usage(0, 0, 0)), None);
    }

    #[test]
    fn a_cache_without_a_price_of_its_own_saves_nothing() {
        let plain = Price { cached: None, cache_write: None, cache_write_1h: None, ..price() };
        assert_eq!(plain.cache_savings(&usage(1000, 1000, 500)), Some(Savings(0)));
        assert_eq!(Price { input: f64::MAX, ..price() }.cache_savings(&usage(1, 0, 0)), None);
    }

    #[test]
    fn a_long_prompt_has_its_own_prices() {
        let long = LongPromptPrice {
            over: 5_000,
            input: 2.0,
            output: 5.0,
            cached: Some(0.5),
            cache_write: None,
            cache_write_1h: None,
        };
        let price = Price { long: Some(long), ..price() };
        assert_eq!(price.cache_savings(&usage(1000, 1000, 0)), Some(Savings(1_500_000)));
    }

    #[test]
    fn sums_and_stored_values_keep_the_sign() {
        let mut sum = Savings(5) + Savings(-7);
        sum += Savings(-1);
        assert_eq!((sum, sum.dollars()), (Savings(-3), -3e-9));
        assert_eq!(serde_json::to_string(&sum).unwrap(), "-3");
    }
}
