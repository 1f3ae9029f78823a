//! The resource that a provider's rate limit counts.

/// The resource whose limit was reached when a provider answered 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateLimitResource {
    /// Requests.
    Requests,
    /// Input tokens, output tokens, or both.
    Tokens,
}
