//! Errors of opening and reading a source.

use std::fmt;
use std::io;

use super::compression::DecodeError;
use crate::diagnostics::nearest;
use crate::types::{Advice, Remedy};

/// Most names that a message lists.
const MAX_LISTED_NAMES: usize = 20;

/// Why the next value cannot be read.
pub type ValueError = Box<dyn std::error::Error + Send + Sync>;

/// Why a source cannot be opened or read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot open the items file {name}")]
    Open {
        /// The file.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file is a directory.
    #[error("{name} is a directory; name a file of items in it")]
    Directory {
        /// The directory.
        name: String,
    },
    /// The reading thread cannot be started.
    #[error("cannot start a thread to read {name}")]
    Thread {
        /// The source.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file is UTF-16 text without a byte-order mark, which shows the order of the bytes.
    #[error("{name} is UTF-16 text without a byte-order mark; save it as UTF-8")]
    Encoding {
        /// The source.
        name: String,
    },
    /// Reading failed part way.
    #[error("cannot read {name} beyond line {line} (items read: {items})")]
    Read {
        /// The source.
        name: String,
        /// The last line that was reached, from 1.
        line: u64,
        /// Items that were read before.
        items: u64,
        /// The system's error.
        source: io::Error,
    },
    /// The file is compressed, and its data are incomplete or damaged.
    #[error("{name}, after line {line}: {fault} (items read: {items})")]
    Compressed {
        /// The source.
        name: String,
        /// The last line that was reached, from 1.
        line: u64,
        /// Items that were read before.
        items: u64,
        /// What is wrong.
        fault: DecodeError,
    },
    /// The file has no format in which items are read, or a file of many items is damaged.
    #[error("{name}: {fault}{}", items_read(*.items))]
    Unreadable {
        /// The source.
        name: String,
        /// Items that were read before.
        items: u64,
        /// What is wrong.
        fault: LayoutFault,
    },
    /// No file is in the folder, or matches the pattern.
    #[error("no files for {name}: {reason}")]
    NoFiles {
        /// The folder or the pattern.
        name: String,
        /// Why there are none, and what to do.
        reason: String,
    },
    /// Another program changed the file while it was read, so items may be missing or mixed up.
    #[error("{name} was changed while it was read (items read: {items}); start the run again")]
    Changed {
        /// The source.
        name: String,
        /// Items that were read.
        items: u64,
    },
    /// The next value of the caller cannot be read.
    #[error("cannot read the next value of {name} (items read: {items})")]
    Value {
        /// The source.
        name: String,
        /// Items that were read before.
        items: u64,
        /// What is wrong.
        source: ValueError,
    },
    /// The first record shows that the file cannot be read at all: a CSV header is not usable, or the file has
    /// a different format than its name indicates.
    #[error("{name}, line {line}: {fault}")]
    Layout {
        /// The source.
        name: String,
        /// The record's line, from 1.
        line: u64,
        /// What is wrong with it.
        fault: LayoutFault,
    },
    /// The JSON document is broken, so its remaining elements cannot be separated.
    #[error("{name}, line {line}, column {column}: {reason} (items read: {items})")]
    Syntax {
        /// The source.
        name: String,
        /// The line of the error, from 1.
        line: u64,
        /// The column of the error in bytes, from 1.
        column: u64,
        /// What is wrong.
        reason: String,
        /// Items that were read before.
        items: u64,
    },
    /// The reading thread panicked: a bug of this program, or of the caller's own reader or iterator.
    #[error("the thread that reads {name} panicked (items read: {items})")]
    Panicked {
        /// The source.
        name: String,
        /// Items that were read before.
        items: u64,
    },
}

impl Error {
    /// Returns what the user can do about it, if that includes a remedy. The message ends with it.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::Layout { fault, .. } | Self::Unreadable { fault, .. } => fault.advice.clone(),
            Self::Open { .. }
            | Self::Directory { .. }
            | Self::Thread { .. }
            | Self::Encoding { .. }
            | Self::Read { .. }
            | Self::Compressed { .. }
            | Self::NoFiles { .. }
            | Self::Changed { .. }
            | Self::Value { .. }
            | Self::Syntax { .. }
            | Self::Panicked { .. } => None,
        }
    }
}

/// Why the items of a file cannot be read, as its first record shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutFault {
    reason: String,
    advice: Option<Advice>,
}

/// Returns a note on the items that were read before an error, if there are any.
fn items_read(items: u64) -> String {
    if items == 0 { String::new() } else { format!(" (items read: {items})") }
}

impl LayoutFault {
    /// No `kind`, such as a column, has the name `wanted`, which the user named for this use.
    pub(super) fn unknown_name(kind: &str, use_of_it: &str, wanted: &str, known: &[String]) -> Self {
        let mut reason = format!("there is no {kind} {wanted:?}, which {use_of_it}");
        if let Some(near) = nearest(wanted, known.iter().map(String::as_str)) {
            reason.push_str(&format!("; did you mean {near:?}?"));
        }
        let listed: Vec<String> =
            known.iter().take(MAX_LISTED_NAMES).map(|name| format!("{name:?}")).collect();
        let rest = known.len() - listed.len();
        let rest = if rest == 0 { String::new() } else { format!(" and {rest} more") };
        let names = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
        let separator = if reason.ends_with('?') { " The" } else { "; the" };
        reason.push_str(&format!("{separator} {kind}s are {names}{rest}"));
        reason.into()
    }

    /// Something is wrong that a setting of the user changes.
    pub(super) fn with_advice(reason: impl Into<String>, advice: Advice) -> Self {
        Self { reason: reason.into(), advice: Some(advice) }
    }

    /// The file has the format with this name and another file extension.
    pub(super) fn other_format(reason: impl Into<String>, advice: &str, format: &'static str) -> Self {
        let advice = Advice::from(advice).with_remedy(Remedy::SetInputFormat(format));
        Self { reason: reason.into(), advice: Some(advice) }
    }
}

impl From<String> for LayoutFault {
    fn from(reason: String) -> Self {
        Self { reason, advice: None }
    }
}

impl From<&str> for LayoutFault {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

impl fmt::Display for LayoutFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)?;
        match &self.advice {
            Some(advice) => write!(out, "; {advice}"),
            None => Ok(()),
        }
    }
}
