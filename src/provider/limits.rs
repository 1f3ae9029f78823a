//! What an account allows, `[provider.NAME.limits]`, and one model of it, `limits` of a model.
//!
//! Counts nothing itself: the guards do.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

use crate::guard::{BurstSettings, ConcurrencySettings, RateLimits};

/// What an account allows, or a model of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls a minute. `None` is no limit, as in the next five.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Calls a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// Calls in any 24 hours.
    pub requests_per_day: Option<NonZeroU32>,
    /// Tokens a minute, read and written together.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Tokens a minute that the models read.
    pub input_tokens_per_minute: Option<NonZeroU32>,
    /// Tokens a minute that the models write.
    pub output_tokens_per_minute: Option<NonZeroU32>,
    /// How much of a minute's limits may go at once.
    pub burst: BurstSettings,
    /// Calls of one model under way at once.
    pub concurrency: ConcurrencySettings,
}

impl Limits {
    /// Returns those that are counted, not what may be under way at once.
    pub(super) fn rates(&self) -> RateLimits {
        let wide = |limit: Option<NonZeroU32>| limit.map(NonZeroU64::from);
        RateLimits {
            requests_per_second: wide(self.requests_per_second),
            requests: wide(self.requests_per_minute),
            requests_per_day: wide(self.requests_per_day),
            tokens: wide(self.tokens_per_minute),
            input_tokens: wide(self.input_tokens_per_minute),
            output_tokens: wide(self.output_tokens_per_minute),
            burst: self.burst,
        }
    }
}
