//! Extracts the JSON value from a model's response.
//!
//! A code fence and prose around one value are removed. An invalid value is not repaired, and no value inside it
//! is used: a truncated response must not be accepted as complete.

use serde_json::{Deserializer, Value};

use crate::source::json_limits;

/// Maximum number of citations that are skipped in one text, because each requires reading its line.
const MAX_CITATIONS: usize = 1_000;

/// Returns the value that `text` consists of, or the only object or array in it.
///
/// # Errors
/// Why there is none, in words for the model.
pub(super) fn extract(text: &str) -> Result<Value, String> {
    let text = without_fence(text.trim());
    if text.starts_with(|first: char| "{[-".contains(first) || first.is_ascii_digit()) {
        check_limits(text)?;
    }
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let Some(start) = first_value_start(text) else {
        return Err(format!("it is not JSON ({error})"));
    };
    check_limits(&text[start..])?;
    let mut values = Deserializer::from_str(&text[start..]).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => match text[start + values.byte_offset()..].contains(['{', '[', '}', ']']) {
            true => Err("it contains more than one JSON value".to_owned()),
            false => Ok(value),
        },
        Some(Err(error)) => Err(format!("its JSON is invalid ({error})")),
        None => Err(format!("it is not JSON ({error})")),
    }
}

/// Checks the size and nesting of the value at the start of a text, before it is parsed.
fn check_limits(text: &str) -> Result<(), String> {
    json_limits::check(text.as_bytes()).map_err(|excess| format!("its JSON {excess}"))
}

/// Returns the position of the first object or array that is not a citation.
fn first_value_start(text: &str) -> Option<usize> {
    let mut from = 0;
    for _ in 0..=MAX_CITATIONS {
        let start = from + text[from..].find(['{', '['])?;
        match citation_end(text, start) {
            Some(end) => from = end,
            None => return Some(start),
        }
    }
    None
}

/// Returns the end of a citation such as `[2]` or `[1, 3]` that begins at `start`: numbers, or nothing, in
/// brackets within a line of prose. An array on its own line is not a citation.
fn citation_end(text: &str, start: usize) -> Option<usize> {
    let inside = text[start..].strip_prefix('[')?;
    let length = inside.find(|letter: char| !letter.is_ascii_digit() && !", -–".contains(letter))?;
    let rest = inside[length..].strip_prefix(']')?;
    let before = text[..start].lines().next_back().filter(|_| !text[..start].ends_with('\n'));
    let is_prose = |line: Option<&str>| line.is_some_and(|line| line.chars().any(char::is_alphanumeric));
    let is_in_prose = is_prose(before) || is_prose(rest.lines().next());
    is_in_prose.then(|| text.len() - rest.len())
}

/// Removes a code fence, with its language, if it encloses the whole text.
pub(super) fn without_fence(text: &str) -> &str {
    let inside = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let Some(inside) = inside else { return text };
    let is_language = |line: &str| line.trim().chars().all(|letter| letter.is_ascii_alphanumeric());
    match inside.split_once('\n') {
        Some((first, rest)) if is_language(first) => rest.trim(),
        _ => inside.trim(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_extracted_without_and_with_a_fence_and_from_prose() {
        for text in [
            r#"["a", 1]"#,
            "\n```json\n[\"a\", 1]\n```\n",
            "```\n[\"a\", 1]```",
            "Here you are:\n```json\n[\"a\", 1]\n```\nAnything else?",
            "The list is [\"a\", 1].",
        ] {
            assert_eq!(extract(text), Ok(json!(["a", 1])), "{text}");
        }
        assert_eq!(extract("```json\n42\n```"), Ok(json!(42)));
        assert_eq!(extract("\"yes\""), Ok(json!("yes")));
    }

    #[test]
    fn no_value_two_values_and_a_truncated_value_are_refused() {
        for text in [
            "",
            "I cannot do that.",
            "[1] or [2]",
            r#"{"items": ["a", "b"], "total":"#,
            r#"Sure: {"items": ["a", "b"]"#,
            r#"{"a": 1}}"#,
            "```json\n[1, 2\n```",
            "42 is the answer",
        ] {
            assert!(extract(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_citation_in_prose_is_not_json() {
        for text in
            ["As [2] shows, it is late.", "See [1, 3].", "It is late [2]", "[1] Smith, 1999", "- [ ] call"]
        {
            assert!(extract(text).is_err(), "{text}");
        }
        assert_eq!(extract("As [2] shows:\n[1, 2]\nThat is all."), Ok(json!([1, 2])));
        assert_eq!(extract("As [2] shows: {\"a\": [7]}"), Ok(json!({ "a": [7] })));
        assert_eq!(extract("[2]"), Ok(json!([2])));
    }

    #[test]
    fn the_refusal_of_a_value_names_the_exceeded_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(extract(&nested(100)).is_ok());
        assert_eq!(extract(&nested(101)).unwrap_err(), "its JSON is nested deeper than 100 levels");
        assert_eq!(extract(&nested(1_000_000)).unwrap_err(), "its JSON is nested deeper than 100 levels");
        let long = format!("Here: [{}]", vec!["true"; 1_000_000].join(","));
        assert_eq!(extract(&long).unwrap_err(), "its JSON holds more than 1000000 values");
    }

    #[test]
    #[cfg(feature = "exact-numbers")]
    fn an_integer_of_any_length_stays_as_it_is_written() {
        let text = r#"{"account":123456789012345678901234567890,"debt":-98765432109876543210}"#;
        assert_eq!(extract(text).unwrap().to_string(), text);
        assert_eq!(
            extract("123456789012345678901234567890").unwrap().to_string(),
            "123456789012345678901234567890"
        );
    }

    #[test]
    fn a_number_out_of_range_is_refused() {
        for text in ["1e999", "The sum: {\"a\": 1e999999999}"] {
            assert!(extract(text).unwrap_err().contains("out of range"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_truncated_object_is_accepted(words in proptest::collection::vec("\\PC{0,8}", 1..5), cut in 0.0_f64..1.0) {
            let whole = json!({ "list": words, "more": { "n": [1, 2] } }).to_string();
            let mut end = (whole.len() as f64 * cut) as usize;
            while !whole.is_char_boundary(end) {
                end -= 1;
            }
            prop_assert!(extract(&whole[..end]).is_err());
            prop_assert!(extract(&whole).is_ok());
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in "\\PC{0,60}") {
            // Only a panic would fail this test.
            let _ = extract(&text);
        }
    }
}
