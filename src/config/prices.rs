//! Built-in price list: the vendors' prices for their own models, with the date of the list. It applies to models
//! without a configured price.
//!
//! The list applies only at a vendor's own address: another server may charge another price for a model of the
//! same name.

use std::sync::LazyLock;

use indexmap::IndexMap;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::clock;
use crate::types::{Format, Price};

/// The built-in price list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// Date at which the vendors' lists were last read.
    pub read: Date,
    anthropic: Vendor,
    openai: Vendor,
    gemini: Vendor,
}

/// The price list of one vendor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// URL of the vendor's list.
    pub source: String,
    /// Current price of each model.
    pub models: IndexMap<String, Price>,
    /// Announced price changes.
    #[serde(default)]
    pub then: IndexMap<String, PriceChange>,
}

/// An announced price change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceChange {
    /// First day of the new price.
    pub from: Date,
    /// The new price.
    pub price: Price,
}

static LIST: LazyLock<Option<PriceList>> = LazyLock::new(|| toml::from_str(include_str!("prices.toml")).ok());

impl PriceList {
    /// Returns the list that this program was built with, if it parses.
    pub fn built_in() -> Option<&'static Self> {
        // A test ensures that the list parses. Without the list, prices would be unknown.
        LIST.as_ref()
    }

    /// Returns the price list of the vendor of `format`.
    pub fn vendor(&self, format: Format) -> &Vendor {
        match format {
            Format::Anthropic => &self.anthropic,
            Format::Openai | Format::OpenaiResponses => &self.openai,
            Format::Gemini => &self.gemini,
        }
    }

    /// Returns the names of all models.
    pub(super) fn models(&self) -> impl Iterator<Item = &str> {
        let vendors = [&self.anthropic, &self.openai, &self.gemini];
        vendors.into_iter().flat_map(|vendor| vendor.models.keys().map(String::as_str))
    }

    /// Returns today's price of `model` at the vendor of `format`. A dated model name without a price of its own
    /// has the price of the undated name.
    pub fn price(&self, format: Format, model: &str) -> Option<Price> {
        self.price_on(format, model, clock::now().to_zoned(TimeZone::UTC).date())
    }

    fn price_on(&self, format: Format, model: &str, day: Date) -> Option<Price> {
        let vendor = self.vendor(format);
        let find = |name: &str| {
            let then = vendor.then.get(name).filter(|then| then.from <= day);
            then.map(|then| &then.price).or_else(|| vendor.models.get(name)).copied()
        };
        find(model).or_else(|| find(undated(model)?))
    }
}

/// Returns the model name without its date suffix: `-20251001` or `-2026-03-05`.
fn undated(model: &str) -> Option<&str> {
    let has_digits =
        |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let (name, last) = model.rsplit_once('-')?;
    if has_digits(last, 8) {
        return Some(name);
    }
    let (name, month) = name.rsplit_once('-')?;
    let (name, year) = name.rsplit_once('-')?;
    (has_digits(last, 2) && has_digits(month, 2) && has_digits(year, 4)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price_on(day: &str, format: Format, model: &str) -> Option<(f64, f64)> {
        let list: PriceList = toml::from_str(include_str!("prices.toml")).unwrap();
        list.price_on(format, model, day.parse().unwrap()).map(|price| (price.input, price.output))
    }

    #[test]
    fn a_dated_model_name_has_the_price_of_the_undated_name() {
        let today = "2026-11-21";
        let anthropic = Format::Anthropic;
        assert_eq!(price_on(today, anthropic, "claude-haiku-4-5"), Some((1.0, 5.0)));
        assert_eq!(price_on(today, anthropic, "claude-haiku-4-5-20251001"), Some((1.0, 5.0)));
        assert_eq!(price_on(today, Format::Openai, "gpt-5.4-2026-03-05"), Some((2.5, 15.0)));
        assert_eq!(price_on(today, Format::OpenaiResponses, "gpt-5.4-2026-03-05"), Some((2.5, 15.0)));
        assert_eq!(price_on(today, Format::Openai, "claude-haiku-4-5"), None);
        for unknown in
            ["claude-haiku", "claude-haiku-4-5-latest", "claude-haiku-4-5-2025100", "", "-20251001"]
        {
            assert_eq!(price_on(today, anthropic, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn models_for_embeddings_have_a_price_for_their_input_only() {
        let today = "2026-11-21";
        for (format, model, price) in [
            (Format::Openai, "text-embedding-3-small", 0.02),
            (Format::Openai, "text-embedding-3-large", 0.13),
            (Format::Openai, "text-embedding-ada-002", 0.1),
            (Format::Gemini, "gemini-embedding-001", 0.15),
        ] {
            assert_eq!(price_on(today, format, model), Some((price, 0.0)), "{model}");
        }
    }

    #[test]
    fn a_price_change_applies_from_its_date_on() {
        let gemini = Format::Gemini;
        assert_eq!(price_on("2026-12-31", gemini, "gemini-3.8-flash"), Some((0.75, 3.75)));
        assert_eq!(price_on("2027-01-01", gemini, "gemini-3.8-flash"), Some((1.5, 7.5)));
    }

    #[test]
    fn the_prices_of_the_list_are_plausible() {
        let list = PriceList::built_in().unwrap();
        for format in Format::ALL {
            let vendor = list.vendor(format);
            assert!(vendor.source.starts_with("https://") && vendor.models.len() >= 7);
            let later = vendor.then.iter().map(|(name, then)| (name, &then.price));
            for (name, price) in vendor.models.iter().chain(later) {
                let cached = price.cached.unwrap_or(price.input);
                assert!(0.0 < cached && cached <= price.input, "{name}");
                let is_plausible = match name.contains("embedding") {
                    true => price.output == 0.0 && price.cached.is_none() && price.long.is_none(),
                    false => price.input < price.output,
                };
                assert!(is_plausible, "{name}");
                assert!(price.cache_write.is_none_or(|write| write >= price.input), "{name}");
                // Only Anthropic has a price of its own for an hour: twice that of the input.
                let is_anthropic = format == Format::Anthropic;
                let for_an_hour = |input: f64| is_anthropic.then_some(2.0 * input);
                assert_eq!(price.cache_write_1h, for_an_hour(price.input), "{name}");
                assert!(!is_anthropic || price.cache_write == Some(1.25 * price.input), "{name}");
                if let Some(long) = price.long {
                    assert!(long.over >= 100_000 && long.input > price.input && long.output > price.output);
                    assert_eq!(long.cache_write_1h, for_an_hour(long.input), "{name}");
                }
            }
            assert!(vendor.then.keys().all(|name| vendor.models.contains_key(name)));
        }
    }
}
