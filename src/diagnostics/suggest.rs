//! Suggests what to write instead of a value of the wrong type: the corrected line, if it can be inferred.

use toml::de::DeValue;

use super::error_context::ErrorContext;

/// The expectation that stands for an enum value: the words of serde for it name no type.
pub(super) const ENUM_VALUE: &str = "one word of a list";

/// Returns the error message for a value where serde expected `expected`, and what to write instead.
pub(super) fn suggest(expected: &str, context: &ErrorContext<'_>) -> (String, Option<String>) {
    let expectation = Expected::of(expected);
    if let (Expected::Integer { max, .. }, Some(DeValue::Integer(_))) = (expectation, context.value)
        && let Some(number) = context.value.and_then(parse_integer).filter(|number| *number > max)
    {
        return (format!("{number} is too large"), Some(format!("the largest number here is {max}")));
    }
    if expected == "any value" {
        return ("this number is too large".to_owned(), Some("write a smaller one".to_owned()));
    }
    let wanted = match expectation {
        Expected::Integer { min: 1, .. } => "a whole number above 0".to_owned(),
        Expected::Integer { .. } => "a whole number, 0 or more".to_owned(),
        Expected::Number => "a number".to_owned(),
        Expected::Bool => "true or false".to_owned(),
        Expected::Text => "text in quotes".to_owned(),
        Expected::List => "a list".to_owned(),
        Expected::Table => "a table".to_owned(),
        Expected::EnumValue if context.accepted.is_empty() => "a value in quotes".to_owned(),
        Expected::EnumValue => format!("one of {}", quoted_list(&context.accepted, " or ")),
        Expected::Duration | Expected::Size | Expected::Described => expected.to_owned(),
    };
    let found = context.value.map(|value| format!(", found {}", describe_value(value))).unwrap_or_default();
    (format!("expected {wanted}{found}"), expectation.help(context))
}

/// The type of value that serde expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Integer {
        min: i128,
        max: i128,
    },
    Number,
    Bool,
    Text,
    List,
    Table,
    EnumValue,
    Duration,
    /// A number of bytes with a unit.
    Size,
    /// The description of one of our own types.
    Described,
}

impl Expected {
    fn of(expected: &str) -> Self {
        let (min, name) = match expected.strip_prefix("a nonzero ") {
            Some(name) => (1, name),
            None => (0, expected),
        };
        let max = match name {
            "u8" => u8::MAX.into(),
            "u16" => u16::MAX.into(),
            "u32" => u32::MAX.into(),
            // The largest integer of TOML.
            "u64" | "usize" => i64::MAX.into(),
            _ => 0,
        };
        match expected {
            _ if max > 0 => Self::Integer { min, max },
            "f32" | "f64" => Self::Number,
            "a boolean" => Self::Bool,
            "a string" | "string" => Self::Text,
            "a sequence" | "sequence" => Self::List,
            "a map" | "map" => Self::Table,
            ENUM_VALUE => Self::EnumValue,
            _ if expected.starts_with("struct ") => Self::Table,
            _ if expected.starts_with("a duration") => Self::Duration,
            _ if expected.starts_with("a size") => Self::Size,
            _ => Self::Described,
        }
    }

    fn help(self, context: &ErrorContext<'_>) -> Option<String> {
        let value = context.value?;
        let assignment = |value: &str| match &context.key {
            Some(key) => format!("write {key} = {value}"),
            None => format!("write {value}"),
        };
        Some(match (self, value) {
            (Self::Integer { min, .. }, _) => match parse_integer(value).filter(|number| *number >= min) {
                Some(number) => assignment(&number.to_string()),
                None => format!("{}, a whole number without quotes or unit", assignment("NUMBER")),
            },
            (Self::Number, _) => match parse_number(value) {
                Some(number) => assignment(&number.to_string()),
                None => format!("{}, without quotes or unit", assignment("NUMBER")),
            },
            (Self::Bool, _) => match parse_bool(value) {
                Some(switch) => assignment(&switch.to_string()),
                None => "write true or false, without quotes".to_owned(),
            },
            (Self::Text, DeValue::Table(_) | DeValue::Array(_)) => "write one text in quotes".to_owned(),
            (Self::Text, _) => assignment(&format!("{:?}", toml_text(value))),
            (Self::List, DeValue::String(text)) => {
                format!("put it into brackets: {}", assignment(&format!("[{text:?}]")))
            }
            (Self::List, _) => format!("{}, a list in brackets", assignment("[...]")),
            (Self::Table, DeValue::Array(_)) => {
                "write one table: a heading has single brackets here, and an inline table is not inside a list"
                    .to_owned()
            }
            (Self::Table, _) if context.accepted.is_empty() => assignment("{ NAME = ... }"),
            (Self::Table, _) => {
                format!("{}, with any of {}", assignment("{ KEY = VALUE }"), context.accepted.join(", "))
            }
            (Self::EnumValue, _) => {
                // `false` means the word that turns the setting off.
                let is_off = |word: &&String| {
                    matches!((value, word.as_str()), (DeValue::Boolean(false), "never" | "none" | "off"))
                };
                let word = context.accepted.iter().find(is_off).or(context.accepted.first())?;
                assignment(&format!("{word:?}"))
            }
            (Self::Duration, DeValue::Integer(_) | DeValue::Float(_)) => {
                let number = toml_text(value).trim_start_matches('-').to_owned();
                number.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0)?;
                format!("{}, or with another unit: ms, m, h, d", assignment(&format!("\"{number}s\"")))
            }
            (Self::Size, DeValue::Integer(_)) => {
                let size = byte_size(parse_integer(value)?)?;
                format!("{}, or with another unit: KiB, MiB, GiB", assignment(&format!("\"{size}\"")))
            }
            (Self::Duration | Self::Size | Self::Described, _) => return None,
        })
    }
}

/// Returns a number of bytes with the largest unit of which it is a multiple, or else rounded up to KiB.
fn byte_size(bytes: i128) -> Option<String> {
    let bytes = u128::try_from(bytes).ok().filter(|bytes| *bytes > 0)?;
    let units = [("GiB", 1_u128 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let whole = units.into_iter().find(|(_, size)| bytes.is_multiple_of(*size));
    let (unit, size) = whole.unwrap_or(("KiB", 1 << 10));
    Some(format!("{}{unit}", bytes.div_ceil(size)))
}

/// Returns a description of a value for use in a sentence.
fn describe_value(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
        other => format!("`{}`", toml_text(other)),
    }
}

/// Returns the TOML spelling of a value.
pub(super) fn toml_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.as_str().to_owned(),
        },
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(switch) => switch.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{ ... }".to_owned(),
    }
}

/// Returns the integer that the author probably meant: "60/min" is 60, "200k" is 200000.
fn parse_integer(value: &DeValue<'_>) -> Option<i128> {
    match value {
        DeValue::Integer(_) => toml_text(value).parse().ok(),
        DeValue::Float(_) => toml_text(value).strip_suffix(".0")?.parse().ok(),
        DeValue::String(text) => {
            let digits = text.trim().replace(['_', ','], "");
            let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
            let number: i128 = digits[..end].parse().ok()?;
            match digits[end..].trim() {
                "k" | "K" => number.checked_mul(1_000),
                "M" => number.checked_mul(1_000_000),
                rest if rest.starts_with(['%', '.']) => None,
                _ => Some(number),
            }
        }
        _ => None,
    }
}

/// Returns the number that the author probably meant: "10%" is 0.1.
fn parse_number(value: &DeValue<'_>) -> Option<f64> {
    let DeValue::String(text) = value else { return None };
    let number = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.trim().parse().ok()?,
    };
    number.is_finite().then_some(number)
}

fn parse_bool(value: &DeValue<'_>) -> Option<bool> {
    match toml_text(value).to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn quoted_list(words: &[String], last: &str) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match words.as_slice() {
        [some @ .., end] if !some.is_empty() => format!("{}{last}{end}", some.join(", ")),
        words => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    fn suggested(expected: &str, written: &str) -> String {
        let text = format!("key = {written}");
        let table = DeTable::parse(&text).unwrap();
        let value = table.get_ref().get("key").map(|value| value.get_ref());
        let accepted = vec!["auto".to_owned(), "max".to_owned()];
        let context = ErrorContext { key: Some("key".to_owned()), value, accepted, accepting_table: None };
        let (error, help) = suggest(expected, &context);
        format!("{error}|{}", help.unwrap_or_default())
    }

    #[test]
    fn the_corrected_line_is_suggested() {
        for (expected, written, message) in [
            ("a nonzero u32", "'60/min'", "expected a whole number above 0, found \"60/min\"|write key = 60"),
            ("a nonzero u64", "'200k'", "expected a whole number above 0, found \"200k\"|write key = 200000"),
            ("u32", "1.0", "expected a whole number, 0 or more, found `1.0`|write key = 1"),
            (
                "a nonzero u32",
                "'ten'",
                "expected a whole number above 0, found \"ten\"|write key = NUMBER, a whole number without quotes or unit",
            ),
            (
                "a nonzero u32",
                "99999999999",
                "99999999999 is too large|the largest number here is 4294967295",
            ),
            (
                "usize",
                "99999999999999999999",
                "99999999999999999999 is too large|the largest number here is 9223372036854775807",
            ),
            ("f64", "'10%'", "expected a number, found \"10%\"|write key = 0.1"),
            ("a boolean", "'yes'", "expected true or false, found \"yes\"|write key = true"),
            ("a string", "7", "expected text in quotes, found `7`|write key = \"7\""),
            (
                "a sequence",
                "'env:A'",
                "expected a list, found \"env:A\"|put it into brackets: write key = [\"env:A\"]",
            ),
            (
                "struct Limits",
                "5",
                "expected a table, found `5`|write key = { KEY = VALUE }, with any of auto, max",
            ),
            (
                "struct Limits",
                "2024-01-01",
                "expected a table, found a date|write key = { KEY = VALUE }, with any of auto, max",
            ),
            (ENUM_VALUE, "7", "expected one of \"auto\" or \"max\", found `7`|write key = \"auto\""),
            (
                "a duration such as \"1s\"",
                "7",
                "expected a duration such as \"1s\", found `7`|write key = \"7s\", or with another unit: ms, m, h, d",
            ),
            (
                "a size such as \"1MiB\"",
                "1000",
                "expected a size such as \"1MiB\", found `1000`|write key = \"1KiB\", or with another unit: KiB, MiB, GiB",
            ),
            (
                "a size such as \"1MiB\"",
                "2097152",
                "expected a size such as \"1MiB\", found `2097152`|write key = \"2MiB\", or with another unit: KiB, MiB, \
                 GiB",
            ),
        ] {
            assert_eq!(suggested(expected, written), message, "{expected} {written}");
        }
    }
}
