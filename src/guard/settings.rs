//! Settings of a provider's guards: breaker, concurrency limit and retry budget.
//!
//! This file only parses and validates; the guards themselves are in the files beside it.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::types::duration;

/// The breaker of a provider, `[provider.NAME.breaker]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    /// Consecutive failures that open the breaker.
    pub consecutive_failures: NonZeroU32,
    /// Share of failed calls within `window` that opens the breaker; above 0, at most 1.
    #[serde(deserialize_with = "failure_rate")]
    pub failure_rate: f64,
    /// Sliding window over which `failure_rate` is measured.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Calls that `window` must contain before `failure_rate` counts; at most [`Self::MAX_REMEMBERED`].
    #[serde(deserialize_with = "min_requests")]
    pub min_requests: NonZeroU32,
    /// Time from opening to the first probe.
    #[serde(with = "duration")]
    pub open_duration: Duration,
    /// Longest time from opening to a probe, whatever the number of failed probes.
    #[serde(with = "duration")]
    pub max_open_duration: Duration,
}

impl BreakerSettings {
    /// Maximum number of calls that a window stores.
    pub const MAX_REMEMBERED: u32 = 1_000;
}

fn min_requests<'de, D: Deserializer<'de>>(from: D) -> Result<NonZeroU32, D::Error> {
    let calls = NonZeroU32::deserialize(from)?;
    if calls.get() <= BreakerSettings::MAX_REMEMBERED {
        return Ok(calls);
    }
    let max = BreakerSettings::MAX_REMEMBERED;
    let problem = format!("{calls} is more than the {max} calls that a window can store");
    Err(D::Error::custom(format!("{problem}; write min_requests = {max} or less")))
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            consecutive_failures: const { NonZeroU32::new(5).unwrap() },
            failure_rate: 0.5,
            window: Duration::from_secs(30),
            min_requests: const { NonZeroU32::new(20).unwrap() },
            open_duration: Duration::from_secs(5),
            max_open_duration: Duration::from_secs(10),
        }
    }
}

fn failure_rate<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(from)?;
    if rate > 0.0 && rate <= 1.0 {
        return Ok(rate);
    }
    Err(D::Error::custom(format!(
        "{rate} is not a valid rate; write a number above 0 and up to 1, such as 0.5"
    )))
}

/// Attempts of one target in flight at once, `concurrency` in `[provider.NAME.limits]`: a table, or a bare
/// number, which is the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NumberOrTable")]
pub struct ConcurrencySettings {
    /// Lower bound of the concurrency limit.
    pub min: NonZeroU32,
    /// Initial concurrency limit; never below `min`, never above `max`.
    pub start: NonZeroU32,
    /// Upper bound of the concurrency limit.
    pub max: NonZeroU32,
}

impl Default for ConcurrencySettings {
    fn default() -> Self {
        ConcurrencyTable::default().into()
    }
}

impl From<NumberOrTable> for ConcurrencySettings {
    fn from(NumberOrTable(table): NumberOrTable) -> Self {
        table.into()
    }
}

impl From<ConcurrencyTable> for ConcurrencySettings {
    fn from(ConcurrencyTable { min, start, max }: ConcurrencyTable) -> Self {
        // The default of `start` is clamped, so that a file may set only `max` to a small number.
        Self { min, start: start.unwrap_or(DEFAULT_START).max(min).min(max), max }
    }
}

/// The table as written in the configuration file.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "concurrency")]
struct ConcurrencyTable {
    min: NonZeroU32,
    start: Option<NonZeroU32>,
    max: NonZeroU32,
}

const DEFAULT_START: NonZeroU32 = const { NonZeroU32::new(32).unwrap() };

impl Default for ConcurrencyTable {
    fn default() -> Self {
        Self { min: NonZeroU32::MIN, start: None, max: const { NonZeroU32::new(512).unwrap() } }
    }
}

/// A table or a number. This is a visitor, because the error of an untagged enum states only that no variant
/// matches.
struct NumberOrTable(ConcurrencyTable);

impl<'de> Deserialize<'de> for NumberOrTable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NumberOrTableVisitor).map(Self)
    }
}

struct NumberOrTableVisitor;

impl<'de> Visitor<'de> for NumberOrTableVisitor {
    type Value = ConcurrencyTable;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number of calls, or a table such as { min = 1, start = 32, max = 512 }")
    }

    fn visit_i64<E: Error>(self, max: i64) -> Result<ConcurrencyTable, E> {
        let max = NonZeroU32::deserialize(max.into_deserializer())?;
        Ok(ConcurrencyTable { max, ..ConcurrencyTable::default() })
    }

    fn visit_u64<E: Error>(self, max: u64) -> Result<ConcurrencyTable, E> {
        let max = NonZeroU32::deserialize(max.into_deserializer())?;
        Ok(ConcurrencyTable { max, ..ConcurrencyTable::default() })
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<ConcurrencyTable, M::Error> {
        let table = ConcurrencyTable::deserialize(MapAccessDeserializer::new(map))?;
        if table.min > table.max {
            let ConcurrencyTable { min, max, .. } = table;
            return Err(M::Error::custom(format!(
                "`min` is {min} and `max` is {max}; write a `min` that is not above `max`"
            )));
        }
        let outside = |start: &NonZeroU32| *start < table.min || *start > table.max;
        if let Some(start) = table.start.filter(outside) {
            let ConcurrencyTable { min, max, .. } = table;
            return Err(M::Error::custom(format!(
                "`start` is {start}; write one from {min} (`min`) to {max} (`max`)"
            )));
        }
        Ok(table)
    }
}

/// Limit on the retries sent to a provider, `[provider.NAME.retries]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudgetSettings {
    /// Retries earned by each first call; from 0 to 1.
    #[serde(deserialize_with = "retry_ratio")]
    pub ratio: f64,
    /// Retries a second that are allowed even with few calls; may be a fraction, or 0.
    #[serde(deserialize_with = "retries_per_second")]
    pub min_per_second: f64,
    /// Time for which unused retries are kept.
    #[serde(with = "duration")]
    pub ttl: Duration,
}

impl Default for RetryBudgetSettings {
    fn default() -> Self {
        Self { ratio: 0.1, min_per_second: 5.0, ttl: Duration::from_secs(10) }
    }
}

fn retry_ratio<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number_up_to(1.0, "ratio", "0.1", from)
}

fn retries_per_second<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number_up_to(1_000_000.0, "rate", "5.0", from)
}

fn number_up_to<'de, D: Deserializer<'de>>(
    max: f64,
    noun: &str,
    example: &str,
    from: D,
) -> Result<f64, D::Error> {
    let number = f64::deserialize(from)?;
    if (0.0..=max).contains(&number) {
        return Ok(number);
    }
    Err(D::Error::custom(format!(
        "{number} is not a valid {noun}; write a number from 0 to {max}, such as {example}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        concurrency: ConcurrencySettings,
    }

    fn read(written: &str) -> Result<[u32; 3], String> {
        let limits = toml::from_str::<Limits>(&format!("concurrency = {written}"));
        let limits = limits.map_err(|error| error.message().to_owned())?;
        let ConcurrencySettings { min, start, max } = limits.concurrency;
        Ok([min, start, max].map(NonZeroU32::get))
    }

    #[test]
    fn a_bare_number_is_the_maximum_concurrency() {
        assert_eq!(read("64"), Ok([1, 32, 64]));
        assert_eq!(read("5"), Ok([1, 5, 5]));
        assert_eq!(read("{}"), Ok([1, 32, 512]));
        assert_eq!(read("{ min = 50, max = 100 }"), Ok([50, 50, 100]));
    }

    #[test]
    fn invalid_concurrency_is_rejected_with_the_reason() {
        for (written, wrong) in [
            ("0", "nonzero"),
            ("-3", "nonzero"),
            ("true", "a number of calls, or a table"),
            ("{ most = 3 }", "unknown field `most`"),
            ("{ max = 0 }", "nonzero"),
            ("{ min = 9, max = 8 }", "`min` is 9 and `max` is 8; write a `min` that is not above `max`"),
            // The default of `max` is taken into account.
            ("{ min = 600 }", "`min` is 600 and `max` is 512"),
            ("{ start = 900 }", "`start` is 900; write one from 1 (`min`) to 512 (`max`)"),
            ("{ min = 8, start = 4 }", "`start` is 4; write one from 8 (`min`) to 512 (`max`)"),
        ] {
            let error = read(written).unwrap_err();
            assert!(error.contains(wrong), "{written}: {error}");
        }
    }

    #[test]
    fn min_requests_is_at_most_the_capacity_of_the_window() {
        let read = toml::from_str::<BreakerSettings>;
        assert_eq!(read("min_requests = 1000").unwrap().min_requests.get(), 1_000);
        assert!(
            read("min_requests = 1001")
                .unwrap_err()
                .message()
                .contains("; write min_requests = 1000 or less")
        );
    }

    #[test]
    fn a_retry_budget_has_a_ratio_and_a_minimum_rate() {
        let read = toml::from_str::<RetryBudgetSettings>;
        assert_eq!(read("").unwrap(), RetryBudgetSettings::default());
        assert_eq!(read("ratio = 0\nmin_per_second = 0.1").unwrap().min_per_second, 0.1);
        for wrong in ["ratio = 1.5", "ratio = nan", "min_per_second = -1.0", "min_per_second = inf"] {
            assert!(read(wrong).unwrap_err().message().contains("; write "), "{wrong}");
        }
    }
}
