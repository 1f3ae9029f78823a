//! What can be set about spending, `[budget]`.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::types::{NanoUsd, ProviderName};

/// The largest cap; beyond it nobody means what he writes.
const MOST: f64 = 1e9;

/// Caps on money. Each day is from midnight to midnight, UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetSettings {
    /// Most that a run may spend, all of its sessions together. `None` is as much as it takes.
    #[serde(deserialize_with = "cap")]
    pub run: Option<NanoUsd>,
    /// Most that may be spent in a day, by everything together.
    #[serde(deserialize_with = "cap")]
    pub day: Option<NanoUsd>,
    /// Most that may be spent in a day at each of these providers.
    #[serde(deserialize_with = "caps")]
    pub provider: IndexMap<ProviderName, NanoUsd>,
}

/// Reads a cap in US dollars.
///
/// # Errors
/// When it is no amount that could be meant.
pub fn parse_cap(text: &str) -> Result<NanoUsd, String> {
    let wrong = || format!("{text:?} is no cap; write US dollars, such as 5.00");
    of_dollars(text.trim().trim_start_matches('$').parse().map_err(|_| wrong())?)
}

fn of_dollars(dollars: f64) -> Result<NanoUsd, String> {
    let nanos = (dollars * 1e9).round();
    if nanos >= 1.0 && dollars <= MOST {
        return Ok(NanoUsd(nanos as u64));
    }
    Err(format!("{dollars} is no cap; write US dollars, above 0 and at most a billion"))
}

struct Cap(NanoUsd);

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Dollars).map(Self)
    }
}

struct Dollars;

impl Visitor<'_> for Dollars {
    type Value = NanoUsd;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("US dollars, such as 5.00")
    }

    fn visit_f64<E: Error>(self, dollars: f64) -> Result<NanoUsd, E> {
        of_dollars(dollars).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, dollars: i64) -> Result<NanoUsd, E> {
        self.visit_f64(dollars as f64)
    }

    fn visit_u64<E: Error>(self, dollars: u64) -> Result<NanoUsd, E> {
        self.visit_f64(dollars as f64)
    }
}

fn cap<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NanoUsd>, D::Error> {
    Cap::deserialize(from).map(|cap| Some(cap.0))
}

fn caps<'de, D: Deserializer<'de>>(from: D) -> Result<IndexMap<ProviderName, NanoUsd>, D::Error> {
    let caps = IndexMap::<ProviderName, Cap>::deserialize(from)?;
    Ok(caps.into_iter().map(|(provider, cap)| (provider, cap.0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_read_in_dollars_and_kept_to_the_billionth() {
        let settings: BudgetSettings =
            toml::from_str("run = 5\nday = 0.000000001\nprovider = { claude = 10.00 }").unwrap();
        assert_eq!((settings.run, settings.day), (Some(NanoUsd(5_000_000_000)), Some(NanoUsd(1))));
        assert_eq!(settings.provider["claude"], NanoUsd(10_000_000_000));
        assert_eq!(parse_cap(" $8 "), Ok(NanoUsd(8_000_000_000)));
    }

    #[test]
    fn what_is_no_cap_is_refused() {
        for text in ["0", "-1", "nan", "inf", "1e10", "0.0000000001", "five", ""] {
            let error = parse_cap(text).unwrap_err();
            assert!(error.contains("is no cap; write US dollars"), "{error}");
            let written = toml::from_str::<BudgetSettings>(&format!("run = {text}"));
            let known = toml::from_str::<BudgetSettings>(&format!("provider.a = {text}"));
            assert!(written.is_err() && known.is_err(), "{text}");
        }
    }
}
