//! Parameters that a model rejected by name and that its requests omit or replace.
//!
//! Pure: the provider stores them for the target, and the formats use them to encode requests.

use crate::types::Parameter;

/// Parameters that the requests to one model omit or replace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnsupportedParameters {
    temperature: bool,
    max_tokens_name: bool,
    stream_options: bool,
    encrypted_reasoning: bool,
    /// The number of fallback steps from the provider's schema support: first to JSON mode, then to the prompt
    /// alone.
    format_fallbacks: u8,
}

impl UnsupportedParameters {
    /// Records that the model does not support a parameter. Returns whether requests change.
    pub fn record(&mut self, parameter: Parameter) -> bool {
        let before = *self;
        match parameter {
            Parameter::Temperature => self.temperature = true,
            Parameter::MaxTokens => self.max_tokens_name = true,
            Parameter::StreamOptions => self.stream_options = true,
            Parameter::EncryptedReasoning => self.encrypted_reasoning = true,
            Parameter::ResponseFormat => self.format_fallbacks = (self.format_fallbacks + 1).min(2),
        }
        *self != before
    }

    /// Returns whether the temperature is omitted.
    pub fn omits_temperature(self) -> bool {
        self.temperature
    }

    /// Returns whether the output token limit is sent under its other name.
    pub(super) fn renames_max_tokens(self) -> bool {
        self.max_tokens_name
    }

    /// Returns whether usage in the stream is not requested.
    pub(super) fn omits_stream_options(self) -> bool {
        self.stream_options
    }

    /// Returns whether encrypted reasoning is not requested.
    pub(super) fn omits_encrypted_reasoning(self) -> bool {
        self.encrypted_reasoning
    }

    /// Returns the number of fallback steps from the provider's schema support.
    pub(super) fn format_fallbacks(self) -> u8 {
        self.format_fallbacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Dialect, StructuredOutput};

    #[test]
    fn a_rejection_is_recorded_once_and_a_schema_falls_back_to_the_prompt() {
        let mut unsupported = UnsupportedParameters::default();
        assert_eq!(unsupported.apply_to(&Dialect::default()), Dialect::default());
        assert!(unsupported.record(Parameter::Temperature) && !unsupported.record(Parameter::Temperature));
        assert!(unsupported.record(Parameter::MaxTokens) && !unsupported.record(Parameter::MaxTokens));
        assert!(unsupported.record(Parameter::EncryptedReasoning) && unsupported.omits_encrypted_reasoning());
        assert!(!unsupported.record(Parameter::EncryptedReasoning));
        let changed = [(); 3].map(|()| unsupported.record(Parameter::ResponseFormat));
        assert_eq!(changed, [true, true, false]);
        assert_eq!(unsupported.apply_to(&Dialect::default()).structured_output, StructuredOutput::Prompt);
    }
}
