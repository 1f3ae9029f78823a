//! The stop reasons of a message.

use crate::wire::bounded_json;
use crate::wire::lenient::LenientText;

/// The stop reason. Later variants are worse.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StopReason {
    /// A number, which states no reason.
    Number,
    EndTurn,
    StopSequence,
    ToolUse,
    PauseTurn,
    Other(Box<str>),
    ContextWindow,
    MaxTokens,
    Refusal,
}

impl StopReason {
    /// Reads a stop reason; `None` if there is none yet.
    pub(super) fn read(reason: &LenientText<'_>) -> Option<Self> {
        match reason {
            LenientText::Missing => None,
            LenientText::Number(_) => Some(Self::Number),
            LenientText::Text(name) => Some(Self::of_name(name)),
        }
    }

    fn of_name(name: &str) -> Self {
        match name {
            "end_turn" => Self::EndTurn,
            "stop_sequence" => Self::StopSequence,
            "max_tokens" => Self::MaxTokens,
            "tool_use" => Self::ToolUse,
            "pause_turn" => Self::PauseTurn,
            "refusal" => Self::Refusal,
            "model_context_window_exceeded" => Self::ContextWindow,
            other => Self::Other(bounded_json::truncate_label(other).into()),
        }
    }
}
