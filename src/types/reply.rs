//! What a model said, in no provider's format.

use serde::{Deserialize, Serialize};

use super::Usage;

/// A whole reply: `wire` makes one only when the provider marked its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The answer's text. For a JSON shape this is the JSON text, not yet checked.
    pub text: String,
    /// Why the model stopped.
    pub stop: StopReason,
    /// What was used; `None` when the provider did not say, which is unknown and not zero.
    pub usage: Option<Usage>,
    /// The model that answered, as the provider names it; empty when it did not say.
    pub model: String,
    /// The provider's own id of the request, for its support.
    pub request_id: Option<String>,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It had said everything, or met a stop sequence.
    End,
    /// It reached `max_tokens`: the answer is cut, and never a success.
    MaxTokens,
}
