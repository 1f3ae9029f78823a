//! A model of a provider, as `[provider.X.models.NAME]` describes it.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Deserializer};

use crate::types::{LongPrice, Price};

use super::Limits;

/// One model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// What is sent to the provider; written only where it differs from the model's own key, from
    /// which the configuration fills it in.
    pub name: String,
    /// Most tokens of prompt and answer together; a prompt that is estimated larger is not sent here.
    /// `None` when it is not known.
    pub context: Option<NonZeroU64>,
    /// What the tokens cost. `None` when it is not known: the call's cost is then unknown, not zero.
    #[serde(deserialize_with = "price")]
    pub price: Option<Price>,
    /// What the account allows of this model alone, beside the account's own limits.
    pub limits: Option<Limits>,
    /// Most tokens of an answer, where neither the step nor `[defaults]` says.
    pub max_tokens: Option<NonZeroU32>,
    /// Sampling temperature from 0 to 2, where neither the step nor `[defaults]` says.
    #[serde(deserialize_with = "temperature")]
    pub temperature: Option<f64>,
    /// Whether its price is that of the built-in list, because none was written.
    #[serde(skip)]
    pub is_listed: bool,
}

impl Model {
    /// Returns whether it is known what its tokens cost.
    pub fn has_price(&self) -> bool {
        self.price.is_some()
    }
}

/// A price as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "price")]
struct Written {
    input: Dollars,
    output: Dollars,
    #[serde(default)]
    cached: Option<Dollars>,
    #[serde(default)]
    cache_write: Option<Dollars>,
    #[serde(default)]
    long: Option<WrittenLong>,
}

/// The price of calls with long prompts, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "long")]
struct WrittenLong {
    over: NonZeroU64,
    input: Dollars,
    output: Dollars,
    #[serde(default)]
    cached: Option<Dollars>,
    #[serde(default)]
    cache_write: Option<Dollars>,
}

#[derive(Debug, Clone, Copy)]
struct Dollars(f64);

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(from)?;
        if dollars >= 0.0 && dollars.is_finite() {
            return Ok(Self(dollars));
        }
        let wrong = format!("{dollars} is no price; write US dollars per million tokens, 0 or more");
        Err(serde::de::Error::custom(wrong))
    }
}

fn price<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Price>, D::Error> {
    let Written { input, output, cached, cache_write, long } = Written::deserialize(from)?;
    let dollars = |written: Option<Dollars>| written.map(|Dollars(dollars)| dollars);
    let long = long.map(|long| LongPrice {
        over: long.over.get(),
        input: long.input.0,
        output: long.output.0,
        cached: dollars(long.cached),
        cache_write: dollars(long.cache_write),
    });
    let (cached, cache_write) = (dollars(cached), dollars(cache_write));
    Ok(Some(Price { input: input.0, output: output.0, cached, cache_write, long }))
}

fn temperature<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let temperature = f64::deserialize(from)?;
    if (0.0..=2.0).contains(&temperature) {
        return Ok(Some(temperature));
    }
    Err(serde::de::Error::custom(format!("{temperature} is no temperature; write a number from 0 to 2")))
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
            Some(Price { input: 1.0, output: 5.0, cached: None, cache_write: None, long: None })
        );
        assert_eq!((model.context.unwrap().get(), model.temperature), (200_000, Some(0.0)));
    }

    #[test]
    fn a_price_below_zero_and_a_temperature_above_two_are_refused() {
        for text in [
            "price = { input = -1.0, output = 1 }",
            "price = { input = 1, output = nan }",
            "price = { input = 1 }",
            "temperature = 2.1",
            "context = 0",
        ] {
            assert!(toml::from_str::<Model>(text).is_err(), "{text}");
        }
    }
}
