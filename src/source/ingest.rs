//! Turns each record that a format parser has read into an item or a reject, and sends it to the reader.
//!
//! It numbers the items, determines their keys and rejects an item whose `id` was already used. Items without an `id`
//! that have the same content are distinguished by their number among them. It reads nothing and drops no record.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::byte_bounded_channel::{Disconnected, Sender};
use super::compression::DecodeError;
use super::dedup::DedupIndex;
use super::entry::{Entry, Item, Reject, excerpt};
use super::error::{Error, LayoutFault, ValueError};
use super::input::ItemCheck;
use super::json_limits;
use super::key::{Key, key_of, occurrence_key};
use crate::guard::HeldMemory;
use crate::types::ItemKey;

/// Message from the reading thread to the [`Reader`](super::Reader).
pub(super) enum Message {
    /// An entry, and the position in the input at its end.
    Entry(Entry, u64),
    /// The end of the input.
    End,
    /// Reading ended early.
    Failed(Error),
}

/// Why the reading thread stops before the end of the input.
pub(super) enum ReadStop {
    /// The receiver was dropped.
    ReceiverGone,
    Failed(Error),
}

impl From<Disconnected> for ReadStop {
    fn from(_: Disconnected) -> Self {
        Self::ReceiverGone
    }
}

/// A piece of the input, as a format parser has read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawRecord<'a> {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// Its text, or the part that was kept; `None` if it was not text.
    pub(super) bytes: Option<&'a [u8]>,
    /// Its total length in bytes.
    pub(super) length: u64,
    /// Position in the input at its end.
    pub(super) end: u64,
}

/// Sends the records of a format parser as items and rejects.
pub(super) struct Ingest {
    name: String,
    to: Sender<Message>,
    check: Option<ItemCheck>,
    /// The field that is the key in place of `id`.
    key_field: Option<String>,
    /// Bytes of the encoded input that were read, if it is decoded while it is read: the position in place of a
    /// record's end.
    encoded_bytes: Option<Arc<AtomicU64>>,
    /// The columns of a table, once its header was read.
    header: Arc<OnceLock<Vec<String>>>,
    dedup: DedupIndex,
    items: u64,
}

impl Ingest {
    pub(super) fn new(
        name: String,
        check: Option<ItemCheck>,
        key_field: Option<String>,
        to: Sender<Message>,
    ) -> Self {
        let dedup = DedupIndex::new();
        Self { name, to, check, key_field, encoded_bytes: None, header: Arc::default(), dedup, items: 0 }
    }

    /// Returns the name of the input for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns where the columns of a table will be, once its header was read.
    pub(super) fn header(&self) -> Arc<OnceLock<Vec<String>>> {
        self.header.clone()
    }

    /// Sets the counter of the bytes that were read from an input that is decoded.
    pub(super) fn count_encoded(&mut self, bytes: Arc<AtomicU64>) {
        self.encoded_bytes = Some(bytes);
    }

    /// Checks that the columns of a table include the one that is to be the key.
    pub(super) fn check_columns(&self, columns: &[String]) -> Result<(), LayoutFault> {
        self.header.get_or_init(|| columns.to_vec());
        let Some(key_field) = &self.key_field else { return Ok(()) };
        if columns.contains(key_field) {
            return Ok(());
        }
        Err(LayoutFault::unknown_name("column", "is to be the key", key_field, columns))
    }

    /// Returns the position in the input at the end of a record that ends at `end` of what was parsed.
    fn position(&self, end: u64) -> u64 {
        self.encoded_bytes.as_ref().map_or(end, |bytes| bytes.load(Relaxed))
    }

    /// Sends a value that was read: as an item, or as a reject if it cannot be an item.
    pub(super) fn value(&mut self, record: RawRecord<'_>, value: Value) -> Result<(), ReadStop> {
        self.value_with_key(record, value, None)
    }

    /// Sends a value whose key may be known: that of an item that was read before stays the same.
    pub(super) fn value_with_key(
        &mut self,
        record: RawRecord<'_>,
        value: Value,
        known_key: Option<ItemKey>,
    ) -> Result<(), ReadStop> {
        if record.bytes.is_none()
            && let Err(exceeded) = json_limits::check_value(&value)
        {
            // A value that is too deep can be neither serialized nor dropped in the usual way: both recurse.
            json_limits::drop_deep_value(value);
            return self.reject(record, exceeded.to_string(), None);
        }
        let (reason, key) = match self.validate(&value, record.line, known_key) {
            Ok(key) => {
                let bytes_in_memory = memory_of(&value);
                let item =
                    Item { number: self.items, line: record.line, key, value, held: HeldMemory::default() };
                let position = self.position(record.end);
                self.to.send(Message::Entry(Entry::Item(item), position), bytes_in_memory)?;
                self.items += 1;
                return Ok(());
            }
            Err(reason_and_key) => reason_and_key,
        };
        if record.bytes.is_some() {
            return self.reject(record, reason, key);
        }
        let text = value.to_string();
        let record = RawRecord { bytes: Some(text.as_bytes()), length: text.len() as u64, ..record };
        self.reject(record, reason, key)
    }

    /// Sends a piece that is not an item.
    pub(super) fn reject(
        &mut self,
        record: RawRecord<'_>,
        reason: String,
        key: Option<ItemKey>,
    ) -> Result<(), ReadStop> {
        let text = excerpt(record.bytes.unwrap_or_default(), record.length);
        let bytes_in_memory = text.len() + reason.len();
        let reject = Reject { line: record.line, reason, text, key };
        let position = self.position(record.end);
        self.to.send(Message::Entry(Entry::Rejected(reject), position), bytes_in_memory)?;
        Ok(())
    }

    /// Sends how reading ended.
    pub(super) fn end(self, end: Result<(), ReadStop>) {
        let message = match end {
            Ok(()) => Message::End,
            Err(ReadStop::Failed(error)) => Message::Failed(error),
            Err(ReadStop::ReceiverGone) => return,
        };
        // If the receiver was dropped, there is nothing to report.
        let _ = self.to.send(message, 0);
    }

    pub(super) fn encoding_error(&self) -> ReadStop {
        ReadStop::Failed(Error::Encoding { name: self.name.clone() })
    }

    pub(super) fn read_error(&self, line: u64, source: io::Error) -> ReadStop {
        let name = self.name.clone();
        let items = self.items;
        match source.downcast::<DecodeError>() {
            Ok(fault) => ReadStop::Failed(Error::Compressed { name, line, items, fault }),
            Err(source) => ReadStop::Failed(Error::Read { name, line, items, source }),
        }
    }

    /// Returns the error of an input that cannot be read in any format, or not further.
    pub(super) fn unreadable(&self, fault: impl Into<LayoutFault>) -> ReadStop {
        let fault = fault.into();
        ReadStop::Failed(Error::Unreadable { name: self.name.clone(), items: self.items, fault })
    }

    pub(super) fn changed_error(&self) -> ReadStop {
        ReadStop::Failed(Error::Changed { name: self.name.clone(), items: self.items })
    }

    pub(super) fn value_error(&self, source: ValueError) -> ReadStop {
        ReadStop::Failed(Error::Value { name: self.name.clone(), items: self.items, source })
    }

    pub(super) fn layout_error(&self, line: u64, fault: LayoutFault) -> ReadStop {
        ReadStop::Failed(Error::Layout { name: self.name.clone(), line, fault })
    }

    pub(super) fn syntax_error(&self, line: u64, column: u64, reason: String) -> ReadStop {
        ReadStop::Failed(Error::Syntax { name: self.name.clone(), line, column, reason, items: self.items })
    }

    fn validate(
        &mut self,
        value: &Value,
        line: u64,
        known_key: Option<ItemKey>,
    ) -> Result<ItemKey, (String, Option<ItemKey>)> {
        let Value::Object(fields) = value else {
            return Err((format!("is {}, not a JSON object", type_name(value)), None));
        };
        let Key { key, from_content } = match known_key {
            Some(key) => Key { key, from_content: false },
            None => key_of(fields, self.key_field.as_deref()).map_err(|reason| (reason, None))?,
        };
        if let Some(check) = &self.check
            && let Err(reason) = check(value)
        {
            return Err((reason, Some(key)));
        }
        if from_content {
            // No `id` has the form of such a key, so counts and lines are of different keys.
            let number = self.dedup.count(key.as_str());
            return Ok(occurrence_key(key, number));
        }
        match self.dedup.insert(key.as_str(), line) {
            None => Ok(key),
            Some(first) => {
                Err((format!("has the key {:?} of the item on line {first}", key.as_str()), Some(key)))
            }
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Returns about how many bytes of memory a value takes.
pub(crate) fn memory_of(value: &Value) -> usize {
    const NODE: usize = size_of::<Value>();
    match value {
        Value::Null | Value::Bool(_) => NODE,
        // A number may be stored as its text.
        Value::Number(number) if number.as_i64().is_some() || number.as_u64().is_some() => NODE + 24,
        Value::Number(number) => NODE + number.to_string().len(),
        Value::String(text) => NODE + text.len(),
        Value::Array(elements) => NODE + elements.iter().map(memory_of).sum::<usize>(),
        // A field has its name, its hash and its index entry besides its value.
        Value::Object(fields) => {
            NODE + fields.iter().map(|(name, value)| 48 + name.len() + memory_of(value)).sum::<usize>()
        }
    }
}
