//! What a provider's rate limit counts.

/// What was used up when a provider answered 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Requests.
    Requests,
    /// Tokens of either direction, or of both.
    Tokens,
}
