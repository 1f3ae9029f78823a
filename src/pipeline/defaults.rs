//! Default settings of steps.
//!
//! A step's own setting takes precedence over the pipeline's `[defaults]`, and these over those of the
//! configuration. Whether a route exists is checked elsewhere.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::types::{ReasoningEffort, RouteName, duration};

use super::prompt_cache::PromptCache;
use super::sampling::{StopSequences, TopP, optional_seed};

/// The `[defaults]` of a configuration or of a pipeline: settings of steps that do not set them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// The route of requests. Optional if only one route is configured.
    pub route: Option<RouteName>,
    /// Maximum number of output tokens, including reasoning. The provider's default if not set.
    pub max_tokens: Option<NonZeroU32>,
    /// Sampling temperature, from 0 to 2. The provider's default if not set.
    pub temperature: Option<Temperature>,
    /// Nucleus sampling, from 0 to 1. The provider's default if not set.
    pub top_p: Option<TopP>,
    /// Texts before which an answer ends.
    pub stop: Option<StopSequences>,
    /// The seed of sampling. The provider's default if not set.
    #[serde(deserialize_with = "optional_seed")]
    pub seed: Option<i64>,
    /// How much the model reasons. The provider's default if not set.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether the reasoning is kept with the answer. `false` by default.
    pub keep_reasoning: Option<bool>,
    /// Whether providers cache the beginning that the requests of a step share. `auto` by default.
    pub prompt_cache: Option<PromptCache>,
    /// Longest rendered prompt, in bytes, including the system prompt but not attachments. 4 MiB by default.
    pub max_prompt_bytes: Option<NonZeroU32>,
    /// The system prompt: a template that can use `item`.
    pub system: Option<String>,
    /// How many times a request is repeated after an invalid response. 2 by default.
    pub max_validation_retries: Option<u32>,
    /// How long a step may take, including queueing and all attempts. 10 minutes by default.
    #[serde(deserialize_with = "optional_duration")]
    pub deadline: Option<Duration>,
}

impl Defaults {
    /// The default of `max_validation_retries`.
    pub const MAX_VALIDATION_RETRIES: u32 = 2;
    /// The default of `deadline`.
    pub const DEADLINE: Duration = Duration::from_secs(600);
    /// The default of `max_prompt_bytes`.
    pub const MAX_PROMPT_BYTES: u32 = 4 << 20;

    /// Returns the longest rendered prompt, in bytes.
    pub(crate) fn max_prompt_bytes(&self) -> usize {
        let bytes = self.max_prompt_bytes.map_or(Self::MAX_PROMPT_BYTES, NonZeroU32::get);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Returns these settings, with those that are not set taken from `fallback`.
    #[must_use]
    pub fn or_else(self, fallback: &Self) -> Self {
        Self {
            route: self.route.or_else(|| fallback.route.clone()),
            max_tokens: self.max_tokens.or(fallback.max_tokens),
            temperature: self.temperature.or(fallback.temperature),
            top_p: self.top_p.or(fallback.top_p),
            stop: self.stop.or_else(|| fallback.stop.clone()),
            seed: self.seed.or(fallback.seed),
            reasoning_effort: self.reasoning_effort.or(fallback.reasoning_effort),
            keep_reasoning: self.keep_reasoning.or(fallback.keep_reasoning),
            prompt_cache: self.prompt_cache.or(fallback.prompt_cache),
            max_prompt_bytes: self.max_prompt_bytes.or(fallback.max_prompt_bytes),
            system: self.system.or_else(|| fallback.system.clone()),
            max_validation_retries: self.max_validation_retries.or(fallback.max_validation_retries),
            deadline: self.deadline.or(fallback.deadline),
        }
    }
}

/// Deserializes an optional duration, for serde's `deserialize_with`.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize(from).map(Some)
}

/// A sampling temperature, from 0 to 2.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Temperature(f64);

impl Temperature {
    /// Returns the temperature as a number.
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
    fn own_settings_take_precedence_and_missing_ones_come_from_the_fallback() {
        let own: Defaults =
            toml::from_str("route = 'a'\nmax_validation_retries = 0\ndeadline = '30s'").unwrap();
        let fallback: Defaults = toml::from_str("route = 'b'\nmax_tokens = 9\ntemperature = 0").unwrap();
        let both = own.or_else(&fallback);
        assert_eq!(both.route, Some(RouteName::from("a")));
        assert_eq!((both.max_validation_retries, both.deadline), (Some(0), Some(Duration::from_secs(30))));
        assert_eq!((both.max_tokens, both.temperature), (NonZeroU32::new(9), Some(Temperature(0.0))));
        let own: Defaults = toml::from_str("seed = 1\nstop = []\nkeep_reasoning = false").unwrap();
        let text = "seed = 2\nstop = 'x'\nkeep_reasoning = true\ntop_p = 0.5\nreasoning_effort = 'max'";
        let both = own.or_else(&toml::from_str(text).unwrap());
        let expected = "seed = 1\nstop = []\nkeep_reasoning = false\ntop_p = 0.5\nreasoning_effort = 'max'";
        assert_eq!(both, toml::from_str(expected).unwrap());
        let fallback: Defaults = toml::from_str("prompt_cache = '1h'").unwrap();
        let own: Defaults = toml::from_str("prompt_cache = 'off'").unwrap();
        assert_eq!(own.or_else(&fallback).prompt_cache, Some(PromptCache::Off));
        assert_eq!(Defaults::default().or_else(&fallback).prompt_cache, Some(PromptCache::OneHour));
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in [
            "temperature = 2.1",
            "temperature = nan",
            "max_tokens = 0",
            "deadline = 30",
            "prompt_cache = '5m'",
            "prompt_cache = true",
            "rout = 'x'",
        ] {
            assert!(toml::from_str::<Defaults>(text).is_err(), "{text}");
        }
    }
}
