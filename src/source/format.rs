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
    /// Values under one header row, separated by commas, semicolons or tabs, as a `sep=` line or the header says. Fields
    /// may be quoted and hold line breaks.
    Csv,
    /// The same, separated by tabs.
    Tsv,
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
            "tsv" => Some(Self::Tsv),
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
            Self::Tsv => "tsv",
            Self::Json => "json",
        })
    }
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a format is jsonl, csv, tsv or json, not {0:?}")]
pub struct FormatError(String);

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "jsonl" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            "tsv" => Ok(Self::Tsv),
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
        let utf16 = is_utf16(&bytes);
        let dropped = if bytes.starts_with(MARK) { MARK.len() } else { 0 };
        bytes.drain(..dropped);
        Ok(Self { bytes, dropped: dropped as u64, utf16 })
    }

    /// Returns what the first byte promises: an array if it opens one, lines otherwise.
    pub(super) fn format(&self) -> Format {
        if first_in(&self.bytes) == Some(b'[') { Format::Json } else { Format::Jsonl }
    }
}

/// Returns whether these bytes begin UTF-16 text: with a byte-order mark before a letter, or with two ASCII letters.
fn is_utf16(bytes: &[u8]) -> bool {
    // Two bytes of plain text behind such a mark are rather stray bytes before an ordinary line.
    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match *bytes {
        [0xff, 0xfe, low, high, ..] | [0xfe, 0xff, high, low, ..] => !is_plain(low) || !is_plain(high),
        [low, 0, next, 0, ..] | [0, low, 0, next, ..] => low != 0 && next != 0,
        _ => false,
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
        assert!(!Head::read(&mut &b"\0\0\0\0"[..]).unwrap().utf16);
    }

    #[test]
    fn utf_16_is_recognised_in_any_script_and_without_a_mark() {
        let bytes =
            |text: &str, to: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(to).collect() };
        for text in
            ["\u{feff}id,text", "\u{feff}Größe", "\u{feff}Имя", "\u{feff}記事,本文", "id,text", "{\"id\": 1}"]
        {
            for order in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
                assert!(Head::read(&mut &bytes(text, order)[..]).unwrap().utf16, "{text}");
            }
        }
    }
}
