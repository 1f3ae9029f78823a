//! Reads one JSON object per line.
//!
//! A line that is not a JSON object is rejected, and reading continues with the next line. A line beyond the limit
//! is skipped without being buffered.

use std::io::{self, BufRead, Read};

use serde_json::Value;

use super::entry::MAX_EXCERPT_BYTES;
use super::format_mismatch::{array_in_lines, json_over_lines};
use super::ingest::{Ingest, RawRecord, ReadStop};
use super::json_limits::{self, LimitExceeded};

/// Reads lines from `input`, which starts at `offset`, until its end.
pub(super) fn read(
    input: impl BufRead,
    offset: u64,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    let mut reader =
        LineReader { input, limit, buffer: Vec::new(), number: 0, length: 0, has_line_end: false, offset };
    let mut is_first = true;
    while reader.advance().map_err(|error| ingest.read_error(reader.number, error))? {
        let line = reader.buffer.trim_ascii();
        let record =
            RawRecord { line: reader.number, bytes: Some(line), length: reader.length, end: reader.offset };
        let array_fault = || if is_first { array_in_lines(line) } else { None };
        if reader.length > limit as u64 {
            if let Some(fault) = array_fault() {
                return Err(ingest.layout_error(reader.number, fault));
            }
            if is_first && !reader.has_line_end {
                let fault = format!(
                    "the file is one line of {} bytes without a line end; it needs a line for each item, of at most {limit} \
                     bytes",
                    reader.length
                );
                return Err(ingest.layout_error(reader.number, fault.into()));
            }
            ingest.reject(record, too_long_message(limit), None)?;
        } else if !line.is_empty() {
            match parse(line) {
                Ok(value) => match array_fault() {
                    Some(fault) => return Err(ingest.layout_error(reader.number, fault)),
                    None => ingest.value(record, value)?,
                },
                Err(error) => {
                    let fault = if is_first { json_over_lines(line, error.is_cut()) } else { None };
                    if let Some(fault) = fault {
                        return Err(ingest.layout_error(reader.number, fault));
                    }
                    ingest.reject(record, error.reason(), None)?;
                }
            }
        } else {
            continue;
        }
        is_first = false;
    }
    Ok(())
}

pub(super) fn too_long_message(limit: usize) -> String {
    format!("is longer than the limit of {limit} bytes")
}

/// Why bytes are not a JSON value.
pub(super) enum ParseError {
    /// The byte at this index, from 0, is not UTF-8.
    Encoding(usize, u8),
    Json(serde_json::Error),
    /// It is nested too deeply or holds too many values.
    LimitExceeded(LimitExceeded),
}

pub(super) fn parse(bytes: &[u8]) -> Result<Value, ParseError> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ParseError::Encoding(at, bytes.get(at).copied().unwrap_or_default())
    })?;
    json_limits::check(bytes).map_err(ParseError::LimitExceeded)?;
    serde_json::from_str(text).map_err(ParseError::Json)
}

impl ParseError {
    /// Returns whether a value begins that does not end.
    fn is_cut(&self) -> bool {
        matches!(self, Self::Json(error) if error.is_eof())
    }

    /// Returns what is wrong, to be read after "line N".
    fn reason(&self) -> String {
        match self {
            Self::Encoding(at, byte) => {
                format!("is not UTF-8: its byte {} is 0x{byte:02x}; save the file as UTF-8", at + 1)
            }
            Self::Json(error) => format!("is not JSON: {} at column {}", error_text(error), error.column()),
            Self::LimitExceeded(exceeded) => exceeded.to_string(),
        }
    }
}

/// Returns the text of a JSON error without its position.
pub(super) fn error_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&position).unwrap_or(&text) {
        // The parser's name for the JSON keywords.
        "expected ident" => "expected null, true or false".to_owned(),
        error_text => error_text.to_owned(),
    }
}

struct LineReader<R> {
    input: R,
    limit: usize,
    /// The current line without its line end, or the beginning of a line beyond the limit.
    buffer: Vec<u8>,
    number: u64,
    /// Length of the current line in bytes, without its line end.
    length: u64,
    /// Whether the current line has a line end.
    has_line_end: bool,
    /// Bytes of the input that were read.
    offset: u64,
}

impl<R: BufRead> LineReader<R> {
    /// Reads the next line; `false` at the end of the input.
    fn advance(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        let at_most = self.limit as u64 + 1;
        let read = (&mut self.input).take(at_most).read_until(b'\n', &mut self.buffer)?;
        self.offset += read as u64;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.has_line_end = self.buffer.last() == Some(&b'\n');
        if self.has_line_end {
            self.buffer.pop();
        }
        self.length = self.buffer.len() as u64;
        if self.buffer.len() > self.limit {
            self.buffer.truncate(MAX_EXCERPT_BYTES);
            self.skip_line()?;
        } else if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
            self.length -= 1;
        }
        Ok(true)
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let available = self.input.fill_buf()?;
            let (length, ended) = match available.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at, true),
                None => (available.len(), available.is_empty()),
            };
            let used = available.len().min(length + usize::from(ended));
            self.input.consume(used);
            self.offset += used as u64;
            self.length += length as u64;
            self.has_line_end = used > length;
            if ended {
                return Ok(());
            }
        }
    }
}
