//! What steps share unless they say otherwise.
//!
//! A step's own word goes first, then the pipeline's `[defaults]`, then those of the configuration.
//! Looks nothing up: whether a route exists is for its readers.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::types::{RouteName, duration};

/// Settings of steps that do not set them themselves; the `[defaults]` of a configuration or of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// The route that answers. May be left out when only one route is configured.
    pub route: Option<RouteName>,
    /// Most tokens an answer may have, reasoning included. Left to the provider by default.
    pub max_tokens: Option<NonZeroU32>,
    /// Sampling temperature, from 0 to 2. Left to the provider by default.
    pub temperature: Option<Temperature>,
    /// Most bytes that a rendered prompt may have, with its system prompt and without attachments. 4 MiB by default.
    pub max_prompt_bytes: Option<NonZeroU32>,
    /// Instructions that stand above the conversation; a template that knows `item`.
    pub system: Option<String>,
    /// How many times an answer that fails its check is asked for again. 2 by default.
    pub reasks: Option<u32>,
    /// How long a step may take, waiting and every attempt included. 10 minutes by default.
    #[serde(deserialize_with = "some_duration")]
    pub deadline: Option<Duration>,
}

impl Defaults {
    /// Used when nobody says how many times to ask again.
    pub const REASKS: u32 = 2;
    /// Used when nobody says how long a step may take.
    pub const DEADLINE: Duration = Duration::from_secs(600);

    /// Used when no `max_prompt_bytes` is set.
    pub const MAX_PROMPT_BYTES: u32 = 4 << 20;

    /// Returns the bytes that a rendered prompt may have.
    pub(crate) fn max_prompt_bytes(&self) -> usize {
        let most = self.max_prompt_bytes.map_or(Self::MAX_PROMPT_BYTES, NonZeroU32::get);
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Returns these, with what they leave open taken from `below`.
    #[must_use]
    pub fn over(self, below: &Self) -> Self {
        Self {
            route: self.route.or_else(|| below.route.clone()),
            max_tokens: self.max_tokens.or(below.max_tokens),
            temperature: self.temperature.or(below.temperature),
            max_prompt_bytes: self.max_prompt_bytes.or(below.max_prompt_bytes),
            system: self.system.or_else(|| below.system.clone()),
            reasks: self.reasks.or(below.reasks),
            deadline: self.deadline.or(below.deadline),
        }
    }
}

/// Reads a duration that may be left out, for serde's `deserialize_with`.
pub(crate) fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize(from).map(Some)
}

/// A sampling temperature, from 0 to 2.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Temperature(f64);

impl Temperature {
    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Temperature {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        match number {
            0.0..=2.0 => Ok(Self(number)),
            _ => Err(format!("a temperature of {number} is not possible; choose one from 0 to 2")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_word_goes_first_and_gaps_are_filled_from_below() {
        let upper: Defaults = toml::from_str("route = 'a'\nreasks = 0\ndeadline = '30s'").unwrap();
        let lower: Defaults = toml::from_str("route = 'b'\nmax_tokens = 9\ntemperature = 0").unwrap();
        let both = upper.over(&lower);
        assert_eq!(both.route, Some(RouteName::from("a")));
        assert_eq!((both.reasks, both.deadline), (Some(0), Some(Duration::from_secs(30))));
        assert_eq!((both.max_tokens, both.temperature), (NonZeroU32::new(9), Some(Temperature(0.0))));
    }

    #[test]
    fn nonsense_is_refused_by_its_type() {
        for text in
            ["temperature = 2.1", "temperature = nan", "max_tokens = 0", "deadline = 30", "rout = 'x'"]
        {
            assert!(toml::from_str::<Defaults>(text).is_err(), "{text}");
        }
    }
}
