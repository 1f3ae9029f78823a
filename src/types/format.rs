//! The names of the API formats. `wire` encodes and decodes each of them.

use serde::{Deserialize, Serialize};

/// An API format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// OpenAI's chat completions and compatible APIs.
    Openai,
    /// OpenAI's responses.
    OpenaiResponses,
    /// Anthropic's messages.
    Anthropic,
    /// Gemini's generateContent.
    Gemini,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Openai, Self::OpenaiResponses, Self::Anthropic, Self::Gemini];

    /// Returns the name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::OpenaiResponses => "openai_responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// Returns the name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Openai => "OpenAI's chat format",
            Self::OpenaiResponses => "OpenAI's responses format",
            Self::Anthropic => "Anthropic's format",
            Self::Gemini => "Gemini's format",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_by_its_name() {
        for format in Format::ALL {
            let name = serde_json::Value::from(format.as_str());
            assert_eq!(serde_json::from_value::<Format>(name).unwrap(), format);
        }
    }
}
