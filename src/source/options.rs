//! Settings of how a source is read that its bytes do not show.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Settings of how a source is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReadOptions {
    /// The field that is the key of an item in place of `id`.
    pub(super) key_field: Option<String>,
    /// What separates the fields of CSV.
    pub(super) delimiter: Option<Delimiter>,
    /// The name or the number of the sheet of a workbook.
    pub(super) sheet: Option<String>,
    /// The key of a JSON object whose value is the array of items.
    pub(super) items_key: Option<String>,
    /// Whether only JSON lines, JSON, CSV and TSV are read, which are not compressed.
    pub(super) plain_text_only: bool,
}

/// A byte that separates the fields of a CSV file.
///
/// ```
/// use pointsman::io::Delimiter;
///
/// let delimiter: Delimiter = ";".parse().unwrap();
/// assert_eq!(delimiter.byte(), b';');
/// assert_eq!("tab".parse::<Delimiter>().unwrap().byte(), b'\t');
/// assert!("\"".parse::<Delimiter>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Delimiter(u8);

impl Delimiter {
    /// Returns the byte.
    pub fn byte(self) -> u8 {
        self.0
    }
}

/// A text that is not a delimiter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a delimiter is one character of ASCII such as `;`, or `tab`, and no quote or line end; not {0:?}")]
pub struct DelimiterError(String);

impl FromStr for Delimiter {
    type Err = DelimiterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            b"tab" | b"\\t" => Ok(Self(b'\t')),
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r' | 0) => Ok(Self(*byte)),
            _ => Err(DelimiterError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Delimiter {
    type Error = DelimiterError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Delimiter> for String {
    fn from(delimiter: Delimiter) -> Self {
        delimiter.to_string()
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b'\t' => out.write_str("tab"),
            byte => write!(out, "{}", char::from(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delimiter_is_one_character_or_the_word_tab() {
        for (text, byte) in [(",", b','), ("|", b'|'), ("\t", b'\t'), ("\\t", b'\t'), ("tab", b'\t')] {
            assert_eq!(text.parse::<Delimiter>().map(Delimiter::byte), Ok(byte), "{text:?}");
        }
        for text in ["", ";;", "\"", "\n", "§", "tabs"] {
            assert!(text.parse::<Delimiter>().is_err(), "{text:?}");
        }
        let tab: Delimiter = "tab".parse().unwrap();
        assert_eq!(tab.to_string().parse(), Ok(tab));
    }
}
