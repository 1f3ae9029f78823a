//! Detects from an error message that a model does not support a parameter.
//!
//! Reasoning models support no temperature and use another name for the output token limit. Some servers do not
//! support usage in streams. Later requests omit a parameter that was rejected by name.

use crate::types::Parameter;

use super::phrases::contains_any;

/// Phrases about a parameter that is not supported.
const REJECTIONS: [&str; 12] = [
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

/// Phrases about a schema that is valid but too large for the vendor to compile: Gemini, Anthropic and OpenAI, as
/// recorded in `tests/data/errors`.
const SCHEMA_TOO_COMPLEX: [&str; 7] = [
    "too many states for serving",
    "too complex for compilation",
    "compiled grammar is too large",
    "too many optional parameters",
    "too many parameters with union types",
    "levels of nesting exceeds",
    "enum values in total",
];

/// Phrases before the name of an unknown parameter, or before a list of such names.
const UNKNOWN_PARAMETER: [&str; 10] = [
    "unrecognized request argument",
    "unrecognized argument",
    "unrecognized parameter",
    "unrecognized field",
    "unknown argument",
    "unknown parameter",
    "unknown field",
    "unsupported parameter",
    "unsupported field",
    "invalid parameter",
];

/// Phrases directly after the name of an unsupported parameter.
const UNSUPPORTED: [&str; 5] = [
    "extra inputs are not permitted",
    "extra fields not permitted",
    "is not supported",
    "is not permitted",
    "is deprecated",
];

/// Error codes for an unsupported parameter, which the body names in `param`.
const UNSUPPORTED_CODES: [&str; 3] = ["unsupported_parameter", "unknown_parameter", "unsupported_value"];

/// Returns the parameter that a message, in lower case, rejects by name.
///
/// No other parameters are ever omitted, because a request without its messages, model or safety settings has
/// another meaning.
pub(super) fn in_message(message: &str) -> Option<Parameter> {
    if contains_any(message, &SCHEMA_TOO_COMPLEX) {
        return Some(Parameter::ResponseFormat);
    }
    if let Some(parameter) = unknown_parameter(message) {
        return Some(parameter);
    }
    if !contains_any(message, &REJECTIONS) {
        return None;
    }
    let named = |name: &str| {
        mentions(message, name).any(|(before, after)| {
            let quoted =
                ["'", "`", "\""].iter().any(|mark| before.ends_with(mark) && after.starts_with(mark));
            quoted || after.starts_with(':')
        })
    };
    // The message may reject the value and not the name.
    let is_old = named("max_tokens") && message.contains("max_completion_tokens");
    if is_old || named("max_completion_tokens") || is_unsupported(message, "max_tokens") {
        return Some(Parameter::MaxTokens);
    }
    if named("temperature") {
        return Some(Parameter::Temperature);
    }
    if named("stream_options") {
        return Some(Parameter::StreamOptions);
    }
    if message.contains("encrypted content is not supported") {
        return Some(Parameter::EncryptedReasoning);
    }
    // An invalid schema is an error of this request, whatever the model supports.
    let of_schema = message.contains("schema for") || message.contains("invalid schema");
    // The responses format has another name for it.
    let is_format = message.contains("response_format") || named("text.format");
    (is_format && !of_schema).then_some(Parameter::ResponseFormat)
}

/// Returns the parameter that a body names in `param`, if its `code` or its message (in lower case) rejects it.
pub(super) fn in_field(param: &str, code: Option<&str>, message: &str) -> Option<Parameter> {
    let is_rejected = code.is_some_and(|code| UNSUPPORTED_CODES.contains(&code))
        || contains_any(message, &UNKNOWN_PARAMETER)
        || contains_any(message, &UNSUPPORTED);
    is_rejected.then(|| parameter_named(param)).flatten()
}

/// Returns the parameter of this name, if requests can omit it.
fn parameter_named(name: &str) -> Option<Parameter> {
    match name {
        "max_tokens" | "max_completion_tokens" => Some(Parameter::MaxTokens),
        "temperature" => Some(Parameter::Temperature),
        "stream_options" => Some(Parameter::StreamOptions),
        _ => None,
    }
}

/// Returns the first omittable parameter in the list of names after an "unknown parameter" phrase.
fn unknown_parameter(message: &str) -> Option<Parameter> {
    UNKNOWN_PARAMETER.iter().find_map(|phrase| {
        let (_, names) = message.split_once(phrase)?;
        let names = names.strip_prefix('s').unwrap_or(names).trim_start();
        let names = names.strip_prefix("supplied").unwrap_or(names);
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
        let mut words = names.split(|letter: char| !is_name(letter)).filter(|word| !word.is_empty());
        let is_list = |word: &&str| parameter_named(word.trim_end_matches('.')).is_some() || *word == "and";
        // A sentence follows the names.
        words.by_ref().take_while(is_list).find_map(|word| parameter_named(word.trim_end_matches('.')))
    })
}

/// Returns whether the parameter itself is rejected, and not its value.
fn is_unsupported(message: &str, name: &str) -> bool {
    mentions(message, name).any(|(_, after)| {
        let marks = ['\'', '`', '"', ':', ' ', ')', ']', ','];
        let after = after.trim_start_matches(marks);
        let after = after.strip_prefix("msg").unwrap_or(after).trim_start_matches(marks);
        UNSUPPORTED.iter().any(|phrase| after.starts_with(phrase))
    })
}

/// Returns the text before and after each mention of a name.
fn mentions<'a>(message: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    message
        .match_indices(name)
        .map(move |(at, _)| (&message[..at], &message[at + name.len()..]))
        .filter(move |(before, after)| !before.ends_with(is_name) && !after.starts_with(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_rejected_only_if_the_message_names_it() {
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
            // https://github.com/pydantic/pydantic-ai/issues/2865
            ("encrypted content is not supported with this model.", Some(Parameter::EncryptedReasoning)),
            (
                "invalid parameter: 'text.format' of type 'json_schema' is not supported with model version `gpt-4o`.",
                Some(Parameter::ResponseFormat),
            ),
            ("invalid schema for response_format 'answer': 'oneof' is not permitted.", None),
            (
                "schemas contains too many optional parameters (25), which would make grammar compilation inefficient.",
                Some(Parameter::ResponseFormat),
            ),
            (
                "unrecognized request argument supplied: stream_options. please contact us through an azure support request at: https://go.microsoft.com/fwlink/?linkid=2213926 for further questions.",
                Some(Parameter::StreamOptions),
            ),
            (
                "unrecognized request arguments supplied: temperature, stream_options",
                Some(Parameter::Temperature),
            ),
            ("unknown field: temperature", Some(Parameter::Temperature)),
            ("unknown parameter: 'stream_options'.", Some(Parameter::StreamOptions)),
            ("invalid parameter: max_tokens", Some(Parameter::MaxTokens)),
            ("max_tokens: extra inputs are not permitted", Some(Parameter::MaxTokens)),
            (
                "[{'type': 'extra_forbidden', 'loc': ('body', 'max_tokens'), 'msg': 'extra inputs are not permitted', 'input': 800}]",
                Some(Parameter::MaxTokens),
            ),
            ("body.max_tokens: extra inputs are not permitted", Some(Parameter::MaxTokens)),
            (
                "unsupported parameter: 'max_tokens' is not supported with this model.",
                Some(Parameter::MaxTokens),
            ),
            ("'max_tokens' of 65536 is not supported by this model", None),
            ("max_tokens must be less than or equal to 8192; larger values are unsupported", None),
            ("invalid parameter: the temperature is too high", None),
            ("prompt_max_tokens: extra inputs are not permitted", None),
            ("the temperature of the oven is not supported", None),
            ("'temperature' must be between 0 and 2", None),
        ] {
            assert_eq!(in_message(message), parameter, "{message}");
        }
    }

    #[test]
    fn parameters_that_carry_meaning_are_never_omitted() {
        for name in [
            "messages",
            "model",
            "stream",
            "system",
            "systeminstruction",
            "contents",
            "safetysettings",
            "safety_settings",
            "input_schema",
            "json_schema",
            "output_config",
            "prompt",
            "input",
        ] {
            for message in [
                format!("unrecognized request argument supplied: {name}"),
                format!("unknown field: {name}"),
                format!("unsupported parameter: '{name}' is not supported with this model."),
                format!("{name}: extra inputs are not permitted"),
                format!("`{name}` is deprecated for this model."),
            ] {
                assert_eq!(in_message(&message), None, "{message}");
                assert_eq!(in_field(name, Some("unsupported_parameter"), &message), None, "{message}");
            }
        }
    }

    #[test]
    fn a_parameter_in_the_param_field_is_rejected_if_the_message_or_the_code_rejects_it() {
        let cases = [
            ("temperature", Some("unsupported_parameter"), "no", Some(Parameter::Temperature)),
            ("temperature", None, "invalid parameter", Some(Parameter::Temperature)),
            ("stream_options", None, "extra inputs are not permitted", Some(Parameter::StreamOptions)),
            ("max_tokens", Some("unsupported_value"), "no", Some(Parameter::MaxTokens)),
            ("temperature", Some("invalid_value"), "must be at most 2", None),
            ("max_tokens", None, "max_tokens is too large: 99999", None),
        ];
        for (param, code, message, expected) in cases {
            assert_eq!(in_field(param, code, message), expected, "{param} {code:?} {message}");
        }
    }
}
