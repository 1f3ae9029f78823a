//! Cuts bytes into records and fields, separated by commas or another byte.
//!
//! The grammar is that of RFC 4180, as lenient as the `csv` crate, to which a test compares it. It is
//! written out because that crate holds a record whole, however long, and takes a quote that is never
//! closed for a field that swallows the rest of the input: both would lose items.
//! It never reads: its owner passes bytes in.

use super::entry::EXCERPT;

/// Most columns that a header may have.
const MOST_COLUMNS: usize = 65_536;

/// Where in a record the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a record: line ends are skipped.
    Before,
    /// At the start of a field.
    Start,
    /// In a field without quotes, or behind the closing quote of one.
    Plain,
    /// Between quotes.
    Quoted,
    /// Just after a quote that closes the field, unless another quote follows.
    Closing,
}

/// The record that is being cut, and the place in the input.
pub(super) struct Record {
    limit: usize,
    separator: u8,
    state: State,
    /// The line that is being read.
    line: u64,
    /// Whether the last byte was a carriage return, so that a line feed now ends no further line.
    after_return: bool,
    start: u64,
    raw: Vec<u8>,
    length: u64,
    /// The fields' contents, one after the other.
    content: Vec<u8>,
    /// Where each field ends in `content`.
    ends: Vec<usize>,
    count: usize,
    keep_fields: usize,
    closed: bool,
    blank: bool,
}

impl Record {
    /// Cuts records; of one with more than `limit` bytes only the beginning is kept.
    pub(super) fn new(limit: usize, separator: u8) -> Self {
        Self {
            limit,
            separator,
            state: State::Before,
            line: 1,
            after_return: false,
            start: 1,
            raw: Vec::new(),
            length: 0,
            content: Vec::new(),
            ends: Vec::new(),
            count: 0,
            keep_fields: MOST_COLUMNS,
            closed: true,
            blank: true,
        }
    }

    /// Sets how many fields of a record are kept; any more are only counted.
    pub(super) fn keep_fields(&mut self, number: usize) {
        self.keep_fields = number;
    }

    /// Returns the line that was reached, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Returns the line on which the record begins, from 1.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the beginning of the record's text, quotes and all.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Returns how many bytes the record's text has.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns how many fields it has.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns whether its last quote was closed.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Returns whether it is not kept whole.
    pub(super) fn too_long(&self) -> bool {
        self.length > self.limit as u64
    }

    /// Returns whether all its fields are empty or white space, also those that are not kept. A sole field in quotes is
    /// not blank: that is how an empty value is written in a file of one column.
    pub(super) fn is_blank(&self) -> bool {
        self.blank && (self.count > 1 || self.raw.first() != Some(&b'"'))
    }

    /// Returns the fields that were kept.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.content[start..*end])
    }

    /// Forgets the record before the next one.
    pub(super) fn begin(&mut self) {
        self.state = State::Before;
        self.raw.clear();
        self.content.clear();
        self.content.shrink_to(1 << 20);
        self.ends.clear();
        self.length = 0;
        self.count = 0;
        self.closed = true;
        self.blank = true;
    }

    /// Takes bytes up to the record's end; returns how many, and whether the end was among them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (index, byte) in bytes.iter().enumerate() {
            if self.step(*byte) {
                return (index + 1, true);
            }
        }
        (bytes.len(), false)
    }

    /// Ends the record at the input's end; `false` when none had begun.
    pub(super) fn finish(&mut self) -> bool {
        self.closed = self.state != State::Quoted;
        if self.state == State::Before {
            return false;
        }
        self.end_field();
        true
    }

    /// Takes one byte; returns whether it ends the record.
    fn step(&mut self, byte: u8) -> bool {
        let line = self.line;
        self.count_line(byte);
        let line_end = matches!(byte, b'\r' | b'\n');
        if self.state == State::Before {
            if line_end {
                return false;
            }
            self.start = line;
            self.state = State::Start;
        }
        if line_end && self.state != State::Quoted {
            self.end_field();
            return true;
        }
        self.length += 1;
        if self.raw.len() < EXCERPT {
            self.raw.push(byte);
        }
        self.state = match (self.state, byte) {
            (State::Start, b'"') => State::Quoted,
            (State::Quoted, b'"') => State::Closing,
            (State::Before | State::Start | State::Plain | State::Closing, byte)
                if byte == self.separator =>
            {
                self.end_field();
                State::Start
            }
            (State::Quoted, _) | (State::Closing, b'"') => {
                self.push(byte);
                State::Quoted
            }
            (State::Before | State::Start | State::Plain | State::Closing, _) => {
                self.push(byte);
                State::Plain
            }
        };
        false
    }

    fn count_line(&mut self, byte: u8) {
        if byte == b'\r' || (byte == b'\n' && !self.after_return) {
            self.line += 1;
        }
        self.after_return = byte == b'\r';
    }

    fn push(&mut self, byte: u8) {
        self.blank &= byte.is_ascii_whitespace();
        if self.length <= self.limit as u64 && self.count < self.keep_fields {
            self.content.push(byte);
        }
    }

    fn end_field(&mut self) {
        if self.length <= self.limit as u64 && self.count < self.keep_fields {
            self.ends.push(self.content.len());
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cuts `bytes`, passed in pieces of `piece` bytes, into records of fields.
    fn cut(bytes: &[u8], piece: usize) -> Vec<Vec<Vec<u8>>> {
        let mut record = Record::new(1 << 20, b',');
        let mut records = Vec::new();
        for mut chunk in bytes.chunks(piece) {
            while !chunk.is_empty() {
                let (used, complete) = record.take(chunk);
                chunk = &chunk[used..];
                if complete {
                    records.push(record.fields().map(<[u8]>::to_vec).collect());
                    record.begin();
                }
            }
        }
        if record.finish() {
            records.push(record.fields().map(<[u8]>::to_vec).collect());
        }
        records
    }

    fn cut_by_the_crate(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        reader.byte_records().map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect()).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_as_the_csv_crate_cuts_them(
            bytes in prop::collection::vec(prop::sample::select(b"ab,\"\"\n\r \xff".to_vec()), 0..60),
            piece in 1usize..8,
        ) {
            prop_assert_eq!(cut(&bytes, piece), cut_by_the_crate(&bytes));
        }

        #[test]
        fn what_the_csv_crate_writes_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a-c,\"\r\n é]{0,6}", 1..5), 0..8),
        ) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let bytes = writer.into_inner().unwrap();
            let rows: Vec<Vec<Vec<u8>>> =
                rows.into_iter().map(|row| row.into_iter().map(String::into_bytes).collect()).collect();
            prop_assert_eq!(cut(&bytes, 3), rows);
        }
    }

    #[test]
    fn lines_are_counted_whichever_way_they_end() {
        let mut record = Record::new(100, b',');
        let mut starts = Vec::new();
        let mut bytes: &[u8] = b"a\r\nb\rc\n\n\r\n\"x\r\ny\nz\"\nd";
        loop {
            let (used, complete) = record.take(bytes);
            bytes = &bytes[used..];
            if complete || record.finish() {
                starts.push(record.start());
            }
            if !complete {
                break;
            }
            record.begin();
        }
        assert_eq!(starts, [1, 2, 3, 6, 9]);
    }

    #[test]
    fn a_record_beyond_the_limit_is_passed_over_and_not_held() {
        let mut record = Record::new(10, b',');
        let long = format!("\"{}\nx\",,,,,,,,,,,,,,,,\n", "y".repeat(100_000));
        assert_eq!(record.take(long.as_bytes()), (long.len(), true));
        assert!(record.too_long() && record.closed());
        assert_eq!((record.raw().len(), record.content.len() < 12, record.ends.len()), (EXCERPT, true, 0));
        record.begin();
        assert_eq!(record.take(b"a,b\n"), (4, true));
        assert_eq!((record.fields().count(), record.start(), record.too_long()), (2, 3, false));
    }
}
