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

/// What is said before the bare name of a parameter that is not known, or before a list of such names.
const UNKNOWN: [&str; 10] = [
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

/// What is said directly behind the name of a parameter that is not taken.
const NOT_TAKEN: [&str; 5] = [
    "extra inputs are not permitted",
    "extra fields not permitted",
    "is not supported",
    "is not permitted",
    "is deprecated",
];

/// Codes of a parameter that is not taken, which the body names in its `param`.
const CODES: [&str; 3] = ["unsupported_parameter", "unknown_parameter", "unsupported_value"];

/// Returns the parameter that a message, in small letters, refuses by its name.
///
/// No others are ever left out: a request without its messages, its model or its safety settings is another request.
pub(super) fn refused(message: &str) -> Option<Parameter> {
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    if any(&TOO_COMPLEX) {
        return Some(Parameter::ResponseFormat);
    }
    if let Some(parameter) = unknown(message) {
        return Some(parameter);
    }
    if !any(&REFUSED) {
        return None;
    }
    let named = |name: &str| {
        mentions(message, name).any(|(before, after)| {
            let quoted =
                ["'", "`", "\""].iter().any(|mark| before.ends_with(mark) && after.starts_with(mark));
            quoted || after.starts_with(':')
        })
    };
    // Its limit may be what is refused, and not its name.
    let is_old = named("max_tokens") && message.contains("max_completion_tokens");
    if is_old || named("max_completion_tokens") || is_not_taken(message, "max_tokens") {
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

/// Returns the parameter that a body names beside its message and that its `code`, or its message in small letters, does
/// not take.
pub(super) fn refused_by_field(param: &str, code: Option<&str>, message: &str) -> Option<Parameter> {
    let says_so = code.is_some_and(|code| CODES.contains(&code))
        || UNKNOWN.iter().chain(&NOT_TAKEN).any(|phrase| message.contains(phrase));
    says_so.then(|| of_name(param)).flatten()
}

/// Returns the parameter of this name, where requests can do without it.
fn of_name(name: &str) -> Option<Parameter> {
    match name {
        "max_tokens" | "max_completion_tokens" => Some(Parameter::MaxTokens),
        "temperature" => Some(Parameter::Temperature),
        "stream_options" => Some(Parameter::StreamOptions),
        _ => None,
    }
}

/// Returns the first parameter of the names behind the words that none of them is known.
fn unknown(message: &str) -> Option<Parameter> {
    UNKNOWN.iter().find_map(|phrase| {
        let (_, names) = message.split_once(phrase)?;
        let names = names.strip_prefix('s').unwrap_or(names).trim_start();
        let names = names.strip_prefix("supplied").unwrap_or(names);
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
        let mut words = names.split(|letter: char| !is_name(letter)).filter(|word| !word.is_empty());
        let is_list = |word: &&str| of_name(word.trim_end_matches('.')).is_some() || *word == "and";
        // What follows the names is a sentence.
        words.by_ref().take_while(is_list).find_map(|word| of_name(word.trim_end_matches('.')))
    })
}

/// Returns whether a parameter itself is refused, and not its value.
fn is_not_taken(message: &str, name: &str) -> bool {
    mentions(message, name).any(|(_, after)| {
        let marks = ['\'', '`', '"', ':', ' ', ')', ']', ','];
        let after = after.trim_start_matches(marks);
        let after = after.strip_prefix("msg").unwrap_or(after).trim_start_matches(marks);
        NOT_TAKEN.iter().any(|phrase| after.starts_with(phrase))
    })
}

/// Returns what stands before and behind each mention of a name.
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
            assert_eq!(refused(message), parameter, "{message}");
        }
    }

    #[test]
    fn what_a_request_means_is_never_left_out() {
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
                assert_eq!(refused(&message), None, "{message}");
                assert_eq!(
                    refused_by_field(name, Some("unsupported_parameter"), &message),
                    None,
                    "{message}"
                );
            }
        }
    }

    #[test]
    fn a_parameter_that_is_named_beside_the_message_is_refused_where_the_message_or_the_code_says_so() {
        let cases = [
            ("temperature", Some("unsupported_parameter"), "no", Some(Parameter::Temperature)),
            ("temperature", None, "invalid parameter", Some(Parameter::Temperature)),
            ("stream_options", None, "extra inputs are not permitted", Some(Parameter::StreamOptions)),
            ("max_tokens", Some("unsupported_value"), "no", Some(Parameter::MaxTokens)),
            ("temperature", Some("invalid_value"), "must be at most 2", None),
            ("max_tokens", None, "max_tokens is too large: 99999", None),
        ];
        for (param, code, message, expected) in cases {
            assert_eq!(refused_by_field(param, code, message), expected, "{param} {code:?} {message}");
        }
    }
}
