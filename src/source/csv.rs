//! Reads values separated by commas, semicolons or tabs, under a header row.
//!
//! A record that does not fit the header is rejected and the next one is read. A record of empty fields alone is a blank
//! line. All values are strings; nothing is guessed from their looks.

use std::io::{self, BufRead, Cursor, Read};

use serde_json::{Map, Value};

use super::intake::{Intake, Piece, Stop};
use super::layout;
use super::record::Record;
use super::separator::{self, Separator};

/// Longest name of a column, in bytes: it stands in every item and in messages.
const MAX_NAME: usize = 256;

/// Most bytes of all names together, for the same reason.
const MAX_NAMES: usize = 64 << 10;

/// Reads records from `input`, whose first byte stands at `offset`, until its end. `given` separates their fields where
/// the format says what does.
pub(super) fn read(
    mut input: impl BufRead,
    offset: u64,
    limit: usize,
    given: Option<u8>,
    intake: &mut Intake,
) -> Result<(), Stop> {
    let mut first = Vec::new();
    let found = separator::find(&mut input, &mut first, given);
    let found = found.map_err(|error| intake.unreadable(lines_in(&first), error))?;
    let separator = match found {
        Separator::Line(separator) | Separator::Header(separator) => separator,
        Separator::Unclear(_) => b',',
    };
    let input = Cursor::new(first).chain(input);
    let mut records = Records { input, offset, record: Record::new(limit, separator) };
    let leading = if let Separator::Line(_) = found { 2 } else { 1 };
    for _ in 0..leading {
        if !records.advance().map_err(|error| intake.unreadable(records.record.line(), error))? {
            return Ok(());
        }
    }
    let columns = match found {
        Separator::Unclear(reason) => Err(reason),
        Separator::Line(_) | Separator::Header(_) => header(&records.record),
    };
    let columns = columns.map_err(|reason| intake.layout(records.record.start(), reason))?;
    records.record.keep_fields(columns.names.len() + columns.nameless);
    while records.advance().map_err(|error| intake.unreadable(records.record.line(), error))? {
        let record = &records.record;
        if record.is_blank() {
            continue;
        }
        let piece = Piece {
            line: record.start(),
            bytes: Some(record.raw()),
            length: record.length(),
            end: records.offset,
        };
        match object(record, &columns, limit) {
            Ok(object) => intake.value(piece, Value::Object(object))?,
            Err(reason) => intake.reject(piece, reason, None)?,
        }
    }
    Ok(())
}

/// Returns the line at the end of `bytes`, from 1, whose line ends may be of any kind.
fn lines_in(bytes: &[u8]) -> u64 {
    let ends = bytes.iter().enumerate().filter(|(at, byte)| match byte {
        b'\r' => true,
        b'\n' => *at == 0 || bytes[at - 1] != b'\r',
        _ => false,
    });
    ends.count() as u64 + 1
}

/// The columns of a file.
struct Columns {
    /// Their names, without the white space around them.
    names: Vec<String>,
    /// Columns without a name behind them all, as spreadsheets write them: their fields must be empty.
    nameless: usize,
}

/// Returns the columns that the header names.
fn header(record: &Record) -> Result<Columns, String> {
    if let Some(reason) = layout::json_in_csv(record.raw()) {
        return Err(reason.to_owned());
    }
    if !record.closed() {
        return Err("the header has a quote that is never closed".into());
    }
    if record.too_long() || record.fields().count() < record.count() {
        return Err(format!(
            "the header has {} bytes and {} columns: too many",
            record.length(),
            record.count()
        ));
    }
    let mut columns: Vec<String> = Vec::with_capacity(record.count());
    let mut bytes = 0;
    let has_name = |field: &[u8]| !field.trim_ascii().is_empty();
    let named =
        record.fields().enumerate().filter(|(_, field)| has_name(field)).map(|(index, _)| index + 1).last();
    // Where none has a name the first of them is what is missed.
    let named = named.unwrap_or(1);
    for (index, field) in record.fields().take(named).enumerate() {
        let number = index + 1;
        let name = str::from_utf8(field)
            .map_err(|_| format!("the name of column {number} is not UTF-8; save the file as CSV UTF-8"))?
            .trim();
        if name.len() > MAX_NAME {
            return Err(format!(
                "the name of column {number} has {} bytes, and a name may have {MAX_NAME}; shorten it, or add a header \
                 row if this is data",
                name.len()
            ));
        }
        bytes += name.len();
        if bytes > MAX_NAMES {
            return Err(format!(
                "the names of the columns up to column {number} have {bytes} bytes together, and all may have \
                 {MAX_NAMES}; shorten them, or leave columns out"
            ));
        }
        if name.is_empty() {
            return Err(format!("column {number} has no name; every column needs one in the header row"));
        }
        if let Some(first) = columns.iter().position(|column| column == name) {
            return Err(format!("columns {} and {number} are both named {name:?}; rename one", first + 1));
        }
        columns.push(name.to_owned());
    }
    Ok(Columns { names: columns, nameless: record.count().saturating_sub(named) })
}

fn object(record: &Record, columns: &Columns, limit: usize) -> Result<Map<String, Value>, String> {
    if !record.closed() {
        return Err("has a quote that is never closed, so that it reaches to the end of the input".into());
    }
    if record.too_long() {
        return Err(format!("is longer than the limit of {limit} bytes; perhaps a quote is not closed"));
    }
    let Columns { names, nameless } = columns;
    let named = names.len();
    if !(named..=named + nameless).contains(&record.count()) {
        let plural = if record.count() == 1 { "" } else { "s" };
        return Err(format!("has {} field{plural}, the header has {named}", record.count()));
    }
    let mut behind = record.fields().enumerate().skip(named);
    if let Some((index, _)) = behind.find(|(_, field)| !field.trim_ascii().is_empty()) {
        return Err(format!("has a value in column {}, which has no name in the header row", index + 1));
    }
    let mut object = Map::with_capacity(named);
    for (name, field) in names.iter().zip(record.fields()) {
        let text = str::from_utf8(field).map_err(|error| {
            let byte = error.valid_up_to() + 1;
            format!("is not UTF-8: byte {byte} of its field {name:?} is wrong; save the file as CSV UTF-8")
        })?;
        object.insert(name.clone(), text.into());
    }
    Ok(object)
}

struct Records<R> {
    input: R,
    /// Bytes of the input that were read.
    offset: u64,
    record: Record,
}

impl<R: BufRead> Records<R> {
    /// Reads the next record; `false` at the input's end.
    fn advance(&mut self) -> io::Result<bool> {
        self.record.begin();
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(self.record.finish());
            }
            let (used, complete) = self.record.take(available);
            self.input.consume(used);
            self.offset += used as u64;
            if complete {
                return Ok(true);
            }
        }
    }
}
