//! Parses CSV: values separated by commas, semicolons, tabs or another byte under a header row.
//!
//! A record that does not match the header is rejected, and reading continues with the next record. A record whose
//! fields are all empty is a blank line. All values are strings; no type is inferred.

use std::io::{self, BufRead, Cursor, Read};

use serde_json::{Map, Value};

use super::columns::ColumnNames;
use super::csv_parser::{CsvParser, LineCounter};
use super::csv_separator::{self, Expected, Separator};
use super::error::LayoutFault;
use super::format_mismatch;
use super::ingest::{Ingest, RawRecord, ReadStop};

/// Reads records from `input`, which starts at `offset`, until its end.
pub(super) fn read(
    mut input: impl BufRead,
    offset: u64,
    limit: usize,
    expected: Expected,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    let mut first = Vec::new();
    let detected = csv_separator::detect(&mut input, &mut first, expected);
    let detected = detected.map_err(|error| ingest.read_error(lines_in(&first), error))?;
    let (separator, records_to_header) = match detected {
        Separator::SepLine(separator) => (separator, 2),
        Separator::Header(separator) => (separator, 1),
        Separator::Ambiguous(fault) => {
            let fault = format_mismatch::json_in_csv(&first).unwrap_or(fault);
            let above = first.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            return Err(ingest.layout_error(lines_in(&first[..above]), fault));
        }
    };
    let input = Cursor::new(first).chain(input);
    let mut reader = RecordReader { input, offset, parser: CsvParser::new(limit, separator) };
    for _ in 0..records_to_header {
        if !reader.advance().map_err(|error| ingest.read_error(reader.parser.line(), error))? {
            return Ok(());
        }
    }
    let columns = header(&reader.parser).and_then(|columns| {
        ingest.check_columns(&columns.names)?;
        Ok(columns)
    });
    let columns = columns.map_err(|fault| ingest.layout_error(reader.parser.start(), fault))?;
    reader.parser.keep_fields(columns.names.len() + columns.unnamed);
    while reader.advance().map_err(|error| ingest.read_error(reader.parser.line(), error))? {
        let parser = &reader.parser;
        if parser.is_blank() {
            continue;
        }
        let record = RawRecord {
            line: parser.start(),
            bytes: Some(parser.raw()),
            length: parser.length(),
            end: reader.offset,
        };
        match object(parser, &columns, limit) {
            Ok(object) => ingest.value(record, Value::Object(object))?,
            Err(reason) => ingest.reject(record, reason, None)?,
        }
    }
    Ok(())
}

/// Returns the number of the line at the end of `bytes`, from 1.
fn lines_in(bytes: &[u8]) -> u64 {
    let mut lines = LineCounter::new();
    lines.count(bytes);
    lines.line()
}

/// The columns of a file.
struct Columns {
    /// Their names, without surrounding white space.
    names: Vec<String>,
    /// Columns without a name after all others, as spreadsheets write them: their fields must be empty.
    unnamed: usize,
}

/// Returns the columns that the header names.
fn header(parser: &CsvParser) -> Result<Columns, LayoutFault> {
    if let Some(fault) = format_mismatch::json_in_csv(parser.raw()) {
        return Err(fault);
    }
    if !parser.has_closed_quotes() {
        return Err("the header has a quote that is never closed".into());
    }
    if parser.is_too_long() || parser.fields().count() < parser.count() {
        return Err(format!(
            "the header has {} bytes and {} columns: too many",
            parser.length(),
            parser.count()
        )
        .into());
    }
    let mut columns = ColumnNames::default();
    let has_name = |field: &[u8]| !field.trim_ascii().is_empty();
    let named_columns =
        parser.fields().enumerate().filter(|(_, field)| has_name(field)).map(|(index, _)| index + 1).last();
    // If no column has a name, the error is reported for the first.
    let named_columns = named_columns.unwrap_or(1);
    for (index, field) in parser.fields().take(named_columns).enumerate() {
        let number = index + 1;
        let name = str::from_utf8(field)
            .map_err(|_| format!("the name of column {number} is not UTF-8; save the file as CSV UTF-8"))?;
        columns.push(name)?;
    }
    Ok(Columns { names: columns.into_names(), unnamed: parser.count().saturating_sub(named_columns) })
}

fn object(parser: &CsvParser, columns: &Columns, limit: usize) -> Result<Map<String, Value>, String> {
    if !parser.has_closed_quotes() {
        return Err("has a quote that is never closed, so that it reaches to the end of the input".into());
    }
    if parser.is_too_long() {
        return Err(format!("is longer than the limit of {limit} bytes; a quote may not be closed"));
    }
    let Columns { names, unnamed } = columns;
    let named_columns = names.len();
    if !(named_columns..=named_columns + unnamed).contains(&parser.count()) {
        let plural = if parser.count() == 1 { "" } else { "s" };
        return Err(format!("has {} field{plural}, the header has {named_columns}", parser.count()));
    }
    let mut trailing_fields = parser.fields().enumerate().skip(named_columns);
    if let Some((index, _)) = trailing_fields.find(|(_, field)| !field.trim_ascii().is_empty()) {
        return Err(format!("has a value in column {}, which has no name in the header row", index + 1));
    }
    let mut object = Map::with_capacity(named_columns);
    for (name, field) in names.iter().zip(parser.fields()) {
        let text = str::from_utf8(field).map_err(|error| {
            let byte = error.valid_up_to() + 1;
            format!("is not UTF-8: byte {byte} of its field {name:?} is wrong; save the file as CSV UTF-8")
        })?;
        object.insert(name.clone(), text.into());
    }
    Ok(object)
}

struct RecordReader<R> {
    input: R,
    /// Bytes of the input that were read.
    offset: u64,
    parser: CsvParser,
}

impl<R: BufRead> RecordReader<R> {
    /// Reads the next record; `false` at the end of the input.
    fn advance(&mut self) -> io::Result<bool> {
        self.parser.reset();
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(self.parser.finish());
            }
            let (used, complete) = self.parser.parse(available);
            self.input.consume(used);
            self.offset += used as u64;
            if complete {
                return Ok(true);
            }
        }
    }
}
