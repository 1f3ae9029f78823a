//! Says serde's errors in the words of the file's author, with advice.

/// Splits an error's message into what is wrong and what to do. A message of our own types may hold
/// both, as `what is wrong; what to do`.
pub(super) fn explain(message: &str) -> (String, Option<String>) {
    if let Some((wrong, known)) = unknown(message) {
        let advice = match (closest(message), known.is_empty()) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, true) => "nothing can be set here".to_owned(),
            (None, false) => format!("known here: {}", known.join(", ")),
        };
        return (wrong, Some(advice));
    }
    if let Some((found, expected)) = mismatch(message) {
        return (format!("expected {}, found {}", thing(expected), thing(found)), None);
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return (format!("missing key {key}"), None);
    }
    match message.split_once("; ") {
        Some((wrong, advice)) => (wrong.to_owned(), Some(advice.to_owned())),
        None => (message.to_owned(), None),
    }
}

/// Reads "unknown field `x`, expected one of `a`, `b`".
fn unknown(message: &str) -> Option<(String, Vec<&str>)> {
    let (kind, rest) = ["field", "variant"]
        .into_iter()
        .find_map(|kind| Some((kind, message.strip_prefix("unknown ")?.strip_prefix(kind)?)))?;
    let (name, rest) = rest.strip_prefix(" `")?.split_once("`, ")?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((format!("unknown {} `{name}`", if kind == "field" { "key" } else { "value" }), known))
}

/// Reads "invalid type: string "x", expected u32".
fn mismatch(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    rest.rsplit_once(", expected ")
}

/// Translates what serde calls a kind of value.
fn thing(words: &str) -> &str {
    if words.starts_with("a nonzero ") {
        return "a whole number above 0";
    }
    if words.starts_with("struct ") {
        return "a table";
    }
    match words {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "map" | "a map" => "a table",
        "sequence" | "a sequence" => "a list",
        other => ["integer ", "floating point ", "boolean ", "string "]
            .into_iter()
            .find_map(|kind| other.strip_prefix(kind))
            .unwrap_or(other),
    }
}

/// Finds the name that was probably meant, in serde's "unknown field `x`, expected one of `a`, `b`".
fn closest(message: &str) -> Option<&str> {
    let (is, known) = message.strip_prefix("unknown ")?.split_once(", expected ")?;
    let wrong = is.split('`').nth(1)?;
    known
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_a_person_would_say_it() {
        let said = |message: &str| {
            let (wrong, advice) = explain(message);
            format!("{wrong}|{}", advice.unwrap_or_default())
        };
        for (message, plain) in [
            (
                "invalid type: string \"ten\", expected a nonzero u32",
                "expected a whole number above 0, found \"ten\"|",
            ),
            ("invalid value: integer `-1`, expected u32", "expected a whole number, 0 or more, found `-1`|"),
            ("invalid type: map, expected a sequence", "expected a list, found a table|"),
            ("invalid type: integer `3`, expected struct Limits", "expected a table, found `3`|"),
            ("unknown field `nmae`, expected `name` or `price`", "unknown key `nmae`|did you mean `name`?"),
            ("unknown field `zzz`, expected `name` or `price`", "unknown key `zzz`|known here: name, price"),
            ("unknown variant `gpt`, expected `openai`", "unknown value `gpt`|known here: openai"),
            ("no duration; write 30s", "no duration|write 30s"),
            ("anything else", "anything else|"),
        ] {
            assert_eq!(said(message), plain, "{message}");
        }
    }
}
