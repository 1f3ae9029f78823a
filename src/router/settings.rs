//! What a route is, and how often a question may be asked again.
//!
//! Picks nothing itself: the policy does.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::types::{LaneName, duration};

use super::hedge::HedgeAfter;
use super::lane::RouteHandle;

/// How often a question is asked again after a failure, and where, `[retry]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Calls to one lane for one question, the first included.
    pub attempts_per_lane: NonZeroU32,
    /// Lanes that one question may try.
    pub lanes_per_ask: NonZeroU32,
    /// Times that one question goes through all of them, with growing waits between.
    pub rounds: NonZeroU32,
    /// Longest wait before the second attempt at a lane; doubles with each further one.
    #[serde(with = "duration")]
    pub base: Duration,
    /// Longest wait before any attempt, unless the provider asked for more.
    #[serde(with = "duration")]
    pub max: Duration,
    /// Whether another lane is asked when the safety systems of one, or its model, have refused.
    pub failover_refusals: bool,
    /// How long a call is out before another lane is asked beside it; the first answer counts.
    pub hedge_after: HedgeAfter,
    /// Most calls that are sent beside others, as a share of the calls that they could be sent beside;
    /// above 0, at most 1.
    #[serde(deserialize_with = "share")]
    pub hedge_share: f64,
    /// How long a call is out without response headers before another lane is asked beside it, once for each provider
    /// until it has answered. No key of the file.
    #[serde(skip, default = "silent_after")]
    pub silent_after: Duration,
}

fn silent_after() -> Duration {
    RetrySettings::default().silent_after
}

impl RetrySettings {
    /// Returns what holds along `route`, which may say otherwise.
    pub(super) fn along(&self, route: &RouteHandle) -> Self {
        Self {
            failover_refusals: route.failover_refusals.unwrap_or(self.failover_refusals),
            hedge_after: route.hedge_after.unwrap_or(self.hedge_after),
            ..*self
        }
    }
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(from)?;
    if share > 0.0 && share <= 1.0 {
        return Ok(share);
    }
    let wrong = format!("{share} is no share; write a number above 0 and up to 1, such as 0.05");
    Err(Error::custom(wrong))
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts_per_lane: const { NonZeroU32::new(2).unwrap() },
            lanes_per_ask: const { NonZeroU32::new(4).unwrap() },
            rounds: const { NonZeroU32::new(3).unwrap() },
            base: Duration::from_millis(500),
            max: Duration::from_secs(20),
            failover_refusals: false,
            hedge_after: HedgeAfter::Off,
            hedge_share: 0.05,
            silent_after: Duration::from_secs(20),
        }
    }
}

/// The lanes that may answer a question, `[route.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// In which order the lanes are asked.
    pub policy: Policy,
    /// The lanes, best first.
    pub lanes: Vec<Lane>,
    /// As [`RetrySettings::hedge_after`], for this route.
    pub hedge_after: Option<HedgeAfter>,
    /// As [`RetrySettings::failover_refusals`], for this route.
    pub failover_refusals: Option<bool>,
}

/// In which order a [`Route`] asks its lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The first lane that can answer, as written.
    #[default]
    Priority,
    /// Each lane in proportion to its weight.
    Weighted,
}

/// One lane of a [`Route`]: written `"provider/model"` or `{ lane = "provider/model", weight = 3 }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// Where calls go.
    #[serde(rename = "lane")]
    pub name: LaneName,
    /// Share of the questions under [`Policy::Weighted`], against the other lanes' weights.
    pub weight: NonZeroU32,
}

impl From<LaneName> for Lane {
    fn from(name: LaneName) -> Self {
        Self { name, weight: NonZeroU32::MIN }
    }
}

/// The long form of a [`Lane`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    lane: LaneName,
    #[serde(default = "one")]
    weight: NonZeroU32,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

impl<'de> Deserialize<'de> for Lane {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EitherForm)
    }
}

struct EitherForm;

impl<'de> Visitor<'de> for EitherForm {
    type Value = Lane;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#""provider/model" or { lane = "provider/model", weight = 3 }"#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Lane, E> {
        text.parse::<LaneName>().map(Lane::from).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Lane, A::Error> {
        let Written { lane, weight } = Written::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Lane { name: lane, weight })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_written_short_or_with_its_weight() {
        let route: Route = toml::from_str(
            "policy = 'weighted'\nlanes = ['claude/haiku', { lane = 'gemini/flash', weight = 3 }]",
        )
        .unwrap();
        assert_eq!(route.policy, Policy::Weighted);
        let lanes: Vec<_> =
            route.lanes.iter().map(|lane| (lane.name.to_string(), lane.weight.get())).collect();
        assert_eq!(lanes, [("claude/haiku".to_owned(), 1), ("gemini/flash".to_owned(), 3)]);
    }

    #[test]
    fn a_lane_that_is_none_is_refused() {
        for lane in
            ["'haiku'", "3", "{ lane = 'a/b', weight = 0 }", "{ lane = 'a/b', wieght = 2 }", "{ weight = 2 }"]
        {
            assert!(toml::from_str::<Route>(&format!("lanes = [{lane}]")).is_err(), "{lane}");
        }
    }
}
