//! The unchanged text of a part of a JSON text, without a tree of its values.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Returns the text of the value of a field; `None` if there is no such field. `json` is an object that has been
/// parsed before.
pub(super) fn raw_field<'t>(json: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = json.trim_start().strip_prefix('{')?;
    loop {
        let (key, after) = first_value::<String>(rest)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        let (_, after) = first_value::<IgnoredAny>(value)?;
        if key == name {
            return Some(&value[..value.len() - after.len()]);
        }
        rest = after.trim_start().strip_prefix(',')?;
    }
}

/// Returns the texts of the elements of a list. `json` is a list that has been parsed before.
pub(super) fn raw_elements(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json.trim_start().strip_prefix('[');
    std::iter::from_fn(move || {
        let element = rest?.trim_start();
        let (_, after) = first_value::<IgnoredAny>(element)?;
        rest = after.trim_start().strip_prefix(',');
        Some(&element[..element.len() - after.len()])
    })
}

/// Parses the value at the start of a text, and returns the rest of the text too.
fn first_value<'t, T: Deserialize<'t>>(text: &'t str) -> Option<(T, &'t str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_returned_as_it_is_written() {
        let json = r#" { "a" : "x,}\"" ,"n":1.50e3, "it\u0065m" : { "b" : [1 , {"item":2}], "c":"\u00e9" } , "z":null} "#;
        assert_eq!(raw_field(json, "a"), Some(r#""x,}\"""#));
        assert_eq!(raw_field(json, "n"), Some("1.50e3"));
        assert_eq!(raw_field(json, "item"), Some(r#"{ "b" : [1 , {"item":2}], "c":"\u00e9" }"#));
        assert_eq!(raw_field(json, "z"), Some("null"));
        assert_eq!(raw_field(json, "b"), None);
    }

    #[test]
    fn elements_are_returned_as_they_are_written() {
        let elements = |json| raw_elements(json).collect::<Vec<_>>();
        assert_eq!(elements(r#" [ {"a" : [1]} ,"x,]", 2 ] "#), [r#"{"a" : [1]}"#, r#""x,]""#, "2"]);
        for text in ["", "[]", "[ ]", "{}", "null", "["] {
            assert!(elements(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn any_other_text_has_no_field() {
        for text in ["", "{", "{}", "[]", "null", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1 \"item\":2}"] {
            assert_eq!(raw_field(text, "item"), None, "{text}");
        }
    }
}
