//! What a request for embeddings asks for, besides its inputs.

use std::num::NonZeroU32;

/// The options of a request for embeddings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EmbeddingOptions {
    /// The number of dimensions of each vector. `None` leaves it to the model.
    pub dimensions: Option<NonZeroU32>,
}

impl EmbeddingOptions {
    /// Asks for vectors with so many dimensions; with `None`, for as many as the model's own have.
    pub fn new(dimensions: Option<NonZeroU32>) -> Self {
        Self { dimensions }
    }
}
