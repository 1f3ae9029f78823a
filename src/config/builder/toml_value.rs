//! Converts a value of a program into a TOML value.

use std::time::Duration;

use serde::Serialize;
use serde_json::Number;
use toml::Value;

use crate::diagnostics::Diagnostic;
use crate::types::duration;

/// An error of a key: its path, and the error without a position.
pub(super) type KeyError = (Vec<String>, Diagnostic);

/// Converts `value` for the key at `path`.
///
/// # Errors
/// All parts of the value that TOML cannot represent.
pub(super) fn to_toml(value: &impl Serialize, path: &[String]) -> Result<Value, Vec<KeyError>> {
    // serde_json first: toml would leave out a null without an error.
    let json = serde_json::to_value(value).map_err(|error| {
        let diagnostic = Diagnostic::new(format!("this value cannot be a setting: {error}"));
        vec![(path.to_vec(), diagnostic.with_help("write text, a number, a boolean, a list or a table"))]
    })?;
    let mut errors = Vec::new();
    match convert(json, &mut path.to_vec(), &mut errors) {
        Some(value) if errors.is_empty() => Ok(value),
        Some(_) | None => Err(errors),
    }
}

/// Returns the TOML value; `None` if it has none, with the error in `errors`.
fn convert(json: serde_json::Value, path: &mut Vec<String>, errors: &mut Vec<KeyError>) -> Option<Value> {
    match json {
        serde_json::Value::Null => {
            let diagnostic = Diagnostic::new("this value is null or a number that is not finite");
            errors.push((path.clone(), diagnostic.with_help("do not set the key, for its default")));
            None
        }
        serde_json::Value::Bool(switch) => Some(Value::Boolean(switch)),
        serde_json::Value::Number(number) => {
            let value = convert_number(&number);
            if value.is_none() {
                let diagnostic = Diagnostic::new(format!("{number} is out of range"));
                let help = format!("the largest whole number is {}", i64::MAX);
                errors.push((path.clone(), diagnostic.with_help(help)));
            }
            value
        }
        serde_json::Value::String(text) => Some(Value::String(text)),
        serde_json::Value::Array(elements) => {
            let converted: Vec<_> =
                elements.into_iter().map(|element| convert(element, path, errors)).collect();
            converted.into_iter().collect::<Option<Vec<_>>>().map(Value::Array)
        }
        serde_json::Value::Object(entries) => {
            if let Some(duration) = as_duration(&entries) {
                return Some(Value::String(duration::format(&duration)));
            }
            let mut table = toml::Table::new();
            for (key, value) in entries {
                path.push(key.clone());
                if let Some(value) = convert(value, path, errors) {
                    table.insert(key, value);
                }
                path.pop();
            }
            Some(Value::Table(table))
        }
    }
}

/// Returns the duration that `std::time::Duration` serializes as this table.
fn as_duration(entries: &serde_json::Map<String, serde_json::Value>) -> Option<Duration> {
    let seconds = entries.get("secs").filter(|_| entries.len() == 2)?.as_u64()?;
    let nanoseconds = entries.get("nanos")?.as_u64()?;
    Some(Duration::new(seconds, u32::try_from(nanoseconds).ok()?))
}

/// Returns the integer or float. With the feature `exact-numbers`, serde_json keeps numbers as text, and a large
/// integer would be rounded as a float, so the text decides which of the two it is.
fn convert_number(number: &Number) -> Option<Value> {
    if let Some(integer) = number.as_i64() {
        return Some(Value::Integer(integer));
    }
    let is_float = number.to_string().contains(['.', 'e', 'E']);
    let float = number.as_f64().filter(|float| is_float && float.is_finite());
    float.map(Value::Float)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn converted(value: impl Serialize) -> Result<String, String> {
        let path = ["a".to_owned(), "b".to_owned()];
        let to_text = |errors: Vec<KeyError>| {
            let texts = errors.iter().map(|(path, diagnostic)| format!("{}: {diagnostic}", path.join(".")));
            texts.collect::<Vec<_>>().join("\n")
        };
        to_toml(&value, &path).map(|value| value.to_string()).map_err(to_text)
    }

    #[test]
    fn a_number_stays_an_integer_or_a_float() {
        assert_eq!(converted(5_u8).unwrap(), "5");
        assert_eq!(converted(-5_i64).unwrap(), "-5");
        assert_eq!(converted(i64::MAX).unwrap(), i64::MAX.to_string());
        assert_eq!(converted(i64::MIN).unwrap(), i64::MIN.to_string());
        assert_eq!(converted(5.0_f64).unwrap(), "5.0");
        assert_eq!(converted(0.05_f64).unwrap(), "0.05");
        for text in ["1.5e3", "1500.0"] {
            let number: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(to_toml(&number, &[]).unwrap(), Value::Float(1500.0), "{text}");
        }
        let large: serde_json::Value = serde_json::from_str("1e30").unwrap();
        assert_eq!(to_toml(&large, &[]).unwrap(), Value::Float(1e30));
    }

    #[test]
    fn an_integer_above_64_bits_is_out_of_range() {
        let error = converted(u64::MAX).unwrap_err();
        let expected =
            "a.b: 18446744073709551615 is out of range; the largest whole number is 9223372036854775807";
        assert_eq!(error, expected);
    }

    #[test]
    #[cfg(feature = "exact-numbers")]
    fn a_number_with_more_digits_than_a_float_is_out_of_range_as_an_integer_only() {
        let number = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let integer = converted(number("99999999999999999999999")).unwrap_err();
        assert!(integer.starts_with("a.b: 99999999999999999999999 is out of range"), "{integer}");
        assert!(converted(number("1e999")).unwrap_err().starts_with("a.b: 1e+999 is out of range"));
        let digits = to_toml(&number("0.10000000000000000000000001"), &[]).unwrap();
        assert_eq!(digits, Value::Float(0.1));
    }

    #[test]
    fn a_value_without_a_toml_value_is_an_error_that_names_its_key() {
        let null = "this value is null or a number that is not finite; do not set the key, for its default";
        assert_eq!(converted(f64::NAN).unwrap_err(), format!("a.b: {null}"));
        assert_eq!(converted(f64::INFINITY).unwrap_err(), format!("a.b: {null}"));
        assert_eq!(converted(None::<u8>).unwrap_err(), format!("a.b: {null}"));
        let nested = converted(json!({ "c": { "d": null, "e": 1 }, "f": [1, null] })).unwrap_err();
        assert_eq!(nested, format!("a.b.c.d: {null}\na.b.f: {null}"));
        let keys = converted(BTreeMap::from([(vec![1], 1)])).unwrap_err();
        assert!(keys.starts_with("a.b: this value cannot be a setting: "), "{keys}");
    }
}
