//! Reads items one at a time from a file, from stdin or from the caller's own iterator.
//!
//! A thread reads and parses, and a [`Reader`] receives. The queue between them has a bounded number of entries
//! of bounded size, so memory use is the same for ten items and for ten million. Anything that is not a valid
//! item arrives as a [`Reject`] with its line and the reason. An error that ends reading early arrives as an
//! [`Error`] after everything that was read before it. No part of the input is dropped silently.

mod byte_bounded_channel;
mod columns;
mod compression;
mod count;
mod csv;
mod csv_parser;
mod csv_separator;
mod dedup;
mod digest;
mod entry;
mod error;
mod file_selection;
mod files;
mod format;
mod format_detection;
mod format_mismatch;
#[cfg(test)]
mod format_tests;
mod ingest;
mod input;
mod json;
pub(crate) mod json_limits;
mod json_object;
mod jsonl;
mod key;
mod opened_file;
mod options;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "parquet")]
mod parquet_footer;
#[cfg(feature = "parquet")]
mod parquet_group;
mod random_access;
mod read_bytes;
mod reader;
mod signature;
#[cfg(test)]
mod tests;
mod utf16;
#[cfg(feature = "xlsx")]
mod xlsx;
#[cfg(feature = "xlsx")]
mod xlsx_parts;

pub use compression::DecodeError;
pub use count::ItemCount;
pub(crate) use digest::DigestSlot;
pub use digest::InputDigest;
pub use entry::{Entry, Item, Reject};
pub use error::{Error, LayoutFault, ValueError};
pub use file_selection::FileSelection;
pub use format::{Format, FormatError};
pub(crate) use ingest::memory_of;
pub use input::{Limits, Source};
pub(crate) use key::content_fingerprint;
pub(crate) use key::is_content_key;
#[cfg(feature = "server")]
pub(crate) use key::item_key;
pub use options::{Delimiter, DelimiterError};
pub use reader::Reader;
