//! Names of the simulated wire formats. A vendor has one or more.

use super::Vendor;

/// A format of requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireFormat {
    /// OpenAI's chat completions.
    OpenAiChat,
    /// OpenAI's responses.
    OpenAiResponses,
    /// Anthropic's messages.
    Anthropic,
    /// Gemini's generateContent.
    Gemini,
}

impl WireFormat {
    /// Returns the vendor, which has the keys, the limits, the errors and the headers.
    pub(super) fn vendor(self) -> Vendor {
        match self {
            Self::OpenAiChat | Self::OpenAiResponses => Vendor::OpenAi,
            Self::Anthropic => Vendor::Anthropic,
            Self::Gemini => Vendor::Gemini,
        }
    }

    /// Returns a number that distinguishes the formats in the hash of a request. It never changes, so that a
    /// request gets the same answer in every version.
    pub(super) fn hash_tag(self) -> u64 {
        match self {
            Self::OpenAiChat => 0,
            Self::Anthropic => 1,
            Self::Gemini => 2,
            Self::OpenAiResponses => 3,
        }
    }
}
