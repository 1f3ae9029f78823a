//! The setting `prompt_cache`: whether providers cache the beginning that the requests of a step share.

use serde::{Deserialize, Serialize};

use crate::types::CacheTtl;

/// Whether providers cache the beginning that the requests of a step share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PromptCache {
    /// For five minutes after its last use, or for an hour if the requests of the step are farther apart.
    #[default]
    Auto,
    /// Only as far as a provider does it without being asked.
    Off,
    /// For an hour after its last use, where the provider lets the request choose.
    #[serde(rename = "1h")]
    OneHour,
}

impl PromptCache {
    /// Returns how long the beginning is cached at first; `None` if it is not.
    pub(super) fn first_ttl(self) -> Option<CacheTtl> {
        match self {
            Self::Auto => Some(CacheTtl::FiveMinutes),
            Self::Off => None,
            Self::OneHour => Some(CacheTtl::OneHour),
        }
    }
}
