//! The rate limits of one account or model as values: as configured, and as stated by response headers.

use std::num::NonZeroU64;

use super::burst::BurstSettings;
use crate::types::RateLimitStatus;

/// Configured limits; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Calls per second.
    pub requests_per_second: Option<NonZeroU64>,
    /// Calls per minute.
    pub requests: Option<NonZeroU64>,
    /// Calls in any 24 hours.
    pub requests_per_day: Option<NonZeroU64>,
    /// Input and output tokens per minute.
    pub tokens: Option<NonZeroU64>,
    /// Input tokens per minute.
    pub input_tokens: Option<NonZeroU64>,
    /// Output tokens per minute.
    pub output_tokens: Option<NonZeroU64>,
    /// Size of bursts.
    pub burst: BurstSettings,
}

impl RateLimits {
    /// Returns the smaller of each pair of limits, with the burst of `self`.
    #[must_use]
    pub fn narrowed(&self, other: &Self) -> Self {
        let smaller = |one: Option<NonZeroU64>, other| one.into_iter().chain(other).min();
        Self {
            requests_per_second: smaller(self.requests_per_second, other.requests_per_second),
            requests: smaller(self.requests, other.requests),
            requests_per_day: smaller(self.requests_per_day, other.requests_per_day),
            tokens: smaller(self.tokens, other.tokens),
            input_tokens: smaller(self.input_tokens, other.input_tokens),
            output_tokens: smaller(self.output_tokens, other.output_tokens),
            burst: self.burst,
        }
    }
}

/// The rate limits as stated by the headers of one response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimitStatuses {
    /// Requests.
    pub requests: Option<RateLimitStatus>,
    /// Requests over a second, or a few seconds.
    pub requests_per_second: Option<RateLimitStatus>,
    /// Input and output tokens.
    pub tokens: Option<RateLimitStatus>,
    /// Input tokens.
    pub input_tokens: Option<RateLimitStatus>,
    /// Output tokens.
    pub output_tokens: Option<RateLimitStatus>,
}

impl RateLimitStatuses {
    /// Removes token limits smaller than a call of at least `input` tokens that the provider has just
    /// accepted: such a header is wrong, and later calls of this size would be rejected as too large.
    #[must_use]
    pub fn without_limits_below(self, input: u64) -> Self {
        let is_plausible = |status: &RateLimitStatus| status.limit.is_none_or(|limit| limit >= input);
        let tokens = self.tokens.filter(is_plausible);
        let input_tokens = self.input_tokens.filter(is_plausible);
        Self { tokens, input_tokens, ..self }
    }
}
