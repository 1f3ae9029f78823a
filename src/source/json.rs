//! Reads one JSON array element by element, without buffering it completely.
//!
//! The array is split at the commas between its elements, and each element is parsed separately. An element
//! that is valid JSON but not an item (a number, half a surrogate pair, nesting that is too deep) is rejected.
//! If the JSON itself is broken, the remaining elements cannot be separated, so reading ends there. The reader
//! never guesses how to continue.

use std::io::{self, BufRead};

use serde::de::IgnoredAny;

use super::ingest::{Ingest, RawRecord, ReadStop};
use super::jsonl::{ParseError, error_text, parse, too_long_message};

/// Reads elements from `input`, which starts at `offset`, until the end of the array and of the input.
pub(super) fn read(
    input: impl BufRead,
    offset: u64,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    read_array(input, offset, Position::START, false, limit, ingest)
}

/// Reads elements from `input`, which starts at `offset` with the array at this position in an object that was scanned,
/// until the end of the array.
pub(super) fn read_inner(
    input: impl BufRead,
    offset: u64,
    at: Position,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    read_array(input, offset, at, true, limit, ingest)
}

fn read_array(
    input: impl BufRead,
    offset: u64,
    at: Position,
    is_inner: bool,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    let mut array = ArrayReader {
        input,
        limit,
        offset,
        at,
        start: at,
        element: Vec::new(),
        length: 0,
        is_inner,
        is_opened: false,
        is_closed: false,
    };
    while array.advance().map_err(|error| error.into_stop(array.at.line, ingest))? {
        let ArrayReader { element, start, length, offset, .. } = &array;
        let record = RawRecord { line: start.line, bytes: Some(element), length: *length, end: *offset };
        if *length > limit as u64 {
            ingest.reject(record, too_long_message(limit), None)?;
            continue;
        }
        match parse(element) {
            Ok(value) => ingest.value(record, value)?,
            Err(error) => {
                if let Some((at, error)) = find_syntax_error(element, *start) {
                    return Err(ArrayError::Syntax(at, error_text(&error)).into_stop(start.line, ingest));
                }
                ingest.reject(record, reason(&error), None)?;
            }
        }
    }
    Ok(())
}

/// Returns where an element is not valid JSON, and why.
fn find_syntax_error(element: &[u8], start: Position) -> Option<(Position, serde_json::Error)> {
    // Skips strings and numbers without checking them, so only the grammar counts.
    let error = serde_json::from_slice::<IgnoredAny>(element).err()?;
    let column = if error.line() <= 1 {
        start.column + error.column().max(1) as u64 - 1
    } else {
        error.column() as u64
    };
    let line = start.line + error.line().max(1) as u64 - 1;
    Some((Position { line, column }, error))
}

fn reason(error: &ParseError) -> String {
    match error {
        ParseError::Encoding(at, byte) => {
            format!("is not UTF-8: its byte {} is 0x{byte:02x}; save the file as UTF-8", at + 1)
        }
        ParseError::Json(error) => format!("cannot be read: {}", error_text(error)),
        ParseError::LimitExceeded(exceeded) => exceeded.to_string(),
    }
}

/// A position in the input; both from 1, columns in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// Why the array cannot be read further.
enum ArrayError {
    Read(io::Error),
    Syntax(Position, String),
}

impl ArrayError {
    fn into_stop(self, line: u64, ingest: &Ingest) -> ReadStop {
        match self {
            Self::Read(error) => ingest.read_error(line, error),
            Self::Syntax(at, reason) => ingest.syntax_error(at.line, at.column, reason),
        }
    }
}

impl From<io::Error> for ArrayError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

struct ArrayReader<R> {
    input: R,
    limit: usize,
    /// Bytes of the input that were read.
    offset: u64,
    /// Position of the next byte.
    at: Position,
    /// Position at which the current element begins.
    start: Position,
    /// The current element, or the beginning of one beyond the limit.
    element: Vec<u8>,
    /// Length of the current element in bytes.
    length: u64,
    /// Whether an object encloses the array. What follows the array is then not read.
    is_inner: bool,
    /// Whether the opening bracket was read.
    is_opened: bool,
    /// Whether the closing bracket was read.
    is_closed: bool,
}

impl<R: BufRead> ArrayReader<R> {
    /// Reads the next element; `false` when the array and the input after it have ended.
    fn advance(&mut self) -> Result<bool, ArrayError> {
        let first = !self.is_opened;
        if first && !self.open()? {
            return Ok(false);
        }
        let next = self.skip_space()?;
        if self.is_closed || (first && next == Some(b']')) {
            if !self.is_closed {
                self.consume_byte();
            }
            if self.is_inner {
                return Ok(false);
            }
            return match self.skip_space()? {
                None => Ok(false),
                Some(_) => Err(self.error_here("there is more after the end of the array")),
            };
        }
        self.start = self.at;
        match next {
            None => Err(self.error_here("the input ends inside the array; its closing `]` is missing")),
            Some(byte @ (b',' | b']')) => {
                Err(self.error_here(&format!("a value is missing before `{}`", byte as char)))
            }
            Some(_) => self.read_element().map(|()| true),
        }
    }

    /// Reads the opening bracket; `false` if the input is empty.
    fn open(&mut self) -> Result<bool, ArrayError> {
        self.is_opened = true;
        match self.skip_space()? {
            None => {
                self.is_closed = true;
                Ok(false)
            }
            Some(b'[') => {
                self.consume_byte();
                Ok(true)
            }
            Some(b'{') => Err(self.error_here(
                "a JSON array of objects is expected here, not an object; put [ ] around it, or choose the format \
                 jsonl if every line is an object",
            )),
            Some(_) => Err(self.error_here("a JSON array of objects is expected here")),
        }
    }

    /// Reads one element and the comma or bracket after it.
    fn read_element(&mut self) -> Result<(), ArrayError> {
        self.element.clear();
        self.element.shrink_to(1 << 20);
        self.length = 0;
        let mut nesting = Nesting::default();
        let mut read = 0;
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Err(self.unfinished_element_error());
            }
            let length = available.iter().position(|byte| nesting.ends_before(*byte));
            let chunk = &available[..length.unwrap_or(available.len())];
            let free_bytes = self.limit.saturating_sub(self.element.len());
            self.element.extend_from_slice(&chunk[..free_bytes.min(chunk.len())]);
            for byte in chunk {
                self.at.advance_over(*byte);
                read += 1;
                // White space after the element does not belong to it.
                if !byte.is_ascii_whitespace() {
                    self.length = read;
                }
            }
            let used = chunk.len();
            let end = length.map(|at| available[at]);
            self.input.consume(used);
            self.offset += used as u64;
            if let Some(byte) = end {
                self.consume_byte();
                self.is_closed = byte == b']';
                self.element.truncate(usize::try_from(self.length).unwrap_or(usize::MAX));
                return Ok(());
            }
        }
    }

    /// Returns the error for an input that ends inside an element.
    fn unfinished_element_error(&self) -> ArrayError {
        let is_complete = self.length <= self.limit as u64;
        match find_syntax_error(&self.element, self.start) {
            // An error inside the element is the reason why its end was not found.
            Some((at, error)) if is_complete && !error.is_eof() => ArrayError::Syntax(at, error_text(&error)),
            _ => ArrayError::Syntax(self.start, "the input ends inside the element that begins here".into()),
        }
    }

    fn error_here(&self, reason: &str) -> ArrayError {
        ArrayError::Syntax(self.at, reason.into())
    }

    /// Skips white space and returns the byte after it, which stays unread.
    fn skip_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            let Some(byte) = self.input.fill_buf()?.first().copied() else { return Ok(None) };
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.at.advance_over(byte);
            self.input.consume(1);
            self.offset += 1;
        }
    }

    /// Consumes one byte that is not a line end and was inspected before.
    fn consume_byte(&mut self) {
        self.input.consume(1);
        self.offset += 1;
        self.at.column += 1;
    }
}

impl Position {
    /// The start of the input.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// Moves over a byte.
    pub(super) fn advance_over(&mut self, byte: u8) {
        if byte == b'\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
    }
}

/// Nesting of brackets and strings at a byte.
#[derive(Default)]
struct Nesting {
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Processes one byte; returns whether the element has ended before it.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            // A surplus bracket is part of the element; parsing reports it.
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}
