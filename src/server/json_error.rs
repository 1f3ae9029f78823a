//! Describes why a JSON body is not what a handler expects: which field is wrong, and in which way.
//!
//! The parser says at which byte it stopped. The field is found by reading the body again up to that byte.

use std::fmt::Write;

use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Parses a JSON body.
///
/// # Errors
/// 400, which names the field that is wrong.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = T::deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| problem(body, &error))
}

fn problem(body: &[u8], error: &serde_json::Error) -> Problem {
    if body.trim_ascii().is_empty() {
        return Problem::bad_request("the body is empty").with_advice("send a JSON object");
    }
    if !error.is_data() {
        return Problem::bad_request(format!("the body is not JSON: {error}"));
    }
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let mut field = field_at(body, offset(body, error));
    // These name the field themselves, and the parser has read its name only.
    if message.starts_with("unknown field") || message.starts_with("duplicate field") {
        field = parent(&field).to_owned();
    }
    let described = plain(message);
    Problem::bad_request(if field.is_empty() { described } else { format!("`{field}`: {described}") })
}

/// Returns the number of bytes that the parser had read.
fn offset(body: &[u8], error: &serde_json::Error) -> usize {
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    before.saturating_add(error.column()).min(body.len())
}

/// A part of the path to a value.
enum Segment {
    /// In an object, the field whose name was read last.
    Field(String),
    /// In a list, the number of the value.
    Index(usize),
}

/// Returns the path of the value at which the first `end` bytes of a JSON text end, such as `tools[0].name`.
fn field_at(json: &[u8], end: usize) -> String {
    let mut path: Vec<Segment> = Vec::new();
    let mut is_name_next = false;
    let mut at = 0;
    while at < end {
        match json[at] {
            b'{' => {
                path.push(Segment::Field(String::new()));
                is_name_next = true;
            }
            b'[' => {
                path.push(Segment::Index(0));
                is_name_next = false;
            }
            b'}' | b']' => {
                path.pop();
                is_name_next = false;
            }
            b',' => match path.last_mut() {
                Some(Segment::Index(index)) => *index += 1,
                Some(Segment::Field(_)) => is_name_next = true,
                None => {}
            },
            b'"' => {
                let after = string_end(json, at);
                if let Some(Segment::Field(name)) = path.last_mut().filter(|_| is_name_next) {
                    *name = serde_json::from_slice(&json[at..after]).unwrap_or_default();
                    is_name_next = false;
                }
                at = after;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    written(&path)
}

/// Returns the position after the string that begins at `start`.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() {
        match json[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    json.len()
}

fn written(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        // Writing to a string cannot fail.
        let _ = match segment {
            Segment::Field(name) if name.is_empty() => Ok(()),
            Segment::Field(name) if text.is_empty() => write!(text, "{name}"),
            Segment::Field(name) => write!(text, ".{name}"),
            Segment::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}

/// Returns the path without its last field.
fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// What a parser calls a type, and what a user calls it.
const TYPES: [(&str, &str); 13] = [
    ("a nonzero u64", "a whole number above 0"),
    ("a nonzero u32", "a whole number above 0"),
    ("u64", "a whole number from 0"),
    ("u32", "a whole number from 0"),
    ("usize", "a whole number from 0"),
    ("i64", "a whole number"),
    ("f64", "a number"),
    ("f32", "a number"),
    ("a boolean", "true or false"),
    ("a sequence", "a list"),
    ("a string", "a text"),
    ("a map", "an object"),
    ("unit", "null"),
];

/// Returns a message of the parser in the words of JSON.
fn plain(message: &str) -> String {
    // The parser accepts a list in place of an object, and counts its values.
    if message.starts_with("invalid length ") {
        return "a list is not an object".to_owned();
    }
    let found = ["invalid type: ", "invalid value: "].into_iter().find_map(|head| message.strip_prefix(head));
    let Some((found, expected)) = found.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let known = TYPES.iter().find(|(name, _)| *name == expected);
    let expected = match known {
        Some((_, name)) => name,
        None if expected.starts_with("struct ") => "an object",
        None => expected,
    };
    format!("{} is not {expected}", given(found))
}

/// Returns what the parser has found, in the words of JSON.
fn given(found: &str) -> String {
    let number =
        ["integer `", "floating point `", "boolean `"].into_iter().find_map(|kind| found.strip_prefix(kind));
    match found {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "number" => "a number".to_owned(),
        _ => match (number, found.strip_prefix("string ")) {
            (Some(number), _) => number.trim_end_matches('`').to_owned(),
            (None, Some(text)) => format!("the text {text}"),
            (None, None) => found.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Body {
        name: String,
        max: Option<u32>,
        rate: Option<NonZeroU64>,
        level: Option<Level>,
        is_on: Option<bool>,
        #[serde(default)]
        tools: Vec<Tool>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Level {
        Low,
        High,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Tool {
        name: String,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Inner {
        sizes: Vec<f64>,
    }

    fn said(body: &str) -> String {
        let problem = parse::<Body>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.status, 400);
        problem.detail.into()
    }

    #[test]
    fn a_wrong_type_names_the_field_and_what_is_expected() {
        for (body, expected) in [
            (r#"{"name": "a", "max": "ten"}"#, "`max`: the text \"ten\" is not a whole number from 0"),
            (
                r#"{"name": "a", "max": "a, \"b\": {", "rate": 1}"#,
                "`max`: the text \"a, \\\"b\\\": {\" is not a",
            ),
            (r#"{"name": ["a"]}"#, "`name`: a list is not a text"),
            (r#"{"name": {"max": 1}}"#, "`name`: an object is not a text"),
            (r#"{"name": null}"#, "`name`: null is not a text"),
            (r#"{"name": "a", "is_on": "yes"}"#, "`is_on`: the text \"yes\" is not true or false"),
            (
                r#"{"name": "a", "tools": [{"name": "b"}, {"name": false}]}"#,
                "`tools[1].name`: false is not a text",
            ),
            (r#"{"name": "a", "tools": {"name": "b"}}"#, "`tools`: an object is not a list"),
            (r#"{"name": "a", "tools": ["b"]}"#, "`tools[0]`: the text \"b\" is not an object"),
            (
                "{\"name\": \"a\",\n \"inner\": {\n\"sizes\": [1.5, \"x\"]}}",
                "`inner.sizes[1]`: the text \"x\" is not a number",
            ),
            (r#"{"name": "a", "level": "mid"}"#, "`level`: unknown variant `mid`"),
            (r#"["a"]"#, "a list is not an object"),
        ] {
            let detail = said(body);
            assert!(detail.starts_with(expected), "{body}: {detail}");
        }
        for body in
            [r#"{"name": "a", "rate": 0}"#, r#"{"name": "a", "max": -1}"#, r#"{"name": "a", "max": 1.5}"#]
        {
            let detail = said(body);
            assert!(detail.starts_with("`rate`: ") || detail.starts_with("`max`: "), "{detail}");
            assert!(!detail.contains("u32") && !detail.contains("u64"), "{detail}");
        }
    }

    #[test]
    fn a_missing_and_an_unknown_field_are_named_with_the_object_they_belong_to() {
        for (body, expected) in [
            ("{}", "missing field `name`"),
            (r#"{"nam": "a"}"#, "unknown field `nam`"),
            (r#"{"name": "a", "tools": [{}]}"#, "`tools[0]`: missing field `name`"),
            (r#"{"name": "a", "tools": [{"name": "b"}, {"x": 1}]}"#, "`tools[1]`: unknown field `x`"),
            (r#"{"name": "a", "name": "b"}"#, "duplicate field `name`"),
        ] {
            let detail = said(body);
            assert!(detail.starts_with(expected), "{body}: {detail}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_says_so() {
        assert_eq!(said(""), "the body is empty");
        assert_eq!(said(" \n"), "the body is empty");
        assert!(said("{").starts_with("the body is not JSON: "), "{}", said("{"));
        assert!(said("hello").starts_with("the body is not JSON: "), "{}", said("hello"));
        assert!(said(r#"{"name": "a"} x"#).starts_with("the body is not JSON: "));
    }

    #[test]
    fn any_beginning_of_a_text_has_a_path() {
        let json = br#"{"a\"}": [1, {"b": "\\"}, [[]]], "c": null}"#;
        for end in 0..=json.len() {
            field_at(json, end);
        }
        assert_eq!(field_at(json, json.len()), "");
        assert_eq!(field_at(br#"["x", "y"#, 8), "[1]");
    }
}
