//! What the requests to one model leave out, because it refused it by name.
//!
//! Pure: the provider remembers it for the target, and the formats write requests by it.

use crate::types::Parameter;

use super::{Dialect, Structured};

/// What the requests to one model leave out or say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    temperature: bool,
    max_tokens_name: bool,
    stream_options: bool,
    /// Steps down from a schema by the provider's own means: to any JSON, to words alone.
    structured: u8,
}

impl LeftOut {
    /// Learns that a model does not take a parameter. Returns whether requests are another now.
    pub fn learn(&mut self, parameter: Parameter) -> bool {
        let before = *self;
        match parameter {
            Parameter::Temperature => self.temperature = true,
            Parameter::MaxTokens => self.max_tokens_name = true,
            Parameter::StreamOptions => self.stream_options = true,
            Parameter::ResponseFormat => self.structured = (self.structured + 1).min(2),
        }
        *self != before
    }

    /// Returns whether no temperature is sent.
    pub fn leaves_out_temperature(self) -> bool {
        self.temperature
    }

    /// Returns whether the limit of an answer's length is sent under its other name.
    pub(super) fn renames_max_tokens(self) -> bool {
        self.max_tokens_name
    }

    /// Returns whether usage in the stream is not asked for.
    pub(super) fn leaves_out_stream_options(self) -> bool {
        self.stream_options
    }

    /// Returns the dialect of the model: that of its provider, without what it refused.
    pub fn dialect(self, of_provider: &Dialect) -> Dialect {
        let step = |structured| match structured {
            Structured::Schema => Structured::Json,
            Structured::Json | Structured::Prompt => Structured::Prompt,
        };
        let structured = (0..self.structured).fold(of_provider.structured, |structured, _| step(structured));
        Dialect { structured, left_out: self, ..of_provider.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_twice_is_learned_once_and_a_schema_falls_back_to_words() {
        let mut left_out = LeftOut::default();
        assert_eq!(left_out.dialect(&Dialect::default()), Dialect::default());
        assert!(left_out.learn(Parameter::Temperature) && !left_out.learn(Parameter::Temperature));
        assert!(left_out.learn(Parameter::MaxTokens) && !left_out.learn(Parameter::MaxTokens));
        let learned = [(); 3].map(|()| left_out.learn(Parameter::ResponseFormat));
        assert_eq!(learned, [true, true, false]);
        assert_eq!(left_out.dialect(&Dialect::default()).structured, Structured::Prompt);
    }
}
