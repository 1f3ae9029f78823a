//! Tells the refusal of a parameter that a model does not take, by the provider's words.
//!
//! Reasoning models take no temperature and know the limit of an answer's length by another name; some servers
//! know nothing of usage in streams. What they refuse by name is left out from then on.

use crate::types::Parameter;

/// What is said of a parameter that is not taken.
const REFUSED: [&str; 12] = [
    "unsupported",
    "not support",
    "is deprecated",
    "extra inputs are not permitted",
    "extra fields not permitted",
    "only the default",
    "is allowed for this model",
    "is unavailable",
    "unrecognized",
    "unknown parameter",
    "unknown field",
    "not permitted",
];

/// What is said of a schema that is valid and larger than the vendor compiles: Gemini, Anthropic and OpenAI, as recorded
/// in `tests/data/errors`.
const TOO_COMPLEX: [&str; 7] = [
    "too many states for serving",
    "too complex for compilation",
    "compiled grammar is too large",
    "too many optional parameters",
    "too many parameters with union types",
    "levels of nesting exceeds",
    "enum values in total",
];

/// Returns the parameter that a message, in small letters, refuses by its name.
pub(super) fn refused(message: &str) -> Option<Parameter> {
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    if any(&TOO_COMPLEX) {
        return Some(Parameter::ResponseFormat);
    }
    if !any(&REFUSED) {
        return None;
    }
    let named = |name: &str| {
        let quoted = [format!("'{name}'"), format!("`{name}`"), format!("\"{name}\""), format!("{name}:")];
        quoted.iter().any(|quoted| message.contains(quoted.as_str()))
    };
    let is_old = named("max_tokens") && message.contains("max_completion_tokens");
    if is_old || named("max_completion_tokens") {
        return Some(Parameter::MaxTokens);
    }
    if named("temperature") {
        return Some(Parameter::Temperature);
    }
    if named("stream_options") {
        return Some(Parameter::StreamOptions);
    }
    // A schema that is wrong is this request's fault, whatever the model takes.
    let of_schema = message.contains("schema for") || message.contains("invalid schema");
    (message.contains("response_format") && !of_schema).then_some(Parameter::ResponseFormat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_refused_only_where_it_is_named() {
        for (message, parameter) in [
            (
                "unsupported value: 'temperature' does not support 0.2 with this model.",
                Some(Parameter::Temperature),
            ),
            ("temperature: extra inputs are not permitted", Some(Parameter::Temperature)),
            ("`temperature` is deprecated for this model.", Some(Parameter::Temperature)),
            ("invalid temperature: only 1 is allowed for this model", Some(Parameter::Temperature)),
            (
                "unsupported parameter: 'max_tokens' is not supported with this model. use 'max_completion_tokens' instead.",
                Some(Parameter::MaxTokens),
            ),
            ("this response_format type is unavailable now", Some(Parameter::ResponseFormat)),
            ("invalid schema for response_format 'answer': 'oneof' is not permitted.", None),
            (
                "schemas contains too many optional parameters (25), which would make grammar compilation inefficient.",
                Some(Parameter::ResponseFormat),
            ),
            ("the temperature of the oven is not supported", None),
            ("'temperature' must be between 0 and 2", None),
        ] {
            assert_eq!(refused(message), parameter, "{message}");
        }
    }
}
