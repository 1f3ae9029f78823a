//! What differs between vendors who speak the same format.

use serde::{Deserialize, Serialize};

use super::{LeftOut, ReasoningTags};

/// The knobs of a format, as `[provider.NAME]` sets them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dialect {
    /// The API version: Anthropic `2023-06-01` (default) or `2026-10-21`, Gemini `v1beta` (default) or `v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// How a JSON answer is asked for.
    pub structured: Structured,
    /// Under which name an OpenAI-speaking server knows the limit of an answer's length.
    pub max_tokens_field: MaxTokensField,
    /// What becomes of `<think>…</think>` before an answer.
    pub reasoning_tags: ReasoningTags,
    /// What the model was found not to take; no setting.
    #[serde(skip)]
    pub left_out: LeftOut,
}

/// How a JSON answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Structured {
    /// By the provider's own means, with the schema; in words where the provider cannot take this schema.
    #[default]
    Schema,
    /// The provider is asked for some JSON, the schema stands in the prompt.
    Json,
    /// Only in words, for servers that know nothing of it.
    Prompt,
}

impl Structured {
    /// Returns the name of what is asked for, unless it is the default.
    pub fn unless_default(self) -> Option<&'static str> {
        match self {
            Self::Schema => None,
            Self::Json => Some("json"),
            Self::Prompt => Some("prompt"),
        }
    }
}

/// The name of the limit of an answer's length in OpenAI's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensField {
    /// `max_completion_tokens` towards OpenAI itself, `max_tokens` towards every other server.
    #[default]
    Auto,
    /// What OpenAI's newer models insist on.
    MaxCompletionTokens,
    /// What local servers know.
    MaxTokens,
}
