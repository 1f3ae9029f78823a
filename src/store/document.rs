//! Documents: JSON values by kind and name, with their history, such as the pipelines and tokens of a daemon.
//!
//! A deleted document keeps its versions, and its deletion is a version too. The history therefore says who changed the
//! document, and when.

use std::fmt;

use serde_json::Value;

/// The largest JSON text of a document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// The deepest nesting of arrays and objects in a document. A parser of JSON rejects deeper texts, so such a document could
/// not be read again.
pub const MAX_DOCUMENT_DEPTH: usize = 127;

/// The largest number of versions that a store returns at once.
pub const MAX_DOCUMENT_VERSIONS: u32 = 1_000;

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// A pipeline, by its name.
    Pipeline,
    /// The hash and the permissions of a token, by its name.
    Token,
    /// The response to a request with an idempotency key.
    IdempotencyKey,
    /// The folder with the files of a daemon.
    DataFolder,
}

impl DocumentKind {
    /// Returns the word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Token => "token",
            Self::IdempotencyKey => "idempotency_key",
            Self::DataFolder => "data_folder",
        }
    }
}

/// Writes the noun for a message.
impl fmt::Display for DocumentKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Pipeline => "pipeline",
            Self::Token => "token",
            Self::IdempotencyKey => "idempotency key",
            Self::DataFolder => "data folder",
        })
    }
}

/// One version of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it is.
    pub kind: DocumentKind,
    /// Its name, unique within its kind.
    pub name: String,
    /// The number of the version, from 1. The numbers continue after a deletion.
    pub version: i64,
    /// When this version was written, in milliseconds since 1970.
    pub created_at: i64,
    /// Who wrote it.
    pub created_by: String,
    /// From when the document does not exist any more, in milliseconds since 1970; `None` for never.
    pub expires_at: Option<i64>,
    /// Its value; null in a deletion.
    pub value: Value,
    /// Whether this version is the deletion of the document.
    pub is_deleted: bool,
}

impl Document {
    /// Returns whether the document has expired at `now`, in milliseconds since 1970.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Returns whether a document with this latest version exists at `now`.
    pub fn exists(&self, now: i64) -> bool {
        !self.is_deleted && !self.is_expired(now)
    }
}

/// The condition of a change: which version of the document the caller has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// No condition.
    Any,
    /// The document does not exist: it was never written, was deleted, or has expired.
    None,
    /// This is the latest version, and not a deletion. It may have expired.
    Is(i64),
}

impl ExpectedVersion {
    /// Returns whether the latest version of a document meets the condition at `now`.
    pub fn is_met_by(self, latest: Option<&Document>, now: i64) -> bool {
        match self {
            Self::Any => true,
            Self::None => !latest.is_some_and(|latest| latest.exists(now)),
            Self::Is(version) => latest.is_some_and(|latest| !latest.is_deleted && latest.version == version),
        }
    }
}
