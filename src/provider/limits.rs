//! Configured rate and concurrency limits: `[provider.NAME.limits]` for an account, `limits` for one of its
//! models.
//!
//! Configuration only. The guards count and enforce.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::guard::{BurstSettings, ConcurrencySettings, RateLimits};

/// The limits of an account, or of one of its models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests per minute. `None` means no limit; the same holds for the next five fields.
    #[serde(deserialize_with = "limit")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Requests per second.
    #[serde(deserialize_with = "limit_per_second")]
    pub requests_per_second: Option<NonZeroU32>,
    /// Requests in any 24 hours.
    #[serde(deserialize_with = "limit")]
    pub requests_per_day: Option<NonZeroU32>,
    /// Tokens per minute, input and output together.
    #[serde(deserialize_with = "limit")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Input tokens per minute.
    #[serde(deserialize_with = "limit")]
    pub input_tokens_per_minute: Option<NonZeroU32>,
    /// Output tokens per minute.
    #[serde(deserialize_with = "limit")]
    pub output_tokens_per_minute: Option<NonZeroU32>,
    /// How much of a per-minute limit may be used at once.
    pub burst: BurstSettings,
    /// Concurrent attempts at one model. The limit of an account applies to each of its models separately.
    pub concurrency: ConcurrencySettings,
}

impl Limits {
    /// Returns the rate limits, without the concurrency limit.
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

fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroU32>, D::Error> {
    from.deserialize_any(LimitVisitor { is_per_second: false }).map(Some)
}

fn limit_per_second<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroU32>, D::Error> {
    from.deserialize_any(LimitVisitor { is_per_second: true }).map(Some)
}

/// Visitor that refuses 0 and fractions with advice: users write 0 to mean "no limit" and a fraction to mean
/// "less than one per second".
struct LimitVisitor {
    is_per_second: bool,
}

impl Visitor<'_> for LimitVisitor {
    type Value = NonZeroU32;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a nonzero u32")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<NonZeroU32, E> {
        if number == 0 {
            return Err(E::custom("a limit of 0 admits no request; leave the key out for no limit"));
        }
        let fit = u32::try_from(number).ok().and_then(NonZeroU32::new);
        fit.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<NonZeroU32, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<NonZeroU32, E> {
        let per_minute = number * 60.0;
        if self.is_per_second && number.fract() != 0.0 && (1.0..f64::from(u32::MAX)).contains(&per_minute) {
            return Err(E::custom(format!(
                "{number} is not a whole number; write requests_per_minute = {} instead",
                per_minute.round()
            )));
        }
        Err(E::invalid_type(Unexpected::Float(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_or_a_fraction_is_refused_with_advice() {
        for (written, expected) in [
            ("requests_per_second = 0.5", "; write requests_per_minute = 30 instead"),
            ("requests_per_second = 0", "; leave the key out for no limit"),
            ("tokens_per_minute = 0", "; leave the key out for no limit"),
            ("requests_per_day = -1", "expected a nonzero u32"),
            ("requests_per_minute = 0.5", "expected a nonzero u32"),
            ("requests_per_minute = 4294967296", "expected a nonzero u32"),
        ] {
            let error = toml::from_str::<Limits>(written).unwrap_err();
            assert!(error.message().contains(expected), "{written}: {error}");
        }
        let limits: Limits = toml::from_str("requests_per_second = 3").unwrap();
        assert_eq!(limits.requests_per_second, NonZeroU32::new(3));
    }
}
