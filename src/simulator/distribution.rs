//! Fixed or log-normally distributed settings, written `"1.5s"` or `{ median = "1s", p95 = "4s" }`.
//!
//! Pure: the caller passes the random number generator.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use fastrand::Rng;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::duration;

use super::rng::sample_log_normal;

/// 95th percentile of the standard normal distribution.
const Z95: f64 = 1.644_853_626_951_472_2;
/// Maximum simulated latency. It prevents overflows in clock arithmetic.
const MAX_LATENCY: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum length of a generated answer, in tokens.
const MAX_ANSWER_TOKENS: u64 = 1_000_000;

/// Time from the request to the last byte of the response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// A constant value.
    Fixed(Duration),
    /// Log-normal: `{ median = "1.2s", p95 = "4s" }`, or with `sigma` in place of `p95`.
    LogNormal {
        /// Half of the responses take less.
        median: Duration,
        /// The standard deviation of the logarithm.
        sigma: f64,
    },
}

/// Length of a text answer, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// A constant value.
    Fixed(u64),
    /// Log-normal: `{ median = 300, p95 = 900 }`, or with `sigma` in place of `p95`.
    LogNormal {
        /// Half of the answers are shorter.
        median: u64,
        /// The standard deviation of the logarithm.
        sigma: f64,
    },
}

/// Time of the first chunk of a streamed response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FirstToken {
    /// After this fraction of the latency, 0 to 1.
    Fraction(f64),
    /// After this duration, or after the whole latency if that is shorter.
    After(Duration),
}

impl Latency {
    /// Creates a log-normal latency from its median and 95th percentile.
    pub fn log_normal(median: Duration, p95: Duration) -> Self {
        Self::LogNormal { median, sigma: sigma_from_p95(median.as_secs_f64(), p95.as_secs_f64()) }
    }

    /// Returns a random latency of at most one day.
    pub(super) fn sample(&self, rng: &mut Rng) -> Duration {
        match *self {
            Self::Fixed(latency) => latency.min(MAX_LATENCY),
            Self::LogNormal { median, sigma } => {
                bounded_duration(median.as_secs_f64() * sample_log_normal(rng, sigma.max(0.0)))
            }
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::Fixed(Duration::ZERO)
    }
}

impl Length {
    /// Creates a log-normal length from its median and 95th percentile.
    pub fn log_normal(median: u64, p95: u64) -> Self {
        Self::LogNormal { median, sigma: sigma_from_p95(median as f64, p95 as f64) }
    }

    /// Returns a random length of 1 to 1,000,000 tokens.
    pub(super) fn sample(&self, rng: &mut Rng) -> u64 {
        let tokens = match *self {
            Self::Fixed(length) => length,
            // The cast saturates, so a huge sigma results in the maximum length.
            Self::LogNormal { median, sigma } => {
                (median as f64 * sample_log_normal(rng, sigma.max(0.0))).round() as u64
            }
        };
        tokens.clamp(1, MAX_ANSWER_TOKENS)
    }
}

impl FirstToken {
    /// Returns the delay of the first chunk, at most `latency`.
    pub(super) fn delay_within(&self, latency: Duration) -> Duration {
        match *self {
            Self::Fraction(fraction) => {
                bounded_duration(latency.as_secs_f64() * fraction.clamp(0.0, 1.0)).min(latency)
            }
            Self::After(delay) => delay.min(latency),
        }
    }
}

impl Default for FirstToken {
    fn default() -> Self {
        Self::Fraction(0.25)
    }
}

fn bounded_duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).map_or(MAX_LATENCY, |latency| latency.min(MAX_LATENCY))
}

fn sigma_from_p95(median: f64, p95: f64) -> f64 {
    let sigma = (p95 / median).ln() / Z95;
    if sigma.is_finite() { sigma.max(0.0) } else { 0.0 }
}

/// A duration of 0 or more, for types that cannot use serde's `with` attribute.
#[derive(Clone, Copy, Serialize)]
#[serde(transparent)]
struct DurationValue(#[serde(serialize_with = "duration::serialize")] Duration);

impl<'de> Deserialize<'de> for DurationValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        duration::deserialize_from_zero(from).map(Self)
    }
}

/// A log-normal distribution written as a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogNormalTable<T> {
    median: T,
    p95: Option<T>,
    sigma: Option<f64>,
}

impl<T> LogNormalTable<T> {
    fn sigma<E: Error>(&self, value: impl Fn(&T) -> f64) -> Result<f64, E> {
        let median = value(&self.median);
        if median <= 0.0 {
            return Err(E::custom(
                "`median` is zero; write a larger value, or one plain value instead of the table",
            ));
        }
        match (&self.p95, self.sigma) {
            (Some(p95), None) if value(p95) >= median => Ok(sigma_from_p95(median, value(p95))),
            (Some(_), None) => Err(E::custom("`p95` is less than `median`; write a larger `p95`")),
            (None, Some(given)) if given.is_finite() && given >= 0.0 => Ok(given),
            (None, Some(_)) => {
                Err(E::custom("`sigma` is negative or infinite; write sigma = 0 or more, such as 0.8"))
            }
            _ => Err(E::custom("`median` needs one of `p95` and `sigma`; write { median = ..., p95 = ... }")),
        }
    }
}

fn serialize_log_normal<S: Serializer, T: Serialize>(
    to: S,
    median: &T,
    sigma: f64,
) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("median", median)?;
    map.serialize_entry("sigma", &sigma)?;
    map.end()
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(latency) => DurationValue(*latency).serialize(to),
            Self::LogNormal { median, sigma } => serialize_log_normal(to, &DurationValue(*median), *sigma),
        }
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(length) => to.serialize_u64(*length),
            Self::LogNormal { median, sigma } => serialize_log_normal(to, median, *sigma),
        }
    }
}

impl Serialize for FirstToken {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fraction(fraction) => to.serialize_f64(*fraction),
            Self::After(delay) => DurationValue(*delay).serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DistributionVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DistributionVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for FirstToken {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DistributionVisitor(PhantomData))
    }
}

/// The forms in which a value may be written. This is a visitor because the error message of an untagged enum
/// would not contain the cause.
trait DistributionValue: Sized {
    const EXPECTED: &str;

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Str(text), &Self::EXPECTED))
    }

    fn from_number<E: Error>(number: f64) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Float(number), &Self::EXPECTED))
    }

    fn from_map<'de, A: MapAccess<'de>>(_map: A) -> Result<Self, A::Error> {
        Err(A::Error::invalid_type(Unexpected::Map, &Self::EXPECTED))
    }
}

impl DistributionValue for Latency {
    const EXPECTED: &str = "a duration such as \"1.5s\", or { median = \"1s\", p95 = \"4s\" }";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        duration::parse_from_zero(text).map(Self::Fixed).map_err(E::custom)
    }

    fn from_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        let table = LogNormalTable::<DurationValue>::deserialize(MapAccessDeserializer::new(map))?;
        let sigma = table.sigma(|median| median.0.as_secs_f64())?;
        Ok(Self::LogNormal { median: table.median.0, sigma })
    }
}

impl DistributionValue for Length {
    const EXPECTED: &str = "a whole number of tokens above zero, or { median = 300, p95 = 900 }";

    fn from_number<E: Error>(number: f64) -> Result<Self, E> {
        if number >= 1.0 && number.fract() == 0.0 {
            Ok(Self::Fixed(number as u64))
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &Self::EXPECTED))
        }
    }

    fn from_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        let table = LogNormalTable::<u64>::deserialize(MapAccessDeserializer::new(map))?;
        let sigma = table.sigma(|tokens| *tokens as f64)?;
        Ok(Self::LogNormal { median: table.median, sigma })
    }
}

impl DistributionValue for FirstToken {
    const EXPECTED: &str = "a fraction of the latency from 0 to 1, or a duration such as \"300ms\"";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        duration::parse_from_zero(text).map(Self::After).map_err(E::custom)
    }

    fn from_number<E: Error>(number: f64) -> Result<Self, E> {
        if (0.0..=1.0).contains(&number) {
            Ok(Self::Fraction(number))
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &Self::EXPECTED))
        }
    }
}

struct DistributionVisitor<V>(PhantomData<V>);

impl<'de, V: DistributionValue> Visitor<'de> for DistributionVisitor<V> {
    type Value = V;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(V::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V, E> {
        V::from_text(text)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<V, E> {
        V::from_number(number as f64)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<V, E> {
        V::from_number(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<V, E> {
        V::from_number(number)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V, A::Error> {
        V::from_map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(toml: &str) -> Result<Latency, toml::de::Error> {
        #[derive(Deserialize)]
        struct Holder {
            value: Latency,
        }
        toml::from_str::<Holder>(&format!("value = {toml}")).map(|holder| holder.value)
    }

    #[test]
    fn a_latency_is_parsed_in_both_forms_and_serialized_again() {
        assert_eq!(latency(r#""1.5s""#).unwrap(), Latency::Fixed(Duration::from_millis(1500)));
        let table = latency(r#"{ median = "1s", p95 = "4s" }"#).unwrap();
        let Latency::LogNormal { median, sigma } = table else { panic!("{table:?}") };
        assert_eq!(median, Duration::from_secs(1));
        assert!((sigma - 4f64.ln() / Z95).abs() < 1e-9);
        for written in [Latency::Fixed(Duration::from_millis(1500)), table] {
            let json = serde_json::to_string(&written).unwrap();
            assert_eq!(serde_json::from_str::<Latency>(&json).unwrap(), written, "{json}");
        }
    }

    #[test]
    fn invalid_values_are_rejected_with_the_reason() {
        for (written, reason) in [
            ("5", "a duration such as"),
            (r#""soon""#, "soon"),
            (r#""-1s""#, "is not a duration; write it like"),
            (r#""fast""#, "is not a duration; write it like"),
            (r#"{ median = "4s", p95 = "1s" }"#, "`p95` is less than `median`; write"),
            (r#"{ median = "4s" }"#, "needs one of `p95` and `sigma`; write"),
            (r#"{ median = "0s", sigma = 1.0 }"#, "`median` is zero; write"),
            (r#"{ median = "1s", sigma = -1.0 }"#, "write sigma = 0 or more"),
            (r#"{ median = "1s", p99 = "3s" }"#, "unknown field"),
        ] {
            let error = latency(written).unwrap_err().to_string();
            assert!(error.contains(reason), "{written}: {error}");
        }
    }

    #[test]
    fn ninety_five_percent_of_the_latencies_are_below_the_p95() {
        let table = Latency::log_normal(Duration::from_secs(1), Duration::from_secs(4));
        let mut rng = Rng::with_seed(3);
        let below = (0..10_000).filter(|_| table.sample(&mut rng) < Duration::from_secs(4)).count();
        assert!((9_400..9_600).contains(&below), "{below}");
    }

    #[test]
    fn extreme_parameters_do_not_panic_and_stay_within_the_maximum() {
        let mut rng = Rng::with_seed(3);
        for sigma in [f64::NAN, f64::INFINITY, 1e300, -5.0] {
            let latency = Latency::LogNormal { median: Duration::MAX, sigma }.sample(&mut rng);
            assert!(latency <= MAX_LATENCY);
            let length = Length::LogNormal { median: u64::MAX, sigma }.sample(&mut rng);
            assert!((1..=MAX_ANSWER_TOKENS).contains(&length));
        }
    }
}
