//! Encodes result lines as a file has them.

use std::io;

use serde::Serialize;

use super::columns::Columns;
use super::csv_rows::CsvRows;
use super::format::{Format, LineOptions};
use super::layout::{RowLayout, StepColumns};
use super::line::Line;
#[cfg(feature = "parquet")]
use super::parquet_table::Table;
#[cfg(feature = "parquet")]
use super::spool_rows::SpoolRows;
use crate::types::StepName;

/// Encodes result lines in a format.
#[derive(Debug)]
pub struct LineEncoder(Encoder);

#[derive(Debug)]
enum Encoder {
    Json,
    Csv(CsvRows),
    /// Rows that become a Parquet file.
    #[cfg(feature = "parquet")]
    Spool(SpoolRows),
}

impl LineEncoder {
    /// Creates the encoder of a pipeline with these steps. A table has no columns of the input.
    pub fn new(format: Format, steps: &[StepName]) -> Self {
        let steps = steps.iter().cloned().map(StepColumns::new).collect();
        Self::with_layout(format, LineOptions::default(), &RowLayout::new(steps))
    }

    /// Creates the encoder of rows with this layout. Rows of a Parquet file are encoded as JSON, because it can be written
    /// only as a whole.
    pub fn with_layout(format: Format, options: LineOptions, layout: &RowLayout) -> Self {
        let columns = || Columns::new(options.columns, layout);
        Self(match format {
            Format::Jsonl => Encoder::Json,
            Format::Csv(formulas) => Encoder::Csv(CsvRows::new(columns(), formulas)),
            #[cfg(feature = "parquet")]
            Format::Parquet => Encoder::Spool(SpoolRows::new(columns(), layout.is_simulated)),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => Encoder::Json,
        })
    }

    /// Returns what comes before the first line: the header row of CSV.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn header(&self) -> io::Result<Vec<u8>> {
        match &self.0 {
            Encoder::Csv(rows) => rows.header(),
            Encoder::Json => Ok(Vec::new()),
            #[cfg(feature = "parquet")]
            Encoder::Spool(_) => Ok(Vec::new()),
        }
    }

    /// Appends a line and its line end.
    ///
    /// # Errors
    /// If it cannot be encoded. A part of it may have been appended.
    pub fn write(&self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        match &self.0 {
            Encoder::Json => write_json(line, out),
            Encoder::Csv(rows) => rows.write(line, out),
            #[cfg(feature = "parquet")]
            Encoder::Spool(rows) => rows.write(line, out),
        }
    }

    /// Returns the table that the rows so far become; `None` if they are the file.
    #[cfg(feature = "parquet")]
    pub(super) fn table(&self) -> Option<Table> {
        match &self.0 {
            Encoder::Json | Encoder::Csv(_) => None,
            Encoder::Spool(rows) => Some(rows.table()),
        }
    }
}

/// Appends a JSON line.
pub(super) fn write_json<T: Serialize>(line: &T, out: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.push(b'\n');
    Ok(())
}
