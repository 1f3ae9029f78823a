//! Tells how an input is written: by its name, else by its first byte.
//!
//! It never looks further than the first byte that is no white space.

use std::fmt;
use std::io::{self, BufRead};
use std::path::Path;
use std::str::FromStr;

/// How an input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line. Blank lines are skipped.
    Jsonl,
    /// Comma-separated values under one header row. Fields may be quoted and hold line breaks.
    Csv,
    /// One JSON array of objects.
    Json,
}

impl Format {
    /// Returns the format that a file's name promises, if it promises one.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Json => "json",
        })
    }
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a format is jsonl, csv or json, not {0:?}")]
pub struct FormatError(String);

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "jsonl" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            _ => Err(FormatError(word.to_owned())),
        }
    }
}

/// The first bytes of an input.
pub(super) struct Head {
    /// What was read to look at, without a byte-order mark; it stands before the rest.
    pub(super) bytes: Vec<u8>,
    /// Bytes of the byte-order mark that were dropped.
    pub(super) dropped: u64,
    /// Whether the input is UTF-16, which nothing here reads.
    pub(super) utf16: bool,
}

impl Head {
    /// Reads up to the first byte that is no white space, and at least the four that tell encodings.
    pub(super) fn read(input: &mut impl BufRead) -> io::Result<Self> {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let mut bytes = Vec::new();
        while bytes.len() < 4 || (bytes.len() < 65_536 && first_in(&bytes).is_none()) {
            let available = input.fill_buf()?;
            let Some(byte) = available.first() else { break };
            bytes.push(*byte);
            input.consume(1);
        }
        let utf16 = matches!(bytes[..], [0xff, 0xfe, _, 0, ..] | [0xfe, 0xff, 0, ..]);
        let dropped = if bytes.starts_with(MARK) { MARK.len() } else { 0 };
        bytes.drain(..dropped);
        Ok(Self { bytes, dropped: dropped as u64, utf16 })
    }

    /// Returns what the first byte promises: an array if it opens one, lines otherwise.
    pub(super) fn format(&self) -> Format {
        if first_in(&self.bytes) == Some(b'[') { Format::Json } else { Format::Jsonl }
    }
}

fn first_in(bytes: &[u8]) -> Option<u8> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    text.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_an_array_from_lines() {
        let format = |mut bytes: &[u8]| Head::read(&mut bytes).unwrap().format();
        assert_eq!(format(b"\xef\xbb\xbf \n\n  [ {}"), Format::Json);
        assert_eq!(format(b"{\"a\": []}"), Format::Jsonl);
        assert_eq!(format(b"["), Format::Json);
        assert_eq!(format(b""), Format::Jsonl);
    }

    #[test]
    fn what_was_looked_at_is_not_lost() {
        let mut input: &[u8] = b"\xef\xbb\xbf  {\"a\": 1}";
        let head = Head::read(&mut input).unwrap();
        assert_eq!([&head.bytes, input].concat(), b"  {\"a\": 1}");
        assert_eq!(head.dropped, 3);
    }

    #[test]
    fn stray_bytes_at_the_start_are_not_taken_for_utf_16() {
        assert!(!Head::read(&mut &b"\xff\xfe{}"[..]).unwrap().utf16);
        assert!(Head::read(&mut &b"\xff\xfe{\0}\0"[..]).unwrap().utf16);
    }
}
