//! Says serde's and TOML's errors in the words of the file's author, with advice.
//!
//! Both libraries give the kind of an error as text alone. The texts are read here and nowhere else.

use toml::de::DeValue;

use super::instead::{instead, show};
use super::nearest::{called_elsewhere, nearest};

/// How the library hands on a date where a table is read.
const DATE: &str = "$__toml_private";

/// What stands where an error was found, as far as it is known.
#[derive(Default)]
pub(super) struct About<'a> {
    /// The key that it stands under; `None` in a list.
    pub(super) key: Option<String>,
    /// What is written.
    pub(super) value: Option<&'a DeValue<'a>>,
    /// The words that can stand there, or the keys of the table that can.
    pub(super) known: Vec<String>,
    /// The heading of the table where the unknown key would be known.
    pub(super) home: Option<String>,
}

/// Splits an error's message into what is wrong and what to do. A message of our own types may hold
/// both, as `what is wrong; what to do`.
pub(super) fn explain(message: &str, about: &About<'_>) -> (String, Option<String>) {
    if let Some((_, _, known)) = unknown(message).filter(|(_, name, _)| name.starts_with(DATE)) {
        let advice = format!("it may be a table with any of {}", known.join(", "));
        return ("a date stands where none can".to_owned(), Some(advice));
    }
    if let Some((kind, wrong, known)) = unknown(message) {
        return (format!("unknown {kind} `{wrong}`"), Some(advise_unknown(wrong, &known, about)));
    }
    if wants_a_word(message) || message.starts_with("wanted exactly 1 element") {
        return instead("one word of a list", about);
    }
    if let Some((found, expected)) = mismatch(message) {
        let (wrong, advice) = instead(expected, about);
        return match about.value {
            Some(_) => (wrong, advice),
            None => (format!("{wrong}, found {}", thing(found)), advice),
        };
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        let bare = key.trim_matches('`');
        return (format!("missing key {key}"), Some(format!("add `{bare} = ...` here")));
    }
    match message.split_once("; ") {
        Some((wrong, advice)) => (wrong.to_owned(), Some(advice.to_owned())),
        None => (message.to_owned(), None),
    }
}

/// Says what to do about a text that is no TOML.
pub(super) fn advise_syntax(message: &str) -> Option<&'static str> {
    const ADVICE: [(&str, &str); 12] = [
        ("cannot extend value", "this key has a value already, to which a heading cannot add: take one out"),
        ("string values must be quoted", "text stands in quotes, a number has no unit and is whole here"),
        ("duplicate key", "take one of the two out, or write all of its keys under one heading"),
        ("invalid unquoted key", "write KEY = VALUE, with an equals sign"),
        ("key with no value", "write KEY = VALUE, with an equals sign"),
        (
            "invalid key-value pair",
            "write KEY = VALUE, or a heading such as [provider.NAME]; this file is TOML",
        ),
        ("unexpected key or value", "each key has a line of its own, and a number no comma: 1_000"),
        ("invalid boolean", "write true or false, in small letters"),
        ("missing comma", "put a comma before it"),
        ("unclosed array", "close the list with ]"),
        ("unclosed table", "close the heading with ]"),
        ("invalid basic string", "close the text with a quote on the same line"),
    ];
    ADVICE.into_iter().find_map(|(says, advice)| message.starts_with(says).then_some(advice))
}

fn advise_unknown(wrong: &str, known: &[&str], about: &About<'_>) -> String {
    if let Some(meant) = nearest(wrong, known.iter().copied()).or_else(|| called_elsewhere(wrong, known)) {
        return format!("did you mean `{meant}`?");
    }
    match (&about.home, known.is_empty()) {
        (Some(home), _) => format!("it belongs under [{home}]"),
        (None, true) => "nothing can be set here".to_owned(),
        (None, false) => format!("known here: {}", known.join(", ")),
    }
}

/// Reads "unknown field `x`, expected one of `a`, `b`": of what kind, which, and what is known.
pub(super) fn unknown(message: &str) -> Option<(&'static str, &str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown ")?;
    let kinds = [("field", "key"), ("variant", "value")];
    let (kind, rest) = kinds.into_iter().find_map(|(kind, ours)| Some((ours, rest.strip_prefix(kind)?)))?;
    let (name, rest) = rest.strip_prefix(" `")?.split_once("`, ")?;
    Some((kind, name, rest.split('`').skip(1).step_by(2).collect()))
}

/// Reads "invalid type: string "x", expected u32".
pub(super) fn mismatch(message: &str) -> Option<(&str, &str)> {
    let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
    let rest = kinds.into_iter().find_map(|kind| message.strip_prefix(kind))?;
    rest.split_once(", expected ")
        .filter(|_| !rest.starts_with("string "))
        .or_else(|| rest.rsplit_once(", expected "))
}

/// Returns whether one word of a list was wanted.
pub(super) fn wants_a_word(message: &str) -> bool {
    message.starts_with("wanted string or table")
}

/// Returns whether a table was wanted.
pub(super) fn wants_a_table(message: &str) -> bool {
    mismatch(message).is_some_and(|(_, wanted)| wanted.starts_with("struct ") || wanted.ends_with("map"))
}

/// Translates what serde calls a value.
fn thing(words: &str) -> &str {
    match words {
        "map" | "a map" => "a table",
        "sequence" | "a sequence" => "a list",
        other => ["integer ", "floating point ", "boolean ", "string "]
            .into_iter()
            .find_map(|kind| other.strip_prefix(kind))
            .unwrap_or(other),
    }
}

/// Returns how a value is called in a sentence.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
        other => format!("`{}`", show(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_a_person_would_say_it() {
        let said = |message: &str| {
            let (wrong, advice) = explain(message, &About::default());
            format!("{wrong}|{}", advice.unwrap_or_default())
        };
        for (message, plain) in [
            ("unknown field `nmae`, expected `name` or `price`", "unknown key `nmae`|did you mean `name`?"),
            ("unknown field `zzz`, expected `name` or `price`", "unknown key `zzz`|known here: name, price"),
            ("unknown field `api_key`, expected `keys`", "unknown key `api_key`|did you mean `keys`?"),
            ("unknown variant `gpt`, expected `openai`", "unknown value `gpt`|known here: openai"),
            ("missing field `lane`", "missing key `lane`|add `lane = ...` here"),
            (
                "unknown field `$__toml_private_datetime`, expected `min` or `max`",
                "a date stands where none can|it may be a table with any of min, max",
            ),
            ("no duration; write 30s", "no duration|write 30s"),
            ("anything else", "anything else|"),
        ] {
            assert_eq!(said(message), plain, "{message}");
        }
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is read, and refused")]
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
    fn the_libraries_say_what_is_read_here() {
        let says = |text: &str| toml::from_str::<Table>(text).unwrap_err().message().to_owned();
        let one = "word = \"one\"\n";
        assert_eq!(
            unknown(&says(&format!("{one}wrd = 1"))),
            Some(("key", "wrd", vec!["word", "count", "inner"]))
        );
        assert_eq!(unknown(&says("word = \"three\"")), Some(("value", "three", vec!["one", "two"])));
        assert_eq!(mismatch(&says(&format!("{one}count = true"))), Some(("boolean `true`", "u32")));
        assert!(wants_a_table(&says(&format!("{one}inner = true"))));
        assert!(toml::from_str::<Table>("true").is_err());
        assert!(wants_a_word(&says("word = true")), "{}", says("word = true"));
        assert_eq!(says("count = 1"), "missing field `word`");
    }

    #[test]
    fn what_is_no_toml_comes_with_advice() {
        for message in ["string values must be quoted, expected literal string", "duplicate key"] {
            assert!(advise_syntax(message).is_some(), "{message}");
        }
        assert_eq!(advise_syntax("something new"), None);
    }
}
