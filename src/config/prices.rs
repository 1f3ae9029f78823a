//! What vendors charge for their own models: a table with a date, for whoever writes no price.
//!
//! Only for a vendor's own address: elsewhere the same name may cost something else.

use std::sync::LazyLock;

use indexmap::IndexMap;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::clock;
use crate::types::Price;
use crate::wire::Format;

/// The built-in price list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// When the vendors' lists were last read.
    pub read: Date,
    anthropic: Vendor,
    openai: Vendor,
    gemini: Vendor,
}

/// The price list of one vendor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// Where its own list is.
    pub source: String,
    /// What its models cost.
    pub models: IndexMap<String, Price>,
    /// What some of them will cost.
    #[serde(default)]
    pub then: IndexMap<String, Then>,
}

/// A price that comes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Then {
    /// From when on.
    pub from: Date,
    /// What it will be.
    pub price: Price,
}

static LIST: LazyLock<Option<PriceList>> = LazyLock::new(|| toml::from_str(include_str!("prices.toml")).ok());

impl PriceList {
    /// Returns the list that this program was built with.
    pub fn built_in() -> Option<&'static Self> {
        // That it can be read is tested; a program without it would still be one whose prices are unknown.
        LIST.as_ref()
    }

    /// Returns the list of the vendor of a format.
    pub fn vendor(&self, format: Format) -> &Vendor {
        match format {
            Format::Anthropic => &self.anthropic,
            Format::Openai => &self.openai,
            Format::Gemini => &self.gemini,
        }
    }

    /// Returns what the vendor of `format` charges today for the model of this name, or for the one of which it is
    /// a dated edition.
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

/// Returns the name before the date of an edition: `-20251001`, or `-2026-03-05`.
fn undated(model: &str) -> Option<&str> {
    let digits =
        |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let (name, last) = model.rsplit_once('-')?;
    if digits(last, 8) {
        return Some(name);
    }
    let (name, month) = name.rsplit_once('-')?;
    let (name, year) = name.rsplit_once('-')?;
    (digits(last, 2) && digits(month, 2) && digits(year, 4)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(day: &str, format: Format, model: &str) -> Option<(f64, f64)> {
        let list: PriceList = toml::from_str(include_str!("prices.toml")).unwrap();
        list.price_on(format, model, day.parse().unwrap()).map(|price| (price.input, price.output))
    }

    #[test]
    fn a_model_is_found_by_its_name_and_by_that_of_a_dated_edition() {
        let (today, anthropic) = ("2026-11-21", Format::Anthropic);
        assert_eq!(on(today, anthropic, "claude-haiku-4-5"), Some((1.0, 5.0)));
        assert_eq!(on(today, anthropic, "claude-haiku-4-5-20251001"), Some((1.0, 5.0)));
        assert_eq!(on(today, Format::Openai, "gpt-5.4-2026-03-05"), Some((2.5, 15.0)));
        assert_eq!(on(today, Format::Openai, "claude-haiku-4-5"), None);
        for unknown in
            ["claude-haiku", "claude-haiku-4-5-latest", "claude-haiku-4-5-2025100", "", "-20251001"]
        {
            assert_eq!(on(today, anthropic, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_price_that_changes_is_the_one_of_its_day() {
        let gemini = Format::Gemini;
        assert_eq!(on("2026-12-31", gemini, "gemini-3.8-flash"), Some((0.75, 3.75)));
        assert_eq!(on("2027-01-01", gemini, "gemini-3.8-flash"), Some((1.5, 7.5)));
    }

    #[test]
    fn every_price_of_the_list_is_one() {
        let list = PriceList::built_in().unwrap();
        for format in [Format::Anthropic, Format::Openai, Format::Gemini] {
            let vendor = list.vendor(format);
            assert!(vendor.source.starts_with("https://") && vendor.models.len() >= 7);
            let later = vendor.then.iter().map(|(name, then)| (name, &then.price));
            for (name, price) in vendor.models.iter().chain(later) {
                let cached = price.cached.unwrap_or(price.input);
                assert!(0.0 < cached && cached <= price.input && price.input < price.output, "{name}");
                assert!(price.cache_write.is_none_or(|write| write >= price.input), "{name}");
                if let Some(long) = price.long {
                    assert!(long.over >= 100_000 && long.input > price.input && long.output > price.output);
                }
            }
            assert!(vendor.then.keys().all(|name| vendor.models.contains_key(name)));
        }
    }
}
