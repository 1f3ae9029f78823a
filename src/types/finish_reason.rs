//! Why a model stopped, and what the caller wants at the length limit.

use serde::{Deserialize, Serialize};

/// Why a model stopped. The last two are failures of the class `content_filter`: a [`Response`](super::Response) has
/// one of the first three.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The answer is complete, or one of the stop sequences followed.
    #[default]
    Stop,
    /// The answer is cut: it reached `max_tokens` or the model's own limit. Only a request that sets
    /// [`LengthLimit::Return`] gets such a response.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// The provider withheld the answer.
    ContentFilter,
    /// The model refused.
    Refusal,
}

impl FinishReason {
    /// Returns the name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Refusal => "refusal",
        }
    }
}

/// What happens to an answer that reaches the length limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LengthLimit {
    /// The request fails with the class `truncated`, as in pipelines. The failure contains the text.
    #[default]
    Fail,
    /// The response contains the cut answer and has the finish reason [`FinishReason::Length`]. A tool call that
    /// is cut is left out.
    Return,
}
