//! Reads a sheet of an Excel workbook row by row.
//!
//! The first row that is not empty has the names of the columns, with the rules of CSV. A value is what the cell shows as
//! its stored value: the result of a formula, a number, true or false, a date as ISO 8601 text, an error such as `#N/A` as
//! text; an empty cell is an empty text. Of the workbook, only the table of shared texts is in memory, and it has a limit.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Seek};

use calamine::{
    DataRef, ExcelDateTime, Reader as _, SheetType, SheetVisible, Xlsx, XlsxCellReader, XlsxError,
};
use serde_json::{Map, Number, Value};
use zip::ZipArchive;

use super::columns::ColumnNames;
use super::error::LayoutFault;
use super::ingest::{Ingest, RawRecord, ReadStop};
use super::signature::zip_contents;
use super::xlsx_parts::{self, PartError};

/// Most columns of a sheet in Excel.
const MAX_COLUMNS: u32 = 16_384;

/// Above this, a double does not have all whole numbers.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Reads the rows of a sheet of the workbook in `file`, which has `total` bytes.
pub(super) fn read(
    file: File,
    sheet: Option<&str>,
    total: Option<u64>,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    let damaged = |error: &dyn std::error::Error, ingest: &Ingest| {
        ingest.unreadable(format!(
            "it looks like a workbook of Excel or another packed file, and cannot be read: {error}; open it in Excel and \
             save it again, or save the sheet as CSV UTF-8 and use that file"
        ))
    };
    let mut file = BufReader::new(file);
    check_archive(&mut file, ingest, &damaged)?;
    file.rewind().map_err(|error| ingest.read_error(1, error))?;
    let mut workbook = Xlsx::new(file).map_err(|error| damaged(&error, ingest))?;
    let name = choose_sheet(&workbook, sheet).map_err(|fault| ingest.unreadable(fault))?;
    let cells = workbook.worksheet_cells_reader(&name).map_err(|error| damaged(&error, ingest))?;
    let last_row = cells.dimensions().end.0;
    let mut rows = Rows { cells, next: None, has_ended: false, limit };
    let mut columns = None;
    while let Some(row) = rows.next().map_err(|error| damaged(&error, ingest))? {
        if row.is_blank() {
            continue;
        }
        let line = u64::from(row.index) + 1;
        let Some(columns) = &columns else {
            let named = Columns::of(&row).and_then(|columns| {
                ingest.check_columns(&columns.names)?;
                Ok(columns)
            });
            columns = Some(named.map_err(|fault| ingest.layout_error(line, fault))?);
            continue;
        };
        let end = position(row.index, last_row, total);
        let record = RawRecord { line, bytes: None, length: 0, end };
        match columns.object(&row, limit) {
            Ok(object) => ingest.value(record, Value::Object(object))?,
            Err(reason) => {
                let text = row.text();
                let record = RawRecord { bytes: Some(text.as_bytes()), length: text.len() as u64, ..record };
                ingest.reject(record, reason, None)?;
            }
        }
    }
    Ok(())
}

/// Returns about which byte of the file a row ends at, for progress.
fn position(row: u32, last_row: u32, total: Option<u64>) -> u64 {
    let share = f64::from(row.saturating_add(1)) / f64::from(last_row.saturating_add(1));
    (share.min(1.0) * total.unwrap_or(0) as f64) as u64
}

/// Checks that an archive is a workbook whose parts fit into memory.
fn check_archive(
    file: &mut BufReader<File>,
    ingest: &Ingest,
    damaged: &impl Fn(&dyn std::error::Error, &Ingest) -> ReadStop,
) -> Result<(), ReadStop> {
    file.rewind().map_err(|error| ingest.read_error(1, error))?;
    let mut archive = ZipArchive::new(file).map_err(|error| damaged(&error, ingest))?;
    let names: Vec<Cow<'_, str>> = archive.file_names_raw().map(String::from_utf8_lossy).collect();
    if let Some((look, advice)) = zip_contents(names.iter().map(|name| &**name)) {
        return Err(ingest.unreadable(format!("it looks like {look}, not like items; {advice}")));
    }
    xlsx_parts::check(&mut archive).map_err(|error| match error {
        PartError::Zip(error) => damaged(&error, ingest),
        PartError::Refused(reason) => ingest.unreadable(reason),
    })
}

/// Returns the name of the sheet that the user chose by its name or its number, or of the first one that is visible.
fn choose_sheet(workbook: &Xlsx<BufReader<File>>, wanted: Option<&str>) -> Result<String, LayoutFault> {
    let sheets: Vec<_> =
        workbook.sheets_metadata().iter().filter(|sheet| sheet.typ == SheetType::WorkSheet).collect();
    let Some(wanted) = wanted else {
        let visible = sheets.iter().find(|sheet| sheet.visible == SheetVisible::Visible);
        let first =
            visible.or(sheets.first()).ok_or_else(|| LayoutFault::from("the workbook has no sheet"))?;
        return Ok(first.name.clone());
    };
    let by_name = sheets.iter().find(|sheet| sheet.name == wanted);
    let by_number = || {
        let number = wanted.parse::<usize>().ok()?;
        sheets.get(number.checked_sub(1)?)
    };
    by_name.or_else(by_number).map(|sheet| sheet.name.clone()).ok_or_else(|| {
        let names: Vec<String> = sheets.iter().map(|sheet| sheet.name.clone()).collect();
        LayoutFault::unknown_name("sheet", "is to have the items", wanted, &names)
    })
}

/// A row of a sheet.
struct Row {
    /// Its index from 0.
    index: u32,
    values: Vec<Value>,
    /// Whether it has more text than an item may have; its further values are not kept.
    is_too_long: bool,
}

impl Row {
    /// Returns whether all its cells are empty or white space.
    fn is_blank(&self) -> bool {
        !self.is_too_long && self.values.iter().all(is_blank)
    }

    /// Returns its values as text, separated by tabs.
    fn text(&self) -> String {
        self.values.iter().map(text_of).collect::<Vec<_>>().join("\t")
    }
}

fn is_blank(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.trim().is_empty())
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A cell: its row and column, from 0, and its value.
type Cell = ((u32, u32), Value);

/// Collects the cells of a sheet into rows.
struct Rows<'a> {
    cells: XlsxCellReader<'a, BufReader<File>>,
    /// The first cell of the next row.
    next: Option<Cell>,
    /// Whether the last cell was returned. The reader of the cells must not be called then.
    has_ended: bool,
    limit: usize,
}

impl Rows<'_> {
    fn next_cell(&mut self) -> Result<Option<Cell>, XlsxError> {
        if self.next.is_some() {
            return Ok(self.next.take());
        }
        if self.has_ended {
            return Ok(None);
        }
        let Some(cell) = self.cells.next_cell()? else {
            self.has_ended = true;
            return Ok(None);
        };
        let (row, column) = cell.get_position();
        if column >= MAX_COLUMNS {
            return Err(XlsxError::ColumnNumberOverflow);
        }
        Ok(Some(((row, column), value(cell.get_value()))))
    }

    /// Returns the next row that has cells.
    fn next(&mut self) -> Result<Option<Row>, XlsxError> {
        let mut row: Option<Row> = None;
        let mut bytes = 0;
        while let Some(((index, column), value)) = self.next_cell()? {
            let row = row.get_or_insert_with(|| Row { index, values: Vec::new(), is_too_long: false });
            if index != row.index {
                self.next = Some(((index, column), value));
                break;
            }
            bytes += value.as_str().map_or(8, str::len);
            if bytes > self.limit {
                row.is_too_long = true;
                continue;
            }
            let column = column as usize;
            if row.values.len() <= column {
                row.values.resize(column + 1, Value::from(""));
            }
            row.values[column] = value;
        }
        Ok(row)
    }
}

/// The columns of a sheet.
struct Columns {
    /// Empty columns to the left of the first one.
    skipped: usize,
    names: Vec<String>,
}

impl Columns {
    /// Returns the columns that a header row names.
    fn of(row: &Row) -> Result<Self, LayoutFault> {
        if row.is_too_long {
            return Err("the header has too much text".into());
        }
        let has_name = |value: &Value| !is_blank(value);
        let skipped = row.values.iter().position(has_name).unwrap_or(0);
        let end = row.values.iter().rposition(has_name).map_or(0, |last| last + 1);
        let mut names = ColumnNames::default();
        for value in &row.values[skipped..end] {
            names.push(&text_of(value))?;
        }
        Ok(Self { skipped, names: names.into_names() })
    }

    fn object(&self, row: &Row, limit: usize) -> Result<Map<String, Value>, String> {
        if row.is_too_long {
            return Err(format!("is longer than the limit of {limit} bytes"));
        }
        let named = self.skipped..self.skipped + self.names.len();
        let mut outside = row.values.iter().enumerate().filter(|(column, _)| !named.contains(column));
        if let Some((column, _)) = outside.find(|(_, value)| !is_blank(value)) {
            return Err(format!("has a value in column {}, which has no name in the header row", column + 1));
        }
        let mut object = Map::with_capacity(self.names.len());
        for (name, column) in self.names.iter().zip(named) {
            object.insert(name.clone(), row.values.get(column).cloned().unwrap_or_else(|| Value::from("")));
        }
        Ok(object)
    }
}

/// Returns the value of a cell.
fn value(cell: &DataRef<'_>) -> Value {
    match cell {
        DataRef::Int(number) => Value::from(*number),
        DataRef::Float(number) => number_of(*number),
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => {
            Value::from(text.as_str())
        }
        DataRef::SharedString(text) => Value::from(*text),
        DataRef::Bool(is_true) => Value::from(*is_true),
        DataRef::DateTime(moment) => Value::from(iso_8601(moment)),
        DataRef::Error(error) => Value::from(error.to_string()),
        DataRef::Empty => Value::from(""),
    }
}

/// Returns a number, as a whole one if it is one.
fn number_of(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < MAX_WHOLE {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or_else(|| Value::from(number.to_string()), Value::Number)
}

/// Returns a date, a time of day or both as ISO 8601, and a duration as hours, minutes and seconds.
fn iso_8601(moment: &ExcelDateTime) -> String {
    if moment.is_duration() {
        let milliseconds = (moment.as_f64() * 86_400_000.0).round();
        let sign = if milliseconds < 0.0 { "-" } else { "" };
        let milliseconds = milliseconds.abs() as u64;
        let seconds = milliseconds / 1000;
        let fraction = fraction((milliseconds % 1000) as u16);
        return format!("{sign}{}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
    let (year, month, day, hour, minute, second, milli) = moment.to_ymd_hms_milli();
    let time = format!("{hour:02}:{minute:02}:{second:02}{}", fraction(milli));
    if (0.0..1.0).contains(&moment.as_f64()) {
        return time;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    if (hour, minute, second, milli) == (0, 0, 0, 0) { date } else { format!("{date}T{time}") }
}

/// Returns milliseconds as the fraction of a second.
fn fraction(milli: u16) -> String {
    if milli == 0 { String::new() } else { format!(".{milli:03}") }
}

#[cfg(test)]
mod tests {
    use calamine::ExcelDateTimeType;

    use super::*;

    #[test]
    fn dates_are_iso_8601_and_whole_numbers_have_no_fraction() {
        let at = |value, kind| iso_8601(&ExcelDateTime::new(value, kind, false));
        assert_eq!(at(45943.0, ExcelDateTimeType::DateTime), "2025-10-13");
        assert_eq!(at(45943.5, ExcelDateTimeType::DateTime), "2025-10-13T12:00:00");
        assert_eq!(at(45943.541, ExcelDateTimeType::DateTime), "2025-10-13T12:59:02.400");
        assert_eq!(at(0.25, ExcelDateTimeType::DateTime), "06:00:00");
        assert_eq!(at(1.5, ExcelDateTimeType::TimeDelta), "36:00:00");
        assert_eq!(number_of(5.0).to_string(), "5");
        assert_eq!(number_of(-0.25).to_string(), "-0.25");
        assert_eq!(number_of(1e300).as_f64(), Some(1e300));
    }
}
