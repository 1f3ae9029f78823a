//! Says what each of Gemini's reasons to stop means for the answer.
//!
//! A reason that nobody knows yet never counts as a whole answer.

use crate::types::Class;

/// Why the model stopped. The later of two is the worse.
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
    OtherReason,
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
    /// Reads the provider's word.
    pub(super) fn read(word: &str) -> Self {
        match word {
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
            "OTHER" => Self::OtherReason,
            _ => Self::Unknown,
        }
    }

    /// Returns the word of a reason that is written as a number, as JSON of protocol buffers may write it.
    pub(super) fn word_of(number: &str) -> &'static str {
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

    /// Returns what the reason makes of the call; `None` means that the answer is whole.
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
            Self::Continuation => (Class::Unreadable, "the model paused before its answer was whole"),
            Self::ImageOther | Self::NoImage | Self::OtherReason | Self::Unknown => {
                (Class::Unreadable, "the model stopped before its answer was whole")
            }
        })
    }
}
