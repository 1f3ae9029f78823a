//! Settings for cost limits, `[budget]`.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;

use indexmap::IndexMap;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::types::{NanoUsd, ProviderName, ScopeName};

/// Largest accepted cap. A larger number is a typing error.
const MAX_CAP_USD: f64 = 1e9;

/// Cost caps. A day is from midnight to midnight, UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetSettings {
    /// Maximum cost of a run, all of its sessions together. `None` is no cap.
    #[serde(deserialize_with = "cap")]
    pub run: Option<NanoUsd>,
    /// Maximum cost of a day, all runs and requests together.
    #[serde(deserialize_with = "cap")]
    pub day: Option<NanoUsd>,
    /// Maximum cost of a day at each of these providers.
    #[serde(deserialize_with = "caps")]
    pub provider: IndexMap<ProviderName, NanoUsd>,
    /// Maximum cost of a day of each of these scopes.
    #[serde(deserialize_with = "caps")]
    pub scope: BTreeMap<ScopeName, NanoUsd>,
}

/// Reads a cap in US dollars.
///
/// # Errors
/// If the text is not an amount above 0 and at most a billion.
pub fn parse_cap(text: &str) -> Result<NanoUsd, String> {
    let number = text.trim().trim_start_matches('$').parse();
    nano_usd(number.map_err(|_| format!("{text:?} is not a cap; write US dollars, such as 5.00"))?)
}

fn nano_usd(dollars: f64) -> Result<NanoUsd, String> {
    let nanos = (dollars * 1e9).round();
    if nanos >= 1.0 && dollars <= MAX_CAP_USD {
        return Ok(NanoUsd(nanos as u64));
    }
    Err(format!("{dollars} is not a cap; write US dollars, above 0 and at most a billion"))
}

struct Cap(NanoUsd);

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DollarsVisitor).map(Self)
    }
}

struct DollarsVisitor;

impl Visitor<'_> for DollarsVisitor {
    type Value = NanoUsd;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("US dollars, such as 5.00")
    }

    fn visit_f64<E: Error>(self, dollars: f64) -> Result<NanoUsd, E> {
        nano_usd(dollars).map_err(E::custom)
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

fn caps<'de, D, N, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + Hash + Eq,
    T: FromIterator<(N, NanoUsd)>,
{
    let caps = IndexMap::<N, Cap>::deserialize(from)?;
    Ok(caps.into_iter().map(|(name, cap)| (name, cap.0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_parsed_in_dollars_and_exact_to_a_billionth() {
        let text = "run = 5\nday = 0.000000001\nprovider = { claude = 10.00 }\nscope.team-a = 3";
        let settings: BudgetSettings = toml::from_str(text).unwrap();
        assert_eq!((settings.run, settings.day), (Some(NanoUsd(5_000_000_000)), Some(NanoUsd(1))));
        assert_eq!(settings.provider["claude"], NanoUsd(10_000_000_000));
        assert_eq!(settings.scope["team-a"], NanoUsd(3_000_000_000));
        assert_eq!(parse_cap(" $8 "), Ok(NanoUsd(8_000_000_000)));
    }

    #[test]
    fn an_invalid_cap_is_rejected() {
        for text in ["0", "-1", "nan", "inf", "1e10", "0.0000000001", "five", ""] {
            let error = parse_cap(text).unwrap_err();
            assert!(error.contains("is not a cap; write US dollars"), "{error}");
            let written = toml::from_str::<BudgetSettings>(&format!("run = {text}"));
            let known = toml::from_str::<BudgetSettings>(&format!("provider.a = {text}"));
            assert!(written.is_err() && known.is_err(), "{text}");
        }
    }
}
