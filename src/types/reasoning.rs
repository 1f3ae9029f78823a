//! What a model thinks before it answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Format;

/// Reasoning in a model's answer. To continue the conversation, send it back unchanged: some vendors require it
/// between a tool call and its result. Reasoning without a signature is for the reader and is never sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reasoning {
    /// The text or summary that the vendor shows; may be empty.
    pub text: Arc<str>,
    /// What the vendor needs unchanged when the reasoning is sent back to it.
    pub signature: Option<Signature>,
}

impl Reasoning {
    /// Creates reasoning without a signature.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), signature: None }
    }

    /// Sets what the vendor needs unchanged.
    #[must_use]
    pub fn with_signature(mut self, signature: Signature) -> Self {
        self.signature = Some(signature);
        self
    }
}

/// Opaque data of one vendor that belongs to reasoning or to a tool call. Only targets of the same format accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signature {
    /// The format of the vendor.
    pub format: Format,
    /// The data: Anthropic's `signature`, or the `data` of a redacted block; Gemini's `thoughtSignature`; the
    /// complete `reasoning` item of OpenAI's responses as JSON.
    pub value: Arc<str>,
    /// Whether it is Anthropic's `redacted_thinking`, whose text the vendor does not show.
    pub is_redacted: bool,
}

impl Signature {
    /// Creates a signature of a vendor.
    pub fn new(format: Format, value: impl Into<Arc<str>>) -> Self {
        Self { format, value: value.into(), is_redacted: false }
    }

    /// Creates the data of a block that Anthropic does not show.
    pub fn redacted(value: impl Into<Arc<str>>) -> Self {
        Self { is_redacted: true, ..Self::new(Format::Anthropic, value) }
    }
}

/// How much a model reasons before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of the vendors")]
pub enum ReasoningEffort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

impl ReasoningEffort {
    /// All efforts, the lowest first.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max];

    /// Returns the name in requests and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effort_is_read_by_its_name() {
        for effort in ReasoningEffort::ALL {
            let name = serde_json::Value::from(effort.as_str());
            assert_eq!(serde_json::from_value::<ReasoningEffort>(name).unwrap(), effort);
        }
    }
}
