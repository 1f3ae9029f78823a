//! Token usage of a call, counted the same way for every provider.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// The highest credible number of input or output tokens of one attempt: ten times the largest context of any
/// model.
pub const MAX_CREDIBLE_TOKENS: Tokens = Tokens(100_000_000);

/// A number of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tokens(pub u64);

impl Tokens {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Add for Tokens {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, more: Self) {
        *self = *self + more;
    }
}

impl Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self(0), Add::add)
    }
}

/// Token usage of one call. Providers count differently (cached tokens included in the prompt or separate,
/// reasoning included in the output or separate); `wire` converts them to this form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Input tokens, cached tokens included.
    pub input: Tokens,
    /// The part of `input` read from the provider's cache.
    pub cached: Tokens,
    /// The part of `input` written to the provider's cache.
    pub cache_write: Tokens,
    /// The part of `cache_write` that the cache keeps for an hour. It has a price of its own.
    #[serde(default, skip_serializing_if = "Tokens::is_zero")]
    pub cache_write_1h: Tokens,
    /// Output tokens, reasoning included.
    pub output: Tokens,
    /// The part of `output` used for reasoning.
    pub reasoning: Tokens,
}

impl Usage {
    /// Creates the usage of a call without cached tokens and without reasoning.
    pub fn new(input: Tokens, output: Tokens) -> Self {
        Self { input, output, ..Self::default() }
    }

    /// Returns the sum of input and output.
    pub fn total(&self) -> Tokens {
        self.input + self.output
    }

    /// Validates the counts of one attempt. `None` if a count exceeds [`MAX_CREDIBLE_TOKENS`]: the usage and the
    /// cost are then unknown. Parts that exceed their total are clamped to it.
    #[doc(hidden)]
    pub fn credible(self) -> Option<Self> {
        if self.input > MAX_CREDIBLE_TOKENS || self.output > MAX_CREDIBLE_TOKENS {
            return None;
        }
        let cached = self.cached.min(self.input);
        let cache_write = self.cache_write.min(Tokens(self.input.0.saturating_sub(cached.0)));
        let cache_write_1h = self.cache_write_1h.min(cache_write);
        let reasoning = self.reasoning.min(self.output);
        Some(Self { cached, cache_write, cache_write_1h, reasoning, ..self })
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.input += more.input;
        self.cached += more.cached;
        self.cache_write += more.cache_write;
        self.cache_write_1h += more.cache_write_1h;
        self.output += more.output;
        self.reasoning += more.reasoning;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_not_credible_is_unknown() {
        let usage = |input, output| Usage::new(Tokens(input), Tokens(output));
        assert_eq!(usage(u64::MAX, 1).credible(), None);
        assert_eq!(usage(1, u64::MAX).credible(), None);
        assert_eq!(usage(10_000_000, 128_000).credible(), Some(usage(10_000_000, 128_000)));
    }

    #[test]
    fn parts_above_their_total_are_clamped() {
        let reported = Usage {
            input: Tokens(10),
            cached: Tokens(u64::MAX),
            cache_write: Tokens(5),
            cache_write_1h: Tokens(0),
            output: Tokens(4),
            reasoning: Tokens(9),
        };
        let credible = reported.credible().unwrap();
        assert_eq!((credible.cached, credible.cache_write), (Tokens(10), Tokens(0)));
        assert_eq!(credible.reasoning, Tokens(4));
        let for_an_hour = Usage { cached: Tokens(7), cache_write_1h: Tokens(9), ..reported };
        let for_an_hour = for_an_hour.credible().unwrap();
        assert_eq!((for_an_hour.cache_write, for_an_hour.cache_write_1h), (Tokens(3), Tokens(3)));
    }

    #[test]
    fn writes_for_an_hour_are_summed_and_stored_only_if_there_are_any() {
        let mut usage = Usage { input: Tokens(9), cache_write: Tokens(8), ..Usage::default() };
        let stored = r#"{"input":9,"cached":0,"cache_write":8,"output":0,"reasoning":0}"#;
        assert_eq!(serde_json::to_string(&usage).unwrap(), stored);
        assert_eq!(serde_json::from_str::<Usage>(stored).unwrap(), usage);
        usage += Usage { cache_write: Tokens(5), cache_write_1h: Tokens(4), ..usage };
        assert_eq!((usage.cache_write, usage.cache_write_1h), (Tokens(13), Tokens(4)));
        let json = serde_json::to_string(&usage).unwrap();
        assert!(json.contains(r#""cache_write":13,"cache_write_1h":4"#), "{json}");
        assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
    }
}
