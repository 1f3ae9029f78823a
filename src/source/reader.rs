//! Reads a source on a thread of its own and receives what was read.
//!
//! The thread ends when the input does, when reading fails, or when the [`Reader`] is dropped; one
//! that waits inside the system for a byte of stdin ends with the process. An end that nobody
//! announced is reported as a panic, never taken for the input's end.

use std::io::{self, BufReader, Read};
use std::thread;

use super::format::{Format, Head};
use super::handoff::{Receiver, handoff};
use super::intake::{Intake, Message, Piece, Stop};
use super::open::{Input, Limits, Source};
use super::{Entry, Error, csv, json, jsonl, layout};

/// Receives the entries of a [`Source`] that is being read.
pub struct Reader {
    name: String,
    from: Receiver<Message>,
    total: Option<u64>,
    position: u64,
    items: u64,
    ended: bool,
}

impl Source {
    /// Starts to read, on a thread of its own.
    pub fn read(self) -> Result<Reader, Error> {
        let Self { name, input, total, limits, fit, .. } = self;
        let (to, from) = handoff(limits.ahead.max(1), limits.ahead_bytes);
        let mut intake = Intake::new(name.clone(), fit, to);
        let work = move || {
            let end = read(input, limits, &mut intake);
            intake.end(end);
        };
        let thread = thread::Builder::new().name("source".into()).spawn(work);
        thread.map_err(|source| Error::Thread { name: name.clone(), source })?;
        Ok(Reader { name, from, total, position: 0, items: 0, ended: false })
    }
}

impl Reader {
    /// Returns the next entry, or `None` at the input's end. An error is the last thing it returns
    /// before `None`. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Result<Entry, Error>> {
        if self.ended {
            return None;
        }
        match self.from.recv().await {
            Some(Message::Entry(entry, position)) => {
                self.position = position;
                self.items += u64::from(matches!(entry, Entry::Item(_)));
                return Some(Ok(entry));
            }
            Some(Message::End) => self.ended = true,
            Some(Message::Failed(error)) => {
                self.ended = true;
                return Some(Err(error));
            }
            None => {
                self.ended = true;
                return Some(Err(Error::Panicked { name: self.name.clone(), items: self.items }));
            }
        }
        None
    }

    /// Returns what share of the input was handed over, from 0 to 1; `None` while its size is unknown.
    pub fn progress(&self) -> Option<f64> {
        if self.ended {
            return Some(1.0);
        }
        let total = self.total.filter(|total| *total > 0)?;
        Some((self.position as f64 / total as f64).min(1.0))
    }
}

fn read(input: Input, limits: Limits, intake: &mut Intake) -> Result<(), Stop> {
    match input {
        Input::Values(values) => {
            for (place, value) in (1..).zip(values) {
                let (line, value) = value.map_err(|source| intake.unbrought(source))?;
                let piece = Piece { line, bytes: None, length: 0, end: place };
                intake.value(piece, value)?;
            }
            Ok(())
        }
        Input::Bytes(bytes, format) => read_bytes(bytes, format, limits.item_bytes, intake),
    }
}

fn read_bytes(
    bytes: Box<dyn Read + Send>,
    format: Option<Format>,
    limit: usize,
    intake: &mut Intake,
) -> Result<(), Stop> {
    let mut input = BufReader::with_capacity(1 << 16, Steady(bytes));
    let head = Head::read(&mut input).map_err(|error| intake.unreadable(1, error))?;
    if head.utf16 {
        return Err(intake.encoding());
    }
    if let Some(reason) = layout::workbook(&head.bytes) {
        return Err(intake.layout(1, reason.to_owned()));
    }
    let format = format.unwrap_or_else(|| head.format());
    let whole = io::Cursor::new(head.bytes).chain(input);
    match format {
        Format::Jsonl => jsonl::read(whole, head.dropped, limit, intake),
        Format::Csv => csv::read(whole, head.dropped, limit, None, intake),
        Format::Tsv => csv::read(whole, head.dropped, limit, Some(b'\t'), intake),
        Format::Json => json::read(whole, head.dropped, limit, intake),
    }
}

/// Reads on after a signal has interrupted it.
struct Steady(Box<dyn Read + Send>);

impl Read for Steady {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}
