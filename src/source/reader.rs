//! Reads a source on a separate thread and receives the entries.
//!
//! The thread ends when the input ends, when reading fails, or when the [`Reader`] is dropped; a thread that is
//! blocked reading stdin ends with the process. If the thread ends without a final message, this is reported as
//! a panic, never as the end of the input.

use std::io::{self, BufReader, Read};
use std::thread;

use super::byte_bounded_channel::{Receiver, channel};
use super::format::{Format, InputHead};
use super::ingest::{Ingest, Message, RawRecord, ReadStop};
use super::input::{Input, Limits, Source};
use super::{Entry, Error, csv, format_mismatch, json, jsonl};

/// Receives the entries of a [`Source`] while it is read.
pub struct Reader {
    name: String,
    from: Receiver<Message>,
    total: Option<u64>,
    /// Whether `total` is a number of values.
    has_values: bool,
    position: u64,
    items: u64,
    ended: bool,
}

impl Source {
    /// Starts to read on a separate thread.
    #[doc(hidden)]
    pub fn read(self) -> Result<Reader, Error> {
        let Self { name, input, total, limits, check, opened_file, .. } = self;
        let has_values = matches!(input, Input::Values(_));
        let (to, from) = channel(limits.ahead.max(1), limits.ahead_bytes);
        let mut ingest = Ingest::new(name.clone(), check, to);
        let work = move || {
            let mut end = read(input, limits, &mut ingest);
            if end.is_ok() && opened_file.is_some_and(|file| file.has_changed()) {
                // What was read may be neither the content at the beginning nor that at the end.
                end = Err(ingest.changed_error());
            }
            ingest.end(end);
        };
        let thread = thread::Builder::new().name("source".into()).spawn(work);
        thread.map_err(|source| Error::Thread { name: name.clone(), source })?;
        Ok(Reader { name, from, total, has_values, position: 0, items: 0, ended: false })
    }
}

impl Reader {
    /// Returns the next entry, or `None` at the end of the input. An error is the last value before `None`.
    /// Cancel-safe.
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

    /// Returns how many entries the input has, if that is known before it is read.
    pub(crate) fn known_items(&self) -> Option<u64> {
        self.total.filter(|_| self.has_values)
    }

    /// Returns the fraction of the input that was received, from 0 to 1; `None` if its size is not known.
    pub fn progress(&self) -> Option<f64> {
        if self.ended {
            return Some(1.0);
        }
        let total = self.total.filter(|total| *total > 0)?;
        Some((self.position as f64 / total as f64).min(1.0))
    }
}

fn read(input: Input, limits: Limits, ingest: &mut Ingest) -> Result<(), ReadStop> {
    match input {
        Input::Values(values) => {
            for (index, value) in (1..).zip(values) {
                let (line, value) = value.map_err(|source| ingest.value_error(source))?;
                let record = RawRecord { line, bytes: None, length: 0, end: index };
                ingest.value(record, value)?;
            }
            Ok(())
        }
        Input::Bytes(bytes, format) => read_bytes(bytes, format, limits.item_bytes, ingest),
    }
}

fn read_bytes(
    bytes: Box<dyn Read + Send>,
    format: Option<Format>,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    let mut input = BufReader::with_capacity(1 << 16, RetryInterrupted(bytes));
    let head = InputHead::read(&mut input).map_err(|error| ingest.read_error(1, error))?;
    if head.is_utf16 {
        return Err(ingest.encoding_error());
    }
    if let Some(reason) = format_mismatch::workbook(&head.bytes) {
        return Err(ingest.layout_error(1, reason.into()));
    }
    let format = format.unwrap_or_else(|| head.format());
    let complete_input = io::Cursor::new(head.bytes).chain(input);
    match format {
        Format::Jsonl => jsonl::read(complete_input, head.bom_bytes, limit, ingest),
        Format::Csv => csv::read(complete_input, head.bom_bytes, limit, None, ingest),
        Format::Tsv => csv::read(complete_input, head.bom_bytes, limit, Some(b'\t'), ingest),
        Format::Json => json::read(complete_input, head.bom_bytes, limit, ingest),
    }
}

/// Retries a read that a signal has interrupted.
struct RetryInterrupted(Box<dyn Read + Send>);

impl Read for RetryInterrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}
