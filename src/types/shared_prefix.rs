//! The beginning that several requests have in common.

use serde::{Deserialize, Serialize};

use super::Fingerprint;

/// The beginning that a prompt has in common with other prompts: its tools, its system prompt with leading
/// system messages, and the first bytes of its text.
///
/// A hint, with which providers cache the beginning where they need a request for that. It does not change
/// the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedPrefix {
    /// The same for all prompts that begin with it. Identifies the tools, the system prompt and the constant
    /// text.
    pub key: Fingerprint,
    /// How many bytes of the first text of the first user message are constant; a character is not split. Zero
    /// if none.
    pub text_bytes: usize,
    /// How long the provider caches it after its last use.
    pub ttl: CacheTtl,
    /// Estimated tokens of the whole beginning. A provider caches nothing below a minimum.
    pub tokens: u64,
}

impl SharedPrefix {
    /// Creates a beginning with this key and these estimated tokens, without constant text, cached for five
    /// minutes.
    pub fn new(key: Fingerprint, tokens: u64) -> Self {
        Self { key, text_bytes: 0, ttl: CacheTtl::default(), tokens }
    }

    /// Sets how many bytes of the first text of the first user message are constant.
    #[must_use]
    pub fn with_text_bytes(mut self, text_bytes: usize) -> Self {
        self.text_bytes = text_bytes;
        self
    }

    /// Sets how long the provider caches it after its last use.
    #[must_use]
    pub fn with_ttl(mut self, ttl: CacheTtl) -> Self {
        self.ttl = ttl;
        self
    }
}

/// How long a provider caches the beginning of a prompt after its last use, if it lets the request choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CacheTtl {
    /// Five minutes.
    #[default]
    #[serde(rename = "5m")]
    FiveMinutes,
    /// One hour. Anthropic charges more for writing to the cache.
    #[serde(rename = "1h")]
    OneHour,
}
