//! Decides how text is read whose format neither the user nor the name of the file tells.
//!
//! A `{` or `[` begins JSON. Otherwise the first record decides: what is clearly the header of a CSV file makes it one.
//! Anything else is refused before the first item, because each of its lines would be rejected for the same reason.

use std::io::{self, BufRead, Cursor, Read};
use std::path::Path;

use super::csv_parser::{CsvParser, LineCounter};
use super::csv_separator::{self, Expected, MAX_SCAN_BYTES, Separator};
use super::error::LayoutFault;
use super::format::{Format, InputHead};
use crate::types::{Advice, Remedy};

/// Longest field of a line that is taken for a header without being asked, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// What the first record shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Detection {
    /// The text has this format.
    Format(Format),
    /// It may be a table or plain text.
    Unclear(UnclearText),
}

/// Text whose first record is neither JSON nor clearly a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnclearText {
    /// The line of the record, from 1.
    pub(super) line: u64,
    /// What separates fields on the line; `None` if it has no separator.
    separator: Option<u8>,
}

/// Detects the format of the text that begins with `head` and continues with `rest`. What it reads is appended to `head`.
pub(super) fn detect(head: &mut InputHead, rest: &mut impl BufRead) -> io::Result<Detection> {
    if head.may_be_json() {
        return Ok(Detection::Format(head.format()));
    }
    let mut first = Vec::new();
    let mut whole = Cursor::new(std::mem::take(&mut head.bytes)).chain(rest);
    let separator = csv_separator::detect(&mut whole, &mut first, Expected::Unknown)?;
    let record_bytes = first.len();
    // The head may have more than the first record.
    let (read_before, _) = whole.into_inner();
    let used = read_before.position() as usize;
    first.extend_from_slice(read_before.get_ref().get(used..).unwrap_or_default());
    head.bytes = first;
    Ok(match separator {
        Separator::SepLine(_) => Detection::Format(Format::Csv),
        // The parser of lines says how long the line is.
        Separator::Ambiguous(_) if record_bytes >= MAX_SCAN_BYTES => Detection::Format(Format::Jsonl),
        // The parser of CSV says what is ambiguous.
        Separator::Ambiguous(_) => Detection::Format(Format::Csv),
        Separator::Header(separator) => of_record(&head.bytes[..record_bytes], separator),
    })
}

/// Returns what a record shows whose separator, if it has one, is `separator`.
fn of_record(record: &[u8], separator: u8) -> Detection {
    let mut parser = CsvParser::new(MAX_SCAN_BYTES, separator);
    let (_, is_complete) = parser.parse(record);
    if !is_complete {
        parser.finish();
    }
    if parser.count() > 1 && is_header(&parser, separator) {
        return Detection::Format(Format::Csv);
    }
    let mut lines = LineCounter::new();
    lines.count(&record[..record.len() - record.trim_ascii_start().len()]);
    let separator = (parser.count() > 1).then_some(separator);
    Detection::Unclear(UnclearText { line: lines.line(), separator })
}

/// Returns whether a record is clearly a header, and no line of a text with a comma in it and no row of data.
fn is_header(parser: &CsvParser, separator: u8) -> bool {
    if !parser.has_closed_quotes() || parser.raw().iter().any(|byte| matches!(byte, b'{' | b'[')) {
        return false;
    }
    // Columns without a name at the end, as spreadsheets write them, are ignored.
    let names = parser.fields().enumerate().filter(|(_, field)| !field.trim_ascii().is_empty());
    let Some(named) = names.map(|(index, _)| index + 1).last() else { return false };
    let is_punctuation = matches!(separator, b',' | b';');
    parser.fields().take(named).enumerate().all(|(index, field)| {
        let continues_sentence = is_punctuation && index > 0 && field.first() == Some(&b' ');
        let name = field.trim_ascii();
        let ends_sentence = matches!(name.last(), Some(b'.' | b'!'));
        let is_number = str::from_utf8(name).is_ok_and(|name| name.parse::<f64>().is_ok());
        !(name.is_empty() || name.len() > MAX_NAME_BYTES || continues_sentence || ends_sentence || is_number)
    })
}

impl UnclearText {
    /// Returns why the input with this name is not read, and what to do.
    pub(super) fn fault(&self, name: &str) -> LayoutFault {
        let (reason, advice) = match self.separator {
            Some(separator) => {
                let format = if separator == b'\t' { "tsv" } else { "csv" };
                (
                    "it has no known format: the line is no JSON object, and looks like CSV, but not clearly like a \
                     header with the names of the columns",
                    Advice::from("write such a header above the rows if there is none, and ")
                        .with_remedy(Remedy::SetInputFormat(format)),
                )
            }
            None => (
                "it has no known format: the line is neither a JSON object nor the header of several columns",
                Advice::from("if the line is the name of the only column, ")
                    .with_remedy(Remedy::SetInputFormat("csv"))
                    .with_text(
                        "; if each line is a text, write a line with a name such as `text` above them, and ",
                    )
                    .with_remedy(Remedy::SetInputFormat("tsv")),
            ),
        };
        let is_text_file =
            Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
        let advice = if is_text_file {
            advice.with_text(
                "; to read whole files, one item per file, name their folder or a pattern such as \"notes/*.txt\" as the items",
            )
        } else {
            advice
        };
        LayoutFault::with_advice(reason, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect_in(text: &str) -> Detection {
        let mut input = text.as_bytes();
        let mut head = InputHead::read(&mut input).unwrap();
        let detected = detect(&mut head, &mut input).unwrap();
        assert_eq!([&head.bytes, input].concat(), text.as_bytes(), "nothing is lost");
        detected
    }

    #[test]
    fn a_clear_header_is_that_of_csv_and_json_is_not_looked_at() {
        for (text, format) in [
            ("id,text\n1,a\n", Format::Csv),
            ("\n\nid;text\r\n1;a\n", Format::Csv),
            ("id\ttext\n1\ta, b\n", Format::Csv),
            ("a,b", Format::Csv),
            ("a,b\nc,d\n", Format::Csv),
            ("\"a, b\",\"c\n d\"\n1,2\n", Format::Csv),
            ("sep=;\nid\n1\n", Format::Csv),
            ("name;price;;;\n", Format::Csv),
            ("name;net, total;city\n", Format::Csv),
            ("{\"a\": 1, \"b\": 2}\n", Format::Jsonl),
            ("{broken, line\n", Format::Jsonl),
            (" [1, 2]", Format::Json),
            ("", Format::Jsonl),
            ("\n \n", Format::Jsonl),
        ] {
            assert_eq!(detect_in(text), Detection::Format(format), "{text:?}");
        }
    }

    #[test]
    fn a_text_and_a_row_of_data_are_no_header() {
        for (text, line, separator) in [
            ("Great product\nBad product\n", 1, None),
            ("\n\n  Great product, I like it\n", 3, Some(b',')),
            ("Good,but late.\n", 1, Some(b',')),
            ("17,Great product\n", 1, Some(b',')),
            ("17\tGreat product\n", 1, Some(b'\t')),
            ("id\ttext, more\n", 1, Some(b',')),
            ("id,{x}\n", 1, Some(b',')),
            ("id,\"x\n1,2\n", 1, Some(b',')),
            ("\"one\"\n", 1, None),
            ("7\n8\n", 1, None),
            ("x", 1, None),
        ] {
            assert_eq!(detect_in(text), Detection::Unclear(UnclearText { line, separator }), "{text:?}");
        }
    }

    #[test]
    fn the_advice_names_the_format_and_for_a_text_file_how_files_are_read() {
        let fault = |separator, name: &str| UnclearText { line: 1, separator }.fault(name).to_string();
        assert!(fault(Some(b','), "stdin").ends_with("set the input format to csv"));
        assert!(fault(Some(b'\t'), "a.dat").ends_with("set the input format to tsv"));
        let of_lines = fault(None, "a.dat");
        assert!(of_lines.contains("set the input format to csv; if each line is a text"), "{of_lines}");
        assert!(fault(None, "feedback.TXT").contains("one item per file"));
        assert!(!of_lines.contains("one item per file"));
    }
}
