//! Says why a source could not be opened or read to its end.

use std::io;

use super::open::Unreadable;

/// Why a source could not be opened, or not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot open {name} to read items from it")]
    Open {
        /// The file.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file is a directory.
    #[error("{name} is a directory; name a file of items in it")]
    Directory {
        /// The directory.
        name: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread to read {name}")]
    Thread {
        /// The source.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not UTF-8 at all.
    #[error("{name} is UTF-16 text; save it as UTF-8")]
    Encoding {
        /// The source.
        name: String,
    },
    /// Reading failed part way.
    #[error("cannot read on in {name} after line {line}; {items} items were read before")]
    Read {
        /// The source.
        name: String,
        /// The last line that was reached, from 1.
        line: u64,
        /// Items that were handed over before.
        items: u64,
        /// What the system says.
        source: io::Error,
    },
    /// A value that the caller has cannot be brought.
    #[error("cannot bring the next of {name}; {items} items were brought before")]
    Value {
        /// The source.
        name: String,
        /// Items that were handed over before.
        items: u64,
        /// What is wrong.
        source: Unreadable,
    },
    /// The first record says that the whole file cannot be read: a CSV header that cannot be used, or a file in another
    /// format than its name says.
    #[error("{name}, line {line}: {reason}")]
    Layout {
        /// The source.
        name: String,
        /// The record's line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The JSON document is broken, so that what follows cannot be told apart.
    #[error("{name}, line {line}, column {column}: {reason}; {items} items were read before")]
    Syntax {
        /// The source.
        name: String,
        /// The line of the fault, from 1.
        line: u64,
        /// The column of the fault in bytes, from 1.
        column: u64,
        /// What is wrong.
        reason: String,
        /// Items that were handed over before.
        items: u64,
    },
    /// The reading thread panicked: a bug of ours, or of the caller's own reader or iterator.
    #[error("the thread that reads {name} panicked after {items} items")]
    Panicked {
        /// The source.
        name: String,
        /// Items that were handed over before.
        items: u64,
    },
}
