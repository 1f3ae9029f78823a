//! Judges every piece that a format has cut out of the input, and hands it over as item or reject.
//!
//! It numbers the items, gives them their keys and refuses a key that was there before. It never
//! reads, and it never drops a piece.

use std::io;

use serde_json::Value;

use super::entry::{Entry, Item, Reject, excerpt};
use super::error::Error;
use super::extent;
use super::handoff::{Gone, Sender};
use super::key::{Key, key_of};
use super::open::Fit;
use super::open::Unreadable;
use super::seen::Seen;
use crate::guard::HeldMemory;
use crate::types::ItemKey;

/// What travels from the reading thread to the [`Reader`](super::Reader).
pub(super) enum Message {
    /// An entry, and how far the input was read at its end.
    Entry(Entry, u64),
    /// The input's end.
    End,
    /// The reading ended early.
    Failed(Error),
}

/// Why the reading thread stops before the input's end.
pub(super) enum Stop {
    /// Nobody receives any more.
    Gone,
    Failed(Error),
}

impl From<Gone> for Stop {
    fn from(_gone: Gone) -> Self {
        Self::Gone
    }
}

/// Where a piece of the input stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// Its text, or as much of it as was kept; `None` when it never was text.
    pub(super) bytes: Option<&'a [u8]>,
    /// Bytes it has in all.
    pub(super) length: u64,
    /// How far the input was read at its end.
    pub(super) end: u64,
}

pub(super) struct Intake {
    name: String,
    to: Sender<Message>,
    fit: Option<Fit>,
    seen: Seen,
    items: u64,
}

impl Intake {
    pub(super) fn new(name: String, fit: Option<Fit>, to: Sender<Message>) -> Self {
        Self { name, to, fit, seen: Seen::new(), items: 0 }
    }

    /// Hands over a value that was read: as an item, or as a reject when it cannot be one.
    pub(super) fn value(&mut self, piece: Piece<'_>, value: Value) -> Result<(), Stop> {
        if piece.bytes.is_none()
            && let Err(excess) = extent::check_value(&value)
        {
            // What is too deep can be neither written nor dropped in the usual way: both recurse.
            extent::dismantle(value);
            return self.reject(piece, excess.to_string(), None);
        }
        let (reason, key) = match self.judge(&value, piece.line) {
            Ok(key) => {
                let weight = memory_of(&value);
                let item =
                    Item { number: self.items, line: piece.line, key, value, held: HeldMemory::default() };
                self.to.send(Message::Entry(Entry::Item(item), piece.end), weight)?;
                self.items += 1;
                return Ok(());
            }
            Err(refused) => refused,
        };
        if piece.bytes.is_some() {
            return self.reject(piece, reason, key);
        }
        let text = value.to_string();
        let piece = Piece { bytes: Some(text.as_bytes()), length: text.len() as u64, ..piece };
        self.reject(piece, reason, key)
    }

    /// Hands over a piece that is no item.
    pub(super) fn reject(
        &mut self,
        piece: Piece<'_>,
        reason: String,
        key: Option<ItemKey>,
    ) -> Result<(), Stop> {
        let text = excerpt(piece.bytes.unwrap_or_default(), piece.length);
        let weight = text.len() + reason.len();
        let reject = Reject { line: piece.line, reason, text, key };
        self.to.send(Message::Entry(Entry::Rejected(reject), piece.end), weight)?;
        Ok(())
    }

    /// Says how the reading ended.
    pub(super) fn end(self, end: Result<(), Stop>) {
        let message = match end {
            Ok(()) => Message::End,
            Err(Stop::Failed(error)) => Message::Failed(error),
            Err(Stop::Gone) => return,
        };
        // When nobody receives any more, nobody needs to know.
        let _ = self.to.send(message, 0);
    }

    pub(super) fn encoding(&self) -> Stop {
        Stop::Failed(Error::Encoding { name: self.name.clone() })
    }

    pub(super) fn unreadable(&self, line: u64, source: io::Error) -> Stop {
        Stop::Failed(Error::Read { name: self.name.clone(), line, items: self.items, source })
    }

    pub(super) fn unbrought(&self, source: Unreadable) -> Stop {
        Stop::Failed(Error::Value { name: self.name.clone(), items: self.items, source })
    }

    pub(super) fn layout(&self, line: u64, reason: String) -> Stop {
        Stop::Failed(Error::Layout { name: self.name.clone(), line, reason })
    }

    pub(super) fn syntax(&self, line: u64, column: u64, reason: String) -> Stop {
        Stop::Failed(Error::Syntax { name: self.name.clone(), line, column, reason, items: self.items })
    }

    fn judge(&mut self, value: &Value, line: u64) -> Result<ItemKey, (String, Option<ItemKey>)> {
        let Value::Object(fields) = value else {
            return Err((format!("is {}, not a JSON object", kind(value)), None));
        };
        let Key { key, from_content } = key_of(fields).map_err(|reason| (reason, None))?;
        if let Some(fit) = &self.fit
            && let Err(reason) = fit(value)
        {
            return Err((reason, Some(key)));
        }
        match self.seen.insert(key.as_str(), line) {
            None => Ok(key),
            Some(first) if from_content => {
                let reason = format!(
                    "has the same content as the item on line {first}; give both an `id` to keep both"
                );
                Err((reason, Some(key)))
            }
            Some(first) => {
                Err((format!("has the key {:?} of the item on line {first}", key.as_str()), Some(key)))
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
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
        // A number may be kept as its text.
        Value::Number(number) if number.as_i64().is_some() || number.as_u64().is_some() => NODE + 24,
        Value::Number(number) => NODE + number.to_string().len(),
        Value::String(text) => NODE + text.len(),
        Value::Array(elements) => NODE + elements.iter().map(memory_of).sum::<usize>(),
        // A field has its name, its hash and its place in the index besides its value.
        Value::Object(fields) => {
            NODE + fields.iter().map(|(name, value)| 48 + name.len() + memory_of(value)).sum::<usize>()
        }
    }
}
