//! Encodes rows for the spool of a Parquet file: one JSON array of cells a line.
//!
//! The type of a Parquet column must be known before its first value is written, and depends on all of them. So rows are
//! spooled first, and their types are collected.

use std::borrow::Cow;
use std::io;
use std::sync::{Mutex, PoisonError};

use serde_json::{Number, Value};

use super::column_type::ColumnType;
use super::columns::{Cell, Columns};
use super::line::Line;
use super::parquet_table::Table;

#[derive(Debug)]
pub(super) struct SpoolRows {
    columns: Columns,
    types: Mutex<Vec<ColumnType>>,
    is_simulated: bool,
}

impl SpoolRows {
    pub(super) fn new(columns: Columns, is_simulated: bool) -> Self {
        let types = columns.names().map(|_| ColumnType::Empty).collect();
        Self { columns, types: Mutex::new(types), is_simulated }
    }

    /// Appends the row of `line`.
    pub(super) fn write(&self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        self.columns.check(line)?;
        let cells: Vec<Cow<'_, Value>> = self.columns.cells(line).map(spooled).collect();
        serde_json::to_writer(&mut *out, &cells)?;
        out.push(b'\n');
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        for (column, cell) in types.iter_mut().zip(&cells) {
            *column = column.and(ColumnType::of(cell));
        }
        Ok(())
    }

    /// Returns the table of the rows so far.
    pub(super) fn table(&self) -> Table {
        let types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        let columns = self.columns.names().map(str::to_owned).zip(types.iter().copied()).collect();
        Table { columns, is_simulated: self.is_simulated }
    }
}

/// Returns a cell as the spool has it: a list and an object as JSON text, as the table has them.
fn spooled(cell: Cell<'_>) -> Cow<'_, Value> {
    match cell {
        Cell::Float(number) => Cow::Owned(Number::from_f64(number).map_or(Value::Null, Value::Number)),
        Cell::Value(value) => match &*value {
            Value::Array(_) | Value::Object(_) => Cow::Owned(Value::String(value.to_string())),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
        },
    }
}
