//! Reads the short form of a schema, such as `name, age int, tags list`.
//!
//! It is one field per comma, or per line if there are several lines: a name, a type and a description after a colon.
//! Without a type a field is a text. Every field is required, and there are no others.

use serde_json::{Map, Value, json};

use crate::diagnostics::nearest;

/// The types, with what they are called.
const TYPES: [(&str, &[&str]); 5] = [
    ("string", &["text", "str", "string"]),
    ("integer", &["int", "integer"]),
    ("number", &["number", "float"]),
    ("boolean", &["bool", "boolean"]),
    ("array", &["list"]),
];

/// A text that is not a schema in the short form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShortSchemaError {
    /// There is no field.
    #[error("the schema has no fields; write their names, such as `name, age int, tags list`")]
    Empty,
    /// A part is not a field.
    #[error("{0:?} is not a field; write a name, such as `age`, and then its type, such as `int`")]
    Field(String),
    /// A name has other characters than those of a name.
    #[error(
        "{0:?} is not the name of a field; it has letters, digits, `_` and `-`, and begins with a letter or `_`"
    )]
    Name(String),
    /// A name is there twice.
    #[error("the field {0:?} is there twice")]
    Repeated(String),
    /// A type is not known.
    #[error(
        "{name:?} has the type {found:?}; a name is one word, and the types are text, int, number, bool and list{}",
        suggestion(.nearest)
    )]
    Type {
        /// The name of the field.
        name: String,
        /// What is written as its type.
        found: String,
        /// The type that is written most like it.
        nearest: Option<&'static str>,
    },
}

fn suggestion(nearest: &Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default()
}

/// Returns the JSON schema for its short form.
///
/// ```
/// let schema = pointsman::short_schema("name, age int, tags list")?;
/// assert_eq!(schema["properties"]["age"]["type"], "integer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first part that is not a field.
pub fn short_schema(text: &str) -> Result<Value, ShortSchemaError> {
    let text = text.trim();
    let separator = if text.contains('\n') { '\n' } else { ',' };
    let mut properties = Map::new();
    for part in text.split(separator) {
        let part = part.trim().trim_end_matches(',');
        // After the last comma there may be nothing.
        if part.is_empty() {
            continue;
        }
        let (name, schema) = field(part)?;
        if properties.insert(name.to_owned(), schema).is_some() {
            return Err(ShortSchemaError::Repeated(name.to_owned()));
        }
    }
    if properties.is_empty() {
        return Err(ShortSchemaError::Empty);
    }
    let required: Vec<&String> = properties.keys().collect();
    let required = json!(required);
    Ok(json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    }))
}

/// Returns the name and the schema of one field.
fn field(part: &str) -> Result<(&str, Value), ShortSchemaError> {
    let (head, description) = match part.split_once(':') {
        Some((head, description)) => (head, Some(description.trim())),
        None => (part, None),
    };
    let mut words = head.split_whitespace();
    let (Some(name), kind, None) = (words.next(), words.next(), words.next()) else {
        return Err(ShortSchemaError::Field(part.to_owned()));
    };
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && !name.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    if !is_name {
        return Err(ShortSchemaError::Name(name.to_owned()));
    }
    let found = kind.unwrap_or("text");
    let known = TYPES.iter().find(|(_, words)| words.iter().any(|word| word.eq_ignore_ascii_case(found)));
    let Some((json_type, _)) = known else {
        let words = TYPES.iter().flat_map(|(_, words)| words.iter().copied());
        return Err(ShortSchemaError::Type {
            name: name.to_owned(),
            found: found.to_owned(),
            nearest: nearest(found, words),
        });
    };
    let mut schema = json!({ "type": json_type });
    if *json_type == "array" {
        schema["items"] = json!({ "type": "string" });
    }
    if let Some(description) = description.filter(|description| !description.is_empty()) {
        schema["description"] = description.into();
    }
    Ok((name, schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_a_type_and_a_description_and_is_a_text_without_a_type() {
        let schema = short_schema("name, age int, tags list, score float: from 0 to 1, ok BOOL,").unwrap();
        let expected = json!({
            "type": "object",
            "properties": {
                "name": { "type": "string" },
                "age": { "type": "integer" },
                "tags": { "type": "array", "items": { "type": "string" } },
                "score": { "type": "number", "description": "from 0 to 1" },
                "ok": { "type": "boolean" },
            },
            "required": ["name", "age", "tags", "score", "ok"],
            "additionalProperties": false,
        });
        assert_eq!(schema, expected);
        let names: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["name", "age", "tags", "score", "ok"], "in the order of the text");
    }

    #[test]
    fn a_description_may_have_commas_if_each_field_has_its_line() {
        let schema = short_schema("name: first, then last\nage int\n").unwrap();
        assert_eq!(schema["properties"]["name"]["description"], "first, then last");
        assert_eq!(schema["required"], json!(["name", "age"]));
    }

    #[test]
    fn a_part_that_is_not_a_field_is_named() {
        for (text, part) in [
            ("", "no fields"),
            (" , ", "no fields"),
            ("name, the age int", "\"the age int\" is not a field"),
            ("1st", "\"1st\" is not the name"),
            ("größe", "is not the name"),
            (": x", "is not a field"),
            ("a, b, a int", "\"a\" is there twice"),
            ("age integr", "did you mean \"integer\"?"),
            ("age xyzzy", "the types are text, int, number, bool and list"),
        ] {
            let error = short_schema(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
