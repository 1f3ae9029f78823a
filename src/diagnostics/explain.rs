//! Translates the error messages of serde and of the TOML parser into terms of the file's author, with help.
//!
//! Both libraries report the kind of an error only as text. Only this file parses these texts.

use super::did_you_mean::{alias_of, nearest};
use super::error_context::ErrorContext;
use super::explained::explained;
use super::renamed::renamed;
use super::suggest::{ENUM_VALUE, suggest};

/// Prefix of the field name with which `toml` passes a date to a struct.
const DATE_FIELD: &str = "$__toml_private";

/// Translates an error message into a message and help. A message of our own types may contain both, as
/// `message; help`.
pub(super) fn explain(message: &str, context: &ErrorContext<'_>) -> (String, Option<String>) {
    if let Some((_, _, accepted)) = parse_unknown(message).filter(|(_, name, _)| name.starts_with(DATE_FIELD))
    {
        let help = format!("write a table with any of {}", accepted.join(", "));
        return ("a date is not allowed here".to_owned(), Some(help));
    }
    if let Some((kind, wrong, accepted)) = parse_unknown(message) {
        return (format!("unknown {kind} `{wrong}`"), Some(unknown_name_help(wrong, &accepted, context)));
    }
    if expects_enum_value(message) || message.starts_with("wanted exactly 1 element") {
        return suggest(ENUM_VALUE, context);
    }
    if let Some((found, expected)) = parse_mismatch(message) {
        let (error, help) = suggest(expected, context);
        return match context.value {
            Some(_) => (error, help),
            None => (format!("{error}, found {}", serde_type_name(found)), help),
        };
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        let name = key.trim_matches('`');
        return (format!("missing key {key}"), Some(format!("add `{name} = ...` here")));
    }
    match message.split_once("; ") {
        Some((error, help)) => (error.to_owned(), Some(help.to_owned())),
        None => (message.to_owned(), None),
    }
}

/// Returns help for a syntax error of the TOML parser.
pub(super) fn syntax_help(message: &str) -> Option<&'static str> {
    const HELP: [(&str, &str); 12] = [
        (
            "cannot extend value",
            "this key already has a value that a table header cannot extend: remove one of them",
        ),
        (
            "string values must be quoted",
            "put text in quotes; write a number as a whole number without a unit",
        ),
        ("duplicate key", "remove one of the two, or write all keys of the table under one header"),
        ("invalid unquoted key", "write KEY = VALUE, with an equals sign"),
        ("key with no value", "write KEY = VALUE, with an equals sign"),
        (
            "invalid key-value pair",
            "write KEY = VALUE, or a table header such as [provider.NAME]; this file is TOML",
        ),
        ("unexpected key or value", "each key has a line of its own; write numbers without a comma: 1_000"),
        ("invalid boolean", "write true or false, in lower case"),
        ("missing comma", "put a comma before this"),
        ("unclosed array", "close the list with ]"),
        ("unclosed table", "close the table header with ]"),
        ("invalid basic string", "close the string with a quote on the same line"),
    ];
    HELP.into_iter().find_map(|(prefix, help)| message.starts_with(prefix).then_some(help))
}

fn unknown_name_help(wrong: &str, accepted: &[&str], context: &ErrorContext<'_>) -> String {
    if let Some(new) = renamed(wrong, accepted) {
        return format!("`{wrong}` is now called `{new}`");
    }
    if let Some(help) = explained(wrong, accepted) {
        return help.to_owned();
    }
    if let Some(meant) = nearest(wrong, accepted.iter().copied()).or_else(|| alias_of(wrong, accepted)) {
        return format!("did you mean `{meant}`?");
    }
    match (&context.accepting_table, accepted.is_empty()) {
        (Some(table), _) => format!("it belongs under [{table}]"),
        (None, true) => "nothing can be set here".to_owned(),
        (None, false) => format!("known here: {}", accepted.join(", ")),
    }
}

/// Parses "unknown field `x`, expected one of `a`, `b`" into the kind, the unknown name and the accepted names.
pub(super) fn parse_unknown(message: &str) -> Option<(&'static str, &str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown ")?;
    let kinds = [("field", "key"), ("variant", "value")];
    let (kind, rest) =
        kinds.into_iter().find_map(|(serde_kind, kind)| Some((kind, rest.strip_prefix(serde_kind)?)))?;
    let (name, rest) = rest.strip_prefix(" `")?.split_once("`, ")?;
    Some((kind, name, rest.split('`').skip(1).step_by(2).collect()))
}

/// Parses "invalid type: string "x", expected u32" into what was found and what was expected.
pub(super) fn parse_mismatch(message: &str) -> Option<(&str, &str)> {
    let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
    let rest = kinds.into_iter().find_map(|kind| message.strip_prefix(kind))?;
    rest.split_once(", expected ")
        .filter(|_| !rest.starts_with("string "))
        .or_else(|| rest.rsplit_once(", expected "))
}

/// Returns whether serde expected an enum value.
pub(super) fn expects_enum_value(message: &str) -> bool {
    message.starts_with("wanted string or table")
}

/// Returns whether serde expected a table.
pub(super) fn expects_table(message: &str) -> bool {
    parse_mismatch(message)
        .is_some_and(|(_, expected)| expected.starts_with("struct ") || expected.ends_with("map"))
}

/// Returns the TOML term for a value that serde describes as `words`.
fn serde_type_name(words: &str) -> &str {
    match words {
        "map" | "a map" => "a table",
        "sequence" | "a sequence" => "a list",
        other => ["integer ", "floating point ", "boolean ", "string "]
            .into_iter()
            .find_map(|kind| other.strip_prefix(kind))
            .unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_errors_are_translated_into_plain_messages_with_help() {
        let explained = |message: &str| {
            let (error, help) = explain(message, &ErrorContext::default());
            format!("{error}|{}", help.unwrap_or_default())
        };
        for (message, expected) in [
            ("unknown field `nmae`, expected `name` or `price`", "unknown key `nmae`|did you mean `name`?"),
            ("unknown field `zzz`, expected `name` or `price`", "unknown key `zzz`|known here: name, price"),
            ("unknown field `api_key`, expected `keys`", "unknown key `api_key`|did you mean `keys`?"),
            ("unknown variant `gpt`, expected `openai`", "unknown value `gpt`|known here: openai"),
            ("missing field `target`", "missing key `target`|add `target = ...` here"),
            (
                "unknown field `$__toml_private_datetime`, expected `min` or `max`",
                "a date is not allowed here|write a table with any of min, max",
            ),
            ("not a duration; write 30s", "not a duration|write 30s"),
            ("anything else", "anything else|"),
        ] {
            assert_eq!(explained(message), expected, "{message}");
        }
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only deserialized, to get errors")]
    struct Table {
        word: Word,
        #[serde(default)]
        count: u32,
        #[serde(default)]
        inner: std::collections::BTreeMap<String, u32>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        One,
        Two,
    }

    #[test]
    fn the_libraries_still_write_the_messages_that_are_parsed_here() {
        let message = |text: &str| toml::from_str::<Table>(text).unwrap_err().message().to_owned();
        let one = "word = \"one\"\n";
        assert_eq!(
            parse_unknown(&message(&format!("{one}wrd = 1"))),
            Some(("key", "wrd", vec!["word", "count", "inner"]))
        );
        assert_eq!(parse_unknown(&message("word = \"three\"")), Some(("value", "three", vec!["one", "two"])));
        assert_eq!(parse_mismatch(&message(&format!("{one}count = true"))), Some(("boolean `true`", "u32")));
        assert!(expects_table(&message(&format!("{one}inner = true"))));
        assert!(toml::from_str::<Table>("true").is_err());
        assert!(expects_enum_value(&message("word = true")), "{}", message("word = true"));
        assert_eq!(message("count = 1"), "missing field `word`");
    }

    #[test]
    fn a_syntax_error_has_help() {
        for message in ["string values must be quoted, expected literal string", "duplicate key"] {
            assert!(syntax_help(message).is_some(), "{message}");
        }
        assert_eq!(syntax_help("something new"), None);
    }
}
