//! Reads one JSON object per line.
//!
//! A line that is none is rejected and the next one is read. A line beyond the limit is passed over
//! without being held.

use std::io::{self, BufRead, Read};

use serde_json::Value;

use super::entry::EXCERPT;
use super::extent::{self, Excess};
use super::intake::{Intake, Piece, Stop};
use super::layout::{array_in_lines, json_over_lines};

/// Reads lines from `input`, whose first byte stands at `offset`, until its end.
pub(super) fn read(input: impl BufRead, offset: u64, limit: usize, intake: &mut Intake) -> Result<(), Stop> {
    let mut lines = Lines { input, limit, buffer: Vec::new(), number: 0, length: 0, offset };
    let mut is_first = true;
    while lines.advance().map_err(|error| intake.unreadable(lines.number, error))? {
        let line = lines.buffer.trim_ascii();
        let piece = Piece { line: lines.number, bytes: Some(line), length: lines.length, end: lines.offset };
        let array = || if is_first { array_in_lines(line) } else { None };
        if lines.length > limit as u64 {
            if let Some(reason) = array() {
                return Err(intake.layout(lines.number, reason.to_owned()));
            }
            intake.reject(piece, too_long(limit), None)?;
        } else if !line.is_empty() {
            match parse(line) {
                Ok(value) => match array() {
                    Some(reason) => return Err(intake.layout(lines.number, reason.to_owned())),
                    None => intake.value(piece, value)?,
                },
                Err(unreadable) => {
                    let whole = if is_first { json_over_lines(line, unreadable.is_cut()) } else { None };
                    if let Some(reason) = whole {
                        return Err(intake.layout(lines.number, reason.to_owned()));
                    }
                    intake.reject(piece, unreadable.reason(), None)?;
                }
            }
        } else {
            continue;
        }
        is_first = false;
    }
    Ok(())
}

pub(super) fn too_long(limit: usize) -> String {
    format!("is longer than the limit of {limit} bytes")
}

/// Why bytes are no JSON value.
pub(super) enum Unparsed {
    /// The byte at this place, from 0, is no UTF-8.
    Encoding(usize, u8),
    Json(serde_json::Error),
    /// It is too deep, or holds too many values.
    Excess(Excess),
}

pub(super) fn parse(bytes: &[u8]) -> Result<Value, Unparsed> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Unparsed::Encoding(at, bytes.get(at).copied().unwrap_or_default())
    })?;
    extent::check(bytes).map_err(Unparsed::Excess)?;
    serde_json::from_str(text).map_err(Unparsed::Json)
}

impl Unparsed {
    /// Returns whether a value begins that does not end.
    fn is_cut(&self) -> bool {
        matches!(self, Self::Json(error) if error.is_eof())
    }

    /// Says what is wrong, to be read after "line N".
    fn reason(&self) -> String {
        match self {
            Self::Encoding(at, byte) => {
                format!("is not UTF-8: its byte {} is 0x{byte:02x}; save the file as UTF-8", at + 1)
            }
            Self::Json(error) => format!("is not JSON: {} at column {}", what(error), error.column()),
            Self::Excess(excess) => excess.to_string(),
        }
    }
}

/// Returns what a JSON error says, without the place.
pub(super) fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place).unwrap_or(&text) {
        // The parser's name for the words that JSON has.
        "expected ident" => "expected null, true or false".to_owned(),
        what => what.to_owned(),
    }
}

struct Lines<R> {
    input: R,
    limit: usize,
    /// The current line without its end, or the beginning of one beyond the limit.
    buffer: Vec<u8>,
    number: u64,
    /// Bytes of the current line, its end not counted.
    length: u64,
    /// Bytes of the input that were read.
    offset: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line; `false` at the input's end.
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
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        }
        self.length = self.buffer.len() as u64;
        if self.buffer.len() > self.limit {
            self.buffer.truncate(EXCERPT);
            self.pass_over()?;
        } else if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
            self.length -= 1;
        }
        Ok(true)
    }

    fn pass_over(&mut self) -> io::Result<()> {
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
            if ended {
                return Ok(());
            }
        }
    }
}
