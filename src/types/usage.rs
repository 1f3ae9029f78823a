//! How many tokens a call used, counted the same way for every provider.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// Most tokens of one attempt, read or written, that are believed. Ten times the largest context of any model.
pub const MAX_CREDIBLE_TOKENS: Tokens = Tokens(100_000_000);

/// A number of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tokens(pub u64);

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

/// Tokens of one call. Providers count differently (cached tokens inside the prompt or beside it,
/// reasoning inside the output or beside it); `wire` brings them to this one form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Everything the model read, cached tokens included.
    pub input: Tokens,
    /// The part of `input` that was read from the provider's cache.
    pub cached: Tokens,
    /// The part of `input` that was written to the provider's cache.
    pub cache_write: Tokens,
    /// Everything the model wrote, reasoning included.
    pub output: Tokens,
    /// The part of `output` that was reasoning.
    pub reasoning: Tokens,
}

impl Usage {
    /// Returns input and output together.
    pub fn total(&self) -> Tokens {
        self.input + self.output
    }

    /// Returns what is believed of the counts of one attempt. `None` for a count that no model can have: it is
    /// unknown then, and so is the cost. Parts that exceed their whole are clamped to it.
    pub fn credible(self) -> Option<Self> {
        if self.input > MAX_CREDIBLE_TOKENS || self.output > MAX_CREDIBLE_TOKENS {
            return None;
        }
        let cached = self.cached.min(self.input);
        let cache_write = self.cache_write.min(Tokens(self.input.0.saturating_sub(cached.0)));
        let reasoning = self.reasoning.min(self.output);
        Some(Self { cached, cache_write, reasoning, ..self })
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.input += more.input;
        self.cached += more.cached;
        self.cache_write += more.cache_write;
        self.output += more.output;
        self.reasoning += more.reasoning;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_no_model_can_have_is_unknown() {
        let usage =
            |input, output| Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() };
        assert_eq!(usage(u64::MAX, 1).credible(), None);
        assert_eq!(usage(1, u64::MAX).credible(), None);
        assert_eq!(usage(10_000_000, 128_000).credible(), Some(usage(10_000_000, 128_000)));
    }

    #[test]
    fn parts_above_their_whole_are_clamped_to_it() {
        let (input, cached, cache_write) = (Tokens(10), Tokens(u64::MAX), Tokens(5));
        let told = Usage { input, cached, cache_write, output: Tokens(4), reasoning: Tokens(9) };
        let believed = told.credible().unwrap();
        assert_eq!((believed.cached, believed.cache_write), (Tokens(10), Tokens(0)));
        assert_eq!(believed.reasoning, Tokens(4));
    }
}
