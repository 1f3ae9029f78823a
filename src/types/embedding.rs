//! What a request for embeddings asks for, besides its inputs.

use std::num::NonZeroU32;

/// The options of a request for embeddings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EmbeddingOptions {
    /// The number of dimensions of each vector. `None` leaves it to the model.
    pub dimensions: Option<NonZeroU32>,
}

/// How much one request for embeddings may contain when inputs of several callers are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddingLimits {
    /// Maximum number of inputs.
    pub max_inputs: usize,
    /// Maximum sum of the estimated tokens of the inputs.
    pub max_tokens: u64,
}

impl EmbeddingLimits {
    /// Creates limits.
    pub fn new(max_inputs: usize, max_tokens: u64) -> Self {
        Self { max_inputs, max_tokens }
    }

    /// Returns the smaller limits of both.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            max_inputs: self.max_inputs.min(other.max_inputs),
            max_tokens: self.max_tokens.min(other.max_tokens),
        }
    }
}

impl EmbeddingOptions {
    /// Asks for vectors with so many dimensions; with `None`, for as many as the model's own have.
    pub fn new(dimensions: Option<NonZeroU32>) -> Self {
        Self { dimensions }
    }
}
