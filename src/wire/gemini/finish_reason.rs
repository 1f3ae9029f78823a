//! Gemini's finish reasons and their outcomes.
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

/// What a finish reason means for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer is complete, with or without tool calls.
    Complete,
    /// The answer reached the length limit.
    Cut { description: &'static str },
    /// The vendor rejected a tool call of the model. The same request may succeed.
    InvalidCall { description: &'static str },
    /// There is no complete answer.
    Failed { class: Class, description: &'static str },
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

    /// Returns what the reason means for the answer.
    pub(super) fn outcome(self) -> Outcome {
        let failed = |class, description| Outcome::Failed { class, description };
        match self {
            Self::Stop => Outcome::Complete,
            Self::MaxTokens => Outcome::Cut {
                description: "the answer reached max_tokens and is cut; raise max_tokens or ask for less",
            },
            Self::Safety
            | Self::Blocklist
            | Self::ProhibitedContent
            | Self::Spii
            | Self::ModelArmor
            | Self::ImageSafety
            | Self::ImageProhibitedContent
            | Self::Escalation
            | Self::PupLimitedDisabled => failed(Class::ContentFilter, "the provider withheld the answer"),
            Self::Recitation | Self::ImageRecitation => {
                failed(Class::ContentFilter, "the answer repeated a source too closely and was withheld")
            }
            Self::Language => failed(Class::ContentFilter, "the provider does not serve this language"),
            Self::MissingThoughtSignature => {
                failed(Class::ApiError, "the conversation lacks a thought signature of an earlier answer")
            }
            Self::MalformedFunctionCall => {
                Outcome::InvalidCall { description: "the model's tool call was malformed" }
            }
            Self::UnexpectedToolCall => {
                Outcome::InvalidCall { description: "the model called a tool that it may not call" }
            }
            Self::TooManyToolCalls => {
                Outcome::InvalidCall { description: "the model called too many tools in succession" }
            }
            Self::MalformedResponse => failed(Class::Unreadable, "the model's answer was malformed"),
            Self::Continuation => {
                failed(Class::Unreadable, "the model paused before its answer was complete")
            }
            Self::ImageOther | Self::NoImage | Self::Other | Self::Unknown => {
                failed(Class::Unreadable, "the model stopped before its answer was complete")
            }
        }
    }
}
