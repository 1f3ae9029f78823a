//! Reads items, one at a time, from a file, from stdin or from the caller's own iterator.
//!
//! A thread reads and parses; a [`Reader`] receives. Between them wait a bounded number of entries of
//! a bounded size, so memory is the same for ten items and for ten million. Whatever is no valid item
//! arrives as a [`Reject`] with its line and the reason; what ends the reading early arrives as an
//! [`Error`] after everything that was read before it. Nothing of the input is dropped silently.

mod csv;
mod digest;
mod entry;
mod error;
pub(crate) mod extent;
mod format;
mod handoff;
mod intake;
mod json;
mod jsonl;
mod key;
mod layout;
mod open;
mod reader;
mod record;
mod seen;
mod separator;
#[cfg(test)]
mod tests;

pub(crate) use digest::DigestSlot;
pub use digest::InputDigest;
pub use entry::{Entry, Item, Reject};
pub use error::Error;
pub use format::{Format, FormatError};
pub(crate) use intake::memory_of;
pub(crate) use key::content;
pub use open::{Limits, Source, Unreadable};
pub use reader::Reader;
