//! Settings of routes and retries.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::types::{TargetName, duration};

use super::hedge::HedgeAfter;

/// How often a request is retried after a failure, and at which targets: `[retry]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Maximum number of attempts at one target per request and round, including the first.
    pub attempts_per_target: NonZeroU32,
    /// Maximum number of targets per request.
    pub max_targets: NonZeroU32,
    /// Maximum number of rounds over the targets of a request, with increasing waits between them.
    pub max_rounds: NonZeroU32,
    /// Maximum wait before the second attempt at a target; doubles with each further attempt.
    #[serde(with = "duration")]
    pub initial_backoff: Duration,
    /// Maximum wait before any attempt, unless the provider requests a longer one.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    /// Whether a request fails over to another target if the model or the safety system of a target refuses it.
    pub failover_refusals: bool,
    /// The time in flight after which a call is hedged. The first answer is used.
    pub hedge_after: HedgeAfter,
    /// Maximum ratio of hedges to the calls that may be hedged; above 0, at most 1.
    #[serde(deserialize_with = "ratio")]
    pub hedge_ratio: f64,
    /// The time in flight without response headers after which a call is hedged, once per provider until the
    /// provider has answered. It is not a configuration key.
    #[serde(skip, default = "unresponsive_after")]
    pub unresponsive_after: Duration,
}

fn unresponsive_after() -> Duration {
    RetrySettings::default().unresponsive_after
}

fn ratio<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(from)?;
    if ratio > 0.0 && ratio <= 1.0 {
        return Ok(ratio);
    }
    let message = format!("{ratio} is out of range; write a number above 0 and up to 1, such as 0.05");
    Err(Error::custom(message))
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts_per_target: const { NonZeroU32::new(2).unwrap() },
            max_targets: const { NonZeroU32::new(4).unwrap() },
            max_rounds: const { NonZeroU32::new(3).unwrap() },
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(20),
            failover_refusals: false,
            hedge_after: HedgeAfter::Off,
            hedge_ratio: 0.05,
            unresponsive_after: Duration::from_secs(20),
        }
    }
}

/// The targets that may answer a request: `[route.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// The order in which the targets are called.
    pub policy: Policy,
    /// The targets, best first.
    pub targets: Vec<Target>,
    /// As [`RetrySettings::hedge_after`], for this route.
    pub hedge_after: Option<HedgeAfter>,
    /// As [`RetrySettings::failover_refusals`], for this route.
    pub failover_refusals: Option<bool>,
}

/// The order in which the targets of a [`Route`] are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The first available target, in the order of the configuration.
    #[default]
    Priority,
    /// Each target in proportion to its weight.
    Weighted,
}

/// A target of a [`Route`]: written `"provider/model"` or `{ target = "provider/model", weight = 3 }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The provider and the model.
    #[serde(rename = "target")]
    pub name: TargetName,
    /// Weight under [`Policy::Weighted`], relative to the weights of the other targets.
    pub weight: NonZeroU32,
}

impl From<TargetName> for Target {
    fn from(name: TargetName) -> Self {
        Self { name, weight: NonZeroU32::MIN }
    }
}

/// The long form of a [`Target`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    target: TargetName,
    #[serde(default = "default_weight")]
    weight: NonZeroU32,
}

fn default_weight() -> NonZeroU32 {
    NonZeroU32::MIN
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TargetVisitor)
    }
}

struct TargetVisitor;

impl<'de> Visitor<'de> for TargetVisitor {
    type Value = Target;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#""provider/model" or { target = "provider/model", weight = 3 }"#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Target, E> {
        text.parse::<TargetName>().map(Target::from).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Target, A::Error> {
        let TargetTable { target: name, weight } = TargetTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Target { name, weight })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_string_or_a_table_with_a_weight() {
        let route: Route = toml::from_str(
            "policy = 'weighted'\ntargets = ['claude/haiku', { target = 'gemini/flash', weight = 3 }]",
        )
        .unwrap();
        assert_eq!(route.policy, Policy::Weighted);
        let targets: Vec<_> =
            route.targets.iter().map(|target| (target.name.to_string(), target.weight.get())).collect();
        assert_eq!(targets, [("claude/haiku".to_owned(), 1), ("gemini/flash".to_owned(), 3)]);
    }

    #[test]
    fn an_invalid_target_is_rejected() {
        for target in [
            "'haiku'",
            "3",
            "{ target = 'a/b', weight = 0 }",
            "{ target = 'a/b', wieght = 2 }",
            "{ weight = 2 }",
        ] {
            assert!(toml::from_str::<Route>(&format!("targets = [{target}]")).is_err(), "{target}");
        }
    }
}
