//! The formats of inputs, by the name of the file, and the first bytes of an input.
//!
//! Reads no further than the first byte that is not white space. The extension of a compressed file is the one below
//! `.gz` or `.zst`.

use std::fmt;
use std::io::{self, BufRead};
use std::path::Path;
use std::str::FromStr;

/// Format of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One JSON object per line. Blank lines are skipped.
    Jsonl,
    /// Values under a header row, separated by commas, semicolons, tabs or `|`, as a `sep=` line or the header
    /// shows. Fields may be quoted and may contain line breaks.
    Csv,
    /// The same, separated by tabs.
    Tsv,
    /// One JSON array of objects, or an object with one under a key.
    Json,
    /// A sheet of an Excel workbook (`.xlsx`), with a header row.
    Xlsx,
    /// The rows of a Parquet file.
    Parquet,
}

impl Format {
    /// Returns the format for the extension of a file name, if it has a known one.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "gz" | "zst" => Self::of(&path.with_extension("")),
            "xlsx" | "xlsm" => Some(Self::Xlsx),
            "parquet" => Some(Self::Parquet),
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
            Self::Xlsx => "xlsx",
            Self::Parquet => "parquet",
        })
    }
}

/// A word that is not the name of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a format is jsonl, csv, tsv, json, xlsx or parquet, not {0:?}")]
pub struct FormatError(String);

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "jsonl" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            "tsv" => Ok(Self::Tsv),
            "json" => Ok(Self::Json),
            "xlsx" => Ok(Self::Xlsx),
            "parquet" => Ok(Self::Parquet),
            _ => Err(FormatError(word.to_owned())),
        }
    }
}

/// The first bytes of an input.
pub(super) struct InputHead {
    /// The bytes that were read for detection, without a byte-order mark. They precede the rest of the input.
    pub(super) bytes: Vec<u8>,
    /// Length of the byte-order mark that was dropped.
    pub(super) bom_bytes: u64,
    /// Whether the input is UTF-16.
    pub(super) is_utf16: bool,
}

impl InputHead {
    /// Reads up to the first byte that is not white space, and at least the four bytes that are needed to
    /// detect the encoding.
    pub(super) fn read(input: &mut impl BufRead) -> io::Result<Self> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let mut bytes = Vec::new();
        while bytes.len() < 4 || (bytes.len() < 65_536 && first_non_space(&bytes).is_none()) {
            let available = input.fill_buf()?;
            let Some(byte) = available.first() else { break };
            bytes.push(*byte);
            input.consume(1);
        }
        let is_utf16 = is_utf16(&bytes);
        let bom_bytes = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        bytes.drain(..bom_bytes);
        Ok(Self { bytes, bom_bytes: bom_bytes as u64, is_utf16 })
    }

    /// Returns whether the first byte that is not white space begins a JSON object.
    pub(super) fn begins_object(&self) -> bool {
        first_non_space(&self.bytes) == Some(b'{')
    }

    /// Returns whether JSON may begin, or nothing at all: no other text does.
    pub(super) fn may_be_json(&self) -> bool {
        matches!(first_non_space(&self.bytes), None | Some(b'{' | b'['))
    }

    /// Returns the format of JSON that the first byte suggests: an array if it is `[`, otherwise lines.
    pub(super) fn format(&self) -> Format {
        if first_non_space(&self.bytes) == Some(b'[') { Format::Json } else { Format::Jsonl }
    }
}

/// Returns whether the bytes start UTF-16 text: a byte-order mark before a letter, or two ASCII letters.
fn is_utf16(bytes: &[u8]) -> bool {
    // Two bytes of plain text after such a mark are more likely stray bytes before an ordinary line.
    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match *bytes {
        [0xff, 0xfe, low, high, ..] | [0xfe, 0xff, high, low, ..] => !is_plain(low) || !is_plain(high),
        [low, 0, next, 0, ..] | [0, low, 0, next, ..] => low != 0 && next != 0,
        _ => false,
    }
}

fn first_non_space(bytes: &[u8]) -> Option<u8> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    text.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_distinguishes_an_array_from_lines() {
        let format = |mut bytes: &[u8]| InputHead::read(&mut bytes).unwrap().format();
        assert_eq!(format(b"\xef\xbb\xbf \n\n  [ {}"), Format::Json);
        assert_eq!(format(b"{\"a\": []}"), Format::Jsonl);
        assert_eq!(format(b"["), Format::Json);
        assert_eq!(format(b""), Format::Jsonl);
    }

    #[test]
    fn bytes_read_for_detection_are_not_lost() {
        let mut input: &[u8] = b"\xef\xbb\xbf  {\"a\": 1}";
        let head = InputHead::read(&mut input).unwrap();
        assert_eq!([&head.bytes, input].concat(), b"  {\"a\": 1}");
        assert_eq!(head.bom_bytes, 3);
    }

    #[test]
    fn stray_bytes_at_the_start_are_not_mistaken_for_utf_16() {
        assert!(!InputHead::read(&mut &b"\xff\xfe{}"[..]).unwrap().is_utf16);
        assert!(InputHead::read(&mut &b"\xff\xfe{\0}\0"[..]).unwrap().is_utf16);
        assert!(!InputHead::read(&mut &b"\0\0\0\0"[..]).unwrap().is_utf16);
    }

    #[test]
    fn utf_16_is_detected_in_any_script_and_without_a_byte_order_mark() {
        let bytes =
            |text: &str, to: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(to).collect() };
        for text in
            ["\u{feff}id,text", "\u{feff}Größe", "\u{feff}Имя", "\u{feff}記事,本文", "id,text", "{\"id\": 1}"]
        {
            for order in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
                assert!(InputHead::read(&mut &bytes(text, order)[..]).unwrap().is_utf16, "{text}");
            }
        }
    }
}
