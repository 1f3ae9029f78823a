//! The keys of a pipeline file, as they are written.
//!
//! All keys are optional here, so that a missing or invalid key does not hide other errors.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use crate::types::{ReasoningEffort, RouteName};

use super::defaults::optional_duration;
use super::prompt_cache::PromptCache;
use super::sampling::{StopSequences, TopP, optional_seed};
use super::{Defaults, Temperature};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPipeline {
    pub(super) name: Option<String>,
    pub(super) input: RawInput,
    pub(super) defaults: Defaults,
    pub(super) step: Vec<RawStep>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawInput {
    pub(super) schema: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStep {
    pub(super) name: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) embed: Option<String>,
    pub(super) dimensions: Option<NonZeroU32>,
    pub(super) system: Option<String>,
    pub(super) route: Option<RouteName>,
    pub(super) choice: Option<Vec<String>>,
    pub(super) schema: Option<toml::Value>,
    pub(super) when: Option<String>,
    pub(super) needs: Vec<String>,
    pub(super) attach: Vec<String>,
    pub(super) max_tokens: Option<NonZeroU32>,
    pub(super) temperature: Option<Temperature>,
    pub(super) top_p: Option<TopP>,
    pub(super) stop: Option<StopSequences>,
    #[serde(deserialize_with = "optional_seed")]
    pub(super) seed: Option<i64>,
    pub(super) reasoning_effort: Option<ReasoningEffort>,
    pub(super) keep_reasoning: Option<bool>,
    pub(super) prompt_cache: Option<PromptCache>,
    pub(super) optional: bool,
    pub(super) max_validation_retries: Option<u32>,
    #[serde(deserialize_with = "optional_duration")]
    pub(super) deadline: Option<Duration>,
}
