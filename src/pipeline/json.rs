//! Finds the JSON value in a model's answer.
//!
//! Takes off a code fence and words around one value. Never mends a value and never looks for one
//! inside another that is broken: a cut answer must not pass for a whole one.

use serde_json::{Deserializer, Value};

use crate::source::extent;

/// Most citations that are passed over in one text, as each costs a look at its line.
const MAX_CITATIONS: usize = 1_000;

/// Returns the value that `text` consists of, or the one object or array in it.
///
/// # Errors
/// Why there is none, in words for the model.
pub(super) fn find(text: &str) -> Result<Value, String> {
    let text = without_fence(text.trim());
    if text.starts_with(|first: char| "{[-".contains(first) || first.is_ascii_digit()) {
        within_limits(text)?;
    }
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let Some(start) = first_value(text) else {
        return Err(format!("it is no JSON ({error})"));
    };
    within_limits(&text[start..])?;
    let mut values = Deserializer::from_str(&text[start..]).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => match text[start + values.byte_offset()..].contains(['{', '[', '}', ']']) {
            true => Err("it holds more than one JSON value".to_owned()),
            false => Ok(value),
        },
        Some(Err(error)) => Err(format!("its JSON is broken ({error})")),
        None => Err(format!("it is no JSON ({error})")),
    }
}

/// Checks the value that a text begins with, before anything is built from it.
fn within_limits(text: &str) -> Result<(), String> {
    extent::check(text.as_bytes()).map_err(|excess| format!("its JSON {excess}"))
}

/// Returns where the first object or array begins that is no citation.
fn first_value(text: &str) -> Option<usize> {
    let mut from = 0;
    for _ in 0..=MAX_CITATIONS {
        let start = from + text[from..].find(['{', '['])?;
        match citation(text, start) {
            Some(end) => from = end,
            None => return Some(start),
        }
    }
    None
}

/// Returns the end of a citation such as `[2]` or `[1, 3]` that begins at `start`: numbers, or nothing, in brackets
/// within a line of prose. An array on a line of its own is none.
fn citation(text: &str, start: usize) -> Option<usize> {
    let inside = text[start..].strip_prefix('[')?;
    let length = inside.find(|letter: char| !letter.is_ascii_digit() && !", -–".contains(letter))?;
    let rest = inside[length..].strip_prefix(']')?;
    let before = text[..start].lines().next_back().filter(|_| !text[..start].ends_with('\n'));
    let is_prose = |line: Option<&str>| line.is_some_and(|line| line.chars().any(char::is_alphanumeric));
    let is_within = is_prose(before) || is_prose(rest.lines().next());
    is_within.then(|| text.len() - rest.len())
}

/// Takes off a fence of backticks, with its language, when it holds the whole text.
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
    fn a_value_is_found_bare_fenced_and_among_words() {
        for text in [
            r#"["a", 1]"#,
            "\n```json\n[\"a\", 1]\n```\n",
            "```\n[\"a\", 1]```",
            "Here you are:\n```json\n[\"a\", 1]\n```\nAnything else?",
            "The list is [\"a\", 1].",
        ] {
            assert_eq!(find(text), Ok(json!(["a", 1])), "{text}");
        }
        assert_eq!(find("```json\n42\n```"), Ok(json!(42)));
        assert_eq!(find("\"yes\""), Ok(json!("yes")));
    }

    #[test]
    fn no_value_two_values_and_a_cut_value_are_refused() {
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
            assert!(find(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_citation_in_prose_is_no_json() {
        for text in
            ["As [2] shows, it is late.", "See [1, 3].", "It is late [2]", "[1] Smith, 1999", "- [ ] call"]
        {
            assert!(find(text).is_err(), "{text}");
        }
        assert_eq!(find("As [2] shows:\n[1, 2]\nThat is all."), Ok(json!([1, 2])));
        assert_eq!(find("As [2] shows: {\"a\": [7]}"), Ok(json!({ "a": [7] })));
        assert_eq!(find("[2]"), Ok(json!([2])));
    }

    #[test]
    fn a_value_that_is_nested_too_deeply_or_holds_too_many_is_refused_by_name() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(find(&nested(100)).is_ok());
        assert_eq!(find(&nested(101)).unwrap_err(), "its JSON is nested deeper than 100 levels");
        assert_eq!(find(&nested(1_000_000)).unwrap_err(), "its JSON is nested deeper than 100 levels");
        let long = format!("Here: [{}]", vec!["true"; 1_000_000].join(","));
        assert_eq!(find(&long).unwrap_err(), "its JSON holds more than 1000000 values");
    }

    #[test]
    #[cfg(feature = "exact-numbers")]
    fn a_whole_number_of_any_length_stays_as_it_is_written() {
        let text = r#"{"account":123456789012345678901234567890,"debt":-98765432109876543210}"#;
        assert_eq!(find(text).unwrap().to_string(), text);
        assert_eq!(
            find("123456789012345678901234567890").unwrap().to_string(),
            "123456789012345678901234567890"
        );
    }

    #[test]
    fn a_number_out_of_range_is_refused() {
        for text in ["1e999", "The sum: {\"a\": 1e999999999}"] {
            assert!(find(text).unwrap_err().contains("out of range"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_cut_object_is_ever_accepted(words in proptest::collection::vec("\\PC{0,8}", 1..5), cut in 0.0_f64..1.0) {
            let whole = json!({ "list": words, "more": { "n": [1, 2] } }).to_string();
            let mut end = (whole.len() as f64 * cut) as usize;
            while !whole.is_char_boundary(end) {
                end -= 1;
            }
            prop_assert!(find(&whole[..end]).is_err());
            prop_assert!(find(&whole).is_ok());
        }

        #[test]
        fn any_text_can_be_searched(text in "\\PC{0,60}") {
            let _ = find(&text);
        }
    }
}
