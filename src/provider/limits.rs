//! What an account allows, `[provider.NAME.limits]`, and one model of it, `limits` of a model.
//!
//! Counts nothing itself: the guards do.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::guard::{BurstSettings, ConcurrencySettings, RateLimits};

/// What an account allows, or a model of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls a minute. `None` is no limit, as in the next five.
    #[serde(deserialize_with = "limit")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Calls a second.
    #[serde(deserialize_with = "by_second")]
    pub requests_per_second: Option<NonZeroU32>,
    /// Calls in any 24 hours.
    #[serde(deserialize_with = "limit")]
    pub requests_per_day: Option<NonZeroU32>,
    /// Tokens a minute, read and written together.
    #[serde(deserialize_with = "limit")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Tokens a minute that the models read.
    #[serde(deserialize_with = "limit")]
    pub input_tokens_per_minute: Option<NonZeroU32>,
    /// Tokens a minute that the models write.
    #[serde(deserialize_with = "limit")]
    pub output_tokens_per_minute: Option<NonZeroU32>,
    /// How much of a minute's limits may go at once.
    pub burst: BurstSettings,
    /// Calls of one model under way at once. An account's holds for each of its models by itself.
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

fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroU32>, D::Error> {
    from.deserialize_any(Limit { by_second: false }).map(Some)
}

fn by_second<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroU32>, D::Error> {
    from.deserialize_any(Limit { by_second: true }).map(Some)
}

/// A visitor, because a limit of nothing means something to people: none, or less than one a second.
struct Limit {
    by_second: bool,
}

impl Visitor<'_> for Limit {
    type Value = NonZeroU32;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a nonzero u32")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<NonZeroU32, E> {
        if number == 0 {
            return Err(E::custom("a limit of 0 lets no call through; leave the key out for no limit"));
        }
        let fit = u32::try_from(number).ok().and_then(NonZeroU32::new);
        fit.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<NonZeroU32, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<NonZeroU32, E> {
        let by_minute = number * 60.0;
        if self.by_second && number.fract() != 0.0 && (1.0..f64::from(u32::MAX)).contains(&by_minute) {
            return Err(E::custom(format!(
                "{number} is no whole number; write requests_per_minute = {} instead",
                by_minute.round()
            )));
        }
        Err(E::invalid_type(Unexpected::Float(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_none_is_refused_with_what_was_meant() {
        for (written, says) in [
            ("requests_per_second = 0.5", "; write requests_per_minute = 30 instead"),
            ("requests_per_second = 0", "; leave the key out for no limit"),
            ("tokens_per_minute = 0", "; leave the key out for no limit"),
            ("requests_per_day = -1", "expected a nonzero u32"),
            ("requests_per_minute = 0.5", "expected a nonzero u32"),
            ("requests_per_minute = 4294967296", "expected a nonzero u32"),
        ] {
            let error = toml::from_str::<Limits>(written).unwrap_err();
            assert!(error.message().contains(says), "{written}: {error}");
        }
        let limits: Limits = toml::from_str("requests_per_second = 3").unwrap();
        assert_eq!(limits.requests_per_second, NonZeroU32::new(3));
    }
}
