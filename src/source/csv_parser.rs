//! Parses bytes into records and fields, separated by commas or another byte.
//!
//! `csv-core` splits fields and removes quotes. This file adds what a record needs besides: its first line, the
//! beginning of its text, its length, and a limit. A record beyond the limit is parsed to its end, but not kept.
//! This parser does no I/O: the caller passes bytes in.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::entry::MAX_EXCERPT_BYTES;

/// Most columns that a header may have.
const MAX_COLUMNS: usize = 65_536;

/// Most bytes of content that `csv-core` returns at once.
const BUFFER_BYTES: usize = 8 << 10;

/// Most ends of fields that `csv-core` returns at once.
const BUFFER_ENDS: usize = 256;

/// The number of the current line. A line ends with a carriage return, a line feed, or both.
pub(super) struct LineCounter {
    line: u64,
    /// Whether the last byte was a carriage return. A line feed then does not end another line.
    after_return: bool,
}

impl LineCounter {
    /// Starts on line 1.
    pub(super) fn new() -> Self {
        Self { line: 1, after_return: false }
    }

    /// Counts the lines that end in `bytes`, which follow the bytes counted before.
    pub(super) fn count(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\r' || (*byte == b'\n' && !self.after_return) {
                self.line += 1;
            }
            self.after_return = *byte == b'\r';
        }
    }

    /// Returns the line that was reached, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }
}

/// The record that is being parsed, and the line position in the input.
pub(super) struct CsvParser {
    limit: usize,
    reader: Reader,
    /// What `csv-core` returned last: content of fields, and their ends in the record's content.
    buffer: Vec<u8>,
    buffer_ends: Vec<usize>,
    lines: LineCounter,
    start: u64,
    raw: Vec<u8>,
    /// 0 before the record begins.
    length: u64,
    /// The contents of the fields, concatenated.
    content: Vec<u8>,
    /// End of each field in `content`.
    field_ends: Vec<usize>,
    count: usize,
    keep_fields: usize,
    has_closed_quotes: bool,
    is_blank_so_far: bool,
}

impl CsvParser {
    /// Creates a parser. The fields of a record with more than `limit` bytes are not kept completely.
    pub(super) fn new(limit: usize, separator: u8) -> Self {
        let mut reader = ReaderBuilder::new().delimiter(separator).build();
        // `csv-core` removes a byte order mark from its first input. The caller has already removed that of the
        // file, and another is content. A line end before the first record has no other effect.
        let _ = reader.read_record(b"\n", &mut [0], &mut [0]);
        Self {
            limit,
            reader,
            buffer: vec![0; BUFFER_BYTES],
            buffer_ends: vec![0; BUFFER_ENDS],
            lines: LineCounter::new(),
            start: 1,
            raw: Vec::new(),
            length: 0,
            content: Vec::new(),
            field_ends: Vec::new(),
            count: 0,
            keep_fields: MAX_COLUMNS,
            has_closed_quotes: true,
            is_blank_so_far: true,
        }
    }

    /// Sets how many fields of a record are kept; further fields are only counted.
    pub(super) fn keep_fields(&mut self, number: usize) {
        self.keep_fields = number;
    }

    /// Returns the line that was reached, from 1.
    pub(super) fn line(&self) -> u64 {
        self.lines.line()
    }

    /// Returns the line on which the record begins, from 1.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the beginning of the record's text, including quotes.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Returns the length of the record's text in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the number of its fields.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns whether its last quote was closed.
    pub(super) fn has_closed_quotes(&self) -> bool {
        self.has_closed_quotes
    }

    /// Returns whether the record is longer than the limit and was not kept completely.
    pub(super) fn is_too_long(&self) -> bool {
        self.length > self.limit as u64
    }

    /// Returns whether all its fields are empty or white space, including those that are not kept. A single
    /// quoted field is not blank: this is how an empty value is written in a file with one column.
    pub(super) fn is_blank(&self) -> bool {
        self.is_blank_so_far && (self.count > 1 || self.raw.first() != Some(&b'"'))
    }

    /// Returns the fields that were kept.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.field_ends.iter().copied());
        starts.zip(&self.field_ends).map(|(start, end)| &self.content[start..*end])
    }

    /// Clears the record before the next one.
    pub(super) fn reset(&mut self) {
        self.raw.clear();
        self.content.clear();
        self.content.shrink_to(1 << 20);
        self.field_ends.clear();
        self.length = 0;
        self.count = 0;
        self.has_closed_quotes = true;
        self.is_blank_so_far = true;
    }

    /// Parses bytes up to the end of the record. Returns how many were used, and whether the record is
    /// complete.
    pub(super) fn parse(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut used = 0;
        if self.length == 0 {
            used = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.lines.count(&bytes[..used]);
            self.start = self.lines.line();
        }
        while used < bytes.len() {
            let (read, complete) = self.parse_buffer(&bytes[used..]);
            used += read;
            if complete {
                return (used, true);
            }
        }
        (used, false)
    }

    /// Ends the record at the end of the input; `false` if none had begun.
    pub(super) fn finish(&mut self) -> bool {
        if self.length == 0 {
            return false;
        }
        // A line end completes the record, except between quotes.
        let (result, ..) = self.reader.read_record(b"\n", &mut [0], &mut [0]);
        self.has_closed_quotes = result == ReadRecordResult::Record;
        self.buffer_ends[0] = self.content.len();
        self.end_fields(1);
        true
    }

    /// Parses bytes until the record is complete, the buffer is full, or all are used. Returns how many were
    /// used, and whether the record is complete.
    fn parse_buffer(&mut self, bytes: &[u8]) -> (usize, bool) {
        let (result, read, written, ended) =
            self.reader.read_record(bytes, &mut self.buffer, &mut self.buffer_ends);
        self.lines.count(&bytes[..read]);
        let complete = result == ReadRecordResult::Record;
        // A complete record ends with one byte of its line end.
        let text = &bytes[..read - usize::from(complete)];
        self.length += text.len() as u64;
        self.raw.extend_from_slice(&text[..text.len().min(MAX_EXCERPT_BYTES - self.raw.len())]);
        let content = &self.buffer[..written];
        self.is_blank_so_far &= content.iter().all(u8::is_ascii_whitespace);
        if !self.is_too_long() {
            self.content.extend_from_slice(content);
        }
        self.end_fields(ended);
        (read, complete)
    }

    /// Counts the fields whose ends are in the buffer, and keeps those ends.
    fn end_fields(&mut self, ended: usize) {
        if !self.is_too_long() {
            let kept = ended.min(self.keep_fields.saturating_sub(self.count));
            self.field_ends.extend_from_slice(&self.buffer_ends[..kept]);
        }
        self.count += ended;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses `bytes`, passed in chunks of `chunk_length` bytes, into records of fields.
    fn parse_all(bytes: &[u8], chunk_length: usize) -> Vec<Vec<Vec<u8>>> {
        let mut parser = CsvParser::new(1 << 20, b',');
        let mut records = Vec::new();
        for mut chunk in bytes.chunks(chunk_length) {
            while !chunk.is_empty() {
                let (used, complete) = parser.parse(chunk);
                chunk = &chunk[used..];
                if complete {
                    records.push(parser.fields().map(<[u8]>::to_vec).collect());
                    parser.reset();
                }
            }
        }
        if parser.finish() {
            records.push(parser.fields().map(<[u8]>::to_vec).collect());
        }
        records
    }

    fn parse_with_csv_crate(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        reader.byte_records().map(|parser| parser.unwrap().iter().map(<[u8]>::to_vec).collect()).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_as_by_the_csv_crate(
            bytes in prop::collection::vec(prop::sample::select(b"ab,\"\"\n\r \xff".to_vec()), 0..60),
            chunk_length in 1usize..8,
        ) {
            prop_assert_eq!(parse_all(&bytes, chunk_length), parse_with_csv_crate(&bytes));
        }

        #[test]
        fn rows_that_the_csv_crate_writes_are_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a-c,\"\r\n é]{0,6}", 1..5), 0..8),
        ) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let bytes = writer.into_inner().unwrap();
            let rows: Vec<Vec<Vec<u8>>> =
                rows.into_iter().map(|row| row.into_iter().map(String::into_bytes).collect()).collect();
            prop_assert_eq!(parse_all(&bytes, 3), rows);
        }
    }

    #[test]
    fn a_second_byte_order_mark_is_content() {
        assert_eq!(parse_all("\u{feff}a\n".as_bytes(), 100), [["\u{feff}a".as_bytes()]]);
    }

    #[test]
    fn lines_with_any_line_ending_are_counted() {
        let mut parser = CsvParser::new(100, b',');
        let mut starts = Vec::new();
        let mut bytes: &[u8] = b"a\r\nb\rc\n\n\r\n\"x\r\ny\nz\"\nd";
        loop {
            let (used, complete) = parser.parse(bytes);
            bytes = &bytes[used..];
            if complete || parser.finish() {
                starts.push(parser.start());
            }
            if !complete {
                break;
            }
            parser.reset();
        }
        assert_eq!(starts, [1, 2, 3, 6, 9]);
    }

    #[test]
    fn a_record_beyond_the_limit_is_skipped_and_not_kept() {
        let mut parser = CsvParser::new(10, b',');
        let long = format!("\"{}\nx\",,,,,,,,,,,,,,,,\n", "y".repeat(100_000));
        assert_eq!(parser.parse(long.as_bytes()), (long.len(), true));
        assert!(parser.is_too_long() && parser.has_closed_quotes());
        assert_eq!(
            (parser.raw().len(), parser.content.len() < 12, parser.field_ends.len()),
            (MAX_EXCERPT_BYTES, true, 0)
        );
        parser.reset();
        assert_eq!(parser.parse(b"a,b\n"), (4, true));
        assert_eq!((parser.fields().count(), parser.start(), parser.is_too_long()), (2, 3, false));
    }
}
