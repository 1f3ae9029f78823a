//! Encodes result lines as a file has them, for outputs that are not files.

use std::io;

use serde::Serialize;

use super::columns::CsvColumns;
use super::format::Format;
use super::line::Line;
use crate::types::StepName;

/// Encodes result lines in a format.
#[derive(Debug)]
pub struct LineEncoder {
    /// The columns of CSV; `None` for JSON lines.
    columns: Option<CsvColumns>,
}

impl LineEncoder {
    /// Creates the encoder of a pipeline with these steps.
    pub fn new(format: Format, steps: &[StepName]) -> Self {
        let columns = match format {
            Format::Jsonl => None,
            Format::Csv(formulas) => Some(CsvColumns::new(steps, formulas)),
        };
        Self { columns }
    }

    /// Returns what comes before the first line: the header row of CSV.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn header(&self) -> io::Result<Vec<u8>> {
        self.columns.as_ref().map_or(Ok(Vec::new()), CsvColumns::header)
    }

    /// Appends a line and its line end.
    ///
    /// # Errors
    /// If it cannot be encoded. A part of it may have been appended.
    pub fn write(&self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        match &self.columns {
            Some(columns) => columns.write(line, out),
            None => write_json(line, out),
        }
    }
}

/// Appends a JSON line.
pub(super) fn write_json<T: Serialize>(line: &T, out: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.push(b'\n');
    Ok(())
}
