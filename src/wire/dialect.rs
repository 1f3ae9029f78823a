//! Differences between vendors of the same format.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{DropParameter, ReasoningTags, UnsupportedParameters};

/// The settings of a format, from `[provider.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dialect {
    /// The API version: Anthropic `2023-06-01` (default) or `2026-10-21`, Gemini `v1beta` (default) or `v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// How a JSON answer is requested.
    pub structured_output: StructuredOutput,
    /// The name of the output token limit at an OpenAI-compatible server.
    pub max_tokens_field: MaxTokensField,
    /// What happens to `<think>…</think>` before an answer.
    pub reasoning_tags: ReasoningTags,
    /// Parameters that requests to this provider leave out, if its format or its models do not accept them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_parameters: Vec<DropParameter>,
    /// Whether requests ask for a stream.
    #[serde(skip_serializing_if = "StreamSupport::is_auto")]
    pub stream: StreamSupport,
    /// Fields of the vendor that every request to the model carries, from `extra` of the model; not a setting here.
    #[serde(skip)]
    pub extra: Option<Arc<Map<String, Value>>>,
    /// Minimum tokens of a shared beginning that is cached, from `min_cache_tokens` of the model; not a setting
    /// here.
    #[serde(skip)]
    pub min_cache_tokens: Option<u64>,
    /// Parameters that the model rejected; not a setting.
    #[serde(skip)]
    pub unsupported: UnsupportedParameters,
}

impl Dialect {
    /// Returns whether the configuration drops a parameter.
    pub(super) fn drops(&self, parameter: DropParameter) -> bool {
        self.drop_parameters.contains(&parameter)
    }
}

impl UnsupportedParameters {
    /// Returns the dialect of the model: that of its provider without the rejected parameters.
    pub fn apply_to(self, dialect: &Dialect) -> Dialect {
        let fall_back = |structured| match structured {
            StructuredOutput::Schema => StructuredOutput::Json,
            StructuredOutput::Json | StructuredOutput::Prompt => StructuredOutput::Prompt,
        };
        let structured = (0..self.format_fallbacks())
            .fold(dialect.structured_output, |structured, _| fall_back(structured));
        Dialect { structured_output: structured, unsupported: self, ..dialect.clone() }
    }
}

/// How a JSON answer is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StructuredOutput {
    /// With the provider's structured output and the schema; in the prompt if the provider does not support the
    /// schema.
    #[default]
    Schema,
    /// With the provider's JSON mode; the schema is in the prompt.
    Json,
    /// In the prompt only, for servers without JSON support.
    Prompt,
}

impl StructuredOutput {
    /// Returns the name of this value, unless it is the default.
    pub fn non_default_name(self) -> Option<&'static str> {
        match self {
            Self::Schema => None,
            Self::Json => Some("json"),
            Self::Prompt => Some("prompt"),
        }
    }
}

/// Whether requests ask for a stream. It does not change the answer, only how it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamSupport {
    /// Every request asks for a stream.
    #[default]
    Auto,
    /// Every request asks for a whole response, for servers and gateways that do not support streams.
    Never,
}

impl StreamSupport {
    /// Returns whether requests ask for a stream.
    pub fn asks_for_stream(self) -> bool {
        match self {
            Self::Auto => true,
            Self::Never => false,
        }
    }

    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// The name of the output token limit in OpenAI's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensField {
    /// `max_completion_tokens` for OpenAI itself, `max_tokens` for all other servers.
    #[default]
    Auto,
    /// `max_completion_tokens`, which OpenAI's newer models require.
    MaxCompletionTokens,
    /// `max_tokens`, which local servers support.
    MaxTokens,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_stream_support_is_not_serialized() {
        let written = |stream| serde_json::to_value(Dialect { stream, ..Dialect::default() }).unwrap();
        assert_eq!(written(StreamSupport::Auto).get("stream"), None);
        assert_eq!(written(StreamSupport::Never)["stream"], "never");
        let read: Dialect = serde_json::from_value(written(StreamSupport::Never)).unwrap();
        assert_eq!(read.stream, StreamSupport::Never);
    }
}
