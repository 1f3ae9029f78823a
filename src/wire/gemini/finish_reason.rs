//! Gemini's finish reasons and their failures.
//!
//! An unknown reason never counts as a complete answer.

use crate::types::Class;

/// The finish reason. Later variants are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FinishReason {
    Stop,
    MalformedFunctionCall,
    UnexpectedToolCall,
    TooManyToolCalls,
    MalformedResponse,
    Continuation,
    ImageOther,
    NoImage,
    Other,
    Unknown,
    MissingThoughtSignature,
    MaxTokens,
    Recitation,
    ImageRecitation,
    Language,
    Safety,
    Blocklist,
    ProhibitedContent,
    Spii,
    ModelArmor,
    ImageSafety,
    ImageProhibitedContent,
    Escalation,
    PupLimitedDisabled,
}

impl FinishReason {
    /// Parses the provider's name.
    pub(super) fn read(name: &str) -> Self {
        match name {
            "STOP" => Self::Stop,
            "MAX_TOKENS" => Self::MaxTokens,
            "SAFETY" => Self::Safety,
            "RECITATION" => Self::Recitation,
            "LANGUAGE" => Self::Language,
            "BLOCKLIST" => Self::Blocklist,
            "PROHIBITED_CONTENT" => Self::ProhibitedContent,
            "SPII" => Self::Spii,
            "MODEL_ARMOR" => Self::ModelArmor,
            "IMAGE_SAFETY" => Self::ImageSafety,
            "IMAGE_PROHIBITED_CONTENT" => Self::ImageProhibitedContent,
            "IMAGE_RECITATION" => Self::ImageRecitation,
            "ESCALATION" => Self::Escalation,
            "PUP_LIMITED_DISABLED" => Self::PupLimitedDisabled,
            "MISSING_THOUGHT_SIGNATURE" => Self::MissingThoughtSignature,
            "MALFORMED_FUNCTION_CALL" => Self::MalformedFunctionCall,
            "UNEXPECTED_TOOL_CALL" => Self::UnexpectedToolCall,
            "TOO_MANY_TOOL_CALLS" => Self::TooManyToolCalls,
            "MALFORMED_RESPONSE" => Self::MalformedResponse,
            "CONTINUATION" => Self::Continuation,
            "IMAGE_OTHER" => Self::ImageOther,
            "NO_IMAGE" => Self::NoImage,
            "OTHER" => Self::Other,
            _ => Self::Unknown,
        }
    }

    /// Returns the name of a reason that is encoded as a number, which the JSON mapping of protocol buffers
    /// allows.
    pub(super) fn name_of_number(number: &str) -> &'static str {
        match number {
            "0" => "FINISH_REASON_UNSPECIFIED",
            "1" => "STOP",
            "2" => "MAX_TOKENS",
            "3" => "SAFETY",
            "4" => "RECITATION",
            "6" => "LANGUAGE",
            "7" => "BLOCKLIST",
            "8" => "PROHIBITED_CONTENT",
            "9" => "SPII",
            "10" => "MALFORMED_FUNCTION_CALL",
            _ => "OTHER",
        }
    }

    /// Returns the failure class and message of the reason; `None` means that the answer is complete.
    pub(super) fn failure(self) -> Option<(Class, &'static str)> {
        Some(match self {
            Self::Stop => return None,
            Self::MaxTokens => (
                Class::Truncated,
                "the answer reached max_tokens and is cut; raise max_tokens or ask for less",
            ),
            Self::Safety
            | Self::Blocklist
            | Self::ProhibitedContent
            | Self::Spii
            | Self::ModelArmor
            | Self::ImageSafety
            | Self::ImageProhibitedContent
            | Self::Escalation
            | Self::PupLimitedDisabled => (Class::ContentFilter, "the provider withheld the answer"),
            Self::Recitation | Self::ImageRecitation => {
                (Class::ContentFilter, "the answer repeated a source too closely and was withheld")
            }
            Self::Language => (Class::ContentFilter, "the provider does not serve this language"),
            Self::MissingThoughtSignature => {
                (Class::ApiError, "the conversation lacks a thought signature of an earlier answer")
            }
            Self::MalformedFunctionCall | Self::UnexpectedToolCall | Self::TooManyToolCalls => {
                (Class::Unreadable, "the model called a function, and none was offered")
            }
            Self::MalformedResponse => (Class::Unreadable, "the model's answer was malformed"),
            Self::Continuation => (Class::Unreadable, "the model paused before its answer was complete"),
            Self::ImageOther | Self::NoImage | Self::Other | Self::Unknown => {
                (Class::Unreadable, "the model stopped before its answer was complete")
            }
        })
    }
}
