//! What can be set about the guards of a provider: breaker, calls at once, retries.
//!
//! Decides nothing itself: the guards do.

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
    /// Failures in a row that open the breaker.
    pub failures: NonZeroU32,
    /// Share of failed calls within `window` that opens the breaker; above 0, at most 1.
    #[serde(deserialize_with = "share")]
    pub failure_share: f64,
    /// How far back `failure_share` looks.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Calls that `window` must hold before `failure_share` counts; at most [`Self::MOST_CALLS`].
    #[serde(deserialize_with = "min_calls")]
    pub min_calls: NonZeroU32,
    /// Wait before the first probe.
    #[serde(with = "duration")]
    pub pause: Duration,
    /// Longest wait before a probe, however often probes have failed.
    #[serde(with = "duration")]
    pub max_open_duration: Duration,
}

impl BreakerSettings {
    /// Calls that a window remembers at most.
    pub const MOST_CALLS: u32 = 1_000;
}

fn min_calls<'de, D: Deserializer<'de>>(from: D) -> Result<NonZeroU32, D::Error> {
    let calls = NonZeroU32::deserialize(from)?;
    if calls.get() <= BreakerSettings::MOST_CALLS {
        return Ok(calls);
    }
    let most = BreakerSettings::MOST_CALLS;
    let wrong = format!("a window remembers its latest {most} calls, so it never holds {calls}");
    Err(D::Error::custom(format!("{wrong}; write min_calls = {most} or less")))
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: const { NonZeroU32::new(5).unwrap() },
            failure_share: 0.5,
            window: Duration::from_secs(30),
            min_calls: const { NonZeroU32::new(20).unwrap() },
            pause: Duration::from_secs(5),
            max_open_duration: Duration::from_secs(10),
        }
    }
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(from)?;
    if share > 0.0 && share <= 1.0 {
        return Ok(share);
    }
    Err(D::Error::custom(format!("{share} is no share; write a number above 0 and up to 1, such as 0.5")))
}

/// Calls of one lane under way at once, `concurrency` in `[provider.NAME.limits]`: a table, or a bare
/// number, which is the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Calls")]
pub struct ConcurrencySettings {
    /// Fewest, however often the provider objects.
    pub min: NonZeroU32,
    /// How many it begins with; never below `min`, never above `max`.
    pub start: NonZeroU32,
    /// Most, however well it goes.
    pub max: NonZeroU32,
}

impl Default for ConcurrencySettings {
    fn default() -> Self {
        Table::default().into()
    }
}

impl From<Calls> for ConcurrencySettings {
    fn from(Calls(table): Calls) -> Self {
        table.into()
    }
}

impl From<Table> for ConcurrencySettings {
    fn from(Table { min, start, max }: Table) -> Self {
        // Whoever lowers `max` has said nothing about a start that he never wrote.
        Self { min, start: start.unwrap_or(START).max(min).min(max), max }
    }
}

/// The table as it stands in the file.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "concurrency")]
struct Table {
    min: NonZeroU32,
    start: Option<NonZeroU32>,
    max: NonZeroU32,
}

const START: NonZeroU32 = const { NonZeroU32::new(32).unwrap() };

impl Default for Table {
    fn default() -> Self {
        Self { min: NonZeroU32::MIN, start: None, max: const { NonZeroU32::new(512).unwrap() } }
    }
}

/// A table, or a number. A visitor, because an untagged enum would say of every mistake only that
/// nothing fits.
struct Calls(Table);

impl<'de> Deserialize<'de> for Calls {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(CallsVisitor).map(Self)
    }
}

struct CallsVisitor;

impl<'de> Visitor<'de> for CallsVisitor {
    type Value = Table;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number of calls, or a table such as { min = 1, start = 32, max = 512 }")
    }

    fn visit_i64<E: Error>(self, max: i64) -> Result<Table, E> {
        let max = NonZeroU32::deserialize(max.into_deserializer())?;
        Ok(Table { max, ..Table::default() })
    }

    fn visit_u64<E: Error>(self, max: u64) -> Result<Table, E> {
        let max = NonZeroU32::deserialize(max.into_deserializer())?;
        Ok(Table { max, ..Table::default() })
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Table, M::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        if table.min > table.max {
            let Table { min, max, .. } = table;
            return Err(M::Error::custom(format!(
                "`min` is {min} and `max` is {max}; write a `min` that is not above `max`"
            )));
        }
        let outside = |start: &NonZeroU32| *start < table.min || *start > table.max;
        if let Some(start) = table.start.filter(outside) {
            let Table { min, max, .. } = table;
            return Err(M::Error::custom(format!(
                "`start` is {start}; write one from {min} (`min`) to {max} (`max`)"
            )));
        }
        Ok(table)
    }
}

/// How many retries a provider is asked for, `[provider.NAME.retries]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudgetSettings {
    /// Retries for each call made; from 0 to 1.
    #[serde(deserialize_with = "share_or_none")]
    pub share: f64,
    /// Retries a second that are there even when there were few calls; may be a fraction, or 0.
    #[serde(deserialize_with = "rate")]
    pub floor_per_second: f64,
    /// For how long what was not used is kept.
    #[serde(with = "duration")]
    pub window: Duration,
}

impl Default for RetryBudgetSettings {
    fn default() -> Self {
        Self { share: 0.1, floor_per_second: 5.0, window: Duration::from_secs(10) }
    }
}

fn share_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(from)?;
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(D::Error::custom(format!("{share} is no share; write a number from 0 to 1, such as 0.1")))
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(from)?;
    if (0.0..=1_000_000.0).contains(&rate) {
        return Ok(rate);
    }
    Err(D::Error::custom(format!("{rate} is no number a second; write 0 or more, such as 5.0")))
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
    fn a_bare_number_is_the_most_calls_at_once() {
        assert_eq!(read("64"), Ok([1, 32, 64]));
        assert_eq!(read("5"), Ok([1, 5, 5]));
        assert_eq!(read("{}"), Ok([1, 32, 512]));
        assert_eq!(read("{ min = 50, max = 100 }"), Ok([50, 50, 100]));
    }

    #[test]
    fn concurrency_that_makes_no_sense_is_refused_by_what_is_wrong_with_it() {
        for (written, wrong) in [
            ("0", "nonzero"),
            ("-3", "nonzero"),
            ("true", "a number of calls, or a table"),
            ("{ most = 3 }", "unknown field `most`"),
            ("{ max = 0 }", "nonzero"),
            ("{ min = 9, max = 8 }", "`min` is 9 and `max` is 8; write a `min` that is not above `max`"),
            // `max` has a default, which counts.
            ("{ min = 600 }", "`min` is 600 and `max` is 512"),
            ("{ start = 900 }", "`start` is 900; write one from 1 (`min`) to 512 (`max`)"),
            ("{ min = 8, start = 4 }", "`start` is 4; write one from 8 (`min`) to 512 (`max`)"),
        ] {
            let error = read(written).unwrap_err();
            assert!(error.contains(wrong), "{written}: {error}");
        }
    }

    #[test]
    fn a_window_holds_as_many_calls_as_the_share_waits_for() {
        let read = toml::from_str::<BreakerSettings>;
        assert_eq!(read("min_calls = 1000").unwrap().min_calls.get(), 1_000);
        assert!(read("min_calls = 1001").unwrap_err().message().contains("; write min_calls = 1000 or less"));
    }

    #[test]
    fn a_retry_budget_is_a_share_and_a_floor() {
        let read = toml::from_str::<RetryBudgetSettings>;
        assert_eq!(read("").unwrap(), RetryBudgetSettings::default());
        assert_eq!(read("share = 0\nfloor_per_second = 0.1").unwrap().floor_per_second, 0.1);
        for wrong in ["share = 1.5", "share = nan", "floor_per_second = -1.0", "floor_per_second = inf"] {
            assert!(read(wrong).unwrap_err().message().contains("; write "), "{wrong}");
        }
    }
}
