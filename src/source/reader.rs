//! Reads a source on a separate thread and receives the entries.
//!
//! The thread ends when the input ends, when reading fails, or when the [`Reader`] is dropped; a thread that is
//! blocked reading stdin ends with the process. If the thread ends without a final message, this is reported as
//! a panic, never as the end of the input.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::byte_bounded_channel::{Receiver, channel};
use super::count::ItemCount;
use super::ingest::{Ingest, Message, RawRecord, ReadStop, memory_of};
use super::input::{GivenValue, GivenValues, Input, Source};
use super::read_bytes::{self, ByteInput};
use super::{Entry, Error, files};
use crate::types::{FieldCollector, InputFields};

/// How long to wait for the end of the input after the most items that are read. A pipe may stay open without another
/// item.
const MAX_WAIT_FOR_END: Duration = Duration::from_secs(1);

/// Most items that are received ahead to learn the names of their fields.
const MAX_LOOK_AHEAD_ITEMS: usize = 1_000;

/// Most bytes of memory that they take.
const MAX_LOOK_AHEAD_BYTES: usize = 4 << 20;

/// How long to wait for them after the first item, if the input is not a file.
const MAX_LOOK_AHEAD_TIME: Duration = Duration::from_secs(2);

/// Receives the entries of a [`Source`] while it is read.
pub struct Reader {
    name: String,
    from: Receiver<Message>,
    /// What was received ahead.
    ahead: VecDeque<Message>,
    /// The columns of a table, once its header was read.
    header: Arc<OnceLock<Vec<String>>>,
    /// Whether the input may arrive slowly.
    is_stream: bool,
    total: Option<u64>,
    /// Whether `total` is a number of values.
    has_values: bool,
    /// The number of records, as far as it is known.
    count: ItemCount,
    position: u64,
    items: u64,
    max_items: Option<NonZeroU64>,
    is_limited: bool,
    ended: bool,
}

impl Source {
    /// Starts to read on a separate thread.
    #[doc(hidden)]
    pub fn read(self) -> Result<Reader, Error> {
        let count = self.count();
        let Self { name, input, total, limits, check, opened_file, options, random_access, .. } = self;
        let has_values = matches!(input, Input::Values(_));
        let is_stream = if has_values { total.is_none() } else { opened_file.is_none() };
        let (to, from) = channel(limits.ahead.max(1), limits.ahead_bytes);
        let mut ingest = Ingest::new(name.clone(), check, options.key_field.clone(), to);
        let header = ingest.header();
        let work = move || {
            let mut end = match input {
                Input::Values(values) => read_values(values, &mut ingest),
                Input::Files(selection) => files::read(&selection, limits.item_bytes, &mut ingest),
                Input::Bytes(bytes, format) => {
                    let limit = limits.item_bytes;
                    let input = ByteInput { bytes, format, total, random_access, options, limit };
                    read_bytes::read(input, &mut ingest)
                }
            };
            if end.is_ok() && opened_file.is_some_and(|file| file.has_changed()) {
                // What was read may be neither the content at the beginning nor that at the end.
                end = Err(ingest.changed_error());
            }
            ingest.end(end);
        };
        let thread = thread::Builder::new().name("source".into()).spawn(work);
        thread.map_err(|source| Error::Thread { name: name.clone(), source })?;
        Ok(Reader {
            name,
            from,
            ahead: VecDeque::new(),
            header,
            is_stream,
            total,
            has_values,
            count,
            position: 0,
            items: 0,
            max_items: limits.max_items,
            is_limited: false,
            ended: false,
        })
    }

    /// Returns how many records it has, as far as that is known, and starts to count them if that was requested.
    fn count(&self) -> ItemCount {
        let max = self.limits.max_items.map_or(u64::MAX, NonZeroU64::get);
        match (&self.input, &self.path) {
            (Input::Values(_), _) => self.total.map_or_else(ItemCount::default, |total| {
                // With more values than are read, the rest is not counted.
                ItemCount::known(total.min(max))
            }),
            // Only a regular file has a digest: stdin and a pipe cannot be read a second time.
            (Input::Bytes(_, format), Some(path))
                if self.is_counted && self.digest.is_some() && !self.options.plain_text_only =>
            {
                ItemCount::of_file(path, *format, self.options.delimiter, max)
            }
            (Input::Files(selection), _) if self.is_counted => ItemCount::of_files(selection.clone(), max),
            (Input::Bytes(..) | Input::Files(_), _) => ItemCount::default(),
        }
    }
}

impl Reader {
    /// Returns the next entry, or `None` at the end of the input. An error is the last value before `None`.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Entry, Error>> {
        if self.ended {
            return None;
        }
        let received = match self.max_items {
            Some(max_items) if self.items >= max_items.get() => {
                match timeout(MAX_WAIT_FOR_END, self.receive()).await {
                    Ok(end @ (Some(Message::End | Message::Failed(_)) | None)) => end,
                    // Whether the input has more is not known after the wait.
                    Ok(Some(Message::Entry(..))) | Err(_) => {
                        self.is_limited = true;
                        self.ended = true;
                        return None;
                    }
                }
            }
            Some(_) | None => self.receive().await,
        };
        match received {
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

    /// Receives the next message, which may have arrived before. Cancel-safe.
    async fn receive(&mut self) -> Option<Message> {
        match self.ahead.pop_front() {
            Some(message) => Some(message),
            None => self.from.recv().await,
        }
    }

    /// Returns the names of the fields of the input: the header of a table, else those of the first 1,000 items, which
    /// are received ahead. Less are received if they take too much memory or, from a pipe, too much time. Waits for the
    /// first item. Call it before the first entry is received.
    pub(crate) async fn fields(&mut self) -> InputFields {
        let mut collector = FieldCollector::default();
        let mut items = 0;
        let mut bytes = 0;
        let mut deadline = None;
        let is_complete = loop {
            if items >= MAX_LOOK_AHEAD_ITEMS || bytes >= MAX_LOOK_AHEAD_BYTES {
                break false;
            }
            let message = match deadline.filter(|_| self.is_stream) {
                Some(deadline) => match timeout_at(deadline, self.from.recv()).await {
                    Ok(message) => message,
                    Err(_) => break false,
                },
                None => self.from.recv().await,
            };
            match &message {
                Some(Message::Entry(Entry::Item(item), _)) => {
                    items += 1;
                    bytes += memory_of(&item.value);
                    deadline.get_or_insert_with(|| Instant::now() + MAX_LOOK_AHEAD_TIME);
                    if let Value::Object(fields) = &item.value {
                        collector.add(&item.key, fields);
                    }
                }
                Some(Message::Entry(Entry::Rejected(reject), _)) => {
                    bytes += reject.text.len() + reject.reason.len();
                }
                Some(Message::End | Message::Failed(_)) | None => {}
            }
            let is_end = !matches!(&message, Some(Message::Entry(..)));
            self.ahead.extend(message);
            if is_end {
                break true;
            }
        };
        let fields = collector.fields(!is_complete);
        match self.header.get() {
            Some(columns) => InputFields::new(columns.iter().cloned()).with_key(fields.has_key),
            None => fields,
        }
    }

    /// Returns how many entries the input has, if that is known before it is read.
    pub(crate) fn known_items(&self) -> Option<u64> {
        self.total.filter(|_| self.has_values)
    }

    /// Returns the number of records of the input, which may be counted while it is read.
    pub fn count(&self) -> ItemCount {
        self.count.clone()
    }

    /// Returns the number of records of the whole input. It stays unknown if only the first items are read, because only
    /// those are counted.
    pub(crate) fn total(&self) -> ItemCount {
        if self.max_items.is_some() { ItemCount::default() } else { self.count() }
    }

    /// Returns whether it has ended after the most items that are read, and the input may have more.
    pub fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Returns the fraction of the input that was received, from 0 to 1; `None` if its size is not known.
    pub fn progress(&self) -> Option<f64> {
        if self.ended && !self.is_limited {
            return Some(1.0);
        }
        let total = self.total.filter(|total| *total > 0)?;
        Some((self.position as f64 / total as f64).min(1.0))
    }
}

fn read_values(values: GivenValues, ingest: &mut Ingest) -> Result<(), ReadStop> {
    for (index, value) in (1..).zip(values) {
        let GivenValue { line, key, value } = value.map_err(|source| ingest.value_error(source))?;
        let record = RawRecord { line, bytes: None, length: 0, end: index };
        ingest.value_with_key(record, value, key)?;
    }
    Ok(())
}
