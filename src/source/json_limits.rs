//! Limits on JSON: nesting depth, number of values, and length of numbers.
//!
//! The limits are checked on the text before anything is built from it: a parsed value takes up to forty times
//! the memory of its text, and is dropped, compared and serialized recursively. Linear in the text. Independent
//! of schemas.

use serde_json::Value;

/// Deepest nesting of an item or of an answer. Leaves room for what encloses it below the parser's own limit of
/// 128.
pub(crate) const MAX_DEPTH: usize = 100;

/// Most values in one item or in one answer.
pub(crate) const MAX_VALUES: usize = 1_000_000;

/// Most characters of one number. Python reads integers with as many digits. Computing with a longer one takes
/// time that grows with the square of its length.
pub(crate) const MAX_NUMBER_CHARACTERS: usize = 4_300;

/// Characters up to which a number without an exponent is in the range of a double.
const IN_RANGE_CHARACTERS: usize = 300;

/// Which limit a JSON text or value exceeds; continues "the answer" or "line N".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitExceeded {
    /// Arrays and objects are nested too deeply.
    #[error("is nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// There are too many values.
    #[error("holds more than {MAX_VALUES} values")]
    Values,
    /// A number has too many characters.
    #[error("holds a number of more than {MAX_NUMBER_CHARACTERS} characters; write it as text")]
    Number,
    /// A number with a fraction or an exponent is too large for a double.
    #[error("holds a number that is out of range, such as 1e999; write it as text")]
    Range,
}

/// Checks the JSON value at the start of `text`. Text that is not JSON passes if it exceeds no limit.
///
/// # Errors
/// The limit that is exceeded.
pub(crate) fn check(text: &[u8]) -> Result<(), LimitExceeded> {
    let mut depth = 0_usize;
    let mut values = 1_usize;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'-' | b'0'..=b'9' => {
                let rest = bytes.as_slice();
                let length = rest.iter().position(|byte| !is_number_byte(*byte)).unwrap_or(rest.len());
                check_number(&text[text.len() - rest.len() - 1..][..=length])?;
                bytes = rest[length..].iter();
            }
            b'[' | b'{' => {
                depth += 1;
                // A container and its first element.
                values += 1;
                if depth > MAX_DEPTH {
                    return Err(LimitExceeded::Depth);
                }
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Ok(());
                }
            }
            b',' => values += 1,
            _ => {}
        }
        if values > MAX_VALUES {
            return Err(LimitExceeded::Values);
        }
    }
    Ok(())
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

/// Checks a number as it is written.
fn check_number(number: &[u8]) -> Result<(), LimitExceeded> {
    if number.len() > MAX_NUMBER_CHARACTERS {
        return Err(LimitExceeded::Number);
    }
    let has_exponent = number.iter().any(|byte| matches!(byte, b'e' | b'E'));
    let is_integer = !has_exponent && !number.contains(&b'.');
    if is_integer || (!has_exponent && number.len() < IN_RANGE_CHARACTERS) {
        return Ok(());
    }
    // Invalid numbers are reported by the parser.
    let float = str::from_utf8(number).ok().and_then(|number| number.parse::<f64>().ok());
    match float {
        Some(float) if float.is_infinite() => Err(LimitExceeded::Range),
        _ => Ok(()),
    }
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

/// Checks a value that was not parsed from text. Does not recurse.
///
/// # Errors
/// The limit that is exceeded.
pub(crate) fn check_value(value: &Value) -> Result<(), LimitExceeded> {
    let mut rest = vec![(value, 0_usize)];
    let mut values = 0_usize;
    while let Some((value, depth)) = rest.pop() {
        values += 1;
        if values > MAX_VALUES {
            return Err(LimitExceeded::Values);
        }
        let inner = depth + 1;
        match value {
            Value::Array(elements) => {
                if inner > MAX_DEPTH {
                    return Err(LimitExceeded::Depth);
                }
                rest.extend(elements.iter().map(|element| (element, inner)));
            }
            Value::Object(fields) => {
                if inner > MAX_DEPTH {
                    return Err(LimitExceeded::Depth);
                }
                rest.extend(fields.values().map(|field| (field, inner)));
            }
            Value::Number(number) if number.as_i64().is_none() && number.as_u64().is_none() => {
                check_number(number.to_string().as_bytes())?;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

/// Drops a value of any depth. The default drop recurses, and a deep value would overflow the stack.
pub(crate) fn drop_deep_value(value: Value) {
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        match value {
            Value::Array(elements) => rest.extend(elements),
            Value::Object(fields) => rest.extend(fields.into_iter().map(|(_, field)| field)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_and_number_of_values_are_limited_in_text() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(nested(MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(check(nested(MAX_DEPTH + 1).as_bytes()), Err(LimitExceeded::Depth));
        let list = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert_eq!(check(list(MAX_VALUES - 1).as_bytes()), Ok(()));
        assert_eq!(check(list(MAX_VALUES).as_bytes()), Err(LimitExceeded::Values));
    }

    #[test]
    fn numbers_are_limited_in_length_and_range() {
        let integer = |digits: usize| format!(r#"{{"a": [-{}]}}"#, "9".repeat(digits));
        assert_eq!(check(integer(MAX_NUMBER_CHARACTERS - 1).as_bytes()), Ok(()));
        assert_eq!(check(integer(MAX_NUMBER_CHARACTERS).as_bytes()), Err(LimitExceeded::Number));
        for fine in ["1e308", "[-1E+308]", "0.5", "1e-999999999", "[1.5, 1e2]", "{\"a\": \"1e999\"}"] {
            assert_eq!(check(fine.as_bytes()), Ok(()), "{fine}");
        }
        let point = format!("[{}.5]", "9".repeat(400));
        for wide in ["1e309", "[1, -1e999999999]", r#"{"a": 1E+400}"#, &point] {
            assert_eq!(check(wide.as_bytes()), Err(LimitExceeded::Range), "{wide}");
        }
        assert_eq!(check_value(&json!({ "a": [1, 1.5, -7, u64::MAX] })), Ok(()));
    }

    #[test]
    fn brackets_and_commas_in_strings_and_after_the_value_do_not_count() {
        let text = format!("{{\"a\": \"{}\\\"{}\"}} {}", "[".repeat(500), ",".repeat(10), "{".repeat(500));
        assert_eq!(check(text.as_bytes()), Ok(()));
    }

    #[test]
    fn a_value_of_any_depth_is_checked_and_dropped_without_recursion() {
        let deep = (0..1_000_000).fold(json!(1), |inner, _| Value::Array(vec![inner]));
        assert_eq!(check_value(&deep), Err(LimitExceeded::Depth));
        drop_deep_value(deep);
        assert_eq!(check_value(&json!({ "a": [1, { "b": null }] })), Ok(()));
    }
}
