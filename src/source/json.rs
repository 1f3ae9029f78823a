//! Reads one JSON array, element by element, without holding it.
//!
//! The array is cut at the commas between its elements, and each element is parsed by itself. An
//! element that is proper JSON but no item (a number, half a surrogate pair, too deep a nesting) is
//! rejected. Where the JSON itself is broken nobody can tell what belongs to what, so the reading
//! ends there; it never guesses how to go on.

use std::io::{self, BufRead};

use serde::de::IgnoredAny;

use super::intake::{Intake, Piece, Stop};
use super::jsonl::{Unparsed, parse, too_long, what};

/// Reads elements from `input`, whose first byte stands at `offset`, until the array's end.
pub(super) fn read(input: impl BufRead, offset: u64, limit: usize, intake: &mut Intake) -> Result<(), Stop> {
    let at = Place { line: 1, column: 1 };
    let mut array = Array {
        input,
        limit,
        offset,
        at,
        start: at,
        element: Vec::new(),
        length: 0,
        begun: false,
        ended: false,
    };
    while array.advance().map_err(|fault| fault.stop(array.at.line, intake))? {
        let Array { element, start, length, offset, .. } = &array;
        let piece = Piece { line: start.line, bytes: Some(element), length: *length, end: *offset };
        if *length > limit as u64 {
            intake.reject(piece, too_long(limit), None)?;
            continue;
        }
        match parse(element) {
            Ok(value) => intake.value(piece, value)?,
            Err(unparsed) => {
                if let Some((at, error)) = broken(element, *start) {
                    return Err(Fault::Syntax(at, what(&error)).stop(start.line, intake));
                }
                intake.reject(piece, reason(&unparsed), None)?;
            }
        }
    }
    Ok(())
}

/// Returns where an element is no JSON at all, and why.
fn broken(element: &[u8], start: Place) -> Option<(Place, serde_json::Error)> {
    // Passes over texts and numbers without judging them, so only the grammar counts.
    let error = serde_json::from_slice::<IgnoredAny>(element).err()?;
    let column = if error.line() <= 1 {
        start.column + error.column().max(1) as u64 - 1
    } else {
        error.column() as u64
    };
    let line = start.line + error.line().max(1) as u64 - 1;
    Some((Place { line, column }, error))
}

fn reason(unparsed: &Unparsed) -> String {
    match unparsed {
        Unparsed::Encoding(at, byte) => {
            format!("is not UTF-8: its byte {} is 0x{byte:02x}; save the file as UTF-8", at + 1)
        }
        Unparsed::Json(error) => format!("cannot be read: {}", what(error)),
        Unparsed::Excess(excess) => excess.to_string(),
    }
}

/// A place in the input; both from 1, columns in bytes.
#[derive(Debug, Clone, Copy)]
struct Place {
    line: u64,
    column: u64,
}

enum Fault {
    Read(io::Error),
    Syntax(Place, String),
}

impl Fault {
    fn stop(self, line: u64, intake: &Intake) -> Stop {
        match self {
            Self::Read(error) => intake.unreadable(line, error),
            Self::Syntax(at, reason) => intake.syntax(at.line, at.column, reason),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

struct Array<R> {
    input: R,
    limit: usize,
    /// Bytes of the input that were read.
    offset: u64,
    /// The place of the next byte.
    at: Place,
    /// The place where the current element begins.
    start: Place,
    /// The current element, or the beginning of one beyond the limit.
    element: Vec<u8>,
    /// Bytes of the current element.
    length: u64,
    /// The opening bracket was read.
    begun: bool,
    /// The closing bracket was read.
    ended: bool,
}

impl<R: BufRead> Array<R> {
    /// Reads the next element; `false` when the array, and the input behind it, has ended.
    fn advance(&mut self) -> Result<bool, Fault> {
        let first = !self.begun;
        if first && !self.open()? {
            return Ok(false);
        }
        let next = self.skip_space()?;
        if self.ended || (first && next == Some(b']')) {
            if !self.ended {
                self.bump();
            }
            return match self.skip_space()? {
                None => Ok(false),
                Some(_) => Err(self.fault("there is more behind the end of the array")),
            };
        }
        self.start = self.at;
        match next {
            None => Err(self.fault("the input ends inside the array; its closing `]` is missing")),
            Some(byte @ (b',' | b']')) => {
                Err(self.fault(&format!("a value is missing before `{}`", byte as char)))
            }
            Some(_) => self.cut().map(|()| true),
        }
    }

    /// Reads the opening bracket; `false` when the input holds nothing.
    fn open(&mut self) -> Result<bool, Fault> {
        self.begun = true;
        match self.skip_space()? {
            None => {
                self.ended = true;
                Ok(false)
            }
            Some(b'[') => {
                self.bump();
                Ok(true)
            }
            Some(b'{') => Err(self.fault(
                "a JSON array of objects is expected here, not an object; put [ ] around it, or choose the format jsonl if every line is an object",
            )),
            Some(_) => Err(self.fault("a JSON array of objects is expected here")),
        }
    }

    /// Reads one element and the comma or bracket behind it.
    fn cut(&mut self) -> Result<(), Fault> {
        self.element.clear();
        self.element.shrink_to(1 << 20);
        self.length = 0;
        let mut nesting = Nesting::default();
        let mut read = 0;
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Err(self.unfinished());
            }
            let length = available.iter().position(|byte| nesting.ends_before(*byte));
            let text = &available[..length.unwrap_or(available.len())];
            let room = self.limit.saturating_sub(self.element.len());
            self.element.extend_from_slice(&text[..room.min(text.len())]);
            for byte in text {
                self.at.pass(*byte);
                read += 1;
                // White space behind the element is no part of it.
                if !byte.is_ascii_whitespace() {
                    self.length = read;
                }
            }
            let used = text.len();
            let end = length.map(|at| available[at]);
            self.input.consume(used);
            self.offset += used as u64;
            if let Some(byte) = end {
                self.bump();
                self.ended = byte == b']';
                self.element.truncate(usize::try_from(self.length).unwrap_or(usize::MAX));
                return Ok(());
            }
        }
    }

    /// Says what is wrong with an element at whose end the input ends.
    fn unfinished(&self) -> Fault {
        let whole = self.length <= self.limit as u64;
        match broken(&self.element, self.start) {
            // A fault within it is why its end was not seen.
            Some((at, error)) if whole && !error.is_eof() => Fault::Syntax(at, what(&error)),
            _ => Fault::Syntax(self.start, "the input ends inside the element that begins here".into()),
        }
    }

    fn fault(&self, reason: &str) -> Fault {
        Fault::Syntax(self.at, reason.into())
    }

    /// Passes over white space and returns the byte behind it, which stays unread.
    fn skip_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            let Some(byte) = self.input.fill_buf()?.first().copied() else { return Ok(None) };
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.at.pass(byte);
            self.input.consume(1);
            self.offset += 1;
        }
    }

    /// Passes over one byte, which is no line end and was looked at before.
    fn bump(&mut self) {
        self.input.consume(1);
        self.offset += 1;
        self.at.column += 1;
    }
}

impl Place {
    fn pass(&mut self, byte: u8) {
        if byte == b'\n' {
            (self.line, self.column) = (self.line + 1, 1);
        } else {
            self.column += 1;
        }
    }
}

/// How deep in brackets and texts a byte stands.
#[derive(Default)]
struct Nesting {
    depth: u64,
    in_text: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes one byte; returns whether the element has ended before it.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_text {
            self.in_text = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'[' | b'{' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            // One too many is part of the element, whose parsing finds it.
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}
