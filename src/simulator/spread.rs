//! Fixed or log-normal quantities, as settings write them: `"1.5s"`, or `{ median = "1s", p95 = "4s" }`.
//!
//! A quantity never draws anything by itself; the caller brings the stream of draws.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use fastrand::Rng;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::duration;

use super::draw::log_normal;

/// The standard normal's 95th percentile.
const Z95: f64 = 1.644_853_626_951_472_2;
/// Longest wait the simulator plays; it keeps clock arithmetic far from overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest answer the simulator makes, in tokens.
const MOST_TOKENS: u64 = 1_000_000;

/// How long an answer takes from the request to its last byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Log-normal: `{ median = "1.2s", p95 = "4s" }`, or with `sigma` in place of `p95`.
    LogNormal {
        /// Half of the answers take less.
        median: Duration,
        /// The standard deviation of the logarithm.
        sigma: f64,
    },
}

/// How long an answer in prose is, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Length {
    /// Always the same.
    Fixed(u64),
    /// Log-normal: `{ median = 300, p95 = 900 }`, or with `sigma` in place of `p95`.
    LogNormal {
        /// Half of the answers are shorter.
        median: u64,
        /// The standard deviation of the logarithm.
        sigma: f64,
    },
}

/// When the first piece of a streamed answer comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FirstToken {
    /// After this share of the whole latency, 0 to 1.
    Share(f64),
    /// After this time, or with the whole answer if that is sooner.
    After(Duration),
}

impl Latency {
    /// Makes a log-normal latency from its median and 95th percentile.
    pub fn log_normal(median: Duration, p95: Duration) -> Self {
        Self::LogNormal { median, sigma: sigma(median.as_secs_f64(), p95.as_secs_f64()) }
    }

    /// Draws one latency, at most a day.
    pub(super) fn draw(&self, rng: &mut Rng) -> Duration {
        match *self {
            Self::Fixed(latency) => latency.min(LONGEST),
            Self::LogNormal { median, sigma } => {
                seconds(median.as_secs_f64() * log_normal(rng, sigma.max(0.0)))
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
    /// Makes a log-normal length from its median and 95th percentile.
    pub fn log_normal(median: u64, p95: u64) -> Self {
        Self::LogNormal { median, sigma: sigma(median as f64, p95 as f64) }
    }

    /// Draws one length: at least one token, at most a million.
    pub(super) fn draw(&self, rng: &mut Rng) -> u64 {
        let drawn = match *self {
            Self::Fixed(length) => length,
            // The cast saturates, so an absurd sigma gives the greatest length.
            Self::LogNormal { median, sigma } => {
                (median as f64 * log_normal(rng, sigma.max(0.0))).round() as u64
            }
        };
        drawn.clamp(1, MOST_TOKENS)
    }
}

impl FirstToken {
    /// Returns when the first piece comes, within `latency`.
    pub(super) fn of(&self, latency: Duration) -> Duration {
        match *self {
            Self::Share(share) => seconds(latency.as_secs_f64() * share.clamp(0.0, 1.0)).min(latency),
            Self::After(delay) => delay.min(latency),
        }
    }
}

impl Default for FirstToken {
    fn default() -> Self {
        Self::Share(0.25)
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).map_or(LONGEST, |latency| latency.min(LONGEST))
}

fn sigma(median: f64, p95: f64) -> f64 {
    let sigma = (p95 / median).ln() / Z95;
    if sigma.is_finite() { sigma.max(0.0) } else { 0.0 }
}

/// A duration in a place where serde's `with` cannot stand; may be none at all.
#[derive(Clone, Copy, Serialize)]
#[serde(transparent)]
struct Written(#[serde(serialize_with = "duration::serialize")] Duration);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        duration::deserialize_from_zero(from).map(Self)
    }
}

/// The table form of a spread.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spread<T> {
    median: T,
    p95: Option<T>,
    sigma: Option<f64>,
}

impl<T> Spread<T> {
    fn sigma<E: Error>(&self, value: impl Fn(&T) -> f64) -> Result<f64, E> {
        let median = value(&self.median);
        if median <= 0.0 {
            return Err(E::custom("`median` is zero; write more, or one plain value in place of the table"));
        }
        match (&self.p95, self.sigma) {
            (Some(p95), None) if value(p95) >= median => Ok(sigma(median, value(p95))),
            (Some(_), None) => Err(E::custom(
                "`p95` is less than `median`; write a larger `p95`, half of all lie below `median`",
            )),
            (None, Some(given)) if given.is_finite() && given >= 0.0 => Ok(given),
            (None, Some(_)) => Err(E::custom("this is no sigma; write sigma = 0 or more, such as 0.8")),
            _ => Err(E::custom(
                "`median` stands with one of `p95` and `sigma`; write { median = ..., p95 = ... }",
            )),
        }
    }
}

fn log_normal_map<S: Serializer, T: Serialize>(to: S, median: &T, sigma: f64) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("median", median)?;
    map.serialize_entry("sigma", &sigma)?;
    map.end()
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(latency) => Written(*latency).serialize(to),
            Self::LogNormal { median, sigma } => log_normal_map(to, &Written(*median), *sigma),
        }
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(length) => to.serialize_u64(*length),
            Self::LogNormal { median, sigma } => log_normal_map(to, median, *sigma),
        }
    }
}

impl Serialize for FirstToken {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Share(share) => to.serialize_f64(*share),
            Self::After(delay) => Written(*delay).serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader(PhantomData))
    }
}

impl<'de> Deserialize<'de> for FirstToken {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader(PhantomData))
    }
}

/// The forms in which a quantity may be written. A visitor and not an untagged enum, whose message would
/// not say what is wrong.
trait Quantity: Sized {
    const EXPECTED: &str;

    fn of_text<E: Error>(text: &str) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Str(text), &Self::EXPECTED))
    }

    fn of_number<E: Error>(number: f64) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Float(number), &Self::EXPECTED))
    }

    fn of_map<'de, A: MapAccess<'de>>(_map: A) -> Result<Self, A::Error> {
        Err(A::Error::invalid_type(Unexpected::Map, &Self::EXPECTED))
    }
}

impl Quantity for Latency {
    const EXPECTED: &str = "a duration such as \"1.5s\", or { median = \"1s\", p95 = \"4s\" }";

    fn of_text<E: Error>(text: &str) -> Result<Self, E> {
        duration::parse_from_zero(text).map(Self::Fixed).map_err(E::custom)
    }

    fn of_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        let spread = Spread::<Written>::deserialize(MapAccessDeserializer::new(map))?;
        let sigma = spread.sigma(|written| written.0.as_secs_f64())?;
        Ok(Self::LogNormal { median: spread.median.0, sigma })
    }
}

impl Quantity for Length {
    const EXPECTED: &str = "a whole number of tokens above zero, or { median = 300, p95 = 900 }";

    fn of_number<E: Error>(number: f64) -> Result<Self, E> {
        if number >= 1.0 && number.fract() == 0.0 {
            Ok(Self::Fixed(number as u64))
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &Self::EXPECTED))
        }
    }

    fn of_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        let spread = Spread::<u64>::deserialize(MapAccessDeserializer::new(map))?;
        let sigma = spread.sigma(|tokens| *tokens as f64)?;
        Ok(Self::LogNormal { median: spread.median, sigma })
    }
}

impl Quantity for FirstToken {
    const EXPECTED: &str = "a share from 0 to 1 of the latency, or a duration such as \"300ms\"";

    fn of_text<E: Error>(text: &str) -> Result<Self, E> {
        duration::parse_from_zero(text).map(Self::After).map_err(E::custom)
    }

    fn of_number<E: Error>(number: f64) -> Result<Self, E> {
        if (0.0..=1.0).contains(&number) {
            Ok(Self::Share(number))
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &Self::EXPECTED))
        }
    }
}

struct Reader<Q>(PhantomData<Q>);

impl<'de, Q: Quantity> Visitor<'de> for Reader<Q> {
    type Value = Q;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Q::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Q, E> {
        Q::of_text(text)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Q, E> {
        Q::of_number(number as f64)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Q, E> {
        Q::of_number(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Q, E> {
        Q::of_number(number)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Q, A::Error> {
        Q::of_map(map)
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
    fn a_latency_is_read_in_both_forms_and_survives_writing() {
        assert_eq!(latency(r#""1.5s""#).unwrap(), Latency::Fixed(Duration::from_millis(1500)));
        let spread = latency(r#"{ median = "1s", p95 = "4s" }"#).unwrap();
        let Latency::LogNormal { median, sigma } = spread else { panic!("{spread:?}") };
        assert_eq!(median, Duration::from_secs(1));
        assert!((sigma - 4f64.ln() / Z95).abs() < 1e-9);
        for written in [Latency::Fixed(Duration::from_millis(1500)), spread] {
            let json = serde_json::to_string(&written).unwrap();
            assert_eq!(serde_json::from_str::<Latency>(&json).unwrap(), written, "{json}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (written, reason) in [
            ("5", "a duration such as"),
            (r#""soon""#, "soon"),
            (r#""-1s""#, "is no duration; write it like"),
            (r#""fast""#, "is no duration; write it like"),
            (r#"{ median = "4s", p95 = "1s" }"#, "`p95` is less than `median`; write"),
            (r#"{ median = "4s" }"#, "with one of `p95` and `sigma`; write"),
            (r#"{ median = "0s", sigma = 1.0 }"#, "`median` is zero; write"),
            (r#"{ median = "1s", sigma = -1.0 }"#, "write sigma = 0 or more"),
            (r#"{ median = "1s", p99 = "3s" }"#, "unknown field"),
        ] {
            let error = latency(written).unwrap_err().to_string();
            assert!(error.contains(reason), "{written}: {error}");
        }
    }

    #[test]
    fn ninety_five_of_a_hundred_latencies_lie_below_the_p95() {
        let spread = Latency::log_normal(Duration::from_secs(1), Duration::from_secs(4));
        let mut rng = Rng::with_seed(3);
        let below = (0..10_000).filter(|_| spread.draw(&mut rng) < Duration::from_secs(4)).count();
        assert!((9_400..9_600).contains(&below), "{below}");
    }

    #[test]
    fn an_absurd_spread_neither_panics_nor_lasts_for_ever() {
        let mut rng = Rng::with_seed(3);
        for sigma in [f64::NAN, f64::INFINITY, 1e300, -5.0] {
            let latency = Latency::LogNormal { median: Duration::MAX, sigma }.draw(&mut rng);
            assert!(latency <= LONGEST);
            let length = Length::LogNormal { median: u64::MAX, sigma }.draw(&mut rng);
            assert!((1..=MOST_TOKENS).contains(&length));
        }
    }
}
