//! How many tokens a call used, counted the same way for every provider.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

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
