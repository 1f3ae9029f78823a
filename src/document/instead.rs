//! Says what to write instead of a value of the wrong kind: the very line, where it can be told.

use toml::de::DeValue;

use super::words::{About, found};

/// Says what is wrong with a value where serde wanted `expected`, and what to write instead.
pub(super) fn instead(expected: &str, about: &About<'_>) -> (String, Option<String>) {
    let kind = Kind::of(expected);
    if let (Kind::Whole { most, .. }, Some(DeValue::Integer(_))) = (kind, about.value)
        && let Some(number) = about.value.and_then(whole).filter(|number| *number > most)
    {
        return (format!("{number} is too large"), Some(format!("the largest number here is {most}")));
    }
    if expected == "any value" {
        return ("this number is too large".to_owned(), Some("write a smaller one".to_owned()));
    }
    let wanted = match kind {
        Kind::Whole { least: 1, .. } => "a whole number above 0".to_owned(),
        Kind::Whole { .. } => "a whole number, 0 or more".to_owned(),
        Kind::Number => "a number".to_owned(),
        Kind::Switch => "true or false".to_owned(),
        Kind::Text => "text in quotes".to_owned(),
        Kind::List => "a list".to_owned(),
        Kind::Table => "a table".to_owned(),
        Kind::Word if about.known.is_empty() => "a word in quotes".to_owned(),
        Kind::Word => format!("one of {}", quoted(&about.known, " or ")),
        Kind::Time | Kind::Own => expected.to_owned(),
    };
    let found = about.value.map(|value| format!(", found {}", found(value))).unwrap_or_default();
    (format!("expected {wanted}{found}"), kind.advise(about))
}

/// What serde wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole {
        least: i128,
        most: i128,
    },
    Number,
    Switch,
    Text,
    List,
    Table,
    Word,
    Time,
    /// What a type of ours says in its own words.
    Own,
}

impl Kind {
    fn of(expected: &str) -> Self {
        let (least, name) = match expected.strip_prefix("a nonzero ") {
            Some(name) => (1, name),
            None => (0, expected),
        };
        let most = match name {
            "u8" => u8::MAX.into(),
            "u16" => u16::MAX.into(),
            "u32" => u32::MAX.into(),
            // What TOML can write.
            "u64" | "usize" => i64::MAX.into(),
            _ => 0,
        };
        match expected {
            _ if most > 0 => Self::Whole { least, most },
            "f32" | "f64" => Self::Number,
            "a boolean" => Self::Switch,
            "a string" | "string" => Self::Text,
            "a sequence" | "sequence" => Self::List,
            "a map" | "map" => Self::Table,
            "one word of a list" => Self::Word,
            _ if expected.starts_with("struct ") => Self::Table,
            _ if expected.starts_with("a duration") => Self::Time,
            _ => Self::Own,
        }
    }

    fn advise(self, about: &About<'_>) -> Option<String> {
        let value = about.value?;
        let write = |value: &str| match &about.key {
            Some(key) => format!("write {key} = {value}"),
            None => format!("write {value}"),
        };
        Some(match (self, value) {
            (Self::Whole { least, .. }, _) => match whole(value).filter(|number| *number >= least) {
                Some(number) => write(&number.to_string()),
                None => format!("{}, a whole number without quotes or unit", write("NUMBER")),
            },
            (Self::Number, _) => match number(value) {
                Some(number) => write(&number.to_string()),
                None => format!("{}, without quotes or unit", write("NUMBER")),
            },
            (Self::Switch, _) => match switch(value) {
                Some(switch) => write(&switch.to_string()),
                None => "write true or false, without quotes".to_owned(),
            },
            (Self::Text, DeValue::Table(_) | DeValue::Array(_)) => "write one text in quotes".to_owned(),
            (Self::Text, _) => write(&format!("{:?}", show(value))),
            (Self::List, DeValue::String(text)) => {
                format!("put it into brackets: {}", write(&format!("[{text:?}]")))
            }
            (Self::List, _) => format!("{}, a list in brackets", write("[...]")),
            (Self::Table, DeValue::Array(_)) => {
                "write one table: a heading has single brackets here, an inline table none around it"
                    .to_owned()
            }
            (Self::Table, _) if about.known.is_empty() => write("{ NAME = ... }"),
            (Self::Table, _) => {
                format!("{}, with any of {}", write("{ KEY = VALUE }"), about.known.join(", "))
            }
            (Self::Word, _) => write(&quoted(about.known.get(..1)?, "")),
            (Self::Time, DeValue::Integer(_) | DeValue::Float(_)) => {
                let number = show(value).trim_start_matches('-').to_owned();
                number.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0)?;
                format!("{}, or with another unit: ms, m, h", write(&format!("\"{number}s\"")))
            }
            (Self::Time | Self::Own, _) => return None,
        })
    }
}

/// Returns a value as it is written.
pub(super) fn show(value: &DeValue<'_>) -> String {
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

/// Returns the whole number that was probably meant: "60/min" is 60, "200k" is 200000.
fn whole(value: &DeValue<'_>) -> Option<i128> {
    match value {
        DeValue::Integer(_) => show(value).parse().ok(),
        DeValue::Float(_) => show(value).strip_suffix(".0")?.parse().ok(),
        DeValue::String(text) => {
            let plain = text.trim().replace(['_', ','], "");
            let end = plain.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(plain.len());
            let number: i128 = plain[..end].parse().ok()?;
            match plain[end..].trim() {
                "k" | "K" => number.checked_mul(1_000),
                "M" => number.checked_mul(1_000_000),
                rest if rest.starts_with(['%', '.']) => None,
                _ => Some(number),
            }
        }
        _ => None,
    }
}

/// Returns the number that was probably meant: "10%" is 0.1.
fn number(value: &DeValue<'_>) -> Option<f64> {
    let DeValue::String(text) = value else { return None };
    let number = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.trim().parse().ok()?,
    };
    number.is_finite().then_some(number)
}

fn switch(value: &DeValue<'_>) -> Option<bool> {
    match show(value).to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn quoted(words: &[String], last: &str) -> String {
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

    fn said(expected: &str, written: &str) -> String {
        let text = format!("key = {written}");
        let table = DeTable::parse(&text).unwrap();
        let value = table.get_ref().get("key").map(|value| value.get_ref());
        let known = vec!["auto".to_owned(), "max".to_owned()];
        let about = About { key: Some("key".to_owned()), value, known, home: None };
        let (wrong, advice) = instead(expected, &about);
        format!("{wrong}|{}", advice.unwrap_or_default())
    }

    #[test]
    fn the_line_that_was_meant_is_written_out() {
        for (expected, written, plain) in [
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
            (
                "one word of a list",
                "7",
                "expected one of \"auto\" or \"max\", found `7`|write key = \"auto\"",
            ),
            (
                "a duration such as \"1s\"",
                "7",
                "expected a duration such as \"1s\", found `7`|write key = \"7s\", or with another unit: ms, m, h",
            ),
        ] {
            assert_eq!(said(expected, written), plain, "{expected} {written}");
        }
    }
}
