//! A model of a provider: `[provider.X.models.NAME]`.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::types::{Format, LongPromptPrice, Price};

use super::Limits;
use super::extra_fields::extra_fields;

/// One model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// The model name that is sent to the provider. The user sets it only if it differs from the model's own
    /// key; the configuration fills it in from there.
    pub name: String,
    /// Maximum tokens of prompt and answer together. A prompt that is estimated larger is not sent to this
    /// model. `None` if unknown.
    pub context: Option<NonZeroU64>,
    /// The price of tokens. `None` if unknown: the cost of a call is then unknown, not zero.
    #[serde(deserialize_with = "price")]
    pub price: Option<Price>,
    /// The limits of this model, in addition to the account's own limits.
    pub limits: Option<Limits>,
    /// Maximum tokens of an answer, if neither the step nor `[defaults]` sets it.
    pub max_tokens: Option<NonZeroU32>,
    /// Sampling temperature from 0 to 2, if neither the step nor `[defaults]` sets it.
    #[serde(deserialize_with = "temperature")]
    pub temperature: Option<f64>,
    /// Fields of the vendor that every request to this model carries, such as `service_tier`.
    #[serde(deserialize_with = "extra_fields")]
    pub extra: Option<Arc<Map<String, Value>>>,
    /// Minimum tokens of the beginning that requests share, below which it is not cached. `None`: the vendor's
    /// minimum.
    pub min_cache_tokens: Option<NonZeroU64>,
    /// Whether the price comes from the built-in list because the configuration has none.
    #[serde(skip)]
    pub has_builtin_price: bool,
}

impl Model {
    /// Returns whether the price is known.
    pub fn has_price(&self) -> bool {
        self.price.is_some()
    }

    /// Returns how many tokens the beginning of a prompt needs to be cached by a provider with this format.
    pub fn min_cached(&self, format: Format) -> u64 {
        self.min_cache_tokens.map_or_else(|| format.min_cache_tokens(&self.name), NonZeroU64::get)
    }
}

/// A price as written in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "price")]
struct RawPrice {
    input: Dollars,
    output: Dollars,
    #[serde(default)]
    cached: Option<Dollars>,
    #[serde(default)]
    cache_write: Option<Dollars>,
    #[serde(default)]
    cache_write_1h: Option<Dollars>,
    #[serde(default)]
    long: Option<RawLongPrice>,
}

/// The price of calls with long prompts, as written in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "long")]
struct RawLongPrice {
    over: NonZeroU64,
    input: Dollars,
    output: Dollars,
    #[serde(default)]
    cached: Option<Dollars>,
    #[serde(default)]
    cache_write: Option<Dollars>,
    #[serde(default)]
    cache_write_1h: Option<Dollars>,
}

#[derive(Debug, Clone, Copy)]
struct Dollars(f64);

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(from)?;
        if dollars >= 0.0 && dollars.is_finite() {
            return Ok(Self(dollars));
        }
        let message = format!("{dollars} is not a price; write US dollars per million tokens, 0 or more");
        Err(serde::de::Error::custom(message))
    }
}

fn price<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Price>, D::Error> {
    let RawPrice { input, output, cached, cache_write, cache_write_1h, long } = RawPrice::deserialize(from)?;
    let dollars = |price: Option<Dollars>| price.map(|Dollars(dollars)| dollars);
    let long = long.map(|long| LongPromptPrice {
        over: long.over.get(),
        input: long.input.0,
        output: long.output.0,
        cached: dollars(long.cached),
        cache_write: dollars(long.cache_write),
        cache_write_1h: dollars(long.cache_write_1h),
    });
    Ok(Some(Price {
        input: input.0,
        output: output.0,
        cached: dollars(cached),
        cache_write: dollars(cache_write),
        cache_write_1h: dollars(cache_write_1h),
        long,
    }))
}

fn temperature<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let temperature = f64::deserialize(from)?;
    if (0.0..=2.0).contains(&temperature) {
        return Ok(Some(temperature));
    }
    Err(serde::de::Error::custom(format!("{temperature} is not a temperature; write a number from 0 to 2")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_reads_its_price_and_its_limits() {
        let model: Model = toml::from_str(
            "name = 'x'\ncontext = 200_000\nprice = { input = 1, output = 5.0 }\ntemperature = 0",
        )
        .unwrap();
        assert_eq!(
            model.price,
            Some(Price {
                input: 1.0,
                output: 5.0,
                cached: None,
                cache_write: None,
                cache_write_1h: None,
                long: None
            })
        );
        assert_eq!((model.context.unwrap().get(), model.temperature), (200_000, Some(0.0)));
    }

    #[test]
    fn a_model_reads_its_prices_and_its_minimum_of_the_cache() {
        let model: Model = toml::from_str(
            "min_cache_tokens = 2048\n[price]\ninput = 1\noutput = 5\ncached = 0.1\n\
             cache_write = 1.25\ncache_write_1h = 2\n\
             long = { over = 9, input = 2, output = 10, cached = 0.2, cache_write = 2.5, cache_write_1h = 4 }",
        )
        .unwrap();
        let long = LongPromptPrice {
            over: 9,
            input: 2.0,
            output: 10.0,
            cached: Some(0.2),
            cache_write: Some(2.5),
            cache_write_1h: Some(4.0),
        };
        let price = Price {
            input: 1.0,
            output: 5.0,
            cached: Some(0.1),
            cache_write: Some(1.25),
            cache_write_1h: Some(2.0),
            long: Some(long),
        };
        assert_eq!((model.price, model.min_cache_tokens), (Some(price), NonZeroU64::new(2048)));
    }

    #[test]
    fn a_negative_price_and_a_temperature_above_two_are_refused() {
        for text in [
            "price = { input = -1.0, output = 1 }",
            "price = { input = 1, output = nan }",
            "price = { input = 1 }",
            "temperature = 2.1",
            "context = 0",
            "min_cache_tokens = 0",
            "price = { input = 1, output = 1, cache_write_1h = -1 }",
        ] {
            assert!(toml::from_str::<Model>(text).is_err(), "{text}");
        }
    }
}
